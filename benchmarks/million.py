"""`make bench-million`: a million objects in 10,000 clusters on PostgreSQL, and what a replica that starts then takes.

The clusters are made through the API; the objects are written through the store, a hundred at once, each as the API
writes one, while no server runs. Then one replica starts anew: how soon it is ready, what is resident at rest (leading, so with
its controllers at work), and what after the collections of some clusters were listed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import ssl
import statistics
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.__main__ import OUT, interpreter, machine
from benchmarks.cluster import Shared, Target, replicas, resident_mb
from benchmarks.loads import Generator
from benchmarks.table import Scalar, scalars
from clusterling.storage.opening import open_store
from clusterling.storage.store import ABSENT, WRITE_OPS_MAX, Op
from tests.ports import free_port
from tests.storage import postgres_server

CLUSTERS = 10_000
OBJECTS = 100  # In each cluster.
PAYLOAD = "x" * 256
PREFIX = "many"
WRITERS = 4
USED = (1, 10, 100, 1000)
REST_S = 20.0  # After a start: by then a replica leads.

NAMESPACE = "default"
CONFIGMAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


@functools.cache
def trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


def call(target: Target, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        target.base + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=trusting(target.ca), timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def of_cluster(root: Target, name: str) -> Target:
    """The cluster of that name, as root's administrator sees it."""
    return Target(root.base.removesuffix("root") + name, root.token, root.ca, root.pids)


def make_clusters(generator: Generator, root: Target, count: int) -> list[str]:
    """Their ids."""
    generator.ask(root, "clusters", n=count, c=32, prefix=PREFIX, max_time="3600s")
    listed = call(root, "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters")
    return [item["status"]["id"] for item in listed["items"] if item["metadata"]["name"].startswith(PREFIX)]


async def model(url: str) -> bytes:
    """A ConfigMap named `model` as the API has stored it."""
    async with open_store(url) as store:
        page = await store.list("")
        [found] = [entry.value for entry in page.entries if entry.key.endswith("/configmaps/default/model")]
        return found


async def fill(url: str, ids: Sequence[str], stored: bytes) -> None:
    """So many objects in each cluster as make `OBJECTS` with those that are there."""
    uid = json.loads(stored)["metadata"]["uid"].encode()
    before, _, after = stored.partition(b'"name":"model"')
    batches = WRITE_OPS_MAX

    def ops(cluster: str) -> Iterator[Op]:
        for number in range(OBJECTS):
            name = f"object-{number:03}"
            value = before + f'"name":"{name}"'.encode() + after
            value = value.replace(uid, str(uuid.uuid4()).encode())
            yield Op(f"{cluster}/core/configmaps/{NAMESPACE}/{name}", value, ABSENT)

    async with open_store(url) as store:
        remaining = iter(ids)
        done = 0

        async def writer() -> None:
            nonlocal done
            for cluster in remaining:
                wanted = list(ops(cluster))
                for start in range(0, len(wanted), batches):
                    await store.write(wanted[start : start + batches])
                done += 1
                if done % 1000 == 0:
                    print(f"  {done * OBJECTS:,} objects", file=sys.stderr, flush=True)

        await asyncio.gather(*(writer() for _ in range(WRITERS)))


def load(generator: Generator, directory: Path, store: Shared, clusters: int, port: int) -> list[Scalar]:
    print("clusters, through the API", file=sys.stderr, flush=True)
    with replicas(directory / "first", store, 1, port) as (server, _):
        began = time.monotonic()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "model"},
            "data": {"payload": PAYLOAD},
        }
        ids = make_clusters(generator, server.root, clusters)
        made_s = time.monotonic() - began
        call(of_cluster(server.root, f"{PREFIX}0"), CONFIGMAPS, body)
        stored = asyncio.run(model(store.url))
    print("objects, through the store", file=sys.stderr, flush=True)
    began = time.monotonic()
    asyncio.run(fill(store.url, ids, stored))
    filled_s = time.monotonic() - began
    return [
        Scalar(f"{clusters:,} clusters created", "a second", None, clusters / made_s),
        Scalar(f"{clusters * OBJECTS:,} objects written", "a second", None, clusters * OBJECTS / filled_s),
    ]


def use(root: Target, first: int, last: int) -> list[float]:
    """Lists the objects of some clusters, each for the first time; in ms each."""
    times = []
    for number in range(first, last):
        began = time.perf_counter()
        listed = call(of_cluster(root, f"{PREFIX}{number}"), CONFIGMAPS)
        times.append((time.perf_counter() - began) * 1e3)
        assert len(listed["items"]) >= OBJECTS, "every object is there"
    return times


def start_anew(directory: Path, store: Shared, clusters: int, port: int) -> list[Scalar]:
    print("a replica that starts anew", file=sys.stderr, flush=True)
    found: list[Scalar] = []
    with replicas(directory / "second", store, 1, port) as (server, _):
        own = {"server": server.root.pids["server"]}
        found.append(Scalar("start to /readyz", "s", 2.0, server.start_s))
        found.append(Scalar("resident one second later", "MB", None, server.rest_mb))
        time.sleep(REST_S)
        found.append(Scalar("resident at rest, leading", "MB", None, resident_mb(own)))
        used = 0
        for count in USED:
            if count > clusters:
                break
            times = use(server.root, used, count)
            used = count
            found.append(Scalar(f"resident after listing {count} clusters", "MB", None, resident_mb(own)))
        found.append(Scalar(f"first LIST of {OBJECTS} objects, p50", "ms", None, statistics.median(times)))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--loadgen", type=Path, required=True, help="the load generator that make built")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of clusters")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    OUT.mkdir(exist_ok=True)
    raw = OUT / f"million-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    generator = Generator(options.loadgen.resolve(), raw, options.scale, 1)
    clusters = generator.count(CLUSTERS)
    print(f"{interpreter()}\n{machine()}\n", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="clusterling-bench-") as name,
        postgres_server.running(durable=True) as server,
    ):
        store = Shared(server.url, server.pid)
        port = free_port()  # Of both servers: another address would be written into every cluster.
        found = load(generator, Path(name), store, clusters, port)
        found += start_anew(Path(name), store, clusters, port)
        print(f"PostgreSQL {server.version}\n\n{scalars(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
