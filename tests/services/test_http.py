"""The adapter to sockets: what goes over the wire, with TLS and without, and how a connection ends."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ipaddress
import json
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterling.registry.strategy import User
from clusterling.services import http, watch
from clusterling.services.http import Listener, serve
from clusterling.services.request import Peer, Request
from tests.services.serving import ADMIN, CONFIGMAPS, Serving, configmap, serving

TEAM = "/clusters/team-a"
AUTH = "Authorization: Bearer admin-token\r\n"


@asynccontextmanager
async def listening(world: Serving, context: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    listener = await serve(world.app, "127.0.0.1", 0, context)
    try:
        yield listener
    finally:
        await listener.close(1.0)


class Wire:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text if isinstance(text, bytes) else text.encode())
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.strip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), fields

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, fields = await self.head()
        return status, fields, await self.reader.readexactly(int(fields["Content-Length"]))

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def ended(self) -> bool:
        return await self.reader.read(1) == b""


@asynccontextmanager
async def connected(
    listener: Listener, context: ssl.SSLContext | None = None, name: str = ""
) -> AsyncIterator[Wire]:
    server_hostname = (name or "127.0.0.1") if context else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", listener.port, ssl=context, server_hostname=server_hostname
    )
    try:
        async with asyncio.timeout(20):
            yield Wire(reader, writer)
    finally:
        writer.close()


def get(target: str, *fields: str, version: str = "1.1") -> str:
    return "\r\n".join((f"GET {target} HTTP/{version}", "Host: x", AUTH.strip(), *fields, "", ""))


def post(target: str, body: bytes, *fields: str) -> bytes:
    length = f"Content-Length: {len(body)}"
    head = "\r\n".join((f"POST {target} HTTP/1.1", "Host: x", AUTH.strip(), *fields, length, "", ""))
    return head.encode() + body


def in_pieces(data: bytes) -> list[bytes]:
    cut = data.index(b"\r\n\r\n") + 4
    return [data[:7], data[7 : cut - 2], data[cut - 2 : cut + 5], data[cut + 5 :]]


# ---------------------------------------------------------------------- answers


async def test_an_answer_has_upstreams_headers(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}/a", "Audit-Id: mine"))
        status, fields, body = await wire.answer()
    assert status == 200
    assert json.loads(body)["metadata"]["name"] == "a"
    assert fields["Content-Type"] == "application/json"
    assert fields["Cache-Control"] == "no-cache, private"
    assert fields["Audit-Id"] == "mine"
    assert fields["Date"].endswith(" GMT")
    assert fields.keys() == {"Content-Type", "Cache-Control", "Audit-Id", "Date", "Content-Length"}


async def test_one_connection_serves_many_requests_also_at_once(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get("/version") + get(f"{TEAM}/api") + get(f"{TEAM}/nothing"))
        assert [(await wire.answer())[0] for _ in range(3)] == [200, 200, 404]
        assert listener.connections == 1


async def test_the_target_arrives_as_it_was_sent(world: Serving) -> None:
    seen: list[tuple[str, str]] = []
    world.app.audit = lambda request, response: seen.append((request.path, request.query))
    async with listening(world) as listener, connected(listener) as wire:
        for target in ("/clusters/a%2Fb/../x//y?q=%41&&r", "/clusters/%61/api", "//x", "/a?b?c"):
            await wire.send(get(target))
            await wire.answer()
    assert seen == [
        ("/clusters/a%2Fb/../x//y", "q=%41&&r"),
        ("/clusters/%61/api", ""),
        ("//x", ""),
        ("/a", "b?c"),
    ]


async def test_a_head_has_the_length_and_no_body(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(f"HEAD /healthz HTTP/1.1\r\nHost: x\r\n{AUTH}\r\n" + get("/version"))
        status, fields = await wire.head()
        assert (status, fields["Content-Length"]) == (200, "2")
        assert (await wire.answer())[0] == 200


async def test_a_body_longer_than_one_write_arrives_whole(world: Serving) -> None:
    for number in range(4):
        await world.client().post(CONFIGMAPS, configmap(f"c{number}", x="y" * 900_000))
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}"))
        _, _, body = await wire.answer()
    assert len(json.loads(body)["items"]) == 4


async def test_http_1_0_gets_no_chunks(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=1", version="1.0"))
        _, fields = await wire.head()
        assert "Transfer-Encoding" not in fields
        assert fields["Connection"] == "close"
        lines = (await wire.reader.read()).splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["ADDED"]


# ---------------------------------------------------------------------- bodies


async def test_a_body_is_read_when_it_is_wanted(world: Serving) -> None:
    body = json.dumps(configmap("a")).encode()
    head = post(f"{TEAM}{CONFIGMAPS}", body, "Content-Type: application/json", "Expect: 100-continue")
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(head[: -len(body)])
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(body)
        assert (await wire.answer())[0] == 201


async def test_nobody_is_told_to_go_on_with_a_body_that_is_too_large(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(
            f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n{AUTH}Expect: 100-continue\r\nContent-Length: 4000000\r\n\r\n"
        )
        status, fields, body = await wire.answer()
        assert (status, fields["Connection"]) == (413, "close")
        assert json.loads(body)["message"] == "Request entity too large: limit is 3145728"


async def test_a_chunked_body_is_bounded_too(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(
            f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20))
        for _ in range(4):
            await wire.send(piece)
        assert (await wire.answer())[0] == 413


async def test_a_small_chunked_body_is_a_body(world: Serving) -> None:
    body = json.dumps(configmap("a")).encode()
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(
            f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n"
        )
        for part in (body[:10], body[10:]):
            await wire.send(b"%x\r\n%b\r\n" % (len(part), part))
        await wire.send("0\r\n\r\n")
        assert (await wire.answer())[0] == 201


async def test_a_body_that_never_comes_ends_with_the_deadline() -> None:
    async with (
        serving(request_timeout_s=0.05) as world,
        listening(world) as listener,
        connected(listener) as wire,
    ):
        await wire.send(
            f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n{AUTH}Content-Length: 100\r\n\r\n"
            + '{"metadata":'
        )
        assert (await wire.answer())[0] == 504


@pytest.mark.parametrize("text", ["GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET  /x y HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_is_refused_and_the_connection_ends(world: Serving, text: str) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(text)
        status, fields, _ = await wire.answer()
        assert (status, fields["Connection"]) == (400, "close")
        assert await wire.ended()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (
            "GET /version HTTP/2.0\r\nHost: x\r\n\r\n",
            505,
            "HTTP Version Not Supported: unsupported protocol version",
        ),
        ("GET /version HTTP/1.1\r\n\r\n", 400, "Bad Request: missing required Host header"),
        ("GET /version HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400, "Bad Request: too many Host headers"),
        ("GET /version HTTP/1.1\r\nHost : x\r\n\r\n", 400, "Bad Request"),
        ("GET /version HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400, "Bad Request"),
        ("GET /version HTTP/1.1\r\nHost: x\r\nA: b\0\r\n\r\n", 400, "Bad Request"),
        (f"POST {TEAM}/a HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{{}}", 400, "Bad Request"),
        (
            f"POST {TEAM}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}",
            400,
            "Bad Request",
        ),
        (
            f"POST {TEAM}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
            400,
            "Bad Request",
        ),
    ],
)
async def test_a_head_that_means_two_things_is_refused_in_gos_words(
    world: Serving, text: str, status: int, words: str
) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(text)
        told, fields, body = await wire.answer()
        assert (told, body.decode()) == (status, f"{status} {words}")
        assert (fields["Connection"], fields["Content-Type"]) == ("close", "text/plain; charset=utf-8")
        assert await wire.ended()


@pytest.mark.parametrize(
    ("field", "status", "words"),
    [
        ("Transfer-Encoding: gzip, chunked", 501, "Unsupported transfer encoding"),
        ("Expect: 200-maybe\r\nContent-Length: 2", 417, ""),
    ],
)
async def test_what_a_body_would_need_that_is_not_done_here_is_refused_before_it_is_read(
    world: Serving, field: str, status: int, words: str
) -> None:
    """As Go's server refuses it: a body that is compressed on the way would be taken for what it is not."""
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(
            f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n{AUTH}{field}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        )
        told, fields, body = await wire.answer()
        assert (told, body.decode(), fields["Connection"]) == (status, words, "close")
        assert "Cache-Control" not in fields
        assert await wire.ended()


