"""What a hostile client may make the server keep is bounded, and what it leaves behind in the log is its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from clusterling.machinery.protobuf import PLAIN_FIELDS_MAX
from clusterling.services.http import serve
from clusterling.services.request import Headers, Request, StreamingResponse
from clusterling.storage import cache
from tests.peers import Taker
from tests.security.world import CONFIGMAPS, CRDS, World, crd, world

PROTOBUF = {"Content-Type": "application/vnd.kubernetes.protobuf"}


@pytest.fixture
async def it() -> AsyncIterator[World]:
    async with world() as found:
        yield found


async def kubeconfig_token(it: World) -> str:
    found = await it.server.clusters.kubeconfig("mallory")
    token: str = found["users"][0]["user"]["token"]
    return token


async def test_answers_that_nobody_reads_stop_the_requests_behind_them(it: World) -> None:
    """A connection's unread answers are a megabyte or so, not what one can ask for in a minute."""
    listener = await serve(it.server.app, "127.0.0.1", 0)
    token = await kubeconfig_token(it)
    made = {"metadata": {"name": "big"}, "data": {"k": "v" * 60_000}}
    assert (await it.ask("POST", CONFIGMAPS, made))[0] == 201
    key = ("GET", "", "configmaps", 200)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
    try:
        request = f"GET /clusters/mallory{CONFIGMAPS}/big HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        # 120 MB of answers: more than the kernel takes on both sides of a connection.
        writer.write(request.encode() * 2_000)
        counts = it.server.app.recorder.requests
        before = 0
        while not before or counts().get(key, 0) != before:
            before = counts().get(key, 0)
            await asyncio.sleep(0.3)
        assert 0 < before < 1_000
        assert reader is not None
    finally:
        writer.transport.abort()
        await listener.close(1.0)


async def test_a_client_that_leaves_before_its_body_is_no_error_of_the_server(
    it: World, caplog: pytest.LogCaptureFixture
) -> None:
    listener = await serve(it.server.app, "127.0.0.1", 0)
    token = await kubeconfig_token(it)
    recorder = it.server.app.recorder
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        head = f"POST /clusters/mallory{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        while not recorder.busy:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while recorder.busy:
            await asyncio.sleep(0.01)
    finally:
        await listener.close(1.0)
    assert it.server.app.errors == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_who_is_too_far_behind_lists_again(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """History that a watch would have to hold for itself is bounded, for one and for all together."""
    _, first, _ = await it.ask("POST", CONFIGMAPS, {"metadata": {"name": "first"}})
    for at in range(20):
        await it.ask("POST", CONFIGMAPS, {"metadata": {"name": f"c{at}"}, "data": {"k": "v" * 1_000}})
    # From before the collection was loaded: only the store's history has it.
    path = f"{CONFIGMAPS}?watch=1&timeoutSeconds=1&resourceVersion={first['metadata']['resourceVersion']}"
    monkeypatch.setattr(cache, "REPLAY_BYTES_MAX", 10_000)
    assert b'"code":410' in await first_frame(it, path)
    monkeypatch.undo()
    monkeypatch.setattr(cache, "REPLAYS_BYTES_MAX", 10_000)
    assert b'"code":410' in await first_frame(it, path)
    monkeypatch.setattr(cache, "REPLAYS_BYTES_MAX", 40_000)
    for _ in range(3):
        # What one held is free again once it has ended.
        assert b'"type":"ADDED"' in await first_frame(it, path)


async def first_frame(it: World, path: str) -> bytes:
    response = await it.tenant.request("GET", path)
    assert isinstance(response, StreamingResponse)
    taker = Taker()
    await response.stream.run(taker)
    await response.close()
    return taker.writes[0]


async def test_kinds_that_come_and_go_do_not_fill_the_counters(
    it: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterling.services.metrics import recorder as recorders

    monkeypatch.setattr(recorders, "OWN_KINDS_MAX", 3)
    for at in range(20):
        assert (await it.ask("POST", CRDS, crd(f"kind{at}s", {"type": "object"})))[0] == 201
        assert (await it.ask("GET", f"/apis/x.io/v1/kind{at}s"))[0] == 200
    counts = it.server.app.recorder.requests()
    assert not any(plural == "kind19s" for _, _, plural, _ in counts)
    assert counts["LIST", "other", "other", 200] >= 10


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def nested(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


def envelope(raw: bytes) -> bytes:
    return b"k8s\0" + nested(1, nested(1, b"v1") + nested(2, b"ConfigMap")) + nested(2, raw)


@pytest.mark.parametrize(
    "body",
    [
        b"k8s\0" + b"\x78\x01" * 1_000_000,
        envelope(nested(1, nested(8, b"\x08\x01" * 1_000_000))),
    ],
    ids=["envelope", "time"],
)
async def test_a_small_message_has_few_fields(it: World, body: bytes) -> None:
    status, told, _ = await it.ask("POST", CONFIGMAPS, body, PROTOBUF)
    assert status == 400
    assert f"more than {PLAIN_FIELDS_MAX} fields" in told["message"]


async def test_an_audit_id_cannot_forge_fields_of_the_log(it: World) -> None:
    async def id_of(given: str) -> str:
        request = Request("GET", "/livez", "", Headers({"Audit-Id": given}), nothing)
        await it.server.app(request)
        return request.id

    assert await id_of("9a1c-mine.2:3") == "9a1c-mine.2:3"
    for forged in ("x path=/y", 'x"y', "x=y", "x\ty", "é"):
        assert await id_of(forged) != forged


async def nothing(_limit: int) -> list[bytes]:
    return []
