"""What serving costs, without and with sockets: CPU of this process per operation, store in memory.

    python -m benchmarks.http            everything
    python -m benchmarks.http --count 20000

The client of the socket rows is a process of its own; its CPU is not counted. Rates vary by the day; ratios hold.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.server import ApiServer
from clusterling.services.http import serve
from clusterling.services.request import Headers, Request, Sink, StreamingResponse
from clusterling.services.requestinfo import _parse
from clusterling.storage import memory
from clusterling.tenancy.authorization import ADMIN

CONFIGMAPS: Final = "/api/v1/namespaces/default/configmaps"
WATCHERS: Final = 1000


def configmap(name: str) -> Object:
    """About 1 KB as it is stored."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 800}}


class Discard(Sink):
    """Counts the events that are written to it."""

    def __init__(self) -> None:
        self.events = 0

    @override
    def write(self, data: bytes) -> None:
        self.events += data.count(b"\n")

    @property
    @override
    def buffered(self) -> int:
        return 0

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        """It never fills."""


def report(what: str, cpu_s: float, operations: int) -> None:
    print(f"{what:<52} {cpu_s / operations * 1e6:10.1f} µs")


async def timed(what: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    await work()
    began = time.process_time()
    for _ in range(count):
        await work()
    report(what, time.process_time() - began, count)


async def in_process(server: ApiServer, count: int) -> None:
    headers = Headers({"Authorization": "Bearer bench", "Accept": "application/json", "User-Agent": "bench"})

    async def no_body(limit: int) -> Sequence[bytes]:
        return ()

    def ask(target: str, fields: Headers = headers) -> Callable[[], Awaitable[object]]:
        path, _, query = f"/clusters/bench{target}".partition("?")
        return lambda: server.app(Request("GET", path, query, fields, no_body))

    cluster = await server.pool.find("bench")
    assert cluster is not None
    await cluster.ready()
    served = cluster.catalog.find("", "v1", "configmaps")
    assert served is not None
    await timed("ObjectStore.get", count, lambda: cluster.objects.get(served, "default", "c1"))
    await timed("GET in process, token, all filters", count, ask(f"{CONFIGMAPS}/c1"))
    await timed("LIST of 500 in process", count // 50, ask(CONFIGMAPS))
    packed = Headers({"Authorization": "Bearer bench", "Accept-Encoding": "gzip"})
    await timed("LIST of 500 in process, gzip", count // 500, ask(CONFIGMAPS, packed))
    path = f"/clusters/bench{CONFIGMAPS}/c1"
    began = time.process_time()
    for _ in range(count):
        _parse("GET", path, "", True, "")
    report("reading a target that was not seen before", time.process_time() - began, count)


async def fan_out(server: ApiServer, writes: int) -> None:
    client = server.client("bench")
    revision = (await client.get(CONFIGMAPS, limit=1))["metadata"]["resourceVersion"]
    responses = [
        await client.request("GET", CONFIGMAPS, {"watch": True, "resourceVersion": revision})
        for _ in range(WATCHERS)
    ]
    sinks = [Discard() for _ in responses]
    async with asyncio.TaskGroup() as group:
        for response, sink in zip(responses, sinks, strict=True):
            assert isinstance(response, StreamingResponse)
            group.create_task(response.stream.run(sink))
        await asyncio.sleep(0.5)
        began = time.process_time()
        for number in range(writes):
            await client.patch(f"{CONFIGMAPS}/c1", {"data": {"n": str(number)}})
        while sum(sink.events for sink in sinks) < writes * WATCHERS:  # noqa: ASYNC110 - sinks tell nobody
            await asyncio.sleep(0.01)
        watched = time.process_time() - began
        for response in responses:
            assert isinstance(response, StreamingResponse)
            response.stream.stop()
    for response in responses:
        assert isinstance(response, StreamingResponse)
        await response.close()
    began = time.process_time()
    for number in range(writes):
        await client.patch(f"{CONFIGMAPS}/c1", {"data": {"n": f"again {number}"}})
    alone = time.process_time() - began
    report("PATCH in process", alone, writes)
    report(f"a delivery to each of {WATCHERS} watchers, no sockets", watched - alone, writes * WATCHERS)


async def over_sockets(server: ApiServer, count: int) -> None:
    listener = await serve(server.app, "127.0.0.1", 0)
    for path, requests in ((f"{CONFIGMAPS}/c1", count), (CONFIGMAPS, count // 50)):
        command = [sys.executable, "-m", "benchmarks.http", "--ask", f"{listener.port}", path, f"{requests}"]
        began = time.process_time()
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        assert await process.wait() == 0
        what = "GET" if path != CONFIGMAPS else "LIST of 500"
        report(f"{what} over a socket, no TLS, one in flight", time.process_time() - began, requests)
    await listener.close(1.0)


def ask_over_socket(port: int, path: str, count: int) -> None:
    """The client's side: one connection, one request after the other."""
    request = f"GET /clusters/bench{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bench\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            connection.sendall(request)
            assert answers.readline().split()[1] == b"200"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.startswith(b"Content-Length:"):
                    length = int(line.split()[1])
            answers.read(length)


async def measure(count: int) -> None:
    tokens: dict[str, User] = {"bench": ADMIN}
    async with memory.open() as store, ApiServer(store, admin_tokens=tokens).running() as server:
        await server.clusters.create("bench")
        client = server.client("bench")
        for number in range(500):
            await client.post(CONFIGMAPS, configmap(f"c{number}"))
        await in_process(server, count)
        await fan_out(server, max(count // 200, 10))
        await over_sockets(server, count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="requests a row")
    parser.add_argument("--ask", nargs=3, metavar=("PORT", "PATH", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        port, path, count = arguments.ask
        ask_over_socket(int(port), path, int(count))
        return
    import uvloop

    print(
        f"{platform.python_implementation()} {platform.python_version()} ({platform.python_build()[1]}), uvloop"
    )
    uvloop.run(measure(arguments.count))


if __name__ == "__main__":
    main()
