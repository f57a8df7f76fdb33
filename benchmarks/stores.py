"""`make bench-stores`: the service on each store, with one and three replicas, beside kube-apiserver and kine.

Everything runs on this machine in one go: SQLite first, for what reads cost where no store has to be asked; then
PostgreSQL, with fsync; then one etcd process, which kube-apiserver gets after us, with its keys beside ours. The load is
spread over the replicas. CPU is that of all replicas with their store; the load generator is not counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import loads, peers
from benchmarks.__main__ import OUT, interpreter, machine
from benchmarks.cluster import Shared, Target, clusterling, replicas
from benchmarks.kine import Writes, kine, ours, through_kine
from benchmarks.loads import Figure, Generator
from benchmarks.table import TITLES, Scalar, aligned, mark, number, ratio, scalars
from tests.storage import etcd_server, postgres_server

REPLICAS = (1, 3)
KINE_WRITES = 5000
CREATE_A_SECOND = 3000.0
ACROSS_P50_MS, ACROSS_P99_MS = 10.0, 100.0
PEER_SHARE = 4.0  # kube-apiserver takes at least so many times our CPU.
# "As on SQLite": its CPU and a quarter, for a question to the store that sixteen readers share.
AS_ON_SQLITE = 1.25

Figures = Mapping[str, Figure]


@dataclass(slots=True)
class Measured:
    """All of one store: figures by the number of replicas, and what watches across replicas saw."""

    by_replicas: dict[int, Figures] = field(default_factory=dict)
    across: dict[str, Any] = field(default_factory=dict)


def measure(generator: Generator, directory: Path, store: Shared, name: str) -> Measured:
    """The service over a store; each number of replicas in a place of its own there."""
    found = Measured()
    for count in REPLICAS:
        print(f"{name}, {count} replica{'s' * (count > 1)}", file=sys.stderr, flush=True)
        own = Shared(store.url.replace("{place}", f"bench{count}"), store.pid)
        with replicas(directory / f"{name}{count}", own, count) as (server, each):
            figures = dict(loads.verbs(generator, server.bench))
            figures |= loads.watches(generator, server.bench)
            if count > 1:
                found.across = loads.across(generator, server.bench, each[0], each[1])
        found.by_replicas[count] = figures
    return found


def on_sqlite(generator: Generator, directory: Path) -> Figures:
    print("SQLite, one server", file=sys.stderr, flush=True)
    with clusterling(directory / "sqlite") as server:
        figures = dict(loads.verbs(generator, server.bench))
        return figures | loads.watches(generator, server.bench)


def on_etcd(generator: Generator, directory: Path, *, with_peer: bool) -> tuple[Measured, dict[int, Figures]]:
    """Ours and, by their number, kube-apiservers', over one etcd process."""
    binary = peers.ETCD if peers.ETCD.is_file() else etcd_server.binary()
    with peers.etcd(directory / "etcd", binary) as etcd:
        store = Shared(f"etcd://127.0.0.1:{etcd.port}/{{place}}", etcd.pid)
        found = measure(generator, directory, store, "etcd")
        if not with_peer:
            return found, {}
        of_peers: dict[int, Figures] = {}
        for count in REPLICAS:
            print(f"{_kube_apiservers(count)} on the same etcd", file=sys.stderr, flush=True)
            with peers.kube_apiserver(directory / "peer", etcd, count) as peer:
                time.sleep(1)
                target = Target(",".join(peer.urls), peers.BENCH_TOKEN, peer.ca, peer.pids)
                figures = dict(loads.verbs(generator, target))
                of_peers[count] = figures | loads.watches(generator, target)
        return found, of_peers


def _kube_apiservers(count: int) -> str:
    return "kube-apiserver" if count == 1 else f"{count} kube-apiservers"


def beside_kine(
    generator: Generator,
    directory: Path,
    server: postgres_server.PostgresServer,
    binary: Path | None,
    load: Path | None,
) -> dict[tuple[str, int], Writes]:
    """Writes by store and number in flight."""
    found: dict[tuple[str, int], Writes] = {}
    count = generator.count(KINE_WRITES)
    print("the stores alone: ours and kine, on PostgreSQL", file=sys.stderr, flush=True)
    for in_flight in loads.IN_FLIGHT:
        found["storage/postgres", in_flight] = ours(
            f"{server.url}&schema=alone", server.pid, in_flight, count
        )
    if binary is not None and load is not None:
        with kine(binary, server.url, directory) as at:
            for in_flight in loads.IN_FLIGHT:
                found["kine", in_flight] = through_kine(load, at, server.pid, in_flight, count, generator.out)
    return found


