"""What metrics cost: CPU of a GET and a CREATE on a server that counts and on one that does not, by turns; and of a scrape.

    python -m benchmarks.metrics --loadgen .cache/loadgen/loadgen

Both run at the same time, and are asked in turn, so that what else the machine does concerns both. Of each the least
is taken: noise only adds.
"""

from __future__ import annotations

import argparse
import ssl
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.cluster import Server, clusterling, resident_mb
from benchmarks.loads import Generator

IN_FLIGHT = (1, 16)


def scrape(server: Server) -> tuple[float, int]:
    """Seconds that a scrape takes, and the bytes of its answer."""
    root = server.root
    url = f"{root.base.partition('/clusters/')[0]}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {root.token}"})
    trust = ssl.create_default_context(cafile=str(root.ca))
    began = time.perf_counter()
    with urllib.request.urlopen(request, context=trust) as answer:
        size = len(answer.read())
    return time.perf_counter() - began, size


def least(generator: Generator, servers: dict[str, Server], op: str, rounds: int) -> None:
    """Prints what an operation costs either."""
    for in_flight in IN_FLIGHT:
        taken: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(rounds):
            for name, server in servers.items():
                flags: dict[str, object] = {"kind": "configmap", "c": in_flight}
                if op == "get":
                    flags |= {"ns": "bench500", "n": generator.count(12000), "warm": 200}
                else:
                    flags |= {"ns": "benchw", "n": generator.count(1500), "prefix": f"w{in_flight}r{number}"}
                result = generator.ask(server.bench, op, **flags)
                taken[name].append(result["cpu_ms_op_server"] * 1000)
        on, off = min(taken["on"]), min(taken["off"])
        print(
            f"{op:6} {in_flight:3} in flight: {on:6.1f} µs with metrics, {off:6.1f} µs without:"
            f" {on / off:.3f} times ({on - off:+.1f} µs)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="What metrics cost.")
    parser.add_argument("--loadgen", type=Path, default=Path(".cache/loadgen/loadgen"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        generator = Generator(arguments.loadgen, directory / "raw.jsonl", arguments.scale, 1)
        with clusterling(directory / "on") as on, clusterling(directory / "off", "--no-metrics") as off:
            servers = {"on": on, "off": off}
            print(
                f"started in {on.start_s:.2f} and {off.start_s:.2f} s, {on.rest_mb:.1f} and {off.rest_mb:.1f} MB"
            )
            for server in servers.values():
                for namespace in ("bench500", "benchw"):
                    generator.ask(server.bench, "setup", ns=namespace)
                generator.ask(server.bench, "seed", kind="configmap", ns="bench500", c=8, n=500)
            for op in ("get", "create"):
                least(generator, servers, op, arguments.rounds)
            before = resident_mb(on.root.pids)
            first, size = scrape(on)
            again = min(scrape(on)[0] for _ in range(5))
            print(
                f"scrape: {first * 1000:.0f} ms the first, {again * 1000:.1f} ms then, {size / 1024:.0f} KiB,"
                f" {resident_mb(on.root.pids) - before:.1f} MB more"
            )


if __name__ == "__main__":
    main()
