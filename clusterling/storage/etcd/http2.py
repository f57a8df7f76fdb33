"""One connection to a peer that speaks HTTP/2, as a client of gRPC needs it: streams, windows, and signs of life.

Theory of operation. A `Stream` is one request and what comes back. The connection writes it as far as the peer's windows
reach, gives it what arrives for it, and tells it of its end exactly once: by trailers, or by `failed`, which says whether
the request can have been understood. What a peer has not been sent whole, or says it has not looked at (GOAWAY,
REFUSED_STREAM), has certainly done nothing.

Blocks of headers are decoded once for each content. The peer is told to keep no table of headers, and from its word that
it does not, the same bytes mean the same whenever they come; those of a success come with every answer. Nothing that is
sent here needs a table either.

Rules of this file: methods called by the event loop raise nothing; what a peer may not do ends the connection, and what
ends the connection ends its streams. HTTP/2 is RFC 9113, its headers are RFC 7541.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from socket import SOCK_STREAM
from typing import Any, Final, cast

from hpack import Decoder, HPACKError
from typing_extensions import override

WINDOW: Final = (
    1 << 30
)  # Of the connection. Whoever does not take what comes holds its own stream back, not this.
STREAM_WINDOW: Final = 1 << 24
STREAMS_MAX: Final = 1 << 30  # On one connection, then it is made anew.
HEADERS_BYTES_MAX: Final = 1 << 16
BLOCKS_MAX: Final = 32  # Blocks of headers that are remembered,
BLOCK_BYTES_MAX: Final = 256  # each no longer than this.
QUIET_S: Final = (
    10.0  # Whoever is waited for so long without a word is asked; etcd bears one such question in 5 s,
)
PONG_S: Final = 4.0  # and must answer within this time.
OWED_S: Final = 0.5
OWED_BYTES_MAX: Final = 1 << 10

Fields = Mapping[bytes, bytes]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PROMISE = 0, 1, 3, 4, 5
_PING, _GOAWAY, _UPDATE, _CONTINUATION = 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 1, 4, 8, 32, 1
_TABLE_SIZE, _PUSH, _STREAMS, _INITIAL_WINDOW, _FRAME_SIZE = 1, 2, 3, 4, 5
_FRAME: Final = struct.Struct(">HBBBI")  # Length in 24 bits, type, flags, stream.
_SETTING: Final = struct.Struct(">HI")
_HEAD_BYTES: Final = 9
_FRAME_BYTES: Final = 1 << 14  # What is taken, and what a peer takes that has not said otherwise.
_WINDOW_FIRST: Final = 65_535
_WINDOW_MAX: Final = (1 << 31) - 1
_REFUSED_STREAM, _CANCEL = 7, 8


class _Garbled(Exception):
    """The peer did what HTTP/2 does not allow."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


class Stream:
    """A request, and what to do with its answer. Its methods are called by the connection alone, `failed` at most once."""

    __slots__ = ("credit", "number", "open", "unsent", "window")

    def __init__(self) -> None:
        self.number = 0  # 0 until it is sent.
        self.open = True
        self.window = 0  # What the peer still takes of it.
        self.credit = 0  # Bytes taken that the peer has not been told of.
        self.unsent: memoryview | None = None

    def headers(self, fields: Fields, *, last: bool) -> None:
        """A block of headers; the last of them are the trailers, and end the stream."""
        raise NotImplementedError

    def data(self, payload: bytes) -> bool:
        """Takes a piece of the body. Whether the peer may send as much again; if not, `Connection.grant` says when."""
        raise NotImplementedError

    def failed(self, reason: str, *, sent: bool) -> None:
        """There will be no more. Where it was not `sent`, the peer has certainly done nothing."""
        raise NotImplementedError


