"""WebSocket watches: the handshake as upstream answers it, events as text frames, and how either side ends them."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from clusterling.services.http import Listener
from clusterling.services.request import Headers, Response
from clusterling.services.websocket import FRAMES_MAX, Hearing, handshake, with_bearer
from tests.services.serving import CONFIGMAPS, Serving, configmap
from tests.services.test_http import AUTH, TEAM, Wire, connected, get, listening

WATCH = f"{TEAM}{CONFIGMAPS}?watch=true"
# The example of RFC 6455, 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKING = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
ORIGIN = "Origin: http://localhost"


class Socket:
    """A client's side of a WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.protocol = FrameProtocol(client=True, extensions=[])

    async def frame(self) -> tuple[Opcode, Any]:
        """The next frame, whole."""
        parts = b""
        while True:
            for frame in self.protocol.received_frames():
                if frame.opcode is Opcode.TEXT:
                    assert isinstance(frame.payload, str)
                    parts += frame.payload.encode()
                    if frame.message_finished:
                        return frame.opcode, parts.decode()
                else:
                    return frame.opcode, frame.payload
            data = await self.wire.reader.read(4096)
            assert data, "the connection ended without a close frame"
            self.protocol.receive_bytes(data)

    async def event(self) -> Any:
        opcode, payload = await self.frame()
        assert opcode is Opcode.TEXT
        return json.loads(payload)


@asynccontextmanager
async def watching(listener: Listener, target: str = WATCH, *fields: str) -> AsyncIterator[Socket]:
    async with connected(listener) as wire:
        await wire.send(get(target, *ASKING, ORIGIN, *fields))
        status, _ = await wire.head()
        assert status == 101
        yield Socket(wire)


# ---------------------------------------------------------------------- the handshake


async def test_a_handshake_is_answered_as_the_standard_says_and_with_nothing_else(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(WATCH, *ASKING, ORIGIN))
        assert await wire.head() == (
            101,
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT},
        )


async def test_the_one_subprotocol_that_is_offered_is_given_back(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(WATCH, *ASKING, ORIGIN, "Sec-WebSocket-Protocol: anything.k8s.io"))
        status, fields = await wire.head()
    assert (status, fields["Sec-WebSocket-Protocol"]) == (101, "anything.k8s.io")


FIELDS = {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13", "Origin": "https://x"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Protocol": "a, b"}, 400),
        ({"Origin": ""}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_handshake_that_upstream_refuses_is_refused(change: dict[str, str], status: int) -> None:
    answer = handshake(Headers({**FIELDS, **change}))
    assert isinstance(answer, Response)
    assert answer.status == status


async def test_a_refused_handshake_gives_back_the_seat_and_the_connection(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(WATCH, *ASKING) + get("/version"))
        assert (await wire.answer())[0] == 403
        assert (await wire.answer())[0] == 200
    assert world.limits.in_flight == 0


async def test_who_asks_for_a_websocket_where_nothing_is_watched_gets_an_ordinary_answer(
    world: Serving,
) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}", *ASKING, ORIGIN) + get("/version"))
        status, _, body = await wire.answer()
        assert (status, json.loads(body)["kind"]) == (200, "ConfigMapList")
        assert (await wire.answer())[0] == 200


async def test_who_may_not_watch_is_refused_before_any_handshake(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(WATCH, *ASKING, ORIGIN).replace(AUTH, "Authorization: Bearer nobody\r\n"))
        assert (await wire.answer())[0] == 401


def bearer(token: str) -> str:
    return "base64url.bearer.authorization.k8s.io." + urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_a_token_may_come_as_a_subprotocol_and_is_not_given_back(world: Serving) -> None:
    protocols = f"Sec-WebSocket-Protocol: {bearer('admin-token')}, mine.k8s.io"
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(WATCH, *ASKING, ORIGIN, protocols).replace(AUTH, ""))
        status, fields = await wire.head()
    assert (status, fields["Sec-WebSocket-Protocol"]) == (101, "mine.k8s.io")


@pytest.mark.parametrize(
    "protocols",
    [
        bearer("admin-token"),
        f"{bearer('admin-token')}, {bearer('admin-token')}, mine",
        "base64url.bearer.authorization.k8s.io.!, mine",
        "base64url.bearer.authorization.k8s.io._w, mine",
        "base64url.bearer.authorization.k8s.io.\u20ac, mine",
    ],
)
def test_a_token_that_cannot_be_taken_is_a_credential_that_nobody_knows(protocols: str) -> None:
    headers = with_bearer(Headers({"Sec-WebSocket-Protocol": protocols}))
    assert headers.get("Authorization", "").strip() == "Bearer"


def test_a_token_in_its_own_field_is_the_one_that_counts() -> None:
    headers = Headers({"Authorization": "Bearer a", "Sec-WebSocket-Protocol": f"{bearer('b')}, mine"})
    assert with_bearer(headers).get("Authorization") == "Bearer a"


# ---------------------------------------------------------------------- events


