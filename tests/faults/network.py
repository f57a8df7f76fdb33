"""The way between a replica and its store: a TCP proxy that can be slow, stand still, lose what is sent, or be cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

CHUNK: Final = 1 << 16


class Way:
    """One listening port before one target. `fault` says how bytes fare; `heal` makes it a good way again.

    pass; slow (`delay_s` later); stalled (kept until healed, as when packets are sent again); lost-asking and
    lost-answering (thrown away in one direction, until the connection is cut by healing); closed.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self.fault = "pass"
        self.delay_s = 0.0
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.fault = "closed"
        while self._connections:
            self.cut()
            await asyncio.sleep(0.01)

    def harm(self, fault: str, delay_s: float = 0.0) -> None:
        self.fault, self.delay_s = fault, delay_s
        if fault == "stalled":
            self._moving.clear()
        elif fault == "closed":
            self.cut()

    def heal(self) -> None:
        lost = self.fault.startswith("lost")
        self.fault, self.delay_s = "pass", 0.0
        self._moving.set()
        if lost:
            self.cut()  # What is missing in the middle of a stream cannot be made good.

    def cut(self) -> None:
        """Ends every connection at once, whatever is under way."""
        for connection in self._connections:
            connection.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a server's callback runs in a task"
        self._connections.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            if self.fault == "closed":
                return
            await self._moving.wait()
            there, back = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as pipes:
                pipes.create_task(self._pipe(reader, back, "asking"))
                pipes.create_task(self._pipe(there, writer, "answering"))
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            pass  # However it ended, both sides are told by an end.
        finally:
            self._connections.discard(task)
            writer.transport.abort()
            if back is not None:
                back.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.fault == f"lost-{direction}":
                    continue
                if self.fault == "slow":
                    await asyncio.sleep(self.delay_s)
                await self._moving.wait()
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError(f"{direction} ended")
