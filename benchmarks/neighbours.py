"""`make bench-neighbours`: what one tenant notices of another that does all it may at once.

The loud one lists 5,000 objects fifty times at once, sends bodies of 3 MB, holds ten thousand watches, each for a minute or two,
of a collection that changes, and makes and deletes a CRD of 1 MB; all in a loop. The quiet one reads and creates small
objects at a pace: first alone, then beside each sort of noise, then beside all of them. What it may take is twice its quiet
p99 plus 10 ms. Last, and beyond that, it is beside 64 clients that create as fast as they can.

Both are clients in processes of their own, the loud one with a lower priority and another address, as if it ran elsewhere: what the quiet client waited
for the processor itself is told beside its figures, and so is what the server measured of the same requests.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.__main__ import interpreter, machine
from benchmarks.cluster import Server, Target, clusterling, tenant
from benchmarks.loads import Generator
from benchmarks.million import trusting

OBJECTS = 5_000
WATCHES = 10_500  # More than it may.
SORTS = ("lists", "bodies", "watches", "definitions")
WRITES = "writes"
FACTOR, MORE_MS = 2.0, 10.0  # Must show: at most so many times the quiet p99, and so many milliseconds.
MEASURED_S = 20.0
OPENED_S = 120.0  # For ten thousand watches to begin.
ELSEWHERE = "127.0.0.2"
WARM_S = 2.0
RATE = 60.0
TICKS = 100.0  # A second, in /proc.


@dataclass(frozen=True, slots=True)
class Seen:
    """What the quiet client saw, the generator's own lateness, and what the server counted of the same requests."""

    client: dict[str, Any]
    server_mean_ms: float
    server_over: dict[str, float]
    server_share: float


def flags_of(target: Target, **flags: object) -> list[str]:
    told = ["-base", target.base, "-token", target.token, "-ca", str(target.ca)]
    for name, value in flags.items():
        told += [f"-{name.replace('_', '-')}", str(value)]
    return told