async def test_each_event_is_one_text_message(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    async with listening(world) as listener, watching(listener) as socket:
        assert (await socket.event())["object"]["metadata"]["name"] == "a"
        await world.client().post(CONFIGMAPS, configmap("b", x="y" * 200))
        await world.client().post(CONFIGMAPS, configmap("c", x="y" * 90_000))
        second, third = await socket.event(), await socket.event()
    assert (second["type"], len(second["object"]["data"]["x"])) == ("ADDED", 200)
    assert (third["type"], len(third["object"]["data"]["x"])) == ("ADDED", 90_000)


FORMS = ("", "Table", "PartialObjectMetadata")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("selector", ["labelSelector=on%3Dyes", "fieldSelector=metadata.name%3Da", ""])
async def test_messages_are_the_lines_that_others_are_sent(world: Serving, form: str, selector: str) -> None:
    client = world.client()
    accept = f"Accept: application/json;as={form};v=v1;g=meta.k8s.io" if form else "Accept: application/json"
    await client.post(CONFIGMAPS, configmap("a"))
    target = f"{WATCH}&{selector}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with (
        listening(world) as listener,
        watching(listener, target, accept) as socket,
        connected(listener) as wire,
    ):
        await wire.send(get(target, accept))
        await wire.head()
        for label in ("yes", "no", None, "yes"):
            change = {"metadata": {"labels": {"on": label}, "annotations": {"at": str(label)}}}
            await client.patch(f"{CONFIGMAPS}/a", change)
            await client.patch(f"{CONFIGMAPS}/a", {"data": {"x": str(label)}})
        await client.delete(f"{CONFIGMAPS}/a")
        await client.post(CONFIGMAPS, {**configmap("a"), "metadata": {"name": "a", "labels": {"on": "yes"}}})
        entering, leaving = ["ADDED", "MODIFIED"], ["DELETED"]
        expected = ["ADDED", "BOOKMARK", *["MODIFIED"] * 8, "DELETED", "ADDED"]
        if selector.startswith("label"):
            expected = ["BOOKMARK", *entering, *leaving, *entering, *leaving, "ADDED"]
        messages = [await socket.event() for _ in expected]
        lines: list[Any] = []
        while len(lines) < len(expected):
            lines += map(json.loads, (await wire.chunk()).splitlines())
    assert lines == messages
    assert [event["type"] for event in messages] == expected


async def test_history_that_is_gone_is_told_in_a_message(world: Serving) -> None:
    client = world.client()
    for number in range(3):
        await client.post(CONFIGMAPS, configmap(f"c{number}"))
    await world.store.compact(world.store.head())
    await client.delete(f"{CONFIGMAPS}/c0")
    await world.store.compact(world.store.head())
    async with listening(world) as listener, watching(listener, f"{WATCH}&resourceVersion=1") as socket:
        event = await socket.event()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await socket.frame() == (Opcode.CLOSE, (1000, ""))


async def test_a_watch_that_is_over_says_goodbye_and_closes(world: Serving) -> None:
    async with listening(world) as listener, watching(listener, f"{WATCH}&timeoutSeconds=1") as socket:
        assert await socket.frame() == (Opcode.CLOSE, (1000, ""))
        assert await socket.wire.ended()


async def test_a_server_that_closes_says_goodbye(world: Serving) -> None:
    async with listening(world) as listener, watching(listener) as socket:
        closing = asyncio.create_task(listener.close(1.0, 0.0))
        assert await socket.frame() == (Opcode.CLOSE, (1000, ""))
        await closing


# ---------------------------------------------------------------------- what clients send


async def test_a_ping_is_answered_with_what_it_carried(world: Serving) -> None:
    async with listening(world) as listener, watching(listener) as socket:
        await socket.wire.send(bytes(socket.protocol.ping(b"here?")))
        assert await socket.frame() == (Opcode.PONG, b"here?")


async def test_frames_sent_with_the_request_are_taken(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        socket = Socket(wire)
        await wire.send(get(WATCH, *ASKING, ORIGIN).encode() + bytes(socket.protocol.ping(b"early")))
        assert (await wire.head())[0] == 101
        assert await socket.frame() == (Opcode.PONG, b"early")


async def test_what_a_client_says_is_not_listened_to(world: Serving) -> None:
    async with listening(world) as listener, watching(listener) as socket:
        await socket.wire.send(bytes(socket.protocol.send_data("GET / HTTP/1.1\r\n\r\n")))
        await world.client().post(CONFIGMAPS, configmap("a"))
        assert (await socket.event())["type"] == "ADDED"


async def test_a_client_that_closes_is_answered_and_its_seat_is_free(world: Serving) -> None:
    async with listening(world) as listener:
        async with watching(listener) as socket:
            await socket.wire.send(bytes(socket.protocol.close(1000)))
            assert await socket.frame() == (Opcode.CLOSE, (1000, ""))
            assert await socket.wire.ended()
        assert len(world.app.streams) == 0
        assert world.limits.in_flight == 0


def test_a_client_that_breaks_the_protocol_is_told_so() -> None:
    hearing = Hearing()
    assert hearing.receive(b"\x81\x01x") == b""  # Not masked.
    assert hearing.over
    assert hearing.goodbye == b"\x88\x02" + (1002).to_bytes(2)


@pytest.mark.parametrize(("pings", "over"), [(FRAMES_MAX, False), (FRAMES_MAX + 1, True)])
def test_a_client_that_floods_is_sent_away(pings: int, over: bool) -> None:
    client, hearing = FrameProtocol(client=True, extensions=[]), Hearing()
    assert hearing.receive(bytes(client.ping(b"x")) * pings).count(b"x") == FRAMES_MAX
    assert hearing.over is over
    assert hearing.goodbye == b"\x88\x02" + (1008 if over else 1000).to_bytes(2)