async def test_a_good_request_is_answered_before_the_bad_one_behind_it(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get("/version") + "GARBAGE\r\n\r\n" + get("/version"))
        assert (await wire.answer())[0] == 200
        assert (await wire.answer())[0] == 400
        assert await wire.ended()


@pytest.mark.parametrize(
    "start",
    [
        "GET /version HTTP/1.1\r\nHost: x\r\nX-Long: ",
        "GET /version HTTP/1.1\r\nHost: x\r\nX-",
        "GET /version?",
        f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        f"POST {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Long: ",
    ],
)
async def test_what_never_becomes_anything_is_not_kept(world: Serving, start: str) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(start)
        sent = 0
        try:
            while sent < 64 * http.HEAD_BYTES_MAX:
                await wire.send("a" * 16384)
                sent += 16384
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert all(one._deaf for one in listener.open)
        if start.startswith("GET"):
            assert (await wire.head())[0] == 431


async def test_many_small_fields_are_bounded_together(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send("GET /version HTTP/1.1\r\nHost: x\r\n")
        with suppress(ConnectionError):
            for number in range(0, 20_000, 500):
                await wire.send("".join(f"X-{number + one}: a\r\n" for one in range(500)))
                await asyncio.sleep(0)
        assert (await wire.head())[0] == 431


async def test_requests_sent_in_a_heap_are_all_answered_in_order(world: Serving) -> None:
    for number in range(5):
        await world.client().post(CONFIGMAPS, configmap(f"c{number}"))
    async with listening(world) as listener, connected(listener) as wire:
        heap = "".join(get(f"{TEAM}{CONFIGMAPS}/c{number % 5}") for number in range(500))
        sending = asyncio.create_task(wire.send(heap))
        names = [json.loads((await wire.answer())[2])["metadata"]["name"] for _ in range(500)]
        await sending
    assert names == [f"c{number % 5}" for number in range(500)]


async def test_bodies_sent_in_a_heap_each_reach_their_own_request(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        heap = b"".join(
            post(f"{TEAM}{CONFIGMAPS}", json.dumps(configmap(f"c{number}", x="y" * 20_000)).encode())
            for number in range(100)
        )
        sending = asyncio.create_task(wire.send(heap))
        answers = [await wire.answer() for _ in range(100)]
        await sending
    assert {status for status, _, _ in answers} == {201}
    assert [json.loads(body)["metadata"]["name"] for _, _, body in answers] == [f"c{n}" for n in range(100)]


async def test_a_body_that_nobody_wants_is_passed_over(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(post("/clusters/none/api/v1/namespaces", b"x" * 1_000_000))
        assert (await wire.answer())[0] == 403
        await wire.send(get("/version"))
        assert (await wire.answer())[0] == 200


async def test_a_body_that_nobody_wants_is_not_waited_for_for_ever(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LINGER_S", 0.05)
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(post("/clusters/none/api/v1/namespaces", b"x" * 1_000)[:-1])
        assert (await wire.answer())[0] == 403
        assert await wire.ended()


async def test_a_client_that_waits_to_be_told_and_is_refused_keeps_no_connection(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        head = post("/clusters/none/api/v1/namespaces", b"", "Expect: 100-continue")
        await wire.send(head.replace(b"Content-Length: 0", b"Content-Length: 10"))
        status, fields, _ = await wire.answer()
        assert (status, fields["Connection"]) == (403, "close")
        assert await wire.ended()


async def test_connection_close_is_kept_to(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get("/version", "Connection: close") + get("/version"))
        status, fields, _ = await wire.answer()
        assert (status, fields["Connection"]) == (200, "close")
        assert await wire.ended()


async def test_what_was_sent_before_means_the_same_each_time_and_what_differs_does_not(
    world: Serving,
) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    one = f"{TEAM}{CONFIGMAPS}/a"
    made = [json.dumps(configmap(f"made-{number}", text="x" * number)).encode() for number in (3, 4, 50, 51)]
    seen: list[tuple[str, str, str, str | None, str | None]] = []

    def note(request: Request, _: object) -> None:
        fields = request.headers
        seen.append(
            (request.method, request.path, request.query, fields.get("Content-Length"), fields.get("X-Told"))
        )

    world.app.audit = note
    async with listening(world) as listener, connected(listener) as wire:
        for _ in range(2):
            await wire.send(get(one))
            assert (await wire.answer())[0] == 200
            await wire.send(get(f"{one}?resourceVersion=0", "X-Told: one"))
            assert (await wire.answer())[0] == 200
        await wire.send(get(one, "X-Told: two"))
        assert (await wire.answer())[0] == 200
        await wire.send(get(one).replace("admin-token", "admin-tokem"))
        assert (await wire.answer())[0] == 401
        for _ in range(2):
            for number in range(20):
                await wire.send(get(one, f"X-Told: {number}"))
                assert (await wire.answer())[0] == 200
        for body in made:
            await wire.send(post(f"{TEAM}{CONFIGMAPS}", body))
            status, _, answer = await wire.answer()
            assert (status, json.loads(answer)["data"]) == (201, json.loads(body)["data"])
        await wire.send(get(one).replace("GET", "DELETE"))
        assert (await wire.answer())[0] == 200
    assert seen == [
        ("GET", one, "", None, None),
        ("GET", one, "resourceVersion=0", None, "one"),
        ("GET", one, "", None, None),
        ("GET", one, "resourceVersion=0", None, "one"),
        ("GET", one, "", None, "two"),
        ("GET", one, "", None, None),
        *(("GET", one, "", None, str(number)) for _ in range(2) for number in range(20)),
        *(("POST", f"{TEAM}{CONFIGMAPS}", "", str(len(body)), None) for body in made),
        ("DELETE", one, "", None, None),
    ]


async def test_a_request_like_those_before_ends_where_its_length_says(world: Serving) -> None:
    bodies = [json.dumps(configmap(f"made-{number}")).encode() for number in range(7)]
    sent = [post(f"{TEAM}{CONFIGMAPS}", body) for body in bodies]
    async with listening(world) as listener, connected(listener) as wire:
        for data in sent[:2]:
            await wire.send(data)
            assert (await wire.answer())[0] == 201
        # All of one and the beginning of the next, and then the rest piece by piece.
        await wire.send(sent[2] + sent[3][:30])
        assert (await wire.answer())[0] == 201
        await wire.send(sent[3][30:])
        assert (await wire.answer())[0] == 201
        for piece in in_pieces(sent[4]):
            await wire.send(piece)
            await asyncio.sleep(0.01)
        assert (await wire.answer())[0] == 201
        await wire.send(sent[5] + sent[6] + get(f"{TEAM}{CONFIGMAPS}/made-6").encode())
        names = [json.loads((await wire.answer())[2])["metadata"]["name"] for _ in range(3)]
        assert names == ["made-5", "made-6", "made-6"]
        await wire.send(sent[0].replace(b"Content-Length: ", b"Content-Length: 1, "))
        assert (await wire.answer())[0] == 400
        assert await wire.ended()


@pytest.mark.parametrize(
    "length",
    [
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nCONTENT-LENGTH: 9",
        b"Content-Length: 2\r\n 9",
        b"Content-Length: 02",
        b"Content-Length : 2",
    ],
)
async def test_a_length_that_two_may_read_differently_is_refused_behind_known_fields_too(
    world: Serving, length: bytes
) -> None:
    body = b"{}"
    known = post(f"{TEAM}{CONFIGMAPS}", body)
    async with listening(world) as listener:
        statuses = []
        for before in (0, 3):
            async with connected(listener) as wire:
                for _ in range(before):
                    await wire.send(known)
                    assert (await wire.answer())[0] == 422
                await wire.send(known.replace(b"Content-Length: 2", length))
                statuses.append((await wire.answer())[0])
        assert statuses[0] == statuses[1] == (422 if length.endswith(b"02") else 400)


@pytest.mark.parametrize("fields", ["Expect: 100-continue", "Connection: close"])
async def test_fields_that_are_more_than_words_are_heeded_each_time(world: Serving, fields: str) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    body = json.dumps(configmap("a")).encode()
    async with listening(world) as listener:
        for _ in range(2):
            async with connected(listener) as wire:
                for _ in range(2):
                    await wire.send(post(f"{TEAM}{CONFIGMAPS}", body, fields))
                    status, told, _ = await wire.answer()
                    assert status == 409
                    if fields == "Connection: close":
                        assert told["Connection"] == "close"
                        assert await wire.ended()
                        break


async def test_an_absolute_target_is_its_path(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get("http://anything.test:80/version?x=1") + get("https://h"))
        assert (await wire.answer())[0] == 200
        assert (await wire.answer())[0] == 403


async def test_an_upgrade_changes_nothing_for_what_is_sent_behind_it(world: Serving) -> None:
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get("/version", *h2c) + get(f"{TEAM}/api", *h2c) + get("/version"))
        assert [(await wire.answer())[0] for _ in range(3)] == [200, 200, 200]


async def test_a_head_may_come_byte_by_byte(world: Serving) -> None:
    async with listening(world) as listener, connected(listener) as wire:
        for byte in get("/version", "X-Spaces:  a \t"):
            await wire.send(byte)
            await asyncio.sleep(0)
        assert (await wire.answer())[0] == 200


async def test_a_connection_that_asks_nothing_ends(world: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.5)
    async with listening(world) as listener, connected(listener) as wire, connected(listener) as watching:
        await watching.send(get(f"{TEAM}{CONFIGMAPS}?watch=1"))
        await watching.head()
        await wire.send(get("/version"))
        assert (await wire.answer())[0] == 200
        await wire.send("GET /ver")
        assert await wire.ended()
        await world.client().post(CONFIGMAPS, configmap("a"))
        assert json.loads(await watching.chunk())["type"] == "ADDED"


async def test_a_timeout_works_before_and_after_the_first_wait(world: Serving) -> None:
    authorize = world.authorizer.authorize

    class Slow:
        async def authorize(self, *args: object) -> object:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            return await authorize(*args)  # type: ignore[arg-type]

    world.app.authorizer = Slow()  # type: ignore[assignment]
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}/api") * 3)
        assert [(await wire.answer())[0] for _ in range(3)] == [200, 200, 200]


async def test_a_client_that_sends_and_never_reads_is_held_back(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a", x="y" * 500_000))
    async with listening(world) as listener, connected(listener) as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.writer.write((get(f"{TEAM}{CONFIGMAPS}/a") * 2_000).encode())
        (one,) = listener.open
        while one._room is None:
            await asyncio.sleep(0.01)
        for _ in range(50):
            await asyncio.sleep(0)
        assert one.transport.get_write_buffer_size() < 3 * http.BUFFERED_BYTES_MAX
        wire.writer.transport.abort()


# ---------------------------------------------------------------------- watches


async def test_a_watch_is_chunked_and_the_connection_lives_on(world: Serving) -> None:
    client = world.client()
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=1"))
        status, fields = await wire.head()
        assert (status, fields["Transfer-Encoding"]) == (200, "chunked")
        await client.post(CONFIGMAPS, configmap("a"))
        assert json.loads(await wire.chunk())["type"] == "ADDED"
        assert await wire.chunk() == b""
        await wire.send(get("/version"))
        assert (await wire.answer())[0] == 200


async def test_an_upgrade_to_what_is_not_spoken_is_answered_with_a_plain_watch(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    upgrade = ("Connection: Upgrade", "Upgrade: SPDY/3.1")
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=1", *upgrade))
        assert (await wire.head())[0] == 200
        assert json.loads(await wire.chunk())["type"] == "ADDED"


async def test_a_watch_ends_when_its_client_goes(world: Serving) -> None:
    async with listening(world) as listener:
        async with connected(listener) as wire:
            await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1"))
            await wire.head()
            assert len(world.app.streams) == 1
        async with asyncio.timeout(10):
            while len(world.app.streams) or world.limits.in_flight:
                await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_holds_no_more_than_its_share_and_misses_nothing_unknowingly(
    world: Serving,
) -> None:
    client = world.client()
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=60"))
        await wire.head()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(12):
            await client.post(CONFIGMAPS, configmap(f"c{number:02}", x="y" * 800_000))
            await asyncio.sleep(0)
        (stream,) = world.app.streams._open
        assert stream._sink is not None
        held = stream._sink.buffered
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        names: list[str] = []
        last = None
        while len(names) < 12 and last is None:
            event = json.loads(await wire.chunk())
            if event["type"] == "ERROR":
                last = event["object"]
            else:
                names.append(event["object"]["metadata"]["name"])
    assert held < 4 * 1024 * 1024
    # What the window still has is told, in order; if that is not all, the client hears that it must list again.
    assert names == [f"c{number:02}" for number in range(len(names))]
    assert last is None or (last["code"], last["reason"]) == (410, "Expired")


@pytest.mark.parametrize("count", [3, 40, 600])
async def test_a_big_list_comes_whole_and_as_long_as_it_says(world: Serving, count: int) -> None:
    client = world.client()
    for number in range(count):
        await client.post(CONFIGMAPS, configmap(f"c{number:03}", x="y" * (3_000_000 // count)))
    async with listening(world) as listener, connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}") + get("/version"))
        status, fields, body = await wire.answer()
        assert (await wire.answer())[0] == 200
        head = get(f"{TEAM}{CONFIGMAPS}").replace("GET", "HEAD", 1)
        await wire.send(get(f"{TEAM}{CONFIGMAPS}").replace("\r\n", "\r\nAccept-Encoding: gzip\r\n", 1) + head)
        _, _, packed = await wire.answer()
        assert (await wire.head())[0] == 405
    listed = json.loads(body)
    assert (status, len(body)) == (200, int(fields["Content-Length"]))
    assert [item["metadata"]["name"] for item in listed["items"]] == [f"c{at:03}" for at in range(count)]
    assert gzip.decompress(packed) == body


async def test_a_client_that_never_reads_is_dropped_and_the_others_miss_nothing(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STALLED_S", 0.05)
    client = world.client()
    asked = get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=60")
    async with listening(world) as listener, connected(listener) as deaf, connected(listener) as wire:
        for one in (deaf, wire):
            await one.send(asked)
            await one.head()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        names: list[str] = []
        for number in range(30):
            await client.post(CONFIGMAPS, configmap(f"c{number:02}", x="y" * 800_000))
            names.append(json.loads(await wire.chunk())["object"]["metadata"]["name"])
        async with asyncio.timeout(10):
            while len(world.app.streams) > 1 or len(listener.open) > 1:
                await asyncio.sleep(0.01)
        assert world.limits.in_flight == 1
        await client.post(CONFIGMAPS, configmap("last"))
        assert json.loads(await wire.chunk())["object"]["metadata"]["name"] == "last"
    assert names == [f"c{number:02}" for number in range(30)]


@pytest.mark.parametrize("which", ["DRAIN_S", "IDLE_S"])
async def test_what_is_left_unread_of_a_watch_that_is_over_is_given_up(
    world: Serving, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """More than a connection may hold, after a while; less, when it has been idle for long."""
    size = 800_000 if which == "DRAIN_S" else 60_000
    monkeypatch.setattr(http, which, 0.5)
    client = world.client()
    async with listening(world) as listener, connected(listener) as deaf:
        await deaf.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=60"))
        await deaf.head()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        [stream] = world.app.streams._open
        assert stream._sink is not None
        for number in range(500):
            await client.post(CONFIGMAPS, configmap(f"c{number:03}", x="y" * size))
            await asyncio.sleep(0)
            if stream._sink.buffered > (http.BUFFERED_BYTES_MAX if which == "DRAIN_S" else 0):
                break
        assert stream._sink.buffered
        stream.stop()
        async with asyncio.timeout(10):
            while listener.open:
                await asyncio.sleep(0.01)


# ---------------------------------------------------------------------- closing


async def test_closing_ends_watches_cleanly_and_accepts_no_more(world: Serving) -> None:
    listener = await serve(world.app, "127.0.0.1", 0)
    async with connected(listener) as wire, connected(listener) as idle:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1"))
        await wire.head()
        await listener.close(5.0)
        assert await wire.chunk() == b""
        assert await wire.ended()
        assert await idle.ended()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", listener.port)


async def test_a_listener_that_leaves_ends_connections_behind_their_answers_and_takes_new_ones(
    world: Serving,
) -> None:
    async with listening(world) as listener, connected(listener) as idle, connected(listener) as watching:
        await watching.send(get(f"{TEAM}{CONFIGMAPS}?watch=1"))
        await watching.head()
        listener.leave()
        await idle.send(get("/version") + get("/version"))
        answers = [await idle.answer() for _ in range(2)]
        assert [(status, fields.get("Connection")) for status, fields, _ in answers] == [
            (200, None),
            (200, "close"),
        ]
        assert await idle.ended()
        async with connected(listener) as late:
            await late.send(get("/version"))
            status, fields, _ = await late.answer()
            assert (status, fields["Connection"]) == (200, "close")
        await world.client().post(CONFIGMAPS, configmap("a"))
        assert json.loads(await watching.chunk())["type"] == "ADDED"


async def test_closing_one_listener_leaves_the_others_their_watches(world: Serving) -> None:
    closing = await serve(world.app, "127.0.0.1", 0)
    async with listening(world) as staying, connected(staying) as wire, connected(closing) as other:
        for one in (wire, other):
            await one.send(get(f"{TEAM}{CONFIGMAPS}?watch=1"))
            await one.head()
        await closing.close(2.0)
        assert await other.chunk() == b""
        await world.client().post(CONFIGMAPS, configmap("a"))
        assert json.loads(await wire.chunk())["type"] == "ADDED"


async def test_a_request_in_flight_is_answered_before_the_end(world: Serving) -> None:
    let_go = asyncio.Event()
    arrived = asyncio.Event()
    authorize = world.authorizer.authorize

    class Waits:
        async def authorize(self, *args: object) -> object:
            arrived.set()
            await let_go.wait()
            return await authorize(*args)  # type: ignore[arg-type]

    world.app.authorizer = Waits()  # type: ignore[assignment]
    listener = await serve(world.app, "127.0.0.1", 0)
    async with connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}"))
        await arrived.wait()
        closing = asyncio.create_task(listener.close(10.0))
        await asyncio.sleep(0)
        let_go.set()
        assert (await wire.answer())[0] == 200
        await closing


async def test_a_request_that_does_not_end_is_not_waited_for_for_ever(world: Serving) -> None:
    class Never:
        async def authorize(self, *_: object) -> object:
            await asyncio.Event().wait()
            raise AssertionError("it waits for ever")

    world.app.authorizer = Never()  # type: ignore[assignment]
    listener = await serve(world.app, "127.0.0.1", 0)
    async with connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}"))
        while not world.app.recorder.busy:
            await asyncio.sleep(0)
        await listener.close(0.2)
        assert await wire.ended()
        assert world.app.recorder.busy == 0


@pytest.mark.parametrize("query", ["", "?watch=1&timeoutSeconds=30", "?watch=1&timeoutSeconds=1"])
async def test_what_a_connection_held_is_free_when_it_has_ended(world: Serving, query: str) -> None:
    """Without a look for garbage, which would find hundreds of them at a time, and keep everybody waiting."""
    gc.disable()
    try:
        async with listening(world) as listener:
            async with connected(listener) as wire:
                await wire.send(get(f"{TEAM}{CONFIGMAPS}{query}"))
                await wire.head()
                [connection] = listener.open
                alive = weakref.ref(connection)
                del connection
                if "timeoutSeconds=1" in query:
                    await wire.reader.readuntil(b"0\r\n\r\n")
            async with asyncio.timeout(10):
                while alive() is not None:
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()


# ---------------------------------------------------------------------- TLS

Key = ec.EllipticCurvePrivateKey


def certificate(
    name: str, issuer: x509.Certificate | None, signer: Key | None, *, ca: bool = False
) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("team-a.clusters.test")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((signer or key).public_key()), critical=False
        )
    )
    if ca:
        # Python 3.13 verifies strictly: an authority says that it may sign.
        usage = dict.fromkeys(
            (
                *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
                *("key_agreement", "encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    return builder.sign(signer or key, hashes.SHA256()), key


def written(path: Path, pair: tuple[x509.Certificate, Key]) -> Path:
    key = pair[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(key + pair[0].public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, Path]:
    """The server's context (which accepts client certificates), a client's, and a client certificate."""
    ca = certificate("ca", None, None, ca=True)
    trust = tmp_path / "ca.pem"
    trust.write_bytes(ca[0].public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(written(tmp_path / "server.pem", certificate("server", *ca)))
    server.load_verify_locations(trust)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.create_default_context(cafile=str(trust))
    return server, client, written(tmp_path / "client.pem", certificate("ann", *ca))


async def test_tls_carries_requests_and_watches(
    world: Serving, contexts: tuple[ssl.SSLContext, ssl.SSLContext, Path]
) -> None:
    server, client, _ = contexts
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(world, server) as listener, connected(listener, client) as wire:
        assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await wire.send(get(f"{TEAM}{CONFIGMAPS}"))
        assert (await wire.answer())[0] == 200
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?watch=1&timeoutSeconds=30"))
        await wire.head()
        await world.client().post(CONFIGMAPS, configmap("a"))
        assert json.loads(await wire.chunk())["type"] == "ADDED"


async def test_the_peer_is_known_by_address_certificate_and_the_name_it_asked_for(
    world: Serving, contexts: tuple[ssl.SSLContext, ssl.SSLContext, Path]
) -> None:
    server, client, own = contexts
    client.load_cert_chain(own)
    peers: list[Peer] = []

    class ByCertificate:
        async def authenticate(self, request: Request) -> User | None:
            peers.append(request.peer)
            return ADMIN

    world.app.authenticator = ByCertificate()
    async with (
        listening(world, server) as listener,
        connected(listener, client, "team-a.clusters.test") as wire,
    ):
        await wire.send(f"GET {TEAM}/api HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.answer())[0] == 200
    (peer,) = peers
    assert peer.address == "127.0.0.1"
    assert peer.server_name == "team-a.clusters.test"
    assert peer.certificate is not None
    found = x509.load_der_x509_certificate(peer.certificate)
    assert found.subject.rfc4514_string() == "CN=ann"
