"""The server's sockets: HTTP/1.1 and TLS on one side, Request and Response on the other.

Theory of operation
-------------------
A connection is a protocol of the event loop; httptools (llhttp, Node's parser) finds the requests in what arrives. A
request is run right there, in the callback that brought its last byte of head or body, up to its first wait: most reads
have been answered by then, and never cost a task, a future or a turn of the loop. What does wait is handed to the
connection's one task, which is also the current task while the callback runs, so that timeouts work in both.
Where there are other replicas, a request is begun only when the barrier's answer is there, in a callback as well.

Head and body leave in one write, the unchanging part of a head is made once, and a stream writes to the transport itself.

What a client sends before its bodies is nearly the same each time. So header fields that the parser has read on a
connection are kept beside their bytes, and a request that comes whole, with these very bytes, is taken without it
(`_take_known`). What differs in anything goes to the parser, which alone says what is HTTP.

Rules of this file
- One request of a connection at a time, in the order of arrival; those sent behind it wait in `_queue`, and reading
  pauses where they are many or their bodies are long. After `TURNS` in a row other connections have the loop.
- Bytes are counted until something came of them: a head, a trailer, the frame of a chunk are all bounded by `HEAD_BYTES_MAX`.
- The raw target goes through as it came: nothing here decodes or tidies a path (decision 19).
- What is no HTTP is refused in the words of Go's net/http, which upstream's clients have seen.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl as tls
import time
from asyncio.tasks import _enter_task, _leave_task
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final, cast

import httptools
from typing_extensions import override

from clusterling.machinery.errors import bad_request, too_large
from clusterling.services import websocket
from clusterling.services.accepting import SHUTDOWN_S, Door, Place
from clusterling.services.app import App
from clusterling.services.begun import Begun
from clusterling.services.request import (
    Header,
    Headers,
    Peer,
    Request,
    Response,
    Sink,
    Stream,
    StreamingResponse,
)
from clusterling.services.watch import stop_spread

_log = logging.getLogger(__name__)

IDLE_S: Final = 90.0  # Between requests, and for a head to arrive whole (Go's IdleTimeout upstream).
LINGER_S: Final = (
    1.0  # For what a peer still sends that nobody wants: closed at once, it would lose the answer.
)
DRAIN_S: Final = 60.0  # For a peer to take what a whole answer left in the buffer.
HEAD_BYTES_MAX: Final = 64 * 1024
TURNS: Final = 8  # Requests of one connection, sent one behind the other, that are run in a row.
QUEUED_MAX: Final = 32  # Such requests that wait before reading pauses.
# Of a body, from one connection in a round of the loop: the loop would read and decrypt as many megabytes as there are.
ROUND_BYTES_MAX: Final = 64 * 1024
UNREAD_BYTES_MAX: Final = 256 * 1024  # Of a body that nobody has asked for yet, before reading pauses.
JOIN_BYTES_MAX: Final = 64 * 1024  # Bodies up to here are copied behind their head; longer ones go beside it.
WHOLE_BYTES_MAX: Final = (
    768 * 1024
)  # Answers up to here are written at once: half a millisecond of encryption.
PART_BYTES: Final = 256 * 1024
BUFFERED_BYTES_MAX: Final = 1024 * 1024

KEPT_FIELDS: Final = 4  # Heads of one connection, and
KEPT_FIELDS_BYTES_MAX: Final = 2048  # the longest of them: tokens of a kilobyte are common.
KEPT_IN_VAIN_MAX: Final = 12  # So many in a row that did not come again, and no more are kept.

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Listener:
    """An open socket that serves an App. `port` is the real one where 0 was asked for."""

    def __init__(self, app: App, host: str, port: int) -> None:
        self.app = app
        self.host = host
        self.port = port
        self.leaving = False
        self.closing = False
        self.open: set[_Connection] = set()
        self.established = 0
        self.door: Door | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.open)

    @property
    def accepted(self) -> int:
        """How many there were, before TLS began."""
        return 0 if self.door is None else self.door.accepted

    async def start(self, ssl: tls.SSLContext | None) -> None:
        """Accepts connections from here on. Raises OSError."""
        loop = asyncio.get_running_loop()
        self.door = Door(self.app.addresses, lambda place: _Connection(self, loop, place), ssl)
        self.port = await self.door.open(self.host, self.port)

    def leave(self) -> None:
        """Serves on, and closes each connection behind its next answer, so that clients come back elsewhere."""
        self.leaving = True

    async def close(self, grace_s: float = 10.0, spread_s: float = 1.0) -> None:
        """Accepts no more, ends watches cleanly over `spread_s`, lets requests in flight finish, closes the rest.

        Takes at most the sum of both, and `SHUTDOWN_S` for goodbyes.
        """
        assert self.door is not None, "closed once started"
        self.closing = True
        self.door.close()
        for connection in list(self.open):
            connection.close_when_idle()
        streams = [one.stream for one in self.open if one.stream is not None]
        until = time.monotonic() + spread_s + grace_s
        await stop_spread(streams, spread_s)
        # Of requests that were on their way.
        await stop_spread([one.stream for one in self.open if one.stream is not None], 0.0)
        await self._gone(max(until - time.monotonic(), 0.1))
        for connection in list(self.open):
            connection.abort()
        await self._gone(SHUTDOWN_S)
        await self.door.closed()

    async def _gone(self, within_s: float) -> None:
        """Waits until all connections have ended, so long at most."""
        tasks = [connection.task for connection in self.open]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)


async def serve(app: App, host: str, port: int, ssl: tls.SSLContext | None = None) -> Listener:
    """Opens a listener; requests are served from then on by their connections. Raises OSError."""
    if ssl is not None:
        ssl.set_alpn_protocols(["http/1.1"])
        if ssl.sni_callback is None:
            ssl.sni_callback = _remember_server_name
    listener = Listener(app, host, port)
    await listener.start(ssl)
    return listener


def _remember_server_name(ssl_object: tls.SSLObject, name: str | None, context: tls.SSLContext) -> None:
    """Under asyncio a server's `ssl_object.server_hostname` is None; what is kept here can be read."""
    ssl_object.clusterling_server_name = name or ""  # type: ignore[attr-defined]