@contextmanager
def loud(binary: Path, target: Target, sorts: Sequence[str], found: dict[str, Any]) -> Iterator[None]:
    """The loud tenant at work; `found` has what it was told when it is over."""
    flags = flags_of(
        target,
        op="noise",
        noise=",".join(sorts),
        ns="bench",
        watchers=WATCHES,
        rate=1,
        max_time=f"{OPENED_S + 4 * MEASURED_S:.0f}s",
        **{"from": ELSEWHERE},
    )
    process = subprocess.Popen(
        ["nice", "-n", "10", str(binary), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None, "it is a pipe"
        line = process.stdout.readline()
        if "ready" not in line:
            raise RuntimeError(f"the loud tenant said {line!r}, and ended")
        time.sleep(WARM_S)
        yield
        process.terminate()
        text, errors = process.communicate(timeout=60)
        if process.returncode:
            raise RuntimeError(f"the loud tenant ended with {process.returncode}: {errors[-2000:]}")
        found.update(json.loads(text.splitlines()[-1]))
    finally:
        process.kill()
        process.wait()


def counted(server: Server, cluster: str) -> dict[str, float]:
    """Of the cluster's requests: `sum`, and by the bound's name how many took no longer."""
    url = f"{server.root.base.partition('/clusters/')[0]}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {server.root.token}"})
    with urllib.request.urlopen(request, context=trusting(server.root.ca), timeout=60) as answer:
        text = answer.read().decode()
    name = "clusterling_cluster_request_duration_seconds"
    values: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(name) and f'cluster="{cluster}"' in line:
            labels, _, value = line.rpartition(" ")
            bound = labels.partition('le="')[2].partition('"')[0]
            values[bound or labels[len(name) + 1 :].partition("{")[0]] = float(value)
    return values


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(binary: Path, server: Server, seconds: float) -> Seen:
    pid = server.root.pids["server"]
    before, used, began = counted(server, "bench"), cpu_s(pid), time.monotonic()
    flags = flags_of(server.bench, op="neighbour", ns="bench", c=4, rate=RATE, max_time=f"{seconds:.0f}s")
    done = subprocess.run([str(binary), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the quiet tenant ended with {done.returncode}: {done.stderr[-2000:]}")
    share = (cpu_s(pid) - used) / (time.monotonic() - began)
    after = counted(server, "bench")
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    count = max(grown.pop("count"), 1.0)
    mean_ms = grown.pop("sum") / count * 1000
    over = {bound: 1 - value / count for bound, value in grown.items() if bound != "+Inf"}
    return Seen(json.loads(done.stdout.splitlines()[-1]), mean_ms, over, share)


def print_row(name: str, seen: Seen, quiet: Seen | None, told: dict[str, Any]) -> bool:
    """Whether the quiet tenant had what it may expect."""
    good, cells = True, []
    for op in ("get", "create"):
        mine = seen.client[op]
        cells.append(f"{mine['p50_ms']:7.1f} {mine['p99_ms']:8.1f} {mine['max_ms']:8.1f}")
        refused = bool(mine["errors"])
        good &= not refused
        if quiet is not None:
            good &= mine["p99_ms"] <= quiet.client[op]["p99_ms"] * FACTOR + MORE_MS
    over = " ".join(
        f"{value * 100:5.1f}"
        for bound, value in sorted(seen.server_over.items(), key=lambda item: float(item[0]))[:4]
    )
    share = told.get("cpu_share", 0.0)
    print(
        f"{name:12} {cells[0]} | {cells[1]} | {seen.server_mean_ms:7.1f} {over} | {seen.server_share * 100:4.0f}"
        f" {share * 100:4.0f} {seen.client['cpu_share'] * 100:4.0f} {seen.client['late_p99_ms']:5.1f}"
        f" | {'' if quiet is None else 'kept' if good else 'NOT KEPT'}",
        flush=True,
    )
    for op in ("get", "create"):
        for error, times in seen.client[op]["errors"].items():
            print(f"             the quiet tenant's {op} failed {times} times: {error}")
    return good


def print_told(told: dict[str, Any]) -> None:
    for sort, found in told["told"].items():
        statuses = ", ".join(
            f"{times:,} × {status if status != '0' else 'no answer'}"
            for status, times in found["status"].items()
        )
        print(f"             {sort}: {statuses}; {found['bytes'] / 1e6:,.0f} MB")
        for said, times in found.get("said", {}).items():
            print(f"               {times:,} × “{said.strip()[:200]}”")


def main() -> int:
    parser = argparse.ArgumentParser(description="What one tenant notices of another.")
    parser.add_argument("--loadgen", type=Path, default=Path(".cache/loadgen/loadgen"))
    parser.add_argument("--seconds", type=float, default=MEASURED_S)
    parser.add_argument(
        "--flag", action="append", default=[], help="for the server, as in --flag=--default-quota=…"
    )
    parser.add_argument(
        "beside",
        nargs="*",
        help=f"of {', '.join((*SORTS, WRITES))}; together with commas (default: each, and all but the last)",
    )
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = [one.split(",") for one in arguments.beside] or [*([one] for one in SORTS), list(SORTS), [WRITES]]
    print(f"{machine()}; {interpreter()}; {most:,} files")
    good = True
    with tempfile.TemporaryDirectory() as made:
        data = Path(made) / "data"
        generator = Generator(arguments.loadgen, Path(made) / "raw.jsonl", 1.0, 1)
        with clusterling(data, *arguments.flag) as server:
            noisy = tenant(data, server, "loud")
            for target in (server.bench, noisy):
                generator.ask(target, "setup", ns="bench")
            generator.ask(noisy, "seed", ns="bench", c=16, n=OBJECTS)
            print(
                "beside       GET p50      p99      max | CREATE p50   p99      max | in the server: mean ms, % over"
                " the first bounds | CPU % of server, loud, quiet; ms the quiet client was late"
            )
            measure(arguments.loadgen, server, 3)
            quiet = measure(arguments.loadgen, server, arguments.seconds)
            print_row("nobody", quiet, None, {})
            for sorts in rows:
                told: dict[str, Any] = {}
                with loud(arguments.loadgen, noisy, sorts, told):
                    seen = measure(arguments.loadgen, server, arguments.seconds)
                kept = print_row("all" if sorts == list(SORTS) else ",".join(sorts), seen, quiet, told)
                good &= kept or WRITES in sorts
                print_told(told)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