def table(found: Measured, sqlite: Figures, peers_: Mapping[int, Figures]) -> str:
    """A row for each operation and number in flight; verdicts are on the column before them.

    As many replicas are compared with as many kube-apiservers: of both, each follows what the others write.
    """
    heads = ["operation", "in flight", "SQLite: CPU µs"]
    for count in found.by_replicas:
        title = f"{count} replica{'s' * (count > 1)}"
        heads += [f"{title}: CPU µs", "of it the store's", "", "a second", "p50 ms", "p99 ms"]
    for count in peers_:
        heads += [f"{_kube_apiservers(count)}: CPU µs", "a second", "ratio", ""]
    rows = [heads]
    for key, alone in sqlite.items():
        measure, _, in_flight = key.partition("@")
        row = [TITLES[measure], in_flight, number(alone.cpu_us)]
        figures = [of[key] for of in found.by_replicas.values()]
        for figure in figures:
            read = measure.startswith(("get", "list"))
            met = figure.cpu_us <= alone.cpu_us * AS_ON_SQLITE if read else None
            row += [number(figure.cpu_us), number(figure.store_us), mark(met=met), number(figure.rate)]
            row += [number(figure.p50_ms), number(figure.p99_ms)]
        for count, of in peers_.items():
            ours_, other = found.by_replicas[count][key], of[key]
            row += [number(other.cpu_us), number(other.rate), ratio(other.cpu_us, ours_.cpu_us)]
            row.append(mark(met=ours_.cpu_us * PEER_SHARE <= other.cpu_us))
        rows.append(row)
    return aligned(rows)


def summary(name: str, found: Measured) -> list[Scalar]:
    scalars_ = [
        Scalar(
            f"{name}: CREATE, {count} replica{'s' * (count > 1)}",
            "a second",
            CREATE_A_SECOND,
            max(figures[f"create configmap@{in_flight}"].rate for in_flight in loads.IN_FLIGHT),
            at_least=True,
        )
        for count, figures in found.by_replicas.items()
    ]
    across = found.across
    return [
        *scalars_,
        Scalar(
            f"{name}: write at one replica, event at another, p50", "ms", ACROSS_P50_MS, across["sent_p50_ms"]
        ),
        Scalar(f"{name}: the same, p99", "ms", ACROSS_P99_MS, across["sent_p99_ms"]),
    ]


def alone(writes: Mapping[tuple[str, int], Writes]) -> str:
    rows = [
        [
            "1 KB created in PostgreSQL",
            "in flight",
            "a second",
            "p50 ms",
            "p99 ms",
            "CPU µs",
            "PostgreSQL's CPU µs",
        ]
    ]
    for (name, in_flight), figure in writes.items():
        rows.append(
            [
                name,
                str(in_flight),
                number(figure.rate),
                number(figure.p50_ms),
                number(figure.p99_ms),
                number(figure.writer_us),
                number(figure.database_us),
            ]
        )
    return aligned(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--loadgen", type=Path, required=True, help="the load generator that make built")
    parser.add_argument("--kine", type=Path, help="kine's program; without it kine is left out")
    parser.add_argument("--kine-load", type=Path, help="the program that writes to kine")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of operations")
    parser.add_argument("--reps", type=int, default=1, help="repetitions of get, list, create, patch, delete")
    parser.add_argument("--no-peer", action="store_true", help="leave kube-apiserver out")
    parser.add_argument(
        "--only",
        choices=("postgres", "etcd", "kine"),
        action="append",
        help="may be given again; all by default",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    OUT.mkdir(exist_ok=True)
    raw = OUT / f"stores-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    generator = Generator(options.loadgen.resolve(), raw, options.scale, options.reps)
    wanted = options.only or ("postgres", "etcd", "kine")
    print(f"{interpreter()}\n{machine()}\n", flush=True)
    found: list[Scalar] = []
    with tempfile.TemporaryDirectory(prefix="clusterling-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        services = [store for store in ("postgres", "etcd") if store in wanted]
        sqlite = on_sqlite(generator, directory) if services else {}
        if "postgres" in wanted or "kine" in wanted:
            server = stack.enter_context(postgres_server.running(durable=True))
            if "kine" in wanted:
                writes = beside_kine(generator, directory, server, options.kine, options.kine_load)
                print(f"PostgreSQL {server.version}, the store alone\n\n{alone(writes)}\n", flush=True)
            if "postgres" in wanted:
                store = Shared(f"{server.url}&schema={{place}}", server.pid)
                on_postgres = measure(generator, directory, store, "PostgreSQL")
                print(f"PostgreSQL {server.version}\n\n{table(on_postgres, sqlite, {})}\n", flush=True)
                found += summary("PostgreSQL", on_postgres)
            stack.close()
        if "etcd" in wanted:
            with_peer = peers.built() and not options.no_peer
            measured, peer = on_etcd(generator, directory, with_peer=with_peer)
            print(f"etcd\n\n{table(measured, sqlite, peer)}\n", flush=True)
            found += summary("etcd", measured)
    if found:
        print(scalars(found))
    print(f"\nCPU is that of all replicas with their store. Raw results: {raw}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
