"""Traces of a server in this process, as OpenTelemetry's SDK records them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from typing_extensions import override

from clusterling.cli import logs
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context
from clusterling.server import ApiServer
from clusterling.services import filters, tracing
from clusterling.services.request import Headers, Request
from clusterling.services.workers.pool import WorkerLimits
from clusterling.storage import memory
from clusterling.telemetry import spans
from clusterling.tenancy.authorization import ADMIN
from tests.telemetry.test_traces import SAMPLED, TRACE

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
TOKEN = "a-token-of-thirty-two-characters-or-more"


class Recorded:
    """A server, and what it was recorded to do."""

    def __init__(self, server: ApiServer, provider: TracerProvider, kept: InMemorySpanExporter) -> None:
        self.server = server
        self.provider = provider
        self.kept = kept

    def spans(self) -> list[ReadableSpan]:
        """All that have ended, in the order in which they did."""
        return list(self.kept.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def forget(self) -> None:
        self.kept.clear()


@asynccontextmanager
async def recording(sampler: Sampler = ALWAYS_ON, *admission: Admission) -> AsyncIterator[Recorded]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    async with (
        memory.open() as store,
        ApiServer(
            store,
            tracer_provider=provider,
            admission=admission,
            admin_tokens={TOKEN: ADMIN},
            default_cluster="team",
            run_controllers=False,
            workers=WorkerLimits(),
        ).running() as server,
    ):
        await server.clusters.create("team")
        recorded = Recorded(server, provider, kept)
        recorded.forget()
        yield recorded


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def parent_of(span: ReadableSpan) -> int:
    return 0 if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_nothing_of_opentelemetry_is_loaded_where_nothing_is_traced() -> None:
    script = (
        "import sys, clusterling, clusterling.server, clusterling.cli.serve, clusterling.services.http\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_without_a_provider_there_are_no_filters_for_traces() -> None:
    async with memory.open() as store:
        server = ApiServer(store)
        assert server.app.tracing is None
        assert "clusterling.services.tracing" not in repr(server.app._handle)


class Looks(Admission):
    """Notes the span that it finds."""

    def __init__(self) -> None:
        self.found: list[trace.SpanContext] = []

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        self.found.append(trace.get_current_span().get_span_context())


async def test_a_request_in_process_is_part_of_its_callers_span_and_hooks_are_part_of_the_request() -> None:
    looks = Looks()
    async with recording(ALWAYS_ON, looks) as it:
        looks.found.clear()
        with it.provider.get_tracer("embedder").start_as_current_span("mine") as mine:
            await it.server.client("team").post(CONFIG_MAPS, config_map("a"))
            assert trace.get_current_span() is mine
        (request,) = it.named("POST /api/v1/namespaces/{:namespace}/configmaps")
        assert parent_of(request) == mine.get_span_context().span_id
        assert [found.span_id for found in looks.found] == [id_of(request)]


async def test_writes_of_one_commit_are_linked_to_it_and_it_to_them() -> None:
    async with recording() as it:
        client = it.server.client("team")
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(client.post(CONFIG_MAPS, config_map(f"n{number}")))
        writes = {id_of(span): span for span in it.named("store write")}
        commits = it.named("store commit")
        assert len(writes) == 20
        shared = [commit for commit in commits if commit.attributes and commit.attributes["writes"] != 1]
        assert shared
        for commit in shared:
            assert commit.attributes is not None
            linked = [link.context.span_id for link in commit.links]
            assert len(linked) == commit.attributes["writes"] - 1  # type: ignore[operator]
            assert parent_of(commit) in writes
            for one in linked:
                assert [link.context.span_id for link in writes[one].links] == [id_of(commit)]


async def _ask(it: Recorded, *requests: bytes) -> bytes:
    """Requests on one connection, sent in one go; what is answered until it closes."""
    url = await it.server.listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"".join(requests))
    answer = await asyncio.wait_for(reader.read(-1), 30)
    writer.close()
    await writer.wait_closed()
    return answer


def _get(path: str, *headers: str) -> bytes:
    fields = ("Host: x", f"Authorization: Bearer {TOKEN}", *headers)
    return "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""]).encode()


async def test_a_request_sees_nothing_of_the_span_of_another_on_its_connection() -> None:
    async with recording(ParentBased(ALWAYS_OFF)) as it:
        traceparent = f"traceparent: {SAMPLED['traceparent']}"
        answer = await _ask(
            it,
            _get(CONFIG_MAPS, traceparent, "Audit-Id: first"),
            _get(CONFIG_MAPS, "Audit-Id: second"),
            _get(CONFIG_MAPS, traceparent, "Audit-Id: third", "Connection: close"),
        )
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        roots = [span for span in it.spans() if span.attributes and "audit-id" in span.attributes]
        assert [dict(span.attributes or {})["audit-id"] for span in roots] == ["first", "third"]
        assert {f"{span.context.trace_id:032x}" for span in it.spans() if span.context} == {TRACE}
        assert {parent_of(span) for span in it.named("List")} == {id_of(span) for span in roots}


async def test_a_watch_is_over_when_its_stream_is() -> None:
    async with recording() as it:
        client = it.server.client("team")
        async with client.watching(CONFIG_MAPS) as events:
            await client.post(CONFIG_MAPS, config_map("seen"))
            async for event in events:
                if event["object"]["metadata"]["name"] == "seen":
                    break
            name = "GET /api/v1/namespaces/{:namespace}/configmaps"
            assert it.named(name) == []
        (watch,) = it.named(name)
        assert dict(watch.attributes or {})["verb"] == "watch"


class Breaks(Admission):
    """Fails as nobody foresaw, in words that quote the object."""

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        if new is not None and "secret" in new["metadata"]["name"]:
            raise RuntimeError(f"cannot make sense of {new}")


async def test_what_failed_is_told_by_its_id_and_place_and_not_in_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with recording(ALWAYS_ON, Breaks()) as it:
        with caplog.at_level(logging.WARNING), pytest.raises(ApiError) as refused:
            await it.server.client("team").post(CONFIG_MAPS, config_map("a-secret"))
        (request,) = it.named("POST /api/v1/namespaces/{:namespace}/configmaps")
        attributes = dict(request.attributes or {})
        assert f"Audit-Id {attributes['audit-id']}" in refused.value.message
        assert (attributes["http.response.status_code"], attributes["error.type"]) == (500, "500")
        assert not request.status.is_ok
        (verb,) = it.named("Create")
        assert dict(verb.attributes or {})["error.type"] == "RuntimeError"
        assert "a-secret" not in repr([span.to_json() for span in it.spans()])

        crashed, failed = (one for one in caplog.records if one.name.startswith("clusterling.services"))
        event, fields = logs.read(crashed)
        assert (event, fields["id"], fields["cluster"]) == ("request-crashed", attributes["audit-id"], "team")
        event, fields = logs.read(failed)
        assert event == "request-failed"
        assert fields["id"] == attributes["audit-id"]
        assert fields["trace"] == f"{request.context.trace_id:032x}" if request.context else ""
        for form in (logs.TextLines(), logs.JsonLines()):
            written = form.format(crashed) + form.format(failed)
            assert "a-secret" not in written
            assert "telemetry/test_spans.py" in written


async def test_a_slow_request_is_told_of_with_whose_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filters, "SLOW_S", 0.0)
    async with recording() as it:
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            listed = await it.server.client("team").request("GET", f"{CONFIG_MAPS}?limit=5")
        (line,) = (one for one in caplog.records if one.name == "clusterling.services.requestlog")
        event, fields = logs.read(line)
        assert event == "request-slow"
        (span,) = it.named("GET /api/v1/namespaces/{:namespace}/configmaps")
        seconds = fields.pop("seconds")
        assert isinstance(seconds, float)
        assert fields == {
            "id": dict(span.attributes or {})["audit-id"],
            "cluster": "team",
            "verb": "list",
            "resource": "configmaps",
            "namespace": "default",
            "name": "",
            "code": 200,
            "bytes": len(listed.body),
            "user": "clusterling:admin",
            "peer": "",
            "trace": f"{span.context.trace_id:032x}" if span.context else "",
        }


async def test_a_request_that_is_given_up_ends_its_span() -> None:
    class Waits(Admission):
        @override
        async def validate(
            self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
        ) -> None:
            if new is not None and new["metadata"]["name"] == "waits":
                reached.set()
                await asyncio.Event().wait()

    reached = asyncio.Event()
    async with recording(ALWAYS_ON, Waits()) as it:
        work = asyncio.ensure_future(it.server.client("team").post(CONFIG_MAPS, config_map("waits")))
        await reached.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        (request,) = it.named("POST /api/v1/namespaces/{:namespace}/configmaps")
        assert dict(request.attributes or {})["error.type"] == "CancelledError"
        assert trace.get_current_span() is trace.INVALID_SPAN


async def test_what_a_request_began_and_outlives_it_is_no_part_of_it() -> None:
    class Begins(Admission):
        @override
        async def validate(
            self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
        ) -> None:
            if new is not None and new["metadata"]["name"] == "begins":
                begun.append(asyncio.ensure_future(later()))

    async def later() -> None:
        await over.wait()
        await it.server.client("team").post(CONFIG_MAPS, config_map("later"))

    begun: list[asyncio.Future[None]] = []
    over = asyncio.Event()
    async with recording(ALWAYS_ON, Begins()) as it:
        await it.server.client("team").post(CONFIG_MAPS, config_map("begins"))
        first = {id_of(span) for span in it.spans()}
        over.set()
        await begun[0]
        assert len(it.named("POST /api/v1/namespaces/{:namespace}/configmaps")) == 2
        assert [span for span in it.spans() if id_of(span) not in first and parent_of(span) in first] == []


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ParentBased(ALWAYS_OFF)], ids=["recorded", "not recorded"])
async def test_a_request_that_is_begun_in_the_context_of_another_is_no_part_of_that(sampler: Sampler) -> None:
    async def nothing(limit: int) -> list[bytes]:
        return []

    async with recording(sampler) as it:
        recorder = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        recorder.add_span_processor(SimpleSpanProcessor(it.kept))
        tracer = recorder.get_tracer("another")
        another = tracing.Recorded(tracer, tracer.start_span("another"))
        headers = Headers({"Authorization": f"Bearer {TOKEN}"})
        with spans.as_part(another):
            response = await it.server.app(Request("GET", CONFIG_MAPS, "", headers, nothing))
            assert response.status == 200
        (ended,) = it.named("another")
        assert [span for span in it.spans() if parent_of(span) == id_of(ended)] == []
        assert len(it.named("List")) == (1 if sampler is ALWAYS_ON else 0)


async def test_what_a_worker_computes_is_a_part_of_its_request_and_what_that_asks_of_the_store_one_of_it() -> (
    None
):
    async with recording() as it:
        large = config_map("large") | {"data": {f"k{at}": "v" for at in range(20_000)}}
        await it.server.client("team").post(CONFIG_MAPS, large)
        (create,), (waited,), (worked,) = map(it.named, ("Create", "worker awaited", "worker"))
        assert parent_of(waited) == parent_of(worked) == id_of(create)
        assert [parent_of(write) for write in it.named("store write")] == [id_of(worked)]


async def test_a_slow_answer_that_is_written_in_parts_is_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filters, "SLOW_S", 0.0)
    async with recording() as it:
        team = it.server.client("team")
        for name in "abcdefgh":
            large = {"metadata": {"name": name}, "data": {"text": "x" * 400_000}}
            await team.post(CONFIG_MAPS, large)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            listed = await team.request("GET", CONFIG_MAPS)
        (line,) = (one for one in caplog.records if one.name == "clusterling.services.requestlog")
        assert logs.read(line)[1]["bytes"] == len(listed.body) > 8 * 400_000
        assert {"a", "h"} <= {item["metadata"]["name"] for item in orjson.loads(listed.body)["items"]}
