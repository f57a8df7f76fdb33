"""TLS in front of a PostgreSQL that was built without: what asks for it gets it, and is passed on."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What a client that wants TLS says before it begins (PostgreSQL's protocol, SSLRequest), and the answer.
ASKS = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
YES = b"S"


@contextmanager
def ending(target: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port, on 127.0.0.1, of a listener that ends TLS before the server at `target`. It runs in a thread of its own."""
    # PostgreSQL's drivers ask for its own protocol, or for none.
    context.set_alpn_protocols(["postgresql"])
    loop = asyncio.new_event_loop()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        writers = [writer]
        try:
            assert await reader.readexactly(len(ASKS)) == ASKS
            writer.write(YES)
            await writer.start_tls(context)
            theirs, ours = await asyncio.open_connection("127.0.0.1", target)
            writers.append(ours)
            await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for one in writers:
                one.transport.abort()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(_end(server, connections), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _end(server: asyncio.Server, connections: set[asyncio.Task[None]]) -> None:
    server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
    # What was aborted is closed in the loop's next rounds.
    await asyncio.sleep(0.1)
