"""The messages between the server and its workers: a length of four bytes, then msgpack of one of these types. Behind a `Job` its
body follows as it is.

The server sends a `Job`; the worker sends questions, one at a time, and each is answered; its last message is the outcome.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from clusterling.machinery.errors import ApiError
from clusterling.registry.committing import GroundMoved
from clusterling.registry.strategy import User
from clusterling.services.requestinfo import RequestInfo
from clusterling.storage import store
from clusterling.storage.store import Entry, Guard, Op, StorageError

FRAME_BYTES_MAX: Final = 64 << 20
JOIN_BYTES_MAX: Final = 64 << 10
_LENGTH_BYTES: Final = 4
_FRAME_BYTES: Final = 64 << 10
OUT_OF_MEMORY: Final = 71  # The code with which a worker ends that has no more.


class Definition(Struct, frozen=True, array_like=True, gc=False):
    """Which CRD the request's kind comes from, and which it was when the request was dispatched."""

    name: str
    revision: int
    schema_revision: int


class Job(Struct, frozen=True, tag=True, array_like=True):
    """One request, behind all filters. `kinds`: the built-in kinds of its cluster, (group, plural).

    `headers` are those that handlers look at. `now_s`: the server's clock. `asks_soft`: soft limits have a say.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body_bytes: int
    info: dict[str, Any]
    user: User
    cluster: str
    cluster_id: str
    kinds: Sequence[tuple[str, str]]
    definition: Definition | None
    now_s: float
    root_ca: str
    asks_soft: bool
    warnings: list[str]


# Questions of a worker.


class Get(Struct, frozen=True, tag=True, array_like=True):
    key: str


class List(Struct, frozen=True, tag=True, array_like=True):
    prefix: str
    after: str
    limit: int
    revision: int


class Fresh(Struct, frozen=True, tag=True, array_like=True):
    pass


class Write(Struct, frozen=True, tag=True, array_like=True):
    ops: Sequence[Op]
    guards: Sequence[Guard]


class Soft(Struct, frozen=True, tag=True, array_like=True):
    """What is over its soft limit with such a write. Answered by `Warned`."""

    operation: Literal["CREATE", "UPDATE", "DELETE"]


class Answered(Struct, frozen=True, tag=True, array_like=True):
    """The outcome: a whole answer. `leaves`: the worker takes no other job."""

    status: int
    body: bytes
    content_type: str
    warnings: str
    leaves: bool


class Refused(Struct, frozen=True, tag=True, array_like=True):
    """The outcome: an ApiError, as `told` has it."""

    error: str
    warnings: str
    leaves: bool


class Crashed(Struct, frozen=True, tag=True, array_like=True):
    """The outcome: something unforeseen, for the log, as `telemetry/faults.py` tells it; `words` for whoever may see all."""

    classes: str
    stack: str
    words: str


# Answers of the server.

Row = tuple[str, bytes, int]


class Found(Struct, frozen=True, tag=True, array_like=True):
    row: Row | None


class Rows(Struct, frozen=True, tag=True, array_like=True):
    """Some entries of a list; as long as there are `more`, another follows."""

    rows: Sequence[Row]
    more: bool
    revision: int = 0
    remaining: int | None = None
    last_change: int = 0


class Number(Struct, frozen=True, tag=True, array_like=True):
    value: int


class Written(Struct, frozen=True, tag=True, array_like=True):
    revisions: Sequence[int]


class Warned(Struct, frozen=True, tag=True, array_like=True):
    warnings: list[str]


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """The store's error, by the name of its class; of its arguments, those that are text or numbers."""

    error: str
    args: Sequence[str | int | None]


Question = Get | List | Fresh | Write | Soft
Outcome = Answered | Refused | Crashed
Answer = Found | Rows | Number | Written | Warned | Failed