class _Incoming:
    """A request whose head has arrived, or, with `refused`, what is no request and how that is answered."""

    __slots__ = ("body", "headers", "keep_alive", "method", "old", "refused", "target")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: _Body | None,
        *,
        keep_alive: bool,
        old: bool,
        refused: Response | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.old = old  # HTTP/1.0
        self.refused = refused


class _Connection(asyncio.Protocol):
    """One peer: bytes in, requests one after the other, answers out."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop, place: Place) -> None:
        self._listener = listener
        self._place = place
        self._app = listener.app
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._between = True  # The parser has seen the end of the last request and nothing of the next.
        self._kept: dict[bytes, dict[str, str]] = {}  # Header fields by their bytes, in both no length.
        self._in_vain = 0
        self._unspent = 0  # Bytes that came since the last of which something has come.
        self._target = b""
        self._fields: dict[str, str] = {}
        self._hosts = False  # More than one.
        self._receiving: _Body | None = None  # The body whose bytes arrive now.
        self._in_body = False
        self._deaf = False  # What still arrives means nothing.
        self._held: bytes | None = None  # Came behind the last request, which may become a WebSocket.
        self._hearing: websocket.Hearing | None = None  # It did.
        self._queue: deque[_Incoming] = deque()
        self._current: _Incoming | None = None
        self._begun: Begun[None] | None = None
        self._parked: asyncio.Future[None] | None = None
        self._in_task = False
        self._ending = False  # No request begins any more.
        self._paused = False
        self._resting = False  # Until the next round of the loop.
        self._tenant: Hashable = None  # Whom its requests count for, as far as is known: see `Arrivals`.
        self._active_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = False
        self.on_drain: Callable[[], None] | None = None
        self.stream: Stream | None = None  # The body that is being written, if it is one.

    # ------------------------------------------------------------------ life

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._place.entered = True
        self.transport = cast(asyncio.Transport, transport)
        self._peer = _peer_of(self.transport, self._place.address)
        self._tenant = self._peer.address
        self._listener.open.add(self)
        self._listener.established += 1
        self.task = self._loop.create_task(self._go_on())
        self._active_s = self._loop.time()
        self._timer = self._loop.call_later(IDLE_S, self._look)
        if self._listener.closing:
            self.close_when_idle()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._listener.open.discard(self)
        self._place.leave()
        self._deaf = self._ending = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._receiving is not None:
            self._receiving.fail("the client went away before its body had come")
            self._receiving = None
        self._have_room()
        if self.stream is not None:
            self.stream.stop()
        self._wake()
        # It knows this connection. What is known in a circle stays, with all that TLS holds, until Python looks for garbage, and
        # then goes together with hundreds of others: that took 15 ms at a time.
        del self._parser

    def close_when_idle(self) -> None:
        """Begins no more requests: ends at once, or behind the one in flight."""
        self._ending = True
        if self._current is None:
            self.transport.close()

    def abort(self) -> None:
        """Ends now, whatever is in flight."""
        self._ending = True
        self.transport.abort()
        self.task.cancel()

    def _look(self) -> None:
        """Ends a connection that has had no request for `IDLE_S`; closing one would wait for what its peer has not read."""
        until = self._active_s + IDLE_S
        now = self._loop.time()
        if self._current is None and now >= until:
            self._timer = None
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            else:
                self.transport.close()
        else:
            self._timer = self._loop.call_later(
                IDLE_S if self._current is not None else until - now, self._look
            )

    # ------------------------------------------------------------------ reading

    @override
    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._hearing is not None:
            self._hear(self._hearing, data)
            return
        if self._held is not None:
            self._held += data
            return
        if not (self._between and self._take_known(data)):
            self._read(data)
        if self._queue and self._current is None:
            self._serve()
        if self._receiving is not None and len(data) > ROUND_BYTES_MAX and not self._resting:
            self._resting = True
            self._loop.call_soon(self._rested)
        self.pace()

    def _rested(self) -> None:
        self._resting = False
        self.pace()

    def _take_known(self, data: bytes) -> bool:
        """Takes a request that is all there is, and whose fields are known. False: it is for the parser to read."""
        line = _LINE.match(data) if self._kept and not self._unspent else None
        if line is None:
            return False
        head, length, end = _head_of(data, line.end())
        fields = self._kept.get(head)
        if fields is None or len(data) - end != (length or 0):
            return False
        if length is not None:
            fields = {**fields, "content-length": str(length)}
        self._in_vain = 0
        body = _Body.whole(self, data[end:]) if length else None
        method, target = line.groups()
        self._queue.append(
            _Incoming(
                method.decode(), target.decode(), Headers.lowered(fields), body, keep_alive=True, old=False
            )
        )
        return True

    def _keep(self, data: bytes) -> None:
        """Keeps the fields of the one request that was just read, if they mean the same before any other."""
        line = _LINE.match(data)
        if line is None or not self._between or self._deaf or self._held is not None:
            return
        if not self._queue[-1].keep_alive:
            return  # Nothing that comes behind it is a request.
        head, length, end = _head_of(data, line.end())
        fields, kept = self._fields, self._kept
        if (
            len(data) - end == (length or 0)
            and len(head) <= KEPT_FIELDS_BYTES_MAX
            and fields.get("content-length") == (None if length is None else str(length))
            and _PECULIAR.isdisjoint(fields)
        ):
            self._in_vain += 1
            if self._in_vain > KEPT_IN_VAIN_MAX:
                kept.clear()
                return
            if len(kept) >= KEPT_FIELDS:
                del kept[next(iter(kept))]
            kept[head] = {name: value for name, value in fields.items() if name != "content-length"}

    def _read(self, data: bytes) -> None:
        """Has the parser read what came."""
        is_beginning, before = self._between and not self._unspent, len(self._queue)
        self._unspent += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError:
            _log.exception("reading-failed peer=%s", self._peer.address)
            self.abort()
            return
        except httptools.HttpParserError as error:
            if not self._deaf:
                _log.debug("bad-request peer=%s error=%s", self._peer.address, error)
                self._refuse(400)
        if self._unspent > HEAD_BYTES_MAX and not self._deaf:
            self._refuse(431)
        if is_beginning and len(self._queue) == before + 1 and self._in_vain <= KEPT_IN_VAIN_MAX:
            self._keep(data)

    def _parse(self, data: bytes) -> None:
        """Raises HttpParserError."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
                if self._queue and websocket.is_asked(self._queue[-1].headers):
                    asking = self._queue[-1]
                    asking.headers = websocket.with_bearer(asking.headers)
                    self._held = data
                    return
                # Nobody speaks another protocol here: the request is answered as if it had not asked for one.
            else:
                return

    @override
    def eof_received(self) -> None:
        """The transport closes itself: who no longer writes is taken for gone, as Go's server takes him."""

    def pace(self) -> None:
        """Pauses reading while there is enough to do, and resumes it."""
        body = self._receiving
        enough = (
            len(self._queue) > QUEUED_MAX
            or (body is not None and (body.enough or self._resting))
            or self._held is not None
        )
        if enough != self._paused and not self.transport.is_closing():
            self._paused = enough
            if enough:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _hear(self, hearing: websocket.Hearing, data: bytes) -> None:
        """Takes what the client of a WebSocket sends."""
        answer = hearing.receive(data)
        if answer and not (self._full or self.transport.is_closing()):
            self.transport.write(answer)
        if hearing.over:
            self._deaf = True
            if self.stream is not None:
                self.stream.stop()

    def _go_on_reading(self) -> None:
        """What was held behind a request that did not become a WebSocket is HTTP."""
        held, self._held = self._held, None
        if held:
            self.data_received(held)
        else:
            self.pace()

    def _refuse(self, status: int, why: str = "", *, told: str | None = None) -> None:
        """Answers in Go's words, behind the requests that came before, and reads no more. `told`: all of the words."""
        self._deaf = True
        if self._receiving is not None:
            # The head was good: its request is answered, and told of its body when it reads that.
            self._receiving.fail("it is not well-formed")
            self._receiving.last = True
            self._receiving = None
            return
        text = f"{status} {HTTPStatus(status).phrase}" + (f": {why}" if why else "") if told is None else told
        refused = Response(status, text.encode(), "text/plain; charset=utf-8" if text else "")
        self._queue.append(_Incoming("", "", _NO_HEADERS, None, keep_alive=False, old=False, refused=refused))

    # What httptools calls, in the order of arrival.

    def on_message_begin(self) -> None:
        self._unspent = 0
        self._between = False
        self._target = b""
        self._fields = {}
        self._hosts = False
        self._in_body = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # A trailer.
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        fields = self._fields
        if key not in fields:
            fields[key] = value.decode("utf-8", "surrogateescape").rstrip(" \t")
        elif key == "host":
            self._hosts = True
        elif key == "x-forwarded-for":
            # Each proxy may add a line of its own, behind what the client made up.
            fields[key] += "," + value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True
        if self._deaf:
            return
        parser, fields = self._parser, self._fields
        version = parser.get_http_version()
        old = version == "1.0"
        if version != "1.1" and not old:
            self._refuse(505, "unsupported protocol version")
            return
        if self._hosts or ("host" not in fields and not old):
            self._refuse(400, "too many Host headers" if self._hosts else "missing required Host header")
            return
        if len(self._target) > HEAD_BYTES_MAX:
            self._refuse(431)
            return
        if "expect" in fields and not _expects(fields):
            self._refuse(417, told="")
            return
        body = None
        length = fields.get("content-length", "0")
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].lower() != "chunked":
                # What is compressed on the way would be read as it is.
                self._refuse(501, told="Unsupported transfer encoding")
                return
            body = _Body(self, None, expected=_expects(fields))
        elif length != "0":
            body = _Body(self, int(length), expected=_expects(fields))
        self._receiving = body
        target = self._target.decode("latin-1")
        self._queue.append(
            _Incoming(
                parser.get_method().decode("ascii"),
                target if target[:1] == "/" else _without_authority(target),
                Headers.lowered(fields),
                body,
                keep_alive=parser.should_keep_alive(),
                old=old,
            )
        )

    def on_body(self, data: bytes) -> None:
        self._unspent = 0
        if self._receiving is not None:
            self._receiving.feed(data)

    def on_message_complete(self) -> None:
        self._unspent = 0
        self._between = True
        if self._receiving is not None:
            self._receiving.end()
            self._receiving = None
        if self._queue and not self._queue[-1].keep_alive:
            self._deaf = True

    # ------------------------------------------------------------------ serving

    def _serve(self) -> None:
        """Runs the requests that wait, each up to its first wait, until one does wait."""
        turns, arrivals = TURNS, self._app.arrivals
        while self._queue and self._current is None and not self._ending:
            if turns == 0:
                self._loop.call_soon(self._go_on_serving)
                return
            turns -= 1
            self._current = incoming = self._queue.popleft()
            request = None if incoming.refused is not None else self._request(incoming)
            if not arrivals.at_once(self._tenant):
                arrivals.later(self._tenant, partial(self._begin_in_turn, incoming, request))
                return
            if not self._begin_or_ask(incoming, request):
                return

    def _begin_or_ask(self, incoming: _Incoming, request: Request | None) -> bool:
        """Runs a request up to its first wait; False: when the barrier has answered."""
        barrier = self._app.barrier
        if barrier is not None and request is not None:
            asked = barrier.ahead(request)
            if asked is not None:
                asked.then(partial(self._begin_late, incoming, request))
                return False
        self._begin(incoming, request)
        return True

    def _begin(self, incoming: _Incoming, request: Request | None) -> None:
        """Runs a request up to its first wait."""
        work = self._exchange(incoming, request)
        enters = not self._in_task
        if enters:
            _enter_task(self._loop, self.task)
        try:
            waits_for = work.send(None)
        except StopIteration:
            return
        finally:
            if enters:
                _leave_task(self._loop, self.task)
        self._begun = Begun(work, waits_for)
        self._wake()

    def _begin_in_turn(self, incoming: _Incoming, request: Request | None) -> None:
        """Runs a request that had waited for its tenant's turn, unless nobody waits for it any more."""
        if self.transport.is_closing():
            self._current = None
        elif self._begin_or_ask(incoming, request):
            self._go_on_serving()

    def _begin_late(self, incoming: _Incoming, request: Request) -> None:
        """Runs a request that had waited for the barrier, unless nobody waits for it any more."""
        if self.transport.is_closing():
            self._current = None
            return
        self._begin(incoming, request)
        self._go_on_serving()

    def _go_on_serving(self) -> None:
        self._serve()
        self.pace()

    def _wake(self) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    async def _go_on(self) -> None:
        """Sees through what had to wait, until the connection has ended."""
        try:
            while True:
                if self._begun is None:
                    if self not in self._listener.open:
                        return
                    self._parked = self._loop.create_future()
                    await self._parked
                    self._parked = None
                begun, self._begun = self._begun, None
                if begun is not None:
                    self._in_task = True
                    await begun
                    self._go_on_serving()
                    self._in_task = False
        finally:
            if self._begun is not None:
                self._begun.close()

    def _request(self, incoming: _Incoming) -> Request:
        path, _, query = incoming.target.partition("?")
        body = incoming.body
        return Request(
            incoming.method,
            path,
            query,
            incoming.headers,
            _no_body if body is None else body.read,
            peer=self._peer,
            chunked=not incoming.old,
        )

    async def _exchange(self, incoming: _Incoming, request: Request | None) -> None:
        """A request, its answer, and what becomes of the connection after it. No request: what was sent is refused."""
        try:
            if request is None:
                assert incoming.refused is not None, "what is not refused is a request"
                self._write(incoming, incoming.refused, "")
            else:
                response = await self._app(request)
                self._tenant = request.tenant
                self._app.turnstile.heed(request.tenant)
                if isinstance(response, StreamingResponse):
                    await self._stream(incoming, response, request.id)
                else:
                    self._write(incoming, response, request.id)
                    if (
                        response.rest_bytes or len(response.body) > WHOLE_BYTES_MAX
                    ) and incoming.method != "HEAD":
                        await self._write_rest(request, _parts_behind(response))
                if self._full:
                    await self._drained()
        except ConnectionError:
            self.transport.abort()
        except Exception:  # noqa: BLE001 - whatever it was, this connection alone ends
            _log.exception("answering-failed peer=%s", self._peer.address)
            self.transport.abort()
        finally:
            self._finish(incoming)

    def _finish(self, incoming: _Incoming) -> None:
        self._current = None
        self._active_s = self._loop.time()
        if self._held is not None and not self._queue:
            # It stood behind this request.
            self._loop.call_soon(self._go_on_reading)
        body = incoming.body
        whole = incoming.refused is None
        if body is not None and not body.ended:
            body.discard()
            self.pace()
            whole = False
            if incoming.keep_alive and not (self._ending or body.last):
                self._loop.call_later(LINGER_S, self._lose_patience, body)
                return
        if self._ending or not (whole and incoming.keep_alive):
            self._ending = True
            if whole:
                self.transport.close()
            else:
                self._loop.call_later(LINGER_S, self.transport.close)

    def _lose_patience(self, body: _Body) -> None:
        if not body.ended:
            self.close_when_idle()

    # ------------------------------------------------------------------ writing

    @override
    def pause_writing(self) -> None:
        self._full = True

    @override
    def resume_writing(self) -> None:
        self._full = False
        self._have_room()
        if self.on_drain is not None:
            self.on_drain()

    def _have_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _write(self, incoming: _Incoming, response: Response, audit_id: str) -> None:
        """Head and body in one write. Raises ConnectionError where the peer has gone."""
        transport = self.transport
        if transport.is_closing():
            raise ConnectionResetError("the client has gone")
        sent, body = incoming.body, response.body
        if response.status == 413 or (sent is not None and sent.expected and not sent.ended):
            incoming.keep_alive = False
        elif self._listener.leaving and not self._queue:
            # Between requests, and told so: nothing that is on its way gets lost.
            incoming.keep_alive = False
        keep = incoming.keep_alive and not self._ending
        length = response.size
        head = _head(response, audit_id, incoming, keep=keep, length=length)
        if incoming.method == "HEAD" or not body:
            transport.write(head)
        elif len(body) <= JOIN_BYTES_MAX:
            transport.write(head + body)
        elif len(body) > WHOLE_BYTES_MAX:
            transport.writelines((head, memoryview(body)[:WHOLE_BYTES_MAX]))
        else:
            transport.writelines((head, body))

    async def _write_rest(self, request: Request, parts: Iterator[bytes | memoryview]) -> None:
        """What follows in a big answer, as fast as it is read. Raises ConnectionError where the peer has gone, or will not read.

        Making a part, and encrypting it, takes a turn of its tenant.
        """
        transport, tenant, run = self.transport, request.tenant, self._app.turnstile.run

        def write() -> bool:
            part = next(parts, b"")
            transport.write(part)
            return bool(part)

        more = True
        while more:
            if self._full:
                await self._drained()
            if transport.is_closing():
                raise ConnectionResetError("the client has gone")
            more = await run(tenant, write, long=True)

    async def _drained(self) -> None:
        """Waits while the peer leaves too much in the buffer. Raises ConnectionError where it will not read.

        However small the answers are: requests can be sent one behind the other, and their answers never read.
        """
        if self.transport.get_write_buffer_size() <= BUFFERED_BYTES_MAX:
            return
        self._room = self._loop.create_future()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._room
        except TimeoutError as late:
            raise ConnectionAbortedError("the client does not read") from late
        finally:
            self._room = None

    async def _stream(self, incoming: _Incoming, response: StreamingResponse, audit_id: str) -> None:
        transport = self.transport
        self.stream = response.stream
        incoming.keep_alive = incoming.keep_alive and not incoming.old
        try:
            if transport.is_closing():
                return
            if response.status == 101:
                await self._talk(incoming, response)
                return
            keep = incoming.keep_alive and not self._ending
            transport.write(_head(response, audit_id, incoming, keep=keep, length=None))
            if incoming.method == "HEAD":
                return
            await response.stream.run(_Sink(self, transport))
            if not (incoming.old or transport.is_closing()):
                transport.write(_LAST_CHUNK)
        finally:
            self.stream = self.on_drain = None
            await response.close()

    async def _talk(self, incoming: _Incoming, response: StreamingResponse) -> None:
        """A stream over a WebSocket, which this connection is from here to its end."""
        incoming.keep_alive = False
        hearing = self._hearing = websocket.Hearing()
        transport = self.transport
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % _field_lines(response.headers))
        held, self._held = self._held, None
        if held:
            self._hear(hearing, held)
        self.pace()
        await response.stream.run(_Sink(self, transport))
        if not transport.is_closing():
            transport.write(hearing.goodbye)


