"""The one adapter to aiohttp's server: sockets and TLS on one side, Request and Response on the other.

aiohttp parses and keeps connections; what it would spend on routing, response objects and logs is not used. Head and
body leave in one write, the unchanging part of a head is made once, and a stream writes to the transport itself.

Rules of this file
- Nothing else imports aiohttp's server: importing it costs 0.2 s, which an embedder in process never pays.
- The raw target goes through as it came: nothing here decodes or tidies a path (decision 19).
"""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from aiohttp import HttpVersion11, web
from typing_extensions import override

from clusterling.machinery.errors import ApiError, bad_request, too_large
from clusterling.services.app import App
from clusterling.services.request import Peer, Request, Response, Sink, Stream, StreamingResponse
from clusterling.services.watch import stop_spread

_log = logging.getLogger(__name__)

IDLE_S: Final = 90.0  # Between requests, and for a head to arrive whole (Go's IdleTimeout upstream).
HANDSHAKE_S: Final = 10.0
SHUTDOWN_S: Final = 3.0  # For a peer to say goodbye to TLS.
LINGER_S: Final = 2.0  # For the rest of a body that nobody wanted.
DRAIN_S: Final = 60.0  # For a peer to take what a whole answer left in the buffer.
LINE_BYTES_MAX: Final = 48 * 1024
FIELD_BYTES_MAX: Final = 16 * 1024
FIELDS_MAX: Final = 128
BACKLOG: Final = 1024
JOIN_BYTES_MAX: Final = 64 * 1024  # Bodies up to here are copied behind their head; longer ones go beside it.
BUFFERED_BYTES_MAX: Final = 1024 * 1024

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Listener:
    """An open socket that serves an App. `port` is the real one where 0 was asked for."""

    def __init__(self, server: asyncio.Server, web_server: _Server, host: str, port: int) -> None:
        self._server = server
        self._web_server = web_server
        self.host = host
        self.port = port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._web_server.connections)

    @property
    def _connections(self) -> list[_Connection]:
        return [one for one in self._web_server.connections if isinstance(one, _Connection)]

    async def close(self, grace_s: float = 10.0) -> None:
        """Accepts no more, ends watches cleanly within `grace_s`, lets requests in flight finish, closes the rest."""
        self._server.close()
        until = time.monotonic() + grace_s
        self._web_server.pre_shutdown()
        streams = [connection.stream for connection in self._connections if connection.stream is not None]
        await stop_spread(streams, min(grace_s / 2, 1.0))
        await self._web_server.shutdown(max(until - time.monotonic(), 0.1))
        try:
            async with asyncio.timeout(SHUTDOWN_S + 1):
                await self._server.wait_closed()
        except TimeoutError:
            _log.warning("connections would not close port=%d", self.port)


async def serve(app: App, host: str, port: int, ssl: tls.SSLContext | None = None) -> Listener:
    """Opens a listener; requests are served from then on by tasks of their connections. Raises OSError."""
    loop = asyncio.get_running_loop()
    if ssl is not None:
        ssl.set_alpn_protocols(["http/1.1"])
        if ssl.sni_callback is None:
            ssl.sni_callback = _remember_server_name
    web_server = _Server(_handler(app))
    server = await loop.create_server(
        web_server,
        host,
        port,
        ssl=ssl,
        backlog=BACKLOG,
        ssl_handshake_timeout=HANDSHAKE_S if ssl is not None else None,
        ssl_shutdown_timeout=SHUTDOWN_S if ssl is not None else None,
    )
    real_port: int = server.sockets[0].getsockname()[1]
    return Listener(server, web_server, host, real_port)


def _remember_server_name(ssl_object: tls.SSLObject, name: str | None, context: tls.SSLContext) -> None:
    """Under asyncio a server's `ssl_object.server_hostname` is None; what is kept here can be read."""
    ssl_object.clusterling_server_name = name or ""  # type: ignore[attr-defined]


