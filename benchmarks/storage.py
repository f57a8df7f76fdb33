"""What each store and wrapper costs: CPU of the whole process (all threads) per operation, in microseconds.

    python -m benchmarks.storage [--directory DIR] [--seconds S] [--postgres]

Values are 1 KB, as in the other benchmarks. A second table has what a batch of writes costs: so many writers write
once, all at the same time, and the figure is of each write; the loop's thread and those of the store are told apart.
Its last column is of writers whose loop has something else to do between their writes, as a server's has. `get` and `list 500` are of keys in memory or in SQLite's page cache; a
delivery is one event taken by one of 1,000 watches of the same prefix.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from clusterling.storage import memory, sqlite
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.metered import MeteredStore
from clusterling.storage.opening import open_store
from clusterling.storage.overlay import Overlay
from clusterling.storage.store import ABSENT, Op, Store

VALUE = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"' + b"x" * 960 + b'"}}'
LISTED = 500
WATCHES = 1000
CLUSTER = "c" * 12
BETWEEN_WRITES = 0.0002  # Seconds.

Make = Callable[[AsyncExitStack, Path], Awaitable[Store]]

_numbers = itertools.count()


async def _memory(stack: AsyncExitStack, _directory: Path) -> Store:
    return await stack.enter_async_context(memory.open())


def _of_url(url: str) -> Make:
    """A store that replicas share, in a place of its own."""

    async def make(stack: AsyncExitStack, _directory: Path) -> Store:
        own = f"{url}{'&' if '?' in url else '?'}schema=bench{next(_numbers)}"
        return await stack.enter_async_context(open_store(own))

    return make


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


def _occupied(seconds: float) -> None:
    """Keeps the interpreter busy for so long, as reading and answering a request does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def batches(store: Store, seconds: float, in_flight: int, occupied: float = 0.0) -> tuple[float, float]:
    """CPU of a create in a batch of so many, in microseconds: of the loop's thread, and of all others."""
    own = spent = 0.0
    rounds = 8 if occupied else 1

    async def writer() -> None:
        nonlocal spent
        for _ in range(rounds):
            if occupied:
                before = time.thread_time()
                _occupied(occupied)
                spent += time.thread_time() - before
                await asyncio.sleep(0)
            await store.write([Op(f"core/configmaps/batches/{next(_numbers):07}", VALUE, ABSENT)])

    async def batch() -> int:
        nonlocal own
        before = time.thread_time()
        await asyncio.gather(*(writer() for _ in range(in_flight)))
        own += time.thread_time() - before
        return in_flight * rounds

    await batch()
    own = spent = 0.0
    operations = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        operations += await batch()
    others = time.process_time() - cpu - own
    return (own - spent) / operations * 1e6, max(0.0, others) / operations * 1e6


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


async def rates(make: Make, seconds: float, directory: Path) -> list[float]:
    """Writes, and questions whether memory is fresh, per second of wall clock: here the server's time counts too."""

    async def per_second(batch: Callable[[], Awaitable[int]]) -> float:
        await batch()
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            done += await batch()
        return done / (time.perf_counter() - start)

    async with AsyncExitStack() as stack:
        store = await make(stack, directory)
        numbers = itertools.count()

        async def create(in_flight: int) -> int:
            async def writer() -> None:
                for _ in range(256 // in_flight):
                    await store.write([Op(f"core/configmaps/ns/c{next(numbers)}", VALUE, ABSENT)])

            await asyncio.gather(*(writer() for _ in range(in_flight)))
            return 256

        async def fresh(in_flight: int) -> int:
            async def asker() -> None:
                for _ in range(256 // in_flight):
                    await store.fresh()

            await asyncio.gather(*(asker() for _ in range(in_flight)))
            return 256

        return [
            await per_second(lambda count=count, work=work: work(count))  # type: ignore[misc]
            for work in (create, fresh)
            for count in (1, 16, 64)
        ]


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
    parser.add_argument(
        "--postgres", action="store_true", help="also PostgreSQL, started for this with fsync on"
    )
    options = parser.parse_args()
    print(
        f"CPU µs per operation, {platform.python_implementation()} {platform.python_version()}, SQLite {sqlite.VERSION}"
    )
    print(f"{'':28}{'write ×1':>10}{'×16':>8}{'×64':>8}{'get':>8}{'list 500':>10}{'delivery':>10}")
    with ExitStack() as servers:
        stores = dict(STORES)
        shared = {}
        if options.postgres:
            from tests.storage import postgres_server

            server = servers.enter_context(postgres_server.running(durable=True))
            shared[f"postgres {server.version}"] = _of_url(server.url)
            stores |= shared | {"cache(keyspace(postgres))": _cached(_keyspace(_of_url(server.url)))}
        print_costs(stores, options.seconds, options.directory)
        plain = {"memory": _memory, "sqlite": _sqlite, **shared}
        print_batches(plain, options.seconds, options.directory)
        if shared:
            print_rates({"sqlite": _sqlite, **shared}, options.seconds, options.directory)


def print_batches(stores: Mapping[str, Make], seconds: float, place: Path | None) -> None:
    async def figures(make: Make, directory: Path) -> list[tuple[float, float]]:
        async with AsyncExitStack() as stack:
            store = await make(stack, directory)
            return [await batches(store, seconds, count) for count in (1, 4, 16, 64)] + [
                await batches(store, seconds, 16, BETWEEN_WRITES)
            ]

    print(f"\na create, loop + others{'batch of 1':>15}{'4':>14}{'16':>14}{'64':>14}{'16, busy':>14}")
    for name, make in stores.items():
        with tempfile.TemporaryDirectory(dir=place) as directory:
            found = asyncio.run(figures(make, Path(directory)))
        print(f"{name:24}" + "".join(f"{own:8.1f} +{others:4.0f}" for own, others in found))


def print_rates(stores: Mapping[str, Make], seconds: float, directory: Path | None) -> None:
    print(f"\nper second{'create ×1':>28}{'×16':>8}{'×64':>8}{'fresh ×1':>10}{'×16':>8}{'×64':>8}")
    for name, make in stores.items():
        with tempfile.TemporaryDirectory(dir=directory) as place:
            figures = asyncio.run(rates(make, seconds, Path(place)))
        print(
            f"{name:28}"
            + "".join(
                f"{figure:10.0f}" if n in (0, 3) else f"{figure:8.0f}" for n, figure in enumerate(figures)
            )
        )


def print_costs(stores: Mapping[str, Make], seconds: float, place: Path | None) -> None:
    for name, make in stores.items():
        with tempfile.TemporaryDirectory(dir=place) as directory:
            one, sixteen, many, got, listed, delivered = asyncio.run(row(make, seconds, Path(directory)))
        print(f"{name:28}{one:10.1f}{sixteen:8.1f}{many:8.1f}{got:8.2f}{listed:10.1f}{delivered:10.2f}")


if __name__ == "__main__":
    main()
