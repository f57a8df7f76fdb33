"""The stores alone: ours on PostgreSQL, and kine (github.com/k3s-io/kine), which is etcd's API over the same PostgreSQL.

Both create keys with values of the same size, guarded against being there, so many at a time. Ours is called in this
process (`Store.write`), kine through its API by a Go program; CPU is that of whoever turns writes into SQL (this
process, kine's), and of PostgreSQL's processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import stop
from clusterling.storage.opening import open_store
from clusterling.storage.store import ABSENT, Op
from tests.ports import free_port

VALUE_BYTES = 1024
WARM = 500
CONNECTIONS = 64  # Of kine's; it would open more than PostgreSQL takes, and close them again.
_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Writes:
    """What creating keys came to, a second and for each write."""

    rate: float
    p50_ms: float
    p99_ms: float
    writer_us: float
    database_us: float


def cpu_us(pid: int) -> float:
    """What the kernel has charged to a process and those that descend from it."""
    total, family = 0.0, [pid]
    for one in family:
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            family += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue  # It has just ended.
        total += sum(map(int, fields[11:15])) * _TICK_US  # With that of children that have ended.
    return total


async def _create(url: str, database: int, in_flight: int, count: int) -> Writes:
    value = b"{" + b"x" * (VALUE_BYTES - 2) + b"}"
    prefix = f"bench{secrets.token_hex(3)}/core/configmaps/bench/"
    async with open_store(url) as store:
        times: list[float] = []

        async def writer(numbers: Iterator[int]) -> None:
            for number in numbers:
                began = time.perf_counter()
                await store.write([Op(f"{prefix}{number}", value, ABSENT)])
                times.append(time.perf_counter() - began)

        async def written(first: int, last: int) -> None:
            numbers = iter(range(first, last))
            await asyncio.gather(*(writer(numbers) for _ in range(in_flight)))

        await written(0, WARM)
        times.clear()
        used, began, own = cpu_us(database), time.perf_counter(), time.process_time()
        await written(WARM, WARM + count)
        took, own = time.perf_counter() - began, time.process_time() - own
        used = cpu_us(database) - used
    times.sort()
    return Writes(
        count / took,
        times[count // 2] * 1e3,
        times[count * 99 // 100] * 1e3,
        own / count * 1e6,
        used / count,
    )


def ours(url: str, database: int, in_flight: int, count: int) -> Writes:
    """Creates through our store; `database` is PostgreSQL's first process."""
    import uvloop

    return uvloop.run(_create(url, database, in_flight, count))


@contextmanager
def kine(binary: Path, database_url: str, directory: Path) -> Iterator[tuple[str, int]]:
    """A kine over the PostgreSQL, in a database of its own: where it listens, and its process."""
    port = free_port()
    base, _, query = database_url.partition("?")
    own = base.rpartition("/")[0] + "/kine" + (f"?{query}" if query else "")
    with (directory / "kine.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(binary.resolve()),
                f"--endpoint={own}",
                f"--listen-address=tcp://127.0.0.1:{port}",
                "--metrics-bind-address=0",
                f"--datastore-max-open-connections={CONNECTIONS}",
                f"--datastore-max-idle-connections={CONNECTIONS}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
    try:
        yield f"127.0.0.1:{port}", process.pid
    finally:
        stop(process)


def through_kine(
    load: Path, at: tuple[str, int], database: int, in_flight: int, count: int, raw: Path
) -> Writes:
    """Creates through a kine, by the program `load`."""
    endpoint, pid = at

    def create(wanted: int) -> str:
        prefix = f"/registry/configmaps/{secrets.token_hex(3)}/"
        return subprocess.run(
            [
                str(load),
                f"-endpoint={endpoint}",
                f"-c={in_flight}",
                f"-n={wanted}",
                f"-size={VALUE_BYTES}",
                f"-prefix={prefix}",
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    create(WARM)
    own, used = cpu_us(pid), cpu_us(database)
    out = create(count)
    own, used = cpu_us(pid) - own, cpu_us(database) - used
    with raw.open("a") as file:
        file.write(out)
    found = json.loads(out)
    return Writes(found["ops_s"], found["p50_ms"], found["p99_ms"], own / count, used / count)