class _Server(web.Server):
    """Makes connections that know their peer and tell a stream when it is gone."""

    def __init__(self, handler: Callable[[web.BaseRequest], Any]) -> None:
        super().__init__(handler)

    @override
    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=self._loop,
            keepalive_timeout=IDLE_S,
            access_log=None,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )


class _Connection(web.RequestHandler):
    __slots__ = ("_peer", "on_drain", "stream")

    def __init__(self, manager: _Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._peer: Peer | None = None
        self.on_drain: Callable[[], None] | None = None
        self.stream: Stream | None = None  # The body that is being written, if it is one.

    @property
    def peer(self) -> Peer:
        peer = self._peer
        if peer is None:
            peer = self._peer = _peer_of(self.transport)
        return peer

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_drain is not None:
            self.on_drain()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.stream is not None:
            self.stream.stop()

    async def drained(self) -> None:
        """Waits until the transport has room. Raises ConnectionError once the peer is gone."""
        await self._drain_helper()

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP gets Go's words for it, and the connection ends."""
        _log.debug("bad request peer=%s error=%r", self.peer.address, exc)
        phrase = HTTPStatus(status).phrase
        response = Response(status, f"{status} {phrase}".encode(), "text/plain; charset=utf-8")
        return _Answer(self, response, "", head_only=False, keep_alive=False)  # type: ignore[return-value]


def _peer_of(transport: asyncio.Transport | None) -> Peer:
    if transport is None:
        return Peer("")
    name = transport.get_extra_info("peername")
    address = name[0] if isinstance(name, tuple) else ""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return Peer(address)
    certificate: bytes | None = ssl_object.getpeercert(binary_form=True)
    return Peer(address, certificate, getattr(ssl_object, "clusterling_server_name", ""))


def _handler(app: App) -> Callable[[web.BaseRequest], Any]:
    monotonic = time.monotonic

    async def handle(raw: web.BaseRequest) -> _Answer:
        connection = raw.protocol
        assert isinstance(connection, _Connection), "_Server makes no others"
        path, _, query = raw.raw_path.partition("?")
        chunked = raw.version >= HttpVersion11
        request = Request(
            raw.method,
            path,
            query,
            raw.headers,
            _Body(raw, connection).read,
            peer=connection.peer,
            arrived_s=monotonic(),
            chunked=chunked,
        )
        response = await app(request)
        return _Answer(
            connection,
            response,
            request.id,
            head_only=raw.method == "HEAD",
            keep_alive=raw.keep_alive and response.status != 413 and (chunked or not _streams(response)),
            old=not chunked,
        )

    return handle


def _streams(response: Response) -> bool:
    return isinstance(response, StreamingResponse)


class _Body:
    """The body of one request, read when a verb asks for it."""

    __slots__ = ("_connection", "_raw")

    def __init__(self, raw: web.BaseRequest, connection: _Connection) -> None:
        self._raw = raw
        self._connection = connection

    async def read(self, limit: int) -> bytes:
        raw = self._raw
        if not raw.body_exists:
            return b""
        error = too_large(f"limit is {limit}")
        if (raw.content_length or 0) > limit:
            raise error
        if raw.headers.get("Expect", "").lower() == "100-continue" and self._connection.transport is not None:
            self._connection.transport.write(_CONTINUE)
        parts: list[bytes] = []
        size = 0
        try:
            while part := await raw.content.readany():
                size += len(part)
                if size > limit:
                    raise error
                parts.append(part)
        except web.RequestPayloadError as broken:
            raise ApiError(
                400, "BadRequest", f"the body of the request could not be read: {broken}"
            ) from broken
        except ConnectionError as gone:
            # Nobody reads this answer; it only keeps those who leave out of the log of what went wrong.
            raise bad_request("the client went away before its body had come") from gone
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Sink(Sink):
    """A connection's transport, for a stream."""

    __slots__ = ("_connection", "_transport")

    def __init__(self, connection: _Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport

    @override
    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    @property
    @override
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        self._connection.on_drain = callback


class _Date:
    """The Date header's line, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._line = f"Date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")
        return self._line


_date: Final = _Date()
_heads: dict[tuple[int, str, bool], bytes] = {}


def _head(status: int, content_type: str, cacheable: bool) -> bytes:
    """Status line and the fields that all such answers share."""
    key = (status, content_type, cacheable)
    head = _heads.get(key)
    if head is None:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        text = f"HTTP/1.1 {status} {phrase}\r\n"
        if content_type:
            text += f"Content-Type: {content_type}\r\n"
        if not cacheable:
            text += "Cache-Control: no-cache, private\r\n"
        head = text.encode("ascii")
        if len(_heads) < 256:
            _heads[key] = head
    return head


class _Answer:
    """A Response on its way out, in the shape of what aiohttp calls a response."""

    __slots__ = ("_connection", "_head_only", "_id", "_old", "keep_alive", "response", "status")

    def __init__(
        self,
        connection: _Connection,
        response: Response,
        audit_id: str,
        *,
        head_only: bool,
        keep_alive: bool,
        old: bool = False,
    ) -> None:
        self._connection = connection
        self.response = response
        self.status = response.status
        self._id = audit_id
        self._head_only = head_only
        self._old = old
        self.keep_alive = keep_alive

    async def prepare(self, raw: web.BaseRequest) -> None:
        response, transport = self.response, self._connection.transport
        if isinstance(response, StreamingResponse):
            await self._stream(response, transport)
            return
        if transport is None:
            raise ConnectionResetError("the client has gone")
        body = response.body
        if self._head_only or not body:
            transport.write(self._make_head(len(body)))
        elif len(body) <= JOIN_BYTES_MAX:
            transport.write(self._make_head(len(body)) + body)
        else:
            transport.writelines((self._make_head(len(body)), body))
        # However small the answers are: requests can be sent one behind the other, and their answers never read.
        if transport.get_write_buffer_size() > BUFFERED_BYTES_MAX:
            await self._wait_for_room(transport)

    async def write_eof(self) -> None:
        """Everything has been written by `prepare`."""

    async def _wait_for_room(self, transport: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._connection.drained()
        except TimeoutError:
            transport.abort()

    async def _stream(self, response: StreamingResponse, transport: asyncio.Transport | None) -> None:
        connection = self._connection
        connection.stream = response.stream
        try:
            if transport is None or transport.is_closing():
                return
            transport.write(self._make_head(None))
            if self._head_only:
                return
            await response.stream.run(_Sink(connection, transport))
            if not (self._old or transport.is_closing()):
                transport.write(_LAST_CHUNK)
        finally:
            connection.stream = connection.on_drain = None
            await response.close()

    def _make_head(self, length: int | None) -> bytes:
        """`length` None: the body is chunked, or ends with the connection."""
        response = self.response
        parts = [b"", _date.line()]
        cacheable = False
        for name, value in response.headers:
            cacheable = cacheable or name == "Cache-Control"
            parts.append(f"{name}: {_one_line(value)}\r\n".encode(errors="replace"))
        parts[0] = _head(response.status, response.content_type, cacheable)
        if self._id:
            parts.append(b"Audit-Id: %b\r\n" % self._id.encode("ascii"))
        if length is None:
            if not self._old:
                parts.append(b"Transfer-Encoding: chunked\r\n")
        elif response.status != 304:
            parts.append(b"Content-Length: %d\r\n" % length)
        if not self.keep_alive:
            parts.append(b"Connection: close\r\n")
        elif self._old:
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


def _one_line(value: str) -> str:
    """A header's value can hold no line break, whoever made it."""
    return value.replace("\r", " ").replace("\n", " ") if "\n" in value or "\r" in value else value
