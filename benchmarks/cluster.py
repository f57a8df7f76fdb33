"""Our server as a benchmark runs it: a process of its own on SQLite with `synchronous=FULL`, TLS, tokens.

Also what both servers are to the load generator: a `Target`.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers import free_port, stop, wait_ready

CLUSTERLING = [sys.executable, "-m", "clusterling"]
CLUSTER = "bench"
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load. `base` is where a cluster's API begins; `pids` what its work is charged to."""

    base: str
    token: str
    ca: Path
    pids: dict[str, int]


@dataclass(frozen=True, slots=True)
class Server:
    """Our running server: `root` administers it, `bench` is a logical cluster in it."""

    root: Target
    bench: Target
    start_s: float
    rest_mb: float


def resident_mb(pids: dict[str, int]) -> float:
    """VmRSS of the processes together."""
    total_kb = 0
    for pid in pids.values():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024


def _cli(data: Path, *arguments: str) -> str:
    env = os.environ | {"CLUSTERLING_DATA_DIR": str(data)}
    return subprocess.run(
        [*CLUSTERLING, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _target(kubeconfig: dict[str, Any], ca: Path, pid: int) -> Target:
    cluster = kubeconfig["clusters"][0]["cluster"]
    ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return Target(cluster["server"], kubeconfig["users"][0]["user"]["token"], ca, {"server": pid})


@contextmanager
def clusterling(data: Path) -> Iterator[Server]:
    """A server on a new data directory with one logical cluster, stopped at the end."""
    port = free_port()
    log = data.parent / f"{data.name}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*CLUSTERLING, "serve", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_ready(f"https://127.0.0.1:{port}", "", process, log)
        start_s = time.monotonic() - started
        time.sleep(SETTLE_S)
        rest_mb = resident_mb({"server": process.pid})
        _cli(data, "create", CLUSTER, "--quiet")
        root = yaml.safe_load((data / "admin.kubeconfig").read_text())
        bench = yaml.safe_load(_cli(data, "kubeconfig", CLUSTER))
        ca = data / "bench-ca.crt"
        yield Server(_target(root, ca, process.pid), _target(bench, ca, process.pid), start_s, rest_mb)
    finally:
        stop(process)
