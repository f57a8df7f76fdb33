"""`make bench-clusters`: a hundred thousand logical clusters in one process, beside the aims.

They are made through the API, and listed by the ways that clients have. Then a tenth as many more are made, under the eyes of
a hundred watchers of `root`, and used: each gets a token and an object. Those are deleted while a tenant's GETs go on, and
what is resident is compared with what it was before they were made. At the end the server is started anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.__main__ import OUT, interpreter, machine
from benchmarks.cluster import CLUSTERLING, Server, Shared, Target, clusterling, replicas, resident_mb
from benchmarks.loads import Generator
from benchmarks.million import call
from benchmarks.table import Scalar, scalars
from tests.ports import free_port
from tests.storage import etcd_server, postgres_server

CLUSTERS = 100_000
LATER = 10  # For so many one more is made later than the others, watched, used and deleted.
BESIDES = 3  # `root`, `default` and the benchmark's own.
WATCHERS = 100
IN_FLIGHT = 64
PAGE = 500
REST_S = 10.0
SWEPT_S = 45.0  # By then the server has looked what memory nobody uses any more.
QUIET_S = 10
GONE_MAX_S = 600.0

KIND = "logicalcluster"
LIST = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FIRST, LAST = "many", "more"

# What the service is to come to.
CREATED_A_SECOND = 500.0
IDLE_MB = 1200.0
DELETED_WITHIN_S = 30.0  # Ten thousand.
GIVEN_BACK_WITHIN = 15.0  # Per cent.
START_S = 2.0


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def at_rest(root: Target, rest_s: float = REST_S) -> float:
    """What is resident in MB after a rest."""
    time.sleep(rest_s)
    return resident_mb(own(root))


def own(root: Target) -> dict[str, int]:
    return {"server": root.pids["server"]}


def make(generator: Generator, root: Target, count: int) -> list[Scalar]:
    progress(f"{count:,} clusters")
    made = generator.ask(root, "create", kind=KIND, n=count, c=IN_FLIGHT, prefix=FIRST, max_time="3600s")
    return [
        Scalar(
            f"clusters created, {IN_FLIGHT} in flight",
            "a second",
            CREATED_A_SECOND,
            made["ops_s"],
            at_least=True,
        ),
        Scalar("creation, p50", "ms", None, made["p50_ms"]),
        Scalar("creation, p99", "ms", None, made["p99_ms"]),
        Scalar("creation, CPU of server and store", "µs", None, made["cpu_ms_op_server"] * 1000),
    ]


def rest(root: Target, before_mb: float, count: int) -> list[Scalar]:
    progress("rest")
    resident = at_rest(root)
    taken = cpu_s(root.pids["server"])
    time.sleep(REST_S)
    taken = cpu_s(root.pids["server"]) - taken
    return [
        Scalar(f"resident with {count:,} idle clusters", "MB", IDLE_MB, resident),
        Scalar("an idle cluster", "KB", None, (resident - before_mb) * 1024 / count),
        Scalar("CPU of the server at rest", "ms a second", None, taken * 1000 / REST_S),
    ]


def watched(generator: Generator, root: Target, count: int) -> list[Scalar]:
    progress(f"{count:,} more, with {WATCHERS} watchers")
    seen = generator.ask(
        root, "watch", kind=KIND, n=count, c=IN_FLIGHT, prefix=LAST, watchers=WATCHERS, max_time="3600s"
    )
    return [
        Scalar(
            f"created with {WATCHERS} watchers", "a second", CREATED_A_SECOND, seen["writes_s"], at_least=True
        ),
        Scalar("events delivered", "a second", None, seen["events_s"]),
        Scalar("write sent to event received, p99", "ms", None, seen["sent_p99_ms"]),
        Scalar("events missed", "", 0, seen["missing"]),
    ]


def listed(generator: Generator, server: Server, data: Path, count: int) -> list[Scalar]:
    """The ways to see all of them: whole, in kubectl's pages, by the command line; and what each leaves resident."""
    found = []
    ways: dict[str, dict[str, object]] = {
        "list, whole": {},
        f"list, in pages of {PAGE}": {"page": PAGE},
        f"list, in pages of {PAGE}, as kubectl's tables": {"page": PAGE, "accept": TABLE},
        "watch that begins with all": {},
    }
    for way, flags in ways.items():
        progress(way)
        op = "begin" if way.startswith("watch") else "list"
        run = generator.ask(
            server.root, op, kind=KIND, n=1, c=1, expect=count + BESIDES, max_time="600s", **flags
        )
        found.append(Scalar(way, "s", None, run["seconds"]))
        found.append(Scalar("… resident then", "MB", IDLE_MB, run["rss_mb_server"]))
    progress("clusterling list")
    began = time.monotonic()
    shown = subprocess.run(
        [*CLUSTERLING, "list", "--data-dir", str(data), "-o", "name", "--timeout", "120"],
        check=True,
        capture_output=True,
    )
    found.append(Scalar("clusterling list", "s", None, time.monotonic() - began))
    lines = shown.stdout.count(b"\n")
    assert lines >= count, f"{lines} of {count} clusters were listed"
    return found


@contextmanager
def neighbour(generator: Generator, bench: Target) -> Iterator[dict[str, Any]]:
    """A tenant that reads, one request after the other, while the context lasts; what it saw is there at its end."""
    process = subprocess.Popen(
        [
            *(str(generator.binary), "-op", "get", "-base", bench.base, "-token", bench.token),
            *("-ca", str(bench.ca), "-ns", "neighbour", "-n", "100000000", "-c", "1", "-max-time", "3600s"),
        ],
        stdout=subprocess.PIPE,
    )
    seen: dict[str, Any] = {}
    try:
        yield seen
    finally:
        process.terminate()  # It says then what it has seen.
        answer, _ = process.communicate()
    seen |= json.loads(answer.splitlines()[-1])