def _parts_behind(response: Response) -> Iterator[bytes | memoryview]:
    """What follows the part of a big answer that was written with its head."""
    body = memoryview(response.body)
    for start in range(WHOLE_BYTES_MAX, len(body), PART_BYTES):
        yield body[start : start + PART_BYTES]
    yield from response.rest


def _peer_of(transport: asyncio.Transport, address: str) -> Peer:
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return Peer(address)
    certificate: bytes | None = ssl_object.getpeercert(binary_form=True)
    return Peer(address, certificate, getattr(ssl_object, "clusterling_server_name", ""))


# Lower-case names of the fields that most requests have, as they are spelled there.
_NAMES: Final[dict[bytes, str]] = {
    spelled.encode(): name
    for name in (
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    )
    for spelled in (name, name.title())
}
_NO_HEADERS: Final = Headers({})

# Of targets, what needs no second look: any other is for the parser to judge.
_LINE: Final = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/[-A-Za-z0-9/._~%?=&,:+]{0,1024}) HTTP/1\.1(?=\r\n)"
)
# No blank begins the next line: it would go on with the number.
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (0|[1-9][0-9]{0,6})(?=\r\n[^ \t])")
# Fields for which it matters what else comes, or that change what becomes of the connection.
_PECULIAR: Final = frozenset({"transfer-encoding", "expect", "upgrade"})


