"""The workload: what the load generator is asked to do to a target, and what it found.

Counts are for `scale` 1, chosen so that both servers are done in about three minutes on two cores and that each
figure of ours rests on a quarter of a second of CPU or more (`/proc` counts it in ticks of 10 ms).
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster import Target

IN_FLIGHT = (16, 64)
WATCHERS = 1000
WATCH_RATE = 4.0
BEGUN_OBJECTS = 20_000
BEGUN_WATCHES = 8
BEGUN_TOGETHER = 4
ACROSS_WATCHERS = 8
ACROSS_RATE = 50.0
ACROSS_WRITES = 500


class LoadError(Exception):
    """The generator saw errors: its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of one service. CPU is that of all its servers with their store, for one operation or one delivery.

    `store_us` is the store's part of it, where that is a process of its own.
    """

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    store_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Generator:
    """The load generator, its raw results kept as JSON lines in `out`."""

    binary: Path
    out: Path
    scale: float
    reps: int

    def ask(self, target: Target, op: str, **flags: object) -> dict[str, Any]:
        """One run. Raises LoadError where an operation failed."""
        command = [
            str(self.binary),
            "-op",
            op,
            "-base",
            target.base,
            "-token",
            target.token,
            "-ca",
            str(target.ca),
        ]
        command += ["-pids", ",".join(f"{name}={pid}+" for name, pid in target.pids.items())]
        for name, value in flags.items():
            command += [f"-{name.replace('_', '-')}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self.out.open("a") as out:
            out.write(done.stdout)
        if done.returncode != 0:
            raise LoadError(f"{op} {flags}: {done.stdout[-1500:]} {done.stderr[-500:]}")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def count(self, wanted: int) -> int:
        return max(1, round(wanted * self.scale))


# Runs operations with so many in flight; results by measure.
_Once = Callable[[Generator, Target, int], list[tuple[str, dict[str, Any]]]]


def _figure(runs: list[dict[str, Any]]) -> Figure:
    def median(key: str) -> float:
        return float(statistics.median(run[key] for run in runs))

    return Figure(
        cpu_us=median("cpu_ms_op_server") * 1000,
        rate=median("ops_s"),
        p50_ms=median("p50_ms"),
        p99_ms=median("p99_ms"),
        store_us=median("cpu_ms_op_store") * 1000 if "cpu_ms_op_store" in runs[0] else 0.0,
    )


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def verbs(generator: Generator, target: Target) -> dict[str, Figure]:
    """GET, LIST, CREATE, PATCH and DELETE; keys are `measure@in flight`."""
    for namespace in ("bench500", "benchw"):
        generator.ask(target, "setup", ns=namespace)
    for kind in ("configmap", "widget"):
        generator.ask(target, "seed", kind=kind, ns="bench500", c=8, n=500)
    return _measured(generator, target, "get, list, create, patch, delete", _verbs_once)


def reads(generator: Generator, target: Target) -> dict[str, Figure]:
    """GET and LIST alone, of what `verbs` has left in its namespace; keys as there."""
    return _measured(generator, target, "get, list", _reads_once)


def _measured(generator: Generator, target: Target, what: str, once: _Once) -> dict[str, Figure]:
    """All repetitions, at each number in flight."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(generator.reps):
        for in_flight in IN_FLIGHT:
            _progress(f"{what}, {in_flight} in flight")
            for measure, result in once(generator, target, in_flight):
                runs.setdefault(f"{measure}@{in_flight}", []).append(result)
    return {key: _figure(found) for key, found in runs.items()}


