"""What each store and wrapper costs: CPU of the whole process (all threads) per operation, in microseconds.

    python -m benchmarks.storage [--directory DIR] [--seconds S]

Values are 1 KB, as in the other benchmarks. `get` and `list 500` are of keys in memory or in SQLite's page cache; a
delivery is one event taken by one of 1,000 watches of the same prefix.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from clusterling.storage import memory, sqlite
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.metered import MeteredStore
from clusterling.storage.overlay import Overlay
from clusterling.storage.store import Op, Store

VALUE = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"' + b"x" * 960 + b'"}}'
LISTED = 500
WATCHES = 1000
CLUSTER = "c" * 12

Make = Callable[[AsyncExitStack, Path], Awaitable[Store]]


async def _memory(stack: AsyncExitStack, _directory: Path) -> Store:
    return await stack.enter_async_context(memory.open())


async def _sqlite(stack: AsyncExitStack, directory: Path) -> Store:
    return await stack.enter_async_context(sqlite.open(directory / "state.db"))


def _keyspace(below: Make) -> Make:
    async def make(stack: AsyncExitStack, directory: Path) -> Store:
        return Keyspace(await below(stack, directory), CLUSTER)

    return make


def _cached(below: Make) -> Make:
    async def make(stack: AsyncExitStack, directory: Path) -> Store:
        return await stack.enter_async_context(CachedStore(await below(stack, directory)))

    return make


def _metered(below: Make) -> Make:
    async def make(stack: AsyncExitStack, directory: Path) -> Store:
        return MeteredStore(await below(stack, directory))

    return make


def _overlaid(below: Make) -> Make:
    """Over ten entries of another collection, read through a cache that all clusters share."""

    async def make(stack: AsyncExitStack, directory: Path) -> Store:
        base = await below(stack, directory)
        lower = Keyspace(base, "lower")
        await lower.write([Op(f"core/namespaces/-/{n}", VALUE) for n in range(10)])
        reads = await stack.enter_async_context(CachedStore(lower))
        return Overlay(Keyspace(base, CLUSTER), lower, lambda _key, value: value, reads=reads)

    return make


STORES: dict[str, Make] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "keyspace(memory)": _keyspace(_memory),
    "keyspace(sqlite)": _keyspace(_sqlite),
    "metered(memory)": _metered(_memory),
    "overlay(memory)": _overlaid(_memory),
    "overlay(sqlite)": _overlaid(_sqlite),
    "cache(overlay(memory))": _cached(_overlaid(_memory)),
    "cache(overlay(sqlite))": _cached(_overlaid(_sqlite)),
    "cache(keyspace(memory))": _cached(_keyspace(_memory)),
    "cache(keyspace(sqlite))": _cached(_keyspace(_sqlite)),
}


async def measured(seconds: float, batch: Callable[[], Awaitable[int]]) -> float:
    """Runs `batch`, which says how many operations it did, for about `seconds`; CPU microseconds an operation."""
    await batch()
    operations = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        operations += await batch()
    return (time.process_time() - cpu) / operations * 1e6


async def write(store: Store, seconds: float, in_flight: int) -> float:
    numbers = itertools.count()
    rounds = max(1, 256 // in_flight)

    async def writer(name: int) -> None:
        for _ in range(rounds):
            await store.write([Op(f"core/configmaps/ns/w{name}-{next(numbers) % 20000}", VALUE)])

    async def batch() -> int:
        await asyncio.gather(*(writer(name) for name in range(in_flight)))
        return rounds * in_flight

    return await measured(seconds, batch)


async def get(store: Store, seconds: float) -> float:
    key = f"core/secrets/ns/{7:05}"

    async def batch() -> int:
        for _ in range(1000):
            await store.get(key)
        return 1000

    return await measured(seconds, batch)


async def list_all(store: Store, seconds: float) -> float:
    async def batch() -> int:
        for _ in range(20):
            page = await store.list("core/secrets/")
            assert len(page.entries) == LISTED
        return 20

    return await measured(seconds, batch)


async def deliver(store: Store, seconds: float) -> float:
    async with AsyncExitStack() as stack:
        taken = 0

        for _ in range(WATCHES):
            watch = await stack.enter_async_context(store.watch("core/secrets/", after=store.head()))

            def take(watch=watch) -> None:  # type: ignore[no-untyped-def]
                nonlocal taken
                while (batch := watch.take()) is not None:
                    taken += len(batch.events)

            watch.notify(take)

        async def batch() -> int:
            before = taken
            await store.write([Op(f"core/secrets/ns/{7:05}", VALUE)])
            return taken - before

        return await measured(seconds, batch)


async def row(make: Make, seconds: float, directory: Path) -> list[float]:
    async with AsyncExitStack() as stack:
        store = await make(stack, directory)
        for start in range(0, LISTED, 100):
            await store.write([Op(f"core/secrets/ns/{n:05}", VALUE) for n in range(start, start + 100)])
        figures = [await write(store, seconds, in_flight) for in_flight in (1, 16, 64)]
        await store.compact(store.head())
        figures += [await get(store, seconds), await list_all(store, seconds), await deliver(store, seconds)]
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--directory", type=Path, help="where the SQLite files go; a temporary one by default"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each figure is measured")
    options = parser.parse_args()
    print(
        f"CPU µs per operation, {platform.python_implementation()} {platform.python_version()}, SQLite {sqlite.VERSION}"
    )
    print(f"{'':28}{'write ×1':>10}{'×16':>8}{'×64':>8}{'get':>8}{'list 500':>10}{'delivery':>10}")
    for name, make in STORES.items():
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            one, sixteen, many, got, listed, delivered = asyncio.run(
                row(make, options.seconds, Path(directory))
            )
        print(f"{name:28}{one:10.1f}{sixteen:8.1f}{many:8.1f}{got:8.2f}{listed:10.1f}{delivered:10.2f}")


if __name__ == "__main__":
    main()