from_worker: Final[msgspec.msgpack.Decoder[Question | Outcome]] = msgspec.msgpack.Decoder(Question | Outcome)
to_worker: Final[msgspec.msgpack.Decoder[Job | Answer]] = msgspec.msgpack.Decoder(Job | Answer)
_encoder: Final = msgspec.msgpack.Encoder()

_T = TypeVar("_T")


class Channel:
    """One end of the socket between the server and a worker.

    What is large is neither put together nor copied into fresh memory before it is sent: on the loop, the kernel's giving
    pages for a body of 3 MB takes as long as everything else of a small request, ten times.
    """

    def __init__(self, end: socket.socket) -> None:
        """`end` must not block."""
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._frame = bytearray(_FRAME_BYTES)  # Used again for each message.

    async def send(self, message: Job | Question | Outcome | Answer, behind: Sequence[bytes] = ()) -> None:
        """Sends one message, and what follows it. Raises OSError where nobody takes it."""
        data = _encoder.encode(message)
        length = len(data).to_bytes(_LENGTH_BYTES, "big")
        if len(data) <= JOIN_BYTES_MAX:
            await self._loop.sock_sendall(self._end, length + data)
        else:
            await self._loop.sock_sendall(self._end, length)
            await self._loop.sock_sendall(self._end, data)
        for part in behind:
            await self._loop.sock_sendall(self._end, part)

    async def receive(self, decoder: msgspec.msgpack.Decoder[_T]) -> _T:
        """The next message. Raises EOFError where none comes, and ValueError for what is none."""
        frame = memoryview(self._frame)
        await self._fill(frame[:_LENGTH_BYTES])
        size = int.from_bytes(frame[:_LENGTH_BYTES], "big")
        if size > FRAME_BYTES_MAX:
            raise ValueError(f"a message of {size} bytes")
        if size > len(frame):
            self._frame = bytearray(-(-size // _FRAME_BYTES) * _FRAME_BYTES)
            frame = memoryview(self._frame)
        await self._fill(frame[:size])
        return decoder.decode(frame[:size])

    async def receive_raw(self, size: int) -> bytes:
        """So many bytes that are no message. Raises EOFError where they do not come."""
        data = bytearray(size)
        await self._fill(memoryview(data))
        return bytes(data)

    async def _fill(self, space: memoryview) -> None:
        while space:
            got = await self._loop.sock_recv_into(self._end, space)
            if not got:
                raise EOFError
            space = space[got:]

    def close(self) -> None:
        self._end.close()


def row(entry: Entry) -> Row:
    """An entry, without what readers have derived from it."""
    return entry.key, entry.value, entry.revision


def failed(error: StorageError) -> Failed:
    args = [arg if isinstance(arg, str | int) else None for arg in error.args]
    return Failed(type(error).__name__, args)


def storage_error(failure: Failed) -> StorageError:
    """The error as it was, less what of its arguments is neither text nor number."""
    kind = getattr(store, failure.error, None)
    assert isinstance(kind, type), "errors of the store are defined beside it"
    assert issubclass(kind, StorageError), "nothing else is sent as one"
    return kind(*failure.args)


def told(error: ApiError) -> str:
    """An ApiError as text. JSON that is all ASCII, for what is no UTF-8 in it came from a client who may see it again."""
    fields = [error.code, error.reason, error.message, error.details, error.headers, error.metadata]
    return json.dumps([isinstance(error, GroundMoved), *fields])


def api_error(text: str) -> ApiError:
    """What `told` told of."""
    moved, code, reason, message, details, headers, metadata = json.loads(text)
    return GroundMoved() if moved else ApiError(code, reason, message, details, headers, metadata)


def fields_of(info: RequestInfo) -> dict[str, Any]:
    fields = {name: getattr(info, name) for name in RequestInfo.__slots__}
    # What was parsed once (a cluster's name) is text again.
    return {name: str(value) if isinstance(value, str) else value for name, value in fields.items()}


def info_of(fields: dict[str, Any]) -> RequestInfo:
    info = RequestInfo("", "", {}, "")
    for name, value in fields.items():
        setattr(info, name, value)
    return info
