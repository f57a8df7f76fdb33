"""What traces cost: a GET and a CREATE on servers that trace nothing, no request of theirs, and every one, by turns.

    python -m benchmarks.tracing

In one process, without sockets, so that nothing but the work itself is measured, and of each the least: noise only adds.
Spans go to nobody; sending them is the work of a thread, which costs the same processor but no request its time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from time import perf_counter

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from typing_extensions import override

from clusterling import ApiServer, memory
from clusterling.services.client import Client

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SHARES = {"off": None, "none recorded": 0.0, "all recorded": 1.0}


class Nobody(SpanExporter):
    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider(share: float | None) -> TracerProvider | None:
    if share is None:
        return None
    made = TracerProvider(sampler=ParentBasedTraceIdRatio(share))
    made.add_span_processor(BatchSpanProcessor(Nobody()))
    return made


async def least(
    clients: dict[str, Client], work: Callable[[Client, int], Awaitable[object]], rounds: int, each: int
) -> dict[str, float]:
    """Microseconds of one piece of work by each, `each` in a row, by turns."""
    taken = dict.fromkeys(clients, float("inf"))
    number = 0
    for _ in range(rounds):
        for name, client in clients.items():
            began = perf_counter()
            for _ in range(each):
                number += 1
                await work(client, number)
            taken[name] = min(taken[name], (perf_counter() - began) / each * 1e6)
    return taken


async def measure(rounds: int) -> None:
    async def get(client: Client, number: int) -> object:
        return await client.request("GET", f"{CONFIG_MAPS}/there")

    async def create(client: Client, number: int) -> object:
        return await client.post(CONFIG_MAPS, {"metadata": {"name": f"n{number}"}})

    async with AsyncExitStack() as stack:
        clients = {}
        for name, share in SHARES.items():
            store = await stack.enter_async_context(memory.open())
            server = ApiServer(store, tracer_provider=provider(share), run_controllers=False)
            await stack.enter_async_context(server.running())
            await server.clusters.create("bench")
            clients[name] = server.client("bench")
            await clients[name].post(CONFIG_MAPS, {"metadata": {"name": "there"}})
        gc.freeze()
        for what, work, each in (("get", get, 20), ("create", create, 5)):
            taken = await least(clients, work, rounds, each)
            print(f"{what:6}", ", ".join(f"{name}: {least:.1f} µs" for name, least in taken.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="What traces cost.")
    parser.add_argument("--rounds", type=int, default=200)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
