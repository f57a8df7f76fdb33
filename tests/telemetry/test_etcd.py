"""A trace that goes on in etcd: a real one, which tells a collector of its own what it was asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from clusterling.cli.target import read_kubeconfig
from tests.cli.processes import eventually, serving
from tests.storage import etcd_server
from tests.telemetry.collector import Collector, collecting
from tests.telemetry.test_traces import CONFIG_MAPS, Traced, config_map

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@contextmanager
def collecting_by_grpc() -> Iterator[Collector]:
    """A collector as etcd wants one."""
    collector = Collector()

    def export(body: bytes, _context: Any) -> bytes:
        collector.take(body)
        return ExportTraceServiceResponse().SerializeToString()

    class Exports(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(export) if details.method == EXPORT else None

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=(Exports(),))
        port = server.add_insecure_port("127.0.0.1:0")
        collector.url = f"127.0.0.1:{port}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(None).wait()


def test_what_etcd_does_for_a_request_is_part_of_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with collecting() as ours, collecting_by_grpc() as theirs:
        options = ("--enable-distributed-tracing", f"--distributed-tracing-address={theirs.url}")
        try:
            etcd_server.binary()
        except etcd_server.NoEtcd as error:
            pytest.skip(str(error))
        flags = ("--tracing-endpoint", ours.url, "--tracing-sampling", "1")
        with (
            etcd_server.running(tmp_path / "etcd", options=options) as etcd,
            serving(tmp_path / "data", "--store", etcd.url("traced"), *flags) as server,
        ):
            token = read_kubeconfig(server.data_dir / "admin.kubeconfig").token
            traced = Traced(server.url, server.data_dir / "pki" / "ca.crt", token, "", ours)
            answer = traced.ask(CONFIG_MAPS, "POST", config_map("kept"))
            assert answer.status == 201
            request = ours.of(answer.id)
            verb = ours.below(request)["Create"]
            write = ours.one(lambda one: one.name == "store write" and one.parent_id == verb.span_id)
            commit = ours.one(lambda one: one.name == "store commit" and one.parent_id == write.span_id)
            assert eventually(lambda: any(one.parent_id == commit.span_id for one in theirs.spans))
            (kept,) = (one for one in theirs.spans if one.parent_id == commit.span_id)
            assert kept.name == "etcdserverpb.KV/Txn"
            assert kept.trace_id == request.trace_id
            # Reads there too: what was asked before a request was begun.
            read = traced.ask(CONFIG_MAPS + "/kept")
            assert read.status == 200
            assert "barrier" in ours.below(ours.of(read.id))
