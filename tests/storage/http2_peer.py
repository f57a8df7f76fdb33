"""A peer over a real socket that answers gRPC as a test says: by h2, which holds its client to the protocol, or in frames of its own.

Each connection is served by the test's script; what it raises, h2's complaints too, is raised when the peer is left.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 32, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BEGIN = [(":status", "200"), ("content-type", "application/grpc")]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
DONE = [("grpc-status", "0"), ("grpc-message", "")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def message(body: bytes) -> bytes:
    return struct.pack(">BI", 0, len(body)) + body


class Ended(Exception):
    """The client has closed the connection."""


class Raw:
    """A connection in frames. `began` has read what every client begins with, and told it no settings."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    async def greeted(self) -> None:
        assert await self._exactly(len(PREFACE)) == PREFACE

    async def began(self) -> None:
        await self.greeted()
        self.write(frame(SETTINGS, 0, 0))

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload. Raises Ended."""
        head = await self._exactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, await self._exactly(int.from_bytes(head[:3], "big"))

    async def request(self) -> int:
        """The stream of the next request that has come whole."""
        while True:
            kind, flags, stream, _ = await self.frame()
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return stream

    async def ended(self) -> None:
        """Returns when the client has closed the connection."""
        with suppress(Ended):
            while True:
                await self.frame()

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Ended from error


class Session:
    """A connection whose client h2 watches over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.held: set[int] = set()  # Streams whose windows are not opened as their bodies come.
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.resets: list[int] = []
        self.whole: deque[int] = deque()  # Streams whose requests have come whole.
        self.pings = 0

    def begin(self, settings: dict[SettingCodes, int] | None = None) -> None:
        """Greets the client with settings."""
        self.http.local_settings = Settings(client=False, initial_values=settings)
        self.http.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._writer.write(self.http.data_to_send())

    async def more(self) -> None:
        """Takes what the client sends next. Raises Ended, and h2's errors."""
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError as error:
            raise Ended from error
        if not data:
            raise Ended
        for event in self.http.receive_data(data):
            if isinstance(event, RequestReceived):
                self.headers[event.stream_id] = {str(k): str(v) for k, v in event.headers}
                self.bodies[event.stream_id] = bytearray()
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                if event.stream_id not in self.held:
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.whole.append(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets.append(event.stream_id)
            elif isinstance(event, PingReceived):
                self.pings += 1
        self.flush()

    async def until(self, met: Callable[[], bool]) -> None:
        while not met():
            await self.more()

    async def request(self) -> int:
        """The stream of the next request that has come whole."""
        await self.until(lambda: bool(self.whole))
        return self.whole.popleft()

    async def answer(
        self, stream: int, body: bytes, done: Sequence[tuple[str, str]] = DONE, size: int = 1 << 14
    ) -> None:
        """Answers with a message, in frames of at most `size` bytes."""
        self.http.send_headers(stream, BEGIN)
        await self.data(stream, message(body), size)
        self.http.send_headers(stream, done, end_stream=True)
        self.flush()

    async def data(self, stream: int, payload: bytes, size: int = 1 << 14) -> None:
        """Sends as the client's windows allow."""
        at = 0
        while at < len(payload):
            if room := min(len(payload) - at, self.http.local_flow_control_window(stream), size):
                self.http.send_data(stream, payload[at : at + room])
                at += room
                self.flush()
                await self._writer.drain()
            else:
                await self.more()

    async def ended(self) -> None:
        """Returns when the client has closed the connection."""
        with suppress(Ended):
            while True:
                await self.more()


class Peer:
    """`endpoint`, and how often it was connected to."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.connections = 0
        self.faults: list[Exception] = []


@asynccontextmanager
async def serving(
    script: Script, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A peer whose connections are each served by `script`, and then closed."""
    peer = Peer()
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        tasks.add(task)
        peer.connections += 1
        try:
            await script(reader, writer)
        except Ended:
            pass
        except Exception as error:  # noqa: BLE001 - It is raised where the test leaves the peer.
            peer.faults.append(error)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    peer.endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        yield peer
    finally:
        server.close()
        for task in [*tasks]:
            if task is not None:
                task.cancel()
        while tasks:
            await asyncio.sleep(0)
    if peer.faults:
        raise ExceptionGroup("the peer complains", peer.faults)


def watched(
    script: Callable[[Session], Awaitable[None]], settings: dict[SettingCodes, int] | None = None
) -> Script:
    """A peer that holds its client to the protocol."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        session.begin(settings)
        await script(session)

    return serve


def framed(script: Callable[[Raw], Awaitable[None]], *, began: bool = True) -> Script:
    """A peer that writes its own frames."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = Raw(reader, writer)
        if began:
            await raw.began()
        await script(raw)

    return serve