def _head_of(data: bytes, begin: int) -> tuple[bytes, int | None, int]:
    """The header fields behind a request's line without its body's length, that length, and where they end."""
    end = data.find(b"\r\n\r\n", begin) + 4
    head = data[begin:end]
    length = _LENGTH.search(head)
    if length is None:
        return head, None, end
    return head[: length.start()] + head[length.end() :], int(length[1]), end


def _without_authority(target: str) -> str:
    """What follows the host of an absolute target (RFC 9112, 3.2.2); any other stays as it is."""
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in {"http", "https"}:
        return target
    _, slash, path = rest.partition("/")
    return slash + path or "/"


def _expects(fields: dict[str, str]) -> bool:
    return fields.get("expect", "").lower() == "100-continue"


async def _no_body(limit: int) -> Sequence[bytes]:
    return ()


class _Body:
    """The body of one request: fed as it arrives, read when a verb asks for it."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_error",
        "_length",
        "_parts",
        "_size",
        "_wanted",
        "ended",
        "expected",
        "last",
    )

    def __init__(self, connection: _Connection, length: int | None, *, expected: bool) -> None:
        self._connection = connection
        self._length = length
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted: int | None = None  # Bytes that a reader takes; None before one came.
        self._arrived: asyncio.Future[None] | None = None
        self._error = ""
        self.ended = False
        self.expected = expected  # The client waits to be told that it should go on.
        self.last = False  # Nothing behind it can be understood.

    @classmethod
    def whole(cls, connection: _Connection, data: bytes) -> _Body:
        """One that has come."""
        body = cls(connection, len(data), expected=False)
        body._parts.append(data)
        body._size = len(data)
        body.ended = True
        return body

    @property
    def enough(self) -> bool:
        """Whether reading from the peer should pause."""
        return self._wanted is None and self._size > UNREAD_BYTES_MAX

    def feed(self, data: bytes) -> None:
        self.expected = False
        self._size += len(data)
        if self._wanted is None or self._size <= self._wanted:
            self._parts.append(data)
        else:
            self._parts.clear()
            self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    def fail(self, why: str) -> None:
        self._error = why
        self._tell()

    def discard(self) -> None:
        """Nobody reads it, or no further."""
        self._wanted = 0
        self._parts.clear()

    def _tell(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def read(self, limit: int) -> Sequence[bytes]:
        """The whole body, in the parts that it came in. Raises ApiError 413 over `limit` bytes, 400 where it does not come whole."""
        if (self._length or 0) > limit:
            raise too_large(f"limit is {limit}")
        self._wanted = limit
        if not self.ended and not self._error and self._size <= limit:
            if self.expected and not self._connection.transport.is_closing():
                self.expected = False
                self._connection.transport.write(_CONTINUE)
            self._connection.pace()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._size > limit:
            raise too_large(f"limit is {limit}")
        if self._error:
            raise bad_request(f"the body of the request could not be read: {self._error}")
        parts, self._parts = self._parts, []
        return parts


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
_shared_heads: dict[tuple[int, str, bool], bytes] = {}


def _shared_head(status: int, content_type: str, cacheable: bool) -> bytes:
    """Status line and the fields that all such answers share."""
    key = (status, content_type, cacheable)
    head = _shared_heads.get(key)
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
        if len(_shared_heads) < 256:
            _shared_heads[key] = head
    return head


def _head(response: Response, audit_id: str, incoming: _Incoming, *, keep: bool, length: int | None) -> bytes:
    """`length` None: the body is chunked, or ends with the connection."""
    fields = b""
    cacheable = False
    if response.headers:
        fields = _field_lines(response.headers)
        cacheable = any(name == "Cache-Control" for name, _ in response.headers)
    cacheable = cacheable or incoming.refused is not None
    if audit_id:
        fields += b"Audit-Id: %b\r\n" % audit_id.encode("ascii")
    if length is None:
        if not incoming.old:
            fields += b"Transfer-Encoding: chunked\r\n"
    elif response.status != 304:
        fields += b"Content-Length: %d\r\n" % length
    if not keep:
        fields += b"Connection: close\r\n"
    elif incoming.old:
        fields += b"Connection: keep-alive\r\n"
    shared = _shared_head(response.status, response.content_type, cacheable)
    return b"%b%b%b\r\n" % (shared, _date.line(), fields)


def _field_lines(headers: tuple[Header, ...]) -> bytes:
    return b"".join(f"{name}: {_one_line(value)}\r\n".encode(errors="replace") for name, value in headers)


def _one_line(value: str) -> str:
    """A header's value can hold no line break, whoever made it."""
    return value.replace("\r", " ").replace("\n", " ") if "\n" in value or "\r" in value else value