def number_of(root: Target) -> int:
    metadata = call(root, f"{LIST}?limit=1")["metadata"]
    return 1 + int(metadata.get("remainingItemCount", 0))


def deleted(generator: Generator, server: Server, names: str, count: int, before_mb: float) -> list[Scalar]:
    """Deletes so many clusters, `names` with a number each."""
    root = server.root
    generator.ask(server.bench, "setup", ns="neighbour")
    generator.ask(server.bench, "seed", ns="neighbour", n=1, c=1)
    progress("a neighbour, alone")
    with neighbour(generator, server.bench) as quiet:
        time.sleep(QUIET_S)
    progress(f"{count:,} are deleted")
    there = number_of(root)
    with neighbour(generator, server.bench) as meanwhile:
        began, taken_s = time.monotonic(), -cpu_s(root.pids["server"])
        generator.ask(root, "delete", kind=KIND, n=count, c=IN_FLIGHT, prefix=names, max_time="3600s")
        answered_s = time.monotonic() - began
        while (left := number_of(root) - (there - count)) > 0:
            if time.monotonic() - began > GONE_MAX_S:
                raise RuntimeError(f"{left} clusters are still there")
            time.sleep(0.1)
        gone_s = time.monotonic() - began
        taken_s += cpu_s(root.pids["server"])
    progress("rest")
    resident = at_rest(root, SWEPT_S)
    return [
        Scalar(f"{count:,} used clusters deleted: answered", "s", None, answered_s),
        Scalar("… and gone, data and all", "s", DELETED_WITHIN_S * count / 10_000, gone_s),
        Scalar("… CPU of the server, each", "µs", None, taken_s / count * 1e6),
        Scalar("resident before they were made", "MB", None, before_mb),
        Scalar("resident after they were deleted", "MB", None, resident),
        Scalar("… over what was before", "%", GIVEN_BACK_WITHIN, (resident / before_mb - 1) * 100),
        Scalar("a neighbour's GET meanwhile, p50", "ms", None, meanwhile["p50_ms"]),
        Scalar("… p99", "ms", 2 * quiet["p99_ms"] + 10, meanwhile["p99_ms"]),
        Scalar("… p99 in quiet", "ms", None, quiet["p99_ms"]),
    ]


def measure(generator: Generator, server: Server, data: Path, count: int) -> list[Scalar]:
    """Everything but the second start. `count`: of all clusters."""
    root, later = server.root, max(1, count // LATER)
    found = make(generator, root, count)
    found += rest(root, server.rest_mb, count)
    found += listed(generator, server, data, count)
    before_mb = at_rest(root)
    found += watched(generator, root, later)
    progress("they are used")
    names = names_of(root, LAST)
    generator.ask(root, "useclusters", n=later, c=IN_FLIGHT, prefix=f"{names}-", max_time="3600s")
    used_mb = at_rest(root)
    found.append(Scalar(f"resident with {later:,} more, in use", "MB", IDLE_MB, used_mb))
    found += deleted(generator, server, names, later, before_mb)
    return found


def names_of(root: Target, prefix: str) -> str:
    """What the generator called its watched clusters, up to their numbers."""
    after, more = "", True
    while more:
        page = call(root, f"{LIST}?limit={PAGE}&continue={after}")
        for item in page["items"]:
            if item["metadata"]["name"].startswith(prefix):
                return str(item["metadata"]["name"]).rpartition("-")[0]
        after = page["metadata"].get("continue", "")
        more = bool(after)
    raise RuntimeError(f"no cluster is called {prefix}")


def second_start(server: Server, count: int) -> list[Scalar]:
    resident = at_rest(server.root)
    return [
        Scalar(f"start to /readyz with {count:,} clusters", "s", START_S, server.start_s),
        Scalar("resident then, at rest", "MB", IDLE_MB, resident),
    ]


def measured(generator: Generator, directory: Path, count: int, store: str) -> list[Scalar]:
    """On that kind of store; the second server has the first one's port: another would be written into every cluster."""
    port = free_port()
    with ExitStack() as stack:
        if store == "sqlite":
            data = directory / "data"
            with clusterling(data, port=port) as server:
                found = measure(generator, server, data, count)
            progress("a second start")
            with clusterling(data, port=port) as server:
                return found + second_start(server, count)
        if store == "postgres":
            database = stack.enter_context(postgres_server.running(durable=True))
            shared = Shared(database.url, database.pid)
        else:
            etcd = stack.enter_context(peers.etcd(directory / "etcd", etcd_server.binary()))
            shared = Shared(f"etcd://127.0.0.1:{etcd.port}/bench", etcd.pid)
        with replicas(directory / "data", shared, 1, port) as (server, _):
            found = measure(generator, server, directory / "data", count)
        progress("a second start")
        with replicas(directory / "again", shared, 1, port) as (server, _):
            return found + second_start(server, count)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--loadgen", type=Path, required=True, help="the load generator that make built")
    parser.add_argument(
        "--clusters", type=int, default=CLUSTERS, metavar="N", help="how many there are to be"
    )
    parser.add_argument("--store", choices=("sqlite", "postgres", "etcd"), default="sqlite")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    OUT.mkdir(exist_ok=True)
    raw = OUT / f"clusters-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    generator = Generator(options.loadgen.resolve(), raw, 1.0, 1)
    print(f"{interpreter()}\n{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="clusterling-bench-") as name:
        print(scalars(measured(generator, Path(name), options.clusters, options.store)))
    print(f"\nOn {options.store}. Raw results: {raw}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
