"""One question, asked all the time, over a connection that is good for nothing else.

Every consistent read begins with asking etcd how far the store has come. gRPC's client takes 220 µs of CPU for a call,
most of it to hand things between threads; the same frames written here take 60. What makes so little code enough is that
nothing depends on it: an answer counts only where it came whole, with the status for success, in the very bytes that
etcd gives it. Whatever else happens is None, and `Wire` asks over gRPC, which knows about errors, other endpoints and
tokens.

HTTP/2 is RFC 9113, gRPC over it https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. The peer is told to keep
no table of headers (RFC 7541, 4.2), so that each block of headers means the same whenever it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from typing import Final, cast

from typing_extensions import override

ANSWER_S: Final = 1.0
CONNECT_S: Final = 1.0
RETRY_S: Final = 5.0  # After something went wrong, gRPC alone is asked for so long.
STREAMS_MAX: Final = 1 << 30  # On one connection, then it is made anew.
OWED_S: Final = 0.5
WINDOW: Final = 1 << 30
WINDOW_LOW: Final = 1 << 14  # What must be left of etcd's window beyond a question.
ANSWER_BYTES_MAX: Final = 1 << 20

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 1, 4, 8, 32, 1
_TABLE_SIZE, _PUSH, _INITIAL_WINDOW = 1, 2, 4
_FRAME: Final = struct.Struct(">HBBBI")  # Length in 24 bits, type, flags, stream.
_HEAD_BYTES: Final = 9
# `grpc-status: 0` as a field without indexing, its name in Huffman's code, or plain.
_SUCCESS: Final = (b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010", b"\x00\x0bgrpc-status\x010")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def _field(name: bytes, value: bytes) -> bytes:
    """A field that is put into no table. Lengths are those of what is sent here: below 127 but for tokens."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    head, rest = bytearray((127,)), size - 127
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    return bytes(head) + text


class _Connection(asyncio.Protocol):
    """A connection with at most one question under way. Once `broken`, it stays so."""

    def __init__(self) -> None:
        self.broken = False
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._stream = -1
        self._window = 65_535
        self._taken = 0  # Bytes of data since the last update of our own window.
        self._answer: asyncio.Future[bytes | None] | None = None
        self._body = b""
        self._owed = b""
        self._paying: asyncio.TimerHandle | None = None

    @property
    def spent(self) -> bool:
        return self.broken or self._stream >= STREAMS_MAX

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it.
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 0, _PUSH, 0, _INITIAL_WINDOW, WINDOW)
        update = _frame(_WINDOW_UPDATE, 0, 0, (WINDOW - 65_535).to_bytes(4, "big"))
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + update)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._break()

    @override
    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        position, end = 0, len(received)
        while end - position >= _HEAD_BYTES and not self.broken:
            high, low, kind, flags, stream = _FRAME.unpack_from(received, position)
            after = position + _HEAD_BYTES + (high << 8 | low)
            if after > end:
                break
            self._take(kind, flags, stream, received[position + _HEAD_BYTES : after])
            position = after
        self._received = received[position:]

    async def ask(self, headers: bytes, message: bytes) -> bytes | None:
        """The answer's message. None: there is none that counts, and the connection is not to be used again."""
        assert self._answer is None, "one question at a time"
        size = len(message) + 5
        if self.spent or self._transport is None or self._window < size + WINDOW_LOW:
            self._break()
            return None
        self._stream += 2
        self._window -= size
        loop = asyncio.get_running_loop()
        self._body = b""
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._answer = answer
        deadline = loop.call_later(ANSWER_S, self._break)
        owed, self._owed = self._owed, b""
        self._transport.write(
            owed
            + _frame(_HEADERS, _END_HEADERS, self._stream, headers)
            + _frame(_DATA, _END_STREAM, self._stream, b"\x00" + len(message).to_bytes(4, "big") + message)
        )
        try:
            return await answer
        except asyncio.CancelledError:
            self._break()
            raise
        finally:
            deadline.cancel()
            self._answer = None

    def close(self) -> None:
        self._break()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(flags, stream, payload)
        elif kind == _HEADERS:
            if flags & (_PADDED | _PRIORITY) or not flags & _END_HEADERS or stream != self._stream:
                self._break()
            elif flags & _END_STREAM:
                self._end(payload)
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING:
            if not flags & _ACK:
                self._owe(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            if stream == 0 and len(payload) == 4:
                self._window += int.from_bytes(payload, "big")
        elif kind == _GOAWAY or (kind == _RESET and stream == self._stream):
            self._break()

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0
        self._body += payload
        if flags & (_PADDED | _END_STREAM) or stream != self._stream or len(self._body) > ANSWER_BYTES_MAX:
            self._break()  # A stream of gRPC ends with its trailers.

    def _end(self, trailers: bytes) -> None:
        body = self._body
        whole = len(body) >= 5 and body[0] == 0 and int.from_bytes(body[1:5], "big") == len(body) - 5
        if whole and any(success in trailers for success in _SUCCESS):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(body[5:])
        else:
            self._break()

    def _owe(self, frame: bytes) -> None:
        """Sends with the next question, or soon. etcd measures the line with every question, which need not cost a write."""
        self._owed += frame
        if self._paying is None:
            self._paying = asyncio.get_running_loop().call_later(OWED_S, self._pay)

    def _pay(self) -> None:
        self._paying = None
        if self._owed:
            owed, self._owed = self._owed, b""
            self._write(owed)

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _break(self) -> None:
        self.broken = True
        if self._paying is not None:
            self._paying.cancel()
            self._paying = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        if self._transport is not None:
            self._transport.abort()


class Asker:
    """Asks `path` of one endpoint. Calls must not overlap."""

    def __init__(self, endpoint: str, path: str, context: ssl.SSLContext | None, server_name: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.endpoint = endpoint
        self._host, self._port = host.strip("[]"), int(port)
        self._context = context
        self._server_name = server_name or self._host
        scheme = b"\x87" if context is not None else b"\x86"  # Of the static table, as `:method: POST` is.
        self._fields = (
            b"\x83"
            + scheme
            + b"\x04"
            + _string(path.encode())
            + b"\x01"
            + _string(endpoint.encode())
            + _field(b"content-type", b"application/grpc")
            + _field(b"te", b"trailers")
        )
        self._connection: _Connection | None = None
        self._resting_until = 0.0

    async def ask(self, message: bytes, token: str) -> bytes | None:
        """The message of the answer, or None where there is none that counts."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._resting_until:
            return None
        connection = self._connection
        if connection is None or connection.spent:
            self.close()
            connection = self._connection = await self._connected()
        headers = self._fields + (_field(b"token", token.encode()) if token else b"")
        answer = None if connection is None else await connection.ask(headers, message)
        if answer is None:
            self._resting_until = loop.time() + RETRY_S
        return answer

    async def _connected(self) -> _Connection | None:
        loop = asyncio.get_running_loop()
        hostname = None if self._context is None else self._server_name
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                _, made = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._context, server_hostname=hostname
                )
                return made
        return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
