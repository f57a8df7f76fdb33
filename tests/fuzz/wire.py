"""Targets: whole requests, from the bytes of a socket or from their parts, against a server in memory; and what keys reach."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from functools import cache
from typing import Any, Final, TypeVar

import orjson
from typing_extensions import override

from clusterling.packs import choose
from clusterling.server import ApiServer
from clusterling.services import http, websocket
from clusterling.services.http import Listener
from clusterling.services.request import Headers, StreamingResponse
from clusterling.storage import memory
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Op, StorageError, Store
from clusterling.tenancy.authorization import ADMIN
from tests.fuzz import seeds, values
from tests.fuzz.targets import target
from tests.fuzz.values import Source

_CLUSTER: Final = "fuzzed"
_ADMIN_TOKEN: Final = "an-administrator's-token"
_PATIENCE_S: Final = 20.0
_ANSWER_BYTES_MAX: Final = 64 << 20
_MOMENT_S: Final = 0.003

_T = TypeVar("_T")


class _Logged(logging.Handler):
    """Keeps what was logged as an error: nobody foresaw that."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(logging.Formatter().format(record))


class _World:
    """A server with all kinds in memory, one cluster, a listener, and the event loop that they run on."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.logged = _Logged()
        logging.getLogger().addHandler(self.logged)
        self._runner.run(self._start())

    async def _start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._failed)
        self.store: Store = await self._stack.enter_async_context(memory.open())
        server = ApiServer(
            self.store, packs=choose("all"), admin_tokens={_ADMIN_TOKEN: ADMIN}, run_controllers=False
        )
        self.server = await self._stack.enter_async_context(server.running())
        await self.server.clusters.create(_CLUSTER)
        self.listener: Listener = await http.serve(self.server.app, "127.0.0.1", 0)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.logged.told.append(f"{context.get('message')}: {context.get('exception')!r}")

    def run(self, what: Coroutine[Any, Any, _T]) -> _T:
        """Runs it to its end. What was logged as an error meanwhile fails the target."""
        self.logged.told.clear()
        logging.getLogger("clusterling").setLevel(logging.ERROR)
        found = self._runner.run(asyncio.wait_for(what, _PATIENCE_S))
        assert not self.logged.told, "\n".join(self.logged.told)
        return found

    def close(self) -> None:
        logging.getLogger().removeHandler(self.logged)
        self._runner.run(self._stop())
        self._runner.close()

    async def _stop(self) -> None:
        await self.listener.close(0.1, 0.0)
        await self._stack.aclose()


@cache
def _world() -> _World:
    return _World()


def close() -> None:
    """Ends the server, if a target has started it."""
    if _world.cache_info().currsize:
        _world().close()
        _world.cache_clear()


# --------------------------------------------------------------------------- requests

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_TYPES: Final = (
    *("application/json", "application/merge-patch+json", "application/json-patch+json", "application/yaml"),
    *("application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/vnd.kubernetes.protobuf"),
)  # fmt: skip
_ACCEPTS: Final = (
    *("application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml"),
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
)


def _told(method: str, path: str, body: Any, *, content_type: int = 0, accept: int = 0) -> bytes:
    """One request as the target reads it."""
    head = bytes([_METHODS.index(method), content_type, accept]) + values.sized(path.encode())
    return head + bytes([body is not None]) + (b"" if body is None else values.value(body))


def _stories() -> Iterator[bytes]:
    """What was recorded, two requests at a time; and each object that was created, applied, shown as a row and deleted."""
    for one in seeds.exchanges()[::10]:
        method, _, path = one["request"].partition(" ")
        path = path.replace("${ns}", "default")
        if method not in _METHODS or "body" not in one or len(values.value(one["body"])) > 4_000:
            continue
        told = _told(method, path, one["body"], content_type=1 if method == "PATCH" else 0, accept=1)
        if method == "POST" and isinstance(one["body"], dict) and one["body"].get("metadata", {}).get("name"):
            own = f"{path.partition('?')[0]}/{one['body']['metadata']['name']}"
            told += _told("PATCH", f"{own}?fieldManager=a&force=1", one["body"], content_type=5, accept=3)
            told += _told("DELETE", own, None)
        yield told


@target(_stories)
def stories(data: bytes) -> None:
    """Up to four requests by the administrator, whatever they say: each has an answer that somebody foresaw."""
    source, world = Source(data), _world()
    for _ in range(4):
        if source.ended:
            return
        method, content_type, accept = (
            _METHODS[source.below(len(_METHODS))],
            _TYPES[source.below(len(_TYPES))],
            _ACCEPTS[source.below(len(_ACCEPTS))],
        )
        path = source.piece().decode("latin-1")
        body = orjson.dumps(source.value()) if source.byte() else b""
        if (
            "/" not in path[:1]
            or "watch" in path
            or (method != "GET" and "namespaces" in path.rpartition("/")[0][-11:])
        ):
            continue
        world.run(_ask(world, method, path, body, {"Content-Type": content_type, "Accept": accept}))


async def _ask(world: _World, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
    response = await world.server.client(_CLUSTER).request(method, path, None, body, headers)
    if isinstance(response, StreamingResponse):
        response.stream.stop()
        await response.close()
        return
    assert len(response.body) < _ANSWER_BYTES_MAX
    if response.content_type.startswith("application/json"):
        told = orjson.loads(response.body)
        assert response.status < 500 or "reason" not in told or told["reason"] == "ServiceUnavailable", told


# --------------------------------------------------------------------------- sockets

_HEAD: Final = f"Host: a\r\nAuthorization: Bearer {_ADMIN_TOKEN}\r\n"
_PROBE: Final = b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def _wires() -> Iterator[bytes]:
    own = f"/clusters/{_CLUSTER}/api/v1/namespaces/default/configmaps"
    yield f"GET {own} HTTP/1.1\r\n{_HEAD}Accept: application/yaml\r\n\r\n".encode()
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}'
    yield f"POST {own} HTTP/1.1\r\n{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    chunked = f"{len(body):x}\r\n{body}\r\n0\r\nX-Trailer: a\r\n\r\n"
    yield f"PUT {own}/a HTTP/1.1\r\n{_HEAD}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n{chunked}".encode()
    yield f"DELETE {own}/a HTTP/1.0\r\n{_HEAD}Connection: keep-alive\r\n\r\n".encode() * 2
    yield f"GET {own}?watch=1&timeoutSeconds=1 HTTP/1.1\r\n{_HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://a\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n".encode() + b"\x81\x80abcd"  # fmt: skip
    yield f"GET /version HTTP/1.1\r\n{_HEAD}Impersonate-User: é\r\nImpersonate-Group: a\r\nUser-Agent: \xff\r\n\r\n".encode(
        "latin-1"
    )
    yield b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nGET http://b/c HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@target(_wires)
def sockets(data: bytes) -> None:
    """Whatever bytes a connection brings, it ends, nothing unforeseen is logged, and the next one is served."""
    world = _world()
    world.run(_sent(world, data))


async def _sent(world: _World, data: bytes) -> None:
    for sent in (data, _PROBE):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.listener.port)
        try:
            writer.write(sent)
            if sent is data:
                # Who writes no more is taken for gone: what came whole has been begun by then.
                await asyncio.sleep(_MOMENT_S)
                writer.write_eof()
            answer = await reader.read(_ANSWER_BYTES_MAX)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        assert sent is not _PROBE or answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        assert b" 500 Internal Server Error\r\n" not in answer, answer[:2_000]


def _frames() -> Iterator[bytes]:
    yield b"\x05" + b"\x89\x85abcd\x09\x07\x0f\x08\x0e" * 3
    yield b"\x01\x81\x80abcd\x88\x82abcd\x62\x8a"
    yield b"\x02\x01\x83abcdxyz\x80\x80abcd\xc1\xfe\x00\x7eabcd"


@target(_frames)
def websocket_frames(data: bytes) -> None:
    """What a client of a WebSocket sends, in pieces of any size, is heard or ends it; what goes back is no longer than it."""
    hearing, size, rest = websocket.Hearing(), (data[0] if data else 0) + 1, data[1:]
    back = 0
    for at in range(0, len(rest), size):
        back += len(hearing.receive(rest[at : at + size]))
        if hearing.over:
            break
    assert back <= 2 * len(data) + 16
    assert hearing.goodbye.startswith(b"\x88")


@target(lambda: (b"websocket\nUpgrade\nx\n13\nhttp://a\nbase64url.bearer.authorization.k8s.io.YWJj, a",))
def websocket_handshakes(data: bytes) -> None:
    """A handshake is taken or refused, whatever its fields hold, and its answer holds no line of the client's making."""
    names = (
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Origin",
        "Sec-WebSocket-Protocol",
    )
    given = data.decode("utf-8", "surrogateescape").split("\n")
    headers = Headers(dict(zip(names, given, strict=False)))
    websocket.is_asked(headers)
    websocket.handshake(websocket.with_bearer(headers))


# --------------------------------------------------------------------------- keys


@target(lambda: (b"a/b/c", b"~fence/clusters/-/a", b"a//b", b"a/../b", b"../others/secret", b"\xed\xa0\x80"))
def store_keys(data: bytes) -> None:
    """Whatever a key or prefix says, one cluster's view of the store neither shows nor changes another's."""
    world = _world()
    world.run(_looked(world, data.decode("utf-8", "surrogateescape")))


async def _looked(world: _World, key: str) -> None:
    others, mine = Keyspace(world.store, "others"), Keyspace(world.store, "mine")
    if await others.get("secret") is None:
        await others.write([Op("secret", b"theirs")])
    before = await others.get("secret")
    for asking in (
        mine.get(key),
        mine.list(key, limit=5),
        mine.list("", after=key, limit=5),
        mine.write([Op(key, b"mine")]),
        mine.write([Op(key, None)]),
        mine.drop(key),
    ):
        try:
            found: object = await asking
        except (ValueError, StorageError):
            continue
        assert b"theirs" not in repr(found).encode()
    assert await others.get("secret") == before
