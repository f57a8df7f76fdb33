"""Traces of a real server, as a collector is sent them, started as docs/howto/monitor.md shows."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterling.cli.target import read_kubeconfig
from tests.cli.processes import clusterling, serving
from tests.telemetry.collector import Collector, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["Audit-Id"]


@dataclass(frozen=True, slots=True)
class Traced:
    url: str
    ca: Path
    token: str
    tenant: str  # A token of the cluster `default`.
    collector: Collector

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token if token is None else token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())


CONFIG_MAPS = "/clusters/default/api/v1/namespaces/default/configmaps"


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A server that traces every request."""
    directory = tmp_path_factory.mktemp("traced")
    with (
        pytest.MonkeyPatch.context() as patched,
        collecting() as collector,
    ):
        patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patched.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        flags = ("--tracing-endpoint", collector.url, "--tracing-sampling", "1")
        with serving(directory / "data", *flags, stderr=directory / "log") as server:
            admin = read_kubeconfig(server.data_dir / "admin.kubeconfig")
            given = clusterling("kubeconfig", "default", "--data-dir", str(server.data_dir))
            assert given.returncode == 0, given.stderr
            (directory / "tenant.yaml").write_text(given.stdout)
            tenant = read_kubeconfig(directory / "tenant.yaml")
            ca = server.data_dir / "pki" / "ca.crt"
            yield Traced(server.url, ca, admin.token, tenant.token, collector)
            assert server.stop() == 0, (directory / "log").read_text()


def test_a_request_has_a_span_that_says_what_it_was(traced: Traced) -> None:
    answer = traced.ask(CONFIG_MAPS + "/none?limit=5&access_token=hidden", headers={"User-Agent": "tester/1"})
    assert answer.status == 404
    span = traced.collector.of(answer.id)
    assert span.name == "GET /api/v1/namespaces/{:namespace}/configmaps/{:name}"
    assert span.kind == 2  # A server's.
    assert span.parent_id == ""
    assert not span.failed  # That there is none is an answer.
    assert span.ended_ns >= span.began_ns
    size = len(answer.body)
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "http.response.body.size": size,
        "url.path": CONFIG_MAPS + "/none",
        "client.address": "127.0.0.1",
        "user_agent.original": "tester/1",
        "user.name": "clusterling:admin",
        "audit-id": answer.id,
        "k8s.cluster.name": "default",
        "k8s.namespace.name": "default",
        "verb": "get",
        "api-version": "v1",
        "resource": "configmaps",
        "name": "none",
    }
    assert span.resource["service.name"] == "clusterling"
    assert span.resource["deployment.environment.name"] == "test"
    assert set(traced.collector.paths) == {"/v1/traces"}


def test_a_write_leads_to_the_commit_that_kept_it(traced: Traced) -> None:
    answer = traced.ask(CONFIG_MAPS, "POST", config_map("written"))
    assert answer.status == 201
    span = traced.collector.of(answer.id)
    verb = traced.collector.below(span)["Create"]
    write = traced.collector.one(lambda one: one.name == "store write" and one.parent_id == verb.span_id)
    commit = traced.collector.one(lambda one: one.name == "store commit" and one.parent_id == write.span_id)
    assert commit.attributes["writes"] >= 1
    assert {one.trace_id for one in (span, verb, write, commit)} == {span.trace_id}
    assert span.began_ns <= verb.began_ns <= write.began_ns <= commit.began_ns
    assert commit.ended_ns <= write.ended_ns <= verb.ended_ns <= span.ended_ns


def test_the_platforms_own_callers_continue_their_trace(traced: Traced) -> None:
    answer = traced.ask(CONFIG_MAPS, headers=SAMPLED)
    span = traced.collector.of(answer.id)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.links == []


def test_a_tenants_trace_is_linked_to_and_not_continued(traced: Traced) -> None:
    answer = traced.ask(CONFIG_MAPS, token=traced.tenant, headers=SAMPLED)
    assert answer.status == 200
    span = traced.collector.of(answer.id)
    assert span.trace_id != TRACE
    assert span.parent_id == ""
    assert span.links == [(TRACE, PARENT)]


def test_who_is_trusted_decides_that_nothing_is_recorded(traced: Traced) -> None:
    silent = traced.ask(CONFIG_MAPS, headers=UNSAMPLED)
    told = traced.ask(CONFIG_MAPS, token=traced.tenant, headers=UNSAMPLED)
    assert (silent.status, told.status) == (200, 200)
    traced.collector.of(told.id)
    assert traced.collector.find(lambda span: span.attributes.get("audit-id") == silent.id) == []


def test_reconciliations_are_traced(traced: Traced) -> None:
    answer = traced.ask(
        "/clusters/default/api/v1/namespaces",
        "POST",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "reconciled"},
        },
    )
    assert answer.status == 201
    traced.ask("/clusters/default/api/v1/namespaces/reconciled", "DELETE")
    spans = traced.collector.some(
        lambda span: span.name == "reconcile namespaces" and "reconciled" in span.attributes["key"]
    )
    assert {span.parent_id for span in spans} == {""}


def test_the_environment_of_opentelemetry_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
        with serving(tmp_path / "data", "--log-format", "json", stderr=tmp_path / "log") as server:
            assert server.stop() == 0
        # Nothing is lost at the end.
        assert {span.resource["service.name"] for span in collector.spans} == {"ours"}
        assert (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "console")]
)
def test_what_is_not_supported_is_told_and_not_traced(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with serving(tmp_path / "data", stderr=tmp_path / "log") as server:
        assert server.stop() == 0
    assert f"tracing-off {name.rpartition('_')[2].lower()}={value}" in (tmp_path / "log").read_text()


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    flags = ("--tracing-endpoint", "http://127.0.0.1:1", "--tracing-sampling", "1")
    with serving(tmp_path / "data", *flags, stderr=tmp_path / "log") as server:
        admin = read_kubeconfig(server.data_dir / "admin.kubeconfig")
        traced = Traced(server.url, server.data_dir / "pki" / "ca.crt", admin.token, "", Collector())
        assert traced.ask(CONFIG_MAPS).status == 200
        assert server.stop() == 0


@pytest.mark.parametrize("url", ["collector:4317", "http://", "ftp://collector", "http://collector?x=y"])
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    refused = clusterling("serve", "--tracing-endpoint", url)
    assert refused.returncode == 2
    assert f"--tracing-endpoint {url}: this is no URL" in refused.stderr


def test_without_the_library_a_flag_is_refused_and_the_environment_is_not_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "without" / "opentelemetry" / "__init__.py").write_text(
        "raise ImportError('it is not there')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))
    flags = ("--data-dir", str(tmp_path / "none"), "--tracing-endpoint", "http://127.0.0.1:1")
    refused = clusterling("serve", *flags)
    assert refused.returncode == 1
    assert "pip install 'clusterling[tracing]'" in refused.stderr
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with serving(tmp_path / "data", stderr=tmp_path / "log") as server:
        assert server.stop() == 0
    assert "tracing-off" in (tmp_path / "log").read_text()
