"""Calls of gRPC to one endpoint: one question and one answer, or one question and answers without end.

What a call costs is what every request of a client pays, so a call is one write, one future and one timer, without a task. gRPC
over HTTP/2 is https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Messages are bytes here.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import deque
from enum import IntEnum
from typing import Final
from urllib.parse import unquote_to_bytes

from typing_extensions import override

from clusterling.storage.etcd.http2 import Connection, Fields, Stream, connect
from clusterling.telemetry.spans import current

CONNECT_S: Final = 3.0  # One attempt, whoever waits for it how long.
PAUSE_MIN_S: Final = 0.1  # From the beginning of one attempt to the next,
PAUSE_MAX_S: Final = 1.0  # and after many that failed. Whoever calls in between fails at once.

_PREFIX: Final = struct.Struct(">BI")  # Whether it is compressed, length.


class Code(IntEnum):
    """https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallFailed(Exception):
    """A call that was not answered with success. Where it was not `sent`, the peer has certainly done nothing."""

    def __init__(self, code: Code, details: str, *, sent: bool = True) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.sent = sent


class Channel:
    """Calls to `host:port`, over a connection that is made when first used, and again whenever it breaks.

    A name is looked up each time. There is one attempt to connect at a time, which all who call meanwhile share.
    """

    def __init__(self, endpoint: str, context: ssl.SSLContext | None, server_name: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.endpoint = endpoint
        self._host, self._port = host.strip("[]"), int(port)
        self._context = context
        self._server_name = server_name or self._host
        self._authority = server_name or endpoint
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._draining: set[Connection] = set()  # Taken leave of by the peer, with calls under way.
        self._fault = "never connected"
        self._pause = PAUSE_MIN_S
        self._resting_until = 0.0
        self._closed = False
        self._token = ""
        self._heads: dict[str, bytes] = {}

    async def call(self, method: str, message: bytes, *, token: str, timeout_s: float) -> bytes:
        """The answer's message. Raises CallFailed. Given up, the call is cancelled, and the connection goes on."""
        loop = asyncio.get_running_loop()
        connection = self._connection
        if connection is None or not connection.usable:
            began = loop.time()
            connection = await self._connected(timeout_s)
            timeout_s -= loop.time() - began
        call = _Call(connection, loop.create_future())
        deadline = loop.call_later(timeout_s, call.expire)
        head = self._head(method, token)
        span = current()
        if span is not None:
            head += _field(b"traceparent", span.traceparent.encode())
        connection.send(call, head, _PREFIX.pack(0, len(message)) + message, last=True)
        try:
            return await call.answer
        except asyncio.CancelledError:
            connection.reset(call)
            raise
        finally:
            deadline.cancel()

    async def ask(self, method: str, message: bytes, *, token: str, timeout_s: float) -> Answers:
        """Answers without end. `timeout_s` is for connecting alone. Raises CallFailed."""
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connected(timeout_s)
        answers = Answers(connection)
        head = self._head(method, token) + _field(b"hasleader", b"true")
        connection.send(answers, head, _PREFIX.pack(0, len(message)) + message, last=False)
        return answers

    async def close(self) -> None:
        """Ends the connection, and every call under way."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})
        ending = {*self._draining, *([self._connection] if self._connection is not None else ())}
        for connection in ending:
            connection.end()
        for connection in ending:
            await connection.gone

    def _head(self, method: str, token: str) -> bytes:
        if token != self._token:
            self._heads.clear()
            self._token = token
        head = self._heads.get(method)
        if head is None:
            scheme = b"\x87" if self._context is not None else b"\x86"
            # A table of nothing, then of the static table `:method: POST`, and the names of path and authority.
            head = self._heads[method] = (
                b"\x20\x83"
                + scheme
                + b"\x04"
                + _string(method.encode())
                + b"\x01"
                + _string(self._authority.encode())
                + _field(b"content-type", b"application/grpc")
                + _field(b"te", b"trailers")
                + (_field(b"token", token.encode()) if token else b"")
            )
        return head

    async def _connected(self, timeout_s: float) -> Connection:
        """Raises CallFailed."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise CallFailed(Code.CANCELLED, "the channel is closed", sent=False)
        if self._attempt is None:
            if loop.time() < self._resting_until:
                raise CallFailed(Code.UNAVAILABLE, self._fault, sent=False)
            self._attempt = loop.create_task(self._connect(), name="etcd connect")
        attempt = self._attempt
        done, _ = await asyncio.wait({attempt}, timeout=timeout_s)
        if not done:
            raise CallFailed(Code.DEADLINE_EXCEEDED, "connecting takes too long", sent=False)
        if self._connection is None or not self._connection.usable:
            raise CallFailed(Code.UNAVAILABLE, self._fault, sent=False)
        return self._connection

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._draining = {one for one in self._draining if not one.gone.done()}
            if self._connection is not None:
                self._draining.add(self._connection)
                self._connection = None
            self._connection = await connect(
                self._host,
                self._port,
                context=self._context,
                server_name=self._server_name,
                timeout_s=CONNECT_S,
            )
        except (OSError, UnicodeError) as error:
            self._fault = f"cannot connect to {self.endpoint}: {error}"
            self._resting_until = began + self._pause
            self._pause = min(self._pause * 2, PAUSE_MAX_S)
        else:
            self._fault = f"the connection to {self.endpoint} ended as soon as it began"
            self._resting_until = began + PAUSE_MIN_S
            self._pause = PAUSE_MIN_S
        finally:
            self._attempt = None


class _Call(Stream):
    """One question, and the one answer to it."""

    __slots__ = ("_begun", "_connection", "_parts", "answer")

    def __init__(self, connection: Connection, answer: asyncio.Future[bytes]) -> None:
        super().__init__()
        self.answer = answer
        self._connection = connection
        self._parts: list[bytes] = []
        self._begun = False

    @override
    def headers(self, fields: Fields, *, last: bool) -> None:
        if last:
            fault = _outcome(fields)
            if fault is None:
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                if len(body) >= _PREFIX.size and _PREFIX.unpack_from(body) == (0, len(body) - _PREFIX.size):
                    if not self.answer.done():
                        self.answer.set_result(body[_PREFIX.size :])
                    return
                fault = CallFailed(Code.INTERNAL, f"an answer of {len(body)} bytes that is no message")
            self._fail(fault)
        elif not self._begun:
            self._begun, fault = _begun(fields)
            if fault is not None:
                self._connection.reset(self)
                self._fail(fault)

    @override
    def data(self, payload: bytes) -> bool:
        self._parts.append(payload)
        return True

    @override
    def failed(self, reason: str, *, sent: bool) -> None:
        self._fail(CallFailed(Code.UNAVAILABLE, reason, sent=sent))

    def expire(self) -> None:
        """Its time is up."""
        sent = self.number > 0 and self.unsent is None
        self._connection.reset(self)
        self._fail(CallFailed(Code.DEADLINE_EXCEEDED, "no answer in time", sent=sent))

    def _fail(self, fault: CallFailed) -> None:
        if not self.answer.done():
            self.answer.set_exception(fault)


class Answers(Stream):
    """One question, and the answers to it as they come. For one reader, who holds the peer back by not reading."""

    __slots__ = (
        "_begun",
        "_connection",
        "_ended",
        "_fault",
        "_messages",
        "_partial",
        "_reading",
        "_withheld",
    )

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._withheld = 0
        self._reading: asyncio.Future[None] | None = None
        self._begun = False
        self._ended = False
        self._fault: CallFailed | None = None

    async def read(self) -> bytes | None:
        """The next message; None after the last one, if the call ended with success or was cancelled. Raises CallFailed."""
        while not self._messages:
            if self._ended:
                if self._fault is not None:
                    raise self._fault
                return None
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        message = self._messages.popleft()
        if not self._messages and self._withheld:
            size, self._withheld = self._withheld, 0
            self._connection.grant(self, size)
        return message

    def cancel(self) -> None:
        """Ends the call; what was not read is gone. May be called again."""
        self._connection.reset(self)
        self._messages.clear()
        self._end(None)

    @override
    def headers(self, fields: Fields, *, last: bool) -> None:
        if last:
            fault = _outcome(fields)
            if fault is None and self._partial:
                fault = CallFailed(Code.INTERNAL, "the last message is not whole")
            self._end(fault)
        elif not self._begun:
            self._begun, fault = _begun(fields)
            if fault is not None:
                self._connection.reset(self)
                self._end(fault)

    @override
    def data(self, payload: bytes) -> bool:
        partial = self._partial
        partial += payload
        while len(partial) >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(partial)
            if compressed:
                self._connection.reset(self)
                self._end(CallFailed(Code.INTERNAL, "a compressed message"))
                return True
            end = _PREFIX.size + size
            if len(partial) < end:
                break
            self._messages.append(bytes(partial[_PREFIX.size : end]))
            del partial[:end]
        if not self._messages:
            return True
        self._wake()
        self._withheld += len(payload)
        return False

    @override
    def failed(self, reason: str, *, sent: bool) -> None:
        self._end(CallFailed(Code.UNAVAILABLE, reason, sent=sent))

    def _end(self, fault: CallFailed | None) -> None:
        if not self._ended:
            self._ended = True
            self._fault = fault
        self._wake()

    def _wake(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)


def _begun(fields: Fields) -> tuple[bool, CallFailed | None]:
    """Whether these are the headers that an answer begins with (others may come before), and what is wrong with them."""
    status = fields.get(b":status", b"")
    if status != b"200":
        if status[:1] == b"1":
            return False, None
        return True, CallFailed(Code.UNKNOWN, f"HTTP status {status.decode('ascii', 'replace')}")
    kind = fields.get(b"content-type", b"")
    if not kind.startswith(b"application/grpc"):
        return True, CallFailed(Code.UNKNOWN, f"an answer of type {kind.decode('ascii', 'replace')!r}")
    return True, None


def _outcome(trailers: Fields) -> CallFailed | None:
    """How a call ended. There may be nothing but trailers, which are headers too then."""
    status = trailers.get(b"grpc-status")
    if status == b"0":
        return None
    if status is None:
        return _begun(trailers)[1] or CallFailed(Code.UNKNOWN, "an answer without a status")
    try:
        code = Code(int(status))
    except ValueError:
        code = Code.UNKNOWN
    details = unquote_to_bytes(trailers.get(b"grpc-message", b"")).decode("utf-8", "replace")
    return CallFailed(code, details or f"status {status.decode('ascii', 'replace')}")


def _field(name: bytes, value: bytes) -> bytes:
    """A field that is put into no table."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """As it is, its length before it (RFC 7541, 5.1)."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    head, rest = bytearray((127,)), size - 127
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    return bytes(head) + text