class Connection(asyncio.Protocol):
    """Made by `connect`. `usable` until it takes no new streams; `gone` when the transport is closed."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.usable = True
        self.broken = ""  # Why.
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        # Requests beyond what the peer takes at once, and those with a rest that no window is open for.
        self._queued: deque[tuple[Stream, bytes, bytes, bool]] = deque()
        self._blocked: dict[int, tuple[Stream, bool]] = {}
        self._last = -1
        self._window = _WINDOW_FIRST
        self._stream_window = _WINDOW_FIRST
        self._frame_bytes = _FRAME_BYTES
        self._streams_max = _WINDOW_MAX
        self._credit = 0
        self._rest = b""
        self._headers: tuple[int, bool, bytearray] | None = None  # A block that goes on in the next frame.
        self._decoder = Decoder()
        self._blocks: dict[bytes, Fields] = {}
        self._tableless = False
        self._owed = b""
        self._paying: asyncio.TimerHandle | None = None
        self._heard = loop.time()
        self._asking: asyncio.TimerHandle | None = None

    # The transport.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it.
        ours = ((_TABLE_SIZE, 0), (_PUSH, 0), (_INITIAL_WINDOW, STREAM_WINDOW))
        settings = b"".join(_SETTING.pack(name, value) for name, value in ours)
        update = _frame(_UPDATE, 0, 0, (WINDOW - _WINDOW_FIRST).to_bytes(4, "big"))
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + update)
        self._asking = self._loop.call_later(QUIET_S, self._listen)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._break(f"the connection was lost: {exc}" if exc else "the peer closed the connection")
        if not self.gone.done():
            self.gone.set_result(None)

    @override
    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        try:
            while end - position >= _HEAD_BYTES and not self.broken:
                high, low, kind, flags, number = _FRAME.unpack_from(data, position)
                size = high << 8 | low
                if size > _FRAME_BYTES:
                    raise _Garbled(f"a frame of {size} bytes")
                start = position + _HEAD_BYTES
                position = start + size
                if position > end:
                    position = start - _HEAD_BYTES
                    break
                self._take(kind, flags, number & _WINDOW_MAX, data[start:position])
            self._rest = data[position:]
        except (_Garbled, HPACKError) as error:
            self._break(f"the peer does not keep to HTTP/2: {error}")

    def end(self) -> None:
        """Ends it and its streams at once; soon after it is `gone`."""
        self._break("the connection was closed")

    # Sending.

    def send(self, stream: Stream, headers: bytes, body: bytes, *, last: bool) -> None:
        """Sends a request, now or as soon as the peer takes it. `last`: nothing more will be sent on the stream."""
        if self.broken or not self.usable:
            self._fail(stream, self.broken or "the connection takes no more requests", sent=False)
            return
        if len(self._streams) >= self._streams_max:
            self._queued.append((stream, headers, body, last))
            return
        assert self._transport is not None, "it is ready"
        number = stream.number = self._last = self._last + 2
        if number >= STREAMS_MAX:
            self.usable = False
        self._streams[number] = stream
        stream.window = self._stream_window
        size = len(headers)
        assert size <= _FRAME_BYTES, "headers fit into a frame"
        head = _FRAME.pack(size >> 8, size & 0xFF, _HEADERS, _END_HEADERS, number) + headers
        size = len(body)
        if size <= self._window and size <= stream.window and size <= self._frame_bytes:
            self._window -= size
            stream.window -= size
            end = _END_STREAM if last else 0
            self._transport.write(head + _FRAME.pack(size >> 8, size & 0xFF, _DATA, end, number) + body)
        else:
            stream.unsent = memoryview(body)
            self._push(stream, last, head)

    def reset(self, stream: Stream) -> None:
        """Gives a stream up; nothing more is told to it."""
        if not stream.open:
            return
        if stream.number and not self.broken:
            self._write(_frame(_RESET, 0, stream.number, _CANCEL.to_bytes(4, "big")))
        self._drop(stream)

    def grant(self, stream: Stream, size: int) -> None:
        """Lets the peer send `size` bytes more on the stream, which it is told when there is something to tell."""
        stream.credit += size
        if stream.credit > STREAM_WINDOW // 2 and stream.open:
            self._write(_frame(_UPDATE, 0, stream.number, stream.credit.to_bytes(4, "big")))
            stream.credit = 0

    def _push(self, stream: Stream, last: bool, head: bytes = b"") -> None:
        """Sends `head`, and as much of the rest as the windows let through."""
        rest = stream.unsent
        assert rest is not None, "something is left"
        pieces: list[bytes | memoryview] = [head] if head else []
        while room := max(0, min(len(rest), self._window, stream.window, self._frame_bytes)):
            self._window -= room
            stream.window -= room
            end = _END_STREAM if last and room == len(rest) else 0
            pieces += (_FRAME.pack(room >> 8, room & 0xFF, _DATA, end, stream.number), rest[:room])
            rest = rest[room:]
        if pieces:
            self._write(b"".join(pieces))
        if rest:
            stream.unsent = rest
            self._blocked[stream.number] = stream, last
            self._pay()  # Who is kept waiting measures the line by what it is owed.
        else:
            stream.unsent = None
            self._blocked.pop(stream.number, None)

    def _push_all(self) -> None:
        for stream, last in [*self._blocked.values()]:
            self._push(stream, last)

    def _write(self, frames: bytes) -> None:
        assert self._transport is not None, "frames come after the transport"
        self._transport.write(frames)

    def _owe(self, frame: bytes) -> None:
        """Sends soon. etcd measures the line again with the first request after an answer, and that is a packet and a wait more
        each time: so it is not answered with the next request, but where it must know the line, or a few times a second."""
        self._owed += frame
        if self._blocked or len(self._owed) > OWED_BYTES_MAX:
            self._pay()
        elif self._paying is None:
            self._paying = self._loop.call_later(OWED_S, self._pay)

    def _pay(self) -> None:
        if self._paying is not None:
            self._paying.cancel()
            self._paying = None
        if self._owed and not self.broken:
            owed, self._owed = self._owed, b""
            self._write(owed)

    # Receiving.

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._headers is not None and kind != _CONTINUATION:
            raise _Garbled("a frame in the middle of headers")
        if kind == _DATA:
            self._take_data(flags, number, payload)
        elif kind == _HEADERS:
            self._take_headers(flags, number, payload)
        elif not self.ready.done() and (kind != _SETTINGS or flags & _ACK):
            raise _Garbled("something before the settings")
        elif kind == _UPDATE:
            self._take_update(number, payload)
        elif kind == _PING:
            if len(payload) != 8 or number:
                raise _Garbled("a ping of another size")
            if not flags & _ACK:
                self._owe(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS:
            self._take_settings(flags, number, payload)
        elif kind == _RESET:
            self._take_reset(number, payload)
        elif kind == _GOAWAY:
            self._take_goaway(payload)
        elif kind == _CONTINUATION:
            self._take_continuation(flags, number, payload)
        elif kind == _PROMISE:
            raise _Garbled("a promise, which it was told not to make")

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._credit += size
        if self._credit > WINDOW // 2:
            self._write(_frame(_UPDATE, 0, 0, self._credit.to_bytes(4, "big")))
            self._credit = 0
        stream = self._found(number)
        if flags & _PADDED:
            payload = _unpadded(payload)
        if stream is None:
            return
        if not stream.data(payload):
            size -= len(payload)
        if not flags & _END_STREAM:
            self.grant(stream, size)
        elif stream.open:
            self._end(stream, "the answer has no trailers")

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & _PADDED:
            payload = _unpadded(payload)
        if flags & _PRIORITY:
            payload = payload[5:]
        if flags & _END_HEADERS:
            self._take_block(number, payload, last=bool(flags & _END_STREAM))
        else:
            self._headers = number, bool(flags & _END_STREAM), bytearray(payload)

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != number:
            raise _Garbled("headers that go on without a beginning")
        _, last, block = self._headers
        block += payload
        if len(block) > HEADERS_BYTES_MAX:
            raise _Garbled("headers without end")
        if flags & _END_HEADERS:
            self._headers = None
            self._take_block(number, bytes(block), last=last)

    def _take_block(self, number: int, block: bytes, *, last: bool) -> None:
        fields = self._blocks.get(block)
        if fields is None:
            fields = dict(cast(Any, self._decoder.decode(block, raw=True)))
            if self._tableless and len(self._blocks) < BLOCKS_MAX and len(block) <= BLOCK_BYTES_MAX:
                self._blocks[block] = fields
        stream = self._found(number)
        if stream is None:
            return
        if last:
            rest = stream.unsent
            if rest is not None:  # The answer did not need the whole question.
                self.reset(stream)
            else:
                self._drop(stream)
        stream.headers(fields, last=last)

    def _found(self, number: int) -> Stream | None:
        """None: it has been given up, or has ended."""
        stream = self._streams.get(number)
        if stream is None and (number > self._last or not number & 1):
            raise _Garbled(f"stream {number} was never begun")
        return stream

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        if flags & _ACK:
            self._tableless = True
            self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0
            return
        if number or len(payload) % _SETTING.size:
            raise _Garbled("settings of another size")
        for name, value in _SETTING.iter_unpack(payload):
            if name == _STREAMS:
                self._streams_max = value
            elif name == _FRAME_SIZE:
                if not _FRAME_BYTES <= value < 1 << 24:
                    raise _Garbled(f"frames of {value} bytes")
                self._frame_bytes = value
            elif name == _INITIAL_WINDOW:
                if value > _WINDOW_MAX:
                    raise _Garbled(f"a window of {value} bytes")
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
        self._write(_frame(_SETTINGS, _ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._push_all()
        self._send_queued()

    def _take_update(self, number: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & _WINDOW_MAX
        if len(payload) != 4 or not increment:
            raise _Garbled("an update of nothing")
        if number:
            stream = self._found(number)
            if stream is None:
                return
            window = stream.window = stream.window + increment
        else:
            window = self._window = self._window + increment
        if window > _WINDOW_MAX:
            raise _Garbled("a window beyond all bounds")
        if self._blocked:
            self._push_all()

    def _take_reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Garbled("a reset of another size")
        stream = self._found(number)
        if stream is not None:
            code = int.from_bytes(payload, "big")
            self._end(stream, f"the peer reset the stream with code {code}", refused=code == _REFUSED_STREAM)

    def _take_goaway(self, payload: bytes) -> None:
        """No new streams; those that the peer has taken on are seen through."""
        if len(payload) < 8:
            raise _Garbled("a farewell of another size")
        last, code = (int.from_bytes(payload[at : at + 4], "big") & _WINDOW_MAX for at in (0, 4))
        told = payload[8:72].decode("ascii", "replace")
        reason = f"the peer is going away with code {code}{': ' if told else ''}{told}"
        self.usable = False
        for stream, *_ in self._queued:
            self._fail(stream, reason, sent=False)
        self._queued.clear()
        for stream in [*self._streams.values()]:
            if stream.number > last:
                self._end(stream, reason, refused=True)
        if not self._streams:
            self._break(reason)

    # Ends.

    def _end(self, stream: Stream, reason: str, *, refused: bool = False) -> None:
        sent = stream.unsent is None and not refused
        self._drop(stream)
        stream.failed(reason, sent=sent)

    def _fail(self, stream: Stream, reason: str, *, sent: bool) -> None:
        if stream.open:
            stream.open = False
            stream.failed(reason, sent=sent)

    def _drop(self, stream: Stream) -> None:
        """Forgets a stream, which makes room for another."""
        stream.open = False
        stream.unsent = None
        if not stream.number:
            return
        self._streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
        if self._queued:
            self._send_queued()
        elif not self._streams and not self.usable:
            self._break("the peer has gone away")

    def _send_queued(self) -> None:
        while self._queued and len(self._streams) < self._streams_max and self.usable:
            stream, headers, body, last = self._queued.popleft()
            if stream.open:
                self.send(stream, headers, body, last=last)

    def _listen(self) -> None:
        """Asks a peer that is waited for, and has said nothing for long, whether it is there."""
        now = self._loop.time()
        quiet = now - self._heard
        if quiet < QUIET_S or not self._streams:
            pause = QUIET_S - quiet if quiet < QUIET_S else QUIET_S
            self._asking = self._loop.call_later(pause, self._listen)
            return
        self._write(_frame(_PING, 0, 0, b"clusterl"))
        self._asking = self._loop.call_later(PONG_S, self._judge, now)

    def _judge(self, asked: float) -> None:
        if self._heard < asked:
            self._break(f"the peer has been silent for {self._loop.time() - self._heard:.0f} s")
        else:
            self._listen()

    def _break(self, reason: str) -> None:
        if self.broken:
            return
        self.broken, self.usable = reason, False
        for timer in (self._asking, self._paying):
            if timer is not None:
                timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
            self.ready.exception()  # Whoever waits gets it; where nobody does any more, nobody needs to.
        queued = [stream for stream, *_ in self._queued]
        streams = [*self._streams.values()]
        self._queued.clear()
        for stream in queued:
            self._fail(stream, reason, sent=False)
        for stream in streams:
            self._end(stream, reason)
        if self._transport is not None:
            self._transport.abort()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _Garbled("nothing but padding")
    return payload[1 : len(payload) - payload[0]]


async def connect(
    host: str, port: int, *, context: ssl.SSLContext | None, server_name: str, timeout_s: float
) -> Connection:
    """A connection whose peer has told its settings. The name is looked up, and each of its addresses gets a share of the
    time. Raises OSError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    fault = OSError(f"{host} has no address")
    addresses = await _addresses(host, port, timeout_s)
    for position, address in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - position)
        try:
            async with asyncio.timeout(share):
                return await _connected(address, port, context, server_name)
        except TimeoutError:
            fault = TimeoutError(f"{address} did not answer within {share:.1f} s")
        except OSError as error:
            fault = error
    raise fault


async def _addresses(host: str, port: int, timeout_s: float) -> Sequence[str]:
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return [host]  # What is no name needs no thread to look it up.
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    except TimeoutError:
        raise TimeoutError(f"{host} could not be looked up in time") from None
    return [*dict.fromkeys(str(address[0]) for *_, address in found)]


async def _connected(address: str, port: int, context: ssl.SSLContext | None, server_name: str) -> Connection:
    hostname = server_name if context is not None else None
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_connection(
        Connection, address, port, ssl=context, server_hostname=hostname
    )
    try:
        tls = transport.get_extra_info("ssl_object")
        if context is not None and tls.selected_alpn_protocol() != "h2":
            raise ConnectionError("the peer does not offer HTTP/2")
        await made.ready
    except BaseException:
        made.end()
        raise
    return made
