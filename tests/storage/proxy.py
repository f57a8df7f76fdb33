"""A TCP proxy between a store and its server: connections can be cut, and either direction be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """`asking` and `answering` say whether bytes to and from the server are passed on; if not, they are thrown away."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._pipes: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None] | None] = set()
        self.asking = True
        self.answering = True
        self.open = True
        self.port = 0

    def cut(self) -> None:
        """Ends every connection; new ones are taken as `open` says."""
        for pipe in self._pipes:
            pipe.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def end(self) -> None:
        """Ends every connection, and returns when they are gone."""
        self.open = False
        while self._connections:
            self.cut()
            await asyncio.sleep(0.01)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            return
        pipes = [
            asyncio.create_task(self._pipe(reader, back, "asking")),
            asyncio.create_task(self._pipe(there, writer, "answering")),
        ]
        self._pipes.update(pipes)
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.wait(pipes)
        self._pipes.difference_update(pipes)
        back.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if getattr(self, direction):
                    writer.write(data)
                    await writer.drain()


@asynccontextmanager
async def proxied(endpoint: str) -> AsyncIterator[Proxy]:
    """A proxy before `host:port`, on a port of its own."""
    host, _, port = endpoint.rpartition(":")
    proxy = Proxy(host, int(port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
        await asyncio.sleep(0)
