"""`make bench`: speed and size of a server process, beside the targets and beside kube-apiserver where that is built.

CPU is what `/proc` charges to the server with its store; the load generator is a process of its own and is not counted.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
import timeit
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import loads, peers
from benchmarks.bare import bare
from benchmarks.cluster import Target, clusterling, resident_mb
from benchmarks.loads import Figure, Generator
from benchmarks.table import Scalar, operations, scalars

OUT = Path(__file__).parent / "out"
IDLE_CLUSTERS = 10_000
CHOICES = ("none", "all")  # Of built-in kinds; those of an idle cluster take nothing.
FIRST_ANSWERS = 300
DEFINITIONS = 30
PEER_DEFINITIONS = 3
STARTS = 3


@dataclass(slots=True)
class Measured:
    """All that one server came to. `numbers` are by the measure's name, `floor` is what a bare server took."""

    figures: dict[str, Figure] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    floor: dict[str, Figure] = field(default_factory=dict)


def interpreter() -> str:
    """Which Python served, and how fast it runs Python: builds of one version differ by half as much again."""
    laps = min(timeit.repeat("for i in r: i * i", "r = range(1000)", number=2000, repeat=5))
    speed = f"{2 / laps:.0f} million turns of a plain loop a second"
    base = getattr(sys, "_base_executable", sys.executable)
    return f"{platform.python_implementation()} {platform.python_version()}, {base}, {speed}"


def machine() -> str:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{len(models)} × {model}"


def measure_ours(generator: Generator, directory: Path) -> Measured:
    found = Measured()
    starts, rests = [], []
    for turn in range(STARTS):
        with clusterling(directory / f"start{turn}") as server:
            starts.append(server.start_s)
            rests.append(server.rest_mb)
    found.numbers |= {"start": statistics.median(starts), "rest": statistics.median(rests)}
    with clusterling(directory / "loaded") as server:
        found.figures |= loads.verbs(generator, server.bench)
        found.figures |= loads.declared(generator, server.bench)
        with bare(server.bench, "bench500", directory / "bare") as target:
            print("a bare TLS server with the same answers", file=sys.stderr)
            found.floor |= loads.reads(generator, target)
            print("Clusterling, SQLite", file=sys.stderr)
        found.figures |= loads.watches(generator, server.bench)
        found.figures |= loads.begun(generator, server.bench)
        found.numbers["definition"] = loads.definitions(generator, server.bench, generator.count(DEFINITIONS))
        found.numbers["loaded"] = resident_mb(server.bench.pids)
    with clusterling(directory / "clusters") as server:
        found.numbers["first answer"] = loads.first_answers(
            generator, server.root, generator.count(FIRST_ANSWERS)
        )
    with clusterling(directory / "idle") as server:
        rate, size_kb = loads.idle_clusters(generator, server.root, generator.count(IDLE_CLUSTERS))
        found.numbers |= {"creations": rate, "idle": size_kb}
    for packs in CHOICES:
        with clusterling(directory / f"idle-{packs}") as server:
            _, size_kb = loads.idle_clusters(generator, server.root, generator.count(IDLE_CLUSTERS), packs)
            found.numbers[f"idle {packs}"] = size_kb
    return found


def measure_peer(generator: Generator, directory: Path) -> Measured:
    found = Measured()
    with peers.kube_apiserver(directory / "peer") as peer:
        time.sleep(1)
        found.numbers |= {"start": peer.start_s, "rest": resident_mb(peer.pids)}
        target = Target(peer.url, peers.BENCH_TOKEN, peer.ca, peer.pids)
        found.figures |= loads.verbs(generator, target)
        found.figures |= loads.declared(generator, target)
        found.figures |= loads.watches(generator, target)
        found.figures |= loads.begun(generator, target)
        found.numbers["definition"] = loads.definitions(generator, target, PEER_DEFINITIONS)
        found.numbers["loaded"] = resident_mb(peer.pids)
    return found


def soak(generator: Generator, directory: Path, requests: int) -> list[Scalar]:
    """What many requests leave behind: resident memory after the first tenth and at the end.

    Of ten requests seven are reads; the others create objects and delete them again.
    """
    with clusterling(directory / "soak") as server:
        generator.ask(server.bench, "setup", ns="soak")
        generator.ask(server.bench, "seed", ns="soak", n=10)
        sizes = []
        for turn in range(10):
            each: dict[str, object] = {"ns": "soak", "c": 16, "max_time": "3600s"}
            generator.ask(server.bench, "get", n=round(requests * 0.07), **each)
            for op in ("create", "delete"):
                generator.ask(server.bench, op, n=round(requests * 0.015), prefix=f"turn{turn}", **each)
            sizes.append(resident_mb(server.bench.pids))
            print(f"  {requests * (turn + 1) // 10:,}: {sizes[-1]:.1f} MB", file=sys.stderr, flush=True)
    return [
        Scalar(f"resident after {requests // 10:,} requests", "MB", None, sizes[0]),
        Scalar(f"resident after {requests:,} requests", "MB", None, sizes[-1]),
    ]


def summary(ours: Measured, peer: Measured | None, clusters: int) -> list[Scalar]:
    def of_peer(name: str) -> float | None:
        return peer.numbers.get(name) if peer else None

    numbers = ours.numbers
    return [
        Scalar("start to /readyz", "s", 0.6, numbers["start"], of_peer("start")),
        Scalar("resident at rest", "MB", 90, numbers["rest"], of_peer("rest")),
        Scalar("resident after this load", "MB", None, numbers["loaded"], of_peer("loaded")),
        Scalar("cluster created to first answer, p50", "ms", 5, numbers["first answer"]),
        Scalar(f"{clusters:,} idle clusters, each", "KB", 5, numbers["idle"]),
        *(
            Scalar(f"{clusters:,} idle clusters with packs {packs}, each", "KB", 5, numbers[f"idle {packs}"])
            for packs in CHOICES
        ),
        Scalar("clusters created", "a second", 500, numbers["creations"], at_least=True),
        Scalar("CRD to first custom resource, p50", "ms", 10, numbers["definition"], of_peer("definition")),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--loadgen", type=Path, required=True, help="the load generator that make built")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of operations")
    parser.add_argument("--reps", type=int, default=1, help="repetitions of get, list, create, patch, delete")
    parser.add_argument("--no-peer", action="store_true", help="leave the real server out")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="only look for a leak")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    OUT.mkdir(exist_ok=True)
    raw = OUT / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    generator = Generator(options.loadgen.resolve(), raw, options.scale, options.reps)
    print(f"{interpreter()}\n{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="clusterling-bench-") as name:
        directory = Path(name)
        if options.soak:
            print(scalars(soak(generator, directory, options.soak)))
            return 0
        print("Clusterling, SQLite with synchronous=FULL", file=sys.stderr)
        ours, peer = measure_ours(generator, directory), None
        if peers.built() and not options.no_peer:
            print("kube-apiserver and etcd", file=sys.stderr)
            peer = measure_peer(generator, directory)
    print(operations(ours.figures, peer.figures if peer else {}, ours.floor), end="\n\n")
    print(scalars(summary(ours, peer, generator.count(IDLE_CLUSTERS))))
    print(f"\nCPU is that of the server with its store. Raw results: {raw}")
    if not peers.built():
        print(f"The real server is not built in {peers.PEERS}: nothing to compare with.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
