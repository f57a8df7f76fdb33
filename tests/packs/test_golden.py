"""Upstream's golden objects, every field of every kind set: taken from JSON and protobuf, stored and read back whole.

Grows by itself: each kind and version of `packs.ALL` that has a golden pair is tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from clusterling import packs
from clusterling.machinery.codec import encode_stored
from clusterling.machinery.meta import Object
from clusterling.packs import builtin
from clusterling.registry import views
from clusterling.registry.catalog import Catalog
from clusterling.registry.options import WriteOptions
from clusterling.registry.receiving import receive
from clusterling.registry.resource import Served
from clusterling.storage.store import Op
from clusterling.version import KUBERNETES
from tests.packs.conftest import Cluster
from tools import gomodules

CATALOG = Catalog(resource for pack in packs.ALL for resource in pack.resources)
# What no server keeps of a body: it says who wrote what itself, and where an object is to be found no more.
_NOT_KEPT = ("managedFields", "selfLink")


def _golden() -> Path | None:
    try:
        module = gomodules.directory("k8s.io/api", f"v0.{KUBERNETES.partition('.')[2]}")
    except gomodules.ModuleMissing:
        return None
    return module / "testdata" / "HEAD"


def _pairs() -> Iterator[tuple[Served, Path]]:
    """The kinds that are stored here and have golden objects, with the JSON one."""
    golden = _golden()
    for path in sorted(golden.glob("*.json")) if golden is not None else ():
        obj = json.loads(path.read_text())
        group, _, version = obj.get("apiVersion", "").rpartition("/")
        served = CATALOG.by_kind(group, version, obj.get("kind", ""))
        if served is not None and "get" in served.resource.verbs:
            yield served, path


FOUND = list(_pairs())
PAIRS = [pytest.param(served, path, id=path.stem) for served, path in FOUND]


def _lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where `kept` lacks something that `given` has, or has something else there. More is no loss."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from _lost(value, kept[key], f"{path}.{key}")
            elif value not in (None, {}, []):
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{index}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def test_there_are_golden_objects_of_most_kinds_served() -> None:
    if _golden() is None:
        pytest.skip("upstream's golden files need the Go module k8s.io/api")
    ours = {
        (one.group, version.name, one.names.kind)
        for one in CATALOG.resources for version in one.served_versions if "get" in one.verbs
    }  # fmt: skip
    golden = {(served.group, served.version.name, served.kind) for served, _ in FOUND}
    # Upstream has golden objects of k8s.io/api alone.
    elsewhere = ("apiextensions.k8s.io", "apiregistration.k8s.io")
    assert {one for one in ours - golden if one[0] not in elsewhere} == set()


@pytest.mark.parametrize(("served", "path"), PAIRS)
def test_protobuf_and_json_of_a_kind_are_one_object(served: Served, path: Path) -> None:
    decoded = builtin.protobuf_codec().decode(path.with_suffix(".pb").read_bytes())
    assert decoded == json.loads(path.read_text())


@pytest.mark.parametrize(("served", "path"), PAIRS)
async def test_a_golden_object_is_stored_and_read_back_without_a_lost_field(
    cluster: Cluster, served: Served, path: Path
) -> None:
    golden: Object = json.loads(path.read_text())
    for field in _NOT_KEPT:
        golden["metadata"].pop(field, None)
    obj = json.loads(json.dumps(golden))
    # Strict: a field that the schema does not know is an error, not a loss.
    receive(cluster.context(), served, obj, WriteOptions(field_validation="Strict"))
    metadata = obj["metadata"]
    name = metadata["name"]
    namespace = metadata["namespace"] if served.resource.namespaced else ""
    key = served.resource.key(namespace, name)
    await cluster.store.write([Op(key, encode_stored(views.to_storage(obj, served)))])
    kept: Object = orjson.loads(await cluster.objects.get(served, namespace, name))
    golden["metadata"].pop("resourceVersion")
    assert list(_lost(golden, kept)) == []