def _reads_once(generator: Generator, target: Target, in_flight: int) -> list[tuple[str, dict[str, Any]]]:
    done: list[tuple[str, dict[str, Any]]] = []
    reads, lists = generator.count(5000), generator.count(500)
    for kind in ("configmap", "widget"):
        common: dict[str, object] = {"kind": kind, "ns": "bench500", "c": in_flight}
        done.append((f"get {kind}", generator.ask(target, "get", n=reads, warm=500, **common)))
        listed = lists if kind == "configmap" else max(1, lists // 2)
        done.append((f"list {kind}", generator.ask(target, "list", n=listed, warm=4, expect=500, **common)))
    return done


def _verbs_once(generator: Generator, target: Target, in_flight: int) -> list[tuple[str, dict[str, Any]]]:
    done = _reads_once(generator, target, in_flight)
    writes = generator.count(2000)
    prefix = f"w{secrets.token_hex(3)}"
    for op in ("create", "patch", "delete"):
        found = generator.ask(target, op, kind="configmap", ns="benchw", c=in_flight, n=writes, prefix=prefix)
        done.append((f"{op} configmap", found))
    return done


def declared(generator: Generator, target: Target) -> dict[str, Figure]:
    """Server-side apply and update of objects that an apply had made, after `verbs`; keys as there."""
    return _measured(generator, target, "apply, update", _declared_once)


def _declared_once(generator: Generator, target: Target, in_flight: int) -> list[tuple[str, dict[str, Any]]]:
    done: list[tuple[str, dict[str, Any]]] = []
    prefix = f"a{secrets.token_hex(3)}"
    for kind, count in (("configmap", 1500), ("widget", 1000)):
        common: dict[str, object] = {"kind": kind, "ns": "benchw", "c": in_flight, "prefix": prefix}
        common["n"] = generator.count(count)
        generator.ask(target, "applycreate", **common)
        done.append((f"apply {kind}", generator.ask(target, "apply", **common)))
        if kind == "configmap":
            done.append((f"update {kind}", generator.ask(target, "update", **common)))
        generator.ask(target, "delete", **common)
    return done


def watches(generator: Generator, target: Target) -> dict[str, Figure]:
    """A thousand watchers of one collection, written to in a burst and at a pace."""
    generator.ask(target, "setup", ns="benchwatch")
    found: dict[str, Figure] = {}
    for measure, writes, rate in (("watch burst", 100, 0.0), ("watch paced", 20, WATCH_RATE)):
        _progress(f"{measure}, {WATCHERS} watchers")
        watchers = min(WATCHERS, generator.count(WATCHERS))
        run = generator.ask(
            target, "watch", ns="benchwatch", c=4, n=generator.count(writes), watchers=watchers, rate=rate
        )
        found[f"{measure}@{WATCHERS}"] = Figure(
            cpu_us=run["fanout_cpu_ms_per_event"] * 1000,
            rate=run["events_s"],
            p50_ms=run["sent_p50_ms"],
            p99_ms=run["sent_p99_ms"],
        )
        generator.ask(target, "deletecollection", ns="benchwatch", n=1)
    return found


def begun(generator: Generator, target: Target) -> dict[str, Figure]:
    """Watches of a big collection that begin with all of it, a few together, each up to the end of its initial events."""
    objects = generator.count(BEGUN_OBJECTS)
    _progress(f"watches that begin with {objects:,} objects")
    generator.ask(target, "setup", ns="benchbegun")
    generator.ask(target, "seed", kind="configmap", ns="benchbegun", c=32, n=objects, max_time="600s")
    run = generator.ask(
        target,
        "begin",
        kind="configmap",
        ns="benchbegun",
        c=BEGUN_TOGETHER,
        n=BEGUN_WATCHES,
        warm=1,
        expect=objects,
    )
    generator.ask(target, "deletecollection", kind="configmap", ns="benchbegun", n=1)
    return {f"begun@{BEGUN_TOGETHER}": _figure([run])}


def across(generator: Generator, target: Target, writer: Target, reader: Target) -> dict[str, Any]:
    """What the generator saw of writes to one replica, at a pace, whose events a few watchers of another one get."""
    generator.ask(target, "setup", ns="benchacross")
    _progress("watches of another replica than is written to")
    flags: dict[str, object] = {"watch_base": reader.base, "ns": "benchacross", "c": 8}
    at_writer = Target(writer.base, target.token, target.ca, target.pids)
    generator.ask(at_writer, "watch", n=20, watchers=ACROSS_WATCHERS, rate=ACROSS_RATE, **flags)
    return generator.ask(
        at_writer,
        "watch",
        n=generator.count(ACROSS_WRITES),
        watchers=ACROSS_WATCHERS,
        rate=ACROSS_RATE,
        **flags,
    )


def definitions(generator: Generator, target: Target, count: int) -> float:
    """p50 in ms from a CRD's POST to its first custom resource accepted."""
    _progress("a CRD to its first custom resource")
    return float(generator.ask(target, "crd", n=count, c=1, prefix=f"d{secrets.token_hex(2)}x")["p50_ms"])


def first_answers(generator: Generator, root: Target, count: int) -> float:
    """p50 in ms from a cluster's creation to its first answered request."""
    _progress("a cluster to its first answer")
    return float(
        generator.ask(root, "firstanswer", n=count, c=1, prefix=f"f{secrets.token_hex(2)}x")["p50_ms"]
    )


def idle_clusters(generator: Generator, root: Target, count: int, packs: str = "") -> tuple[float, float]:
    """Creations a second, and KB resident for each cluster afterwards. `packs`: what they choose, "" nothing."""
    _progress(f"{count} idle clusters{packs and f' with packs {packs}'}")
    run = generator.ask(root, "clusters", n=count, c=32, prefix="idle", packs=packs)
    grown_mb = run["rss_mb_server"] - run["rss_before_mb_server"]
    return float(run["ops_s"]), grown_mb * 1024 / count
