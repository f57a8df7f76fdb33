"""Our server as a benchmark runs it: a process of its own with TLS and tokens, on SQLite with `synchronous=FULL`, or
several over one store.

Also what both servers are to the load generator: a `Target`.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers import stop, wait_ready
from tests.ports import free_port

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


def wait_written(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server has written the file, which it does last. Raises RuntimeError if it ends before."""
    while not file.is_file():
        if process.poll() is not None:
            raise RuntimeError(f"ended before it wrote {file}")
        time.sleep(0.01)


def _cli(data: Path, *arguments: str) -> str:
    env = os.environ | {"CLUSTERLING_DATA_DIR": str(data)}
    return subprocess.run(
        [*CLUSTERLING, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _target(kubeconfig: dict[str, Any], ca: Path, pid: int) -> Target:
    cluster = kubeconfig["clusters"][0]["cluster"]
    ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return Target(cluster["server"], kubeconfig["users"][0]["user"]["token"], ca, {"server": pid})


def tenant(data: Path, server: Server, name: str) -> Target:
    """Another logical cluster of a running server, made if it is not there, as its own administrator."""
    _cli(data, "create", name, "--if-not-exists", "--quiet")
    kubeconfig = yaml.safe_load(_cli(data, "kubeconfig", name))
    return _target(kubeconfig, data / f"{name}-ca.crt", server.root.pids["server"])


@dataclass(frozen=True, slots=True)
class Shared:
    """A store that replicas share: what `--store` is told, and whose work counts as the store's."""

    url: str
    pid: int


def _serve(data: Path, port: int, log: Path, *flags: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [*CLUSTERLING, "serve", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}", *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def clusterling(data: Path, *flags: str, port: int = 0) -> Iterator[Server]:
    """A server with one logical cluster, stopped at the end; on a data directory that is new, or one's of before."""
    with _first(data, port or free_port(), flags) as server:
        yield server


@contextmanager
def replicas(data: Path, store: Shared, count: int, port: int = 0) -> Iterator[tuple[Server, list[Target]]]:
    """So many servers over one store, with one certificate: the service that they are together, and each alone.

    The first is as `clusterling` gives it, on `port`, and its address is what all of them tell clients; the service's base
    is all of theirs, for the load generator.
    """
    flags = ["--store", store.url, "--shutdown-delay", "0", "--shutdown-spread", "0"]
    port = port or free_port()
    flags += ["--external-url", f"https://127.0.0.1:{port}"]
    with ExitStack() as stack:
        first = stack.enter_context(_first(data, port, flags))
        each = [first.bench]
        for number in range(1, count):
            own = data.parent / f"{data.name}-{number}"
            shutil.copytree(data, own)
            at, log = free_port(), data.parent / f"{own.name}.log"
            process = _serve(own, at, log, *flags)
            stack.callback(stop, process)
            wait_ready(f"https://127.0.0.1:{at}", "", process, log)
            base = f"https://127.0.0.1:{at}/clusters/{CLUSTER}"
            each.append(Target(base, first.bench.token, first.bench.ca, {"server": process.pid}))
        pids = {f"server{number}": target.pids["server"] for number, target in enumerate(each)}
        together = Target(
            ",".join(target.base for target in each),
            first.bench.token,
            first.bench.ca,
            pids | {"store": store.pid},
        )
        yield Server(first.root, together, first.start_s, first.rest_mb), each


@contextmanager
def _first(data: Path, port: int, flags: Sequence[str]) -> Iterator[Server]:
    """A server on a new data directory, with the cluster made, stopped at the end."""
    log = data.parent / f"{data.name}.log"
    started = time.monotonic()
    process = _serve(data, port, log, *flags)
    try:
        wait_ready(f"https://127.0.0.1:{port}", "", process, log)
        start_s = time.monotonic() - started
        time.sleep(SETTLE_S)
        rest_mb = resident_mb({"server": process.pid})
        wait_written(data / "admin.kubeconfig", process)
        _cli(data, "create", CLUSTER, "--if-not-exists", "--quiet")
        root = yaml.safe_load((data / "admin.kubeconfig").read_text())
        bench = yaml.safe_load(_cli(data, "kubeconfig", CLUSTER))
        ca = data / "bench-ca.crt"
        yield Server(_target(root, ca, process.pid), _target(bench, ca, process.pid), start_s, rest_mb)
    finally:
        stop(process)
