"""What telling clients about an API costs on the loop: negotiation, discovery, OpenAPI, Tables. Milliseconds of one call.

    python -m benchmarks.discovery [--crds DIR]

`first` is a call that finds nothing made, `again` one that does. DIR holds CRDs as YAML, one a file: by default the
`standard` ones of Gateway API v1.5.1, where its Go module is on this machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.yaml import parse_yaml
from clusterling.packs import builtin
from clusterling.registry.catalog import Catalog
from clusterling.registry.crd import CustomResourceStrategy, default_crd, resource_of
from clusterling.registry.listing import Listing
from clusterling.registry.resource import Resource, Served
from clusterling.services import discovery, openapi
from clusterling.services.negotiation import Framing, accept
from clusterling.services.openapi.schemas import builtin_definitions

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
KUBECTL = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
TURNS = 2_000
LISTED = 500


def gateway_api() -> Path:
    cache = os.environ.get("GOMODCACHE") or Path.home() / "go" / "pkg" / "mod"
    return Path(cache) / "sigs.k8s.io" / "gateway-api@v1.5.1" / "config" / "crd" / "standard"


def builtins() -> list[Resource]:
    core = ("namespaces", "configmaps", "secrets", "serviceaccounts", "events")
    return [
        *(builtin.resource("", "v1", plural) for plural in core),
        builtin.resource("coordination.k8s.io", "v1", "leases"),
        builtin.resource("events.k8s.io", "v1", "events"),
    ]


def custom(directory: Path) -> Iterable[Resource]:
    for path in sorted(directory.glob("*.yaml")):
        crd, _ = parse_yaml(path.read_bytes())
        if isinstance(crd, dict) and crd.get("kind") == "CustomResourceDefinition":
            default_crd(crd)
            yield resource_of(crd, schema_revision=0, guard_key="", strategy=CustomResourceStrategy())


def once(title: str, call: Callable[[], object]) -> None:
    started = time.perf_counter()
    found = call()
    spent = time.perf_counter() - started
    size = len(found.body) if hasattr(found, "body") else 0
    print(f"{title:58} {spent * 1e3:9.3f} ms{f'  {size / 1024:7.1f} KB' if size else ''}")


def often(title: str, call: Callable[[], object], turns: int = TURNS) -> None:
    spans = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(turns):
            call()
        spans.append((time.perf_counter() - started) / turns)
    print(f"{title:58} {statistics.median(spans) * 1e6:9.2f} µs")


def negotiation() -> None:
    often("accept: application/json", lambda: accept("application/json"))
    often("accept: kubectl get", lambda: accept(KUBECTL))
    value = orjson.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(), "data": {"k": "x" * 900}}
    )
    configmaps = builtin.resource("", "v1", "configmaps")
    served = Served(configmaps, configmaps.version("v1"))
    plain, table = accept(None), accept(KUBECTL)
    listing = Listing([value] * LISTED, "7")
    often("GET of 1 KB, plain", lambda: plain.object(value, served))
    often("GET of 1 KB, Table", lambda: table.object(value, served))
    often(f"LIST of {LISTED}, plain", lambda: plain.list(served, listing), 200)
    often(f"LIST of {LISTED}, Table", lambda: table.list(served, listing), 10)
    frames, tables = plain.frame_codec(served, framing=Framing.CHUNKED), table.frame_codec(served)
    often("watch frame of 1 KB, plain", lambda: frames.frame("MODIFIED", value))
    often("watch frame of 1 KB, Table", lambda: tables.frame("MODIFIED", value))


def _metadata() -> Object:
    return {
        "name": "a",
        "namespace": "b",
        "resourceVersion": "7",
        "creationTimestamp": "2026-05-01T00:00:00Z",
    }


def documents(base: Catalog, catalog: Catalog, group: str) -> None:
    once("definitions of built-in kinds, first", builtin_definitions)
    for title, which, path in (
        ("built-in kinds", base, "/openapi/v3"),
        ("core group", base, "/openapi/v3/api/v1"),
        ("custom kinds", catalog, "/openapi/v3"),
        (group, catalog, f"/openapi/v3/apis/{group}"),
    ):
        for turn in ("first", "again"):
            once(f"{path} of {title}, {turn}", lambda: openapi.respond(which, path, now=NOW))  # noqa: B023
    steps = []
    started = time.perf_counter()
    for _ in openapi.preparing(catalog, "/openapi/v2"):
        steps.append(time.perf_counter() - started)
        started = time.perf_counter()
    print(f"{f'/openapi/v2, the longest of {len(steps)} parts, first':58} {max(steps) * 1e3:9.3f} ms")
    for turn in ("first", "again"):
        once(
            f"/openapi/v2 as protobuf of prepared parts, {turn}",
            lambda: openapi.respond(catalog, "/openapi/v2", now=NOW, accept_header=PROTOBUF),
        )
    for turn in ("first", "again"):
        once(
            f"aggregated /apis, {turn}", lambda: discovery.respond(catalog, "/apis", accept_header=AGGREGATED)
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__)
    parser.add_argument("--crds", type=Path, default=gateway_api())
    chosen = parser.parse_args()
    base = Catalog(builtins())
    catalog = Catalog(custom(chosen.crds), parent=base)
    own = [resource for resource in catalog.resources if not resource.builtin]
    print(
        f"{platform.python_implementation()} {platform.python_version()}; {len(own)} CRDs from {chosen.crds}"
    )
    negotiation()
    group = f"{own[0].group}/{own[0].storage_version}" if own else "none"
    documents(base, catalog, group)


if __name__ == "__main__":
    main()
