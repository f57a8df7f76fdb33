"""What the pure steps of a write cost: patches, metadata, selectors and tables, in CPU microseconds per call.

    python -m benchmarks.patch [--repeats N]

Small is a ConfigMap of 1 KB and a Deployment of two containers; large is a ConfigMap of 5,000 keys and a Deployment
of 300 containers. Each number is the best of N runs, so it says what the code costs and not what else ran.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.objectmeta import (
    coerce_object_meta,
    validate_object_meta,
    validate_object_meta_update,
)
from clusterling.machinery.patch import json_patch, merge_patch
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.selectors import FieldSelector, LabelSelector
from clusterling.machinery.strategic import PatchMeta, strategic_merge
from clusterling.machinery.table import NAME_COLUMN, column_from_jsonpath, table

_REF = "#/components/schemas/"
_BY_NAME = {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"}
DEFINITIONS: dict[str, dict[str, Any]] = {
    "Deployment": {
        "properties": {"metadata": {"type": "object"}, "spec": {"$ref": _REF + "DeploymentSpec"}},
    },
    "DeploymentSpec": {
        "properties": {"replicas": {"type": "integer"}, "template": {"$ref": _REF + "Template"}},
    },
    "Template": {"properties": {"spec": {"$ref": _REF + "PodSpec"}}},
    "PodSpec": {
        "properties": {"containers": {"type": "array", "items": {"$ref": _REF + "Container"}, **_BY_NAME}}
    },
    "Container": {
        "properties": {
            "name": {"type": "string"},
            "image": {"type": "string"},
            "env": {"type": "array", "items": {"$ref": _REF + "Env"}, **_BY_NAME},
        }
    },
    "Env": {"properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
}
DEPLOYMENT = PatchMeta.from_openapi({"$ref": _REF + "Deployment"}, DEFINITIONS)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
META: dict[str, Any] = {
    "name": "web-1",
    "namespace": "default",
    "uid": "f5d5bc35-3b4e-4e64-a911-e419373345e2",
    "resourceVersion": "4711",
    "generation": 3,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {"app.kubernetes.io/name": "web", "tier": "front"},
    "annotations": {"example.com/owner": "team-a"},
}


def config_map(keys: int) -> dict[str, Any]:
    return {"metadata": META, "data": {f"key-{i}": "x" * 90 for i in range(keys)}}


def deployment(containers: int) -> dict[str, Any]:
    return {
        "metadata": META,
        "spec": {
            "replicas": 2,
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": f"c{i}",
                            "image": "a:1",
                            "env": [{"name": f"E{j}", "value": "v"} for j in range(4)],
                        }
                        for i in range(containers)
                    ]
                }
            },
        },
    }


def changed_image(containers: int) -> dict[str, Any]:
    """A strategic merge patch as kubectl sends it: the order of all, a change of one."""
    listed = [{"name": f"c{i}"} for i in range(containers)]
    change = [{"name": "c1", "image": "a:2"}]
    return {"spec": {"template": {"spec": {"$setElementOrder/containers": listed, "containers": change}}}}


def steps() -> dict[str, Callable[[], object]]:
    small, large = config_map(10), config_map(5000)
    pods, many = deployment(2), deployment(300)
    image, images = changed_image(2), changed_image(300)
    merge = {"data": {"key-1": "new", "key-2": None}}
    operations = [
        {"op": "test", "path": "/data/key-1", "value": "x" * 90},
        {"op": "replace", "path": "/data/key-1", "value": "new"},
    ]
    labels = {"app": "web", "tier": "front", "env": "prod"}
    selector = LabelSelector.parse("app=web,tier in (front,back),!gone")
    fields = FieldSelector.parse("metadata.name=web-1")
    columns = (
        NAME_COLUMN,
        column_from_jsonpath("Replicas", "integer", ".spec.replicas"),
        column_from_jsonpath("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        column_from_jsonpath("Age", "date", ".metadata.creationTimestamp"),
    )
    ready = {**pods, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    return {
        "merge patch, small": lambda: merge_patch(small, merge),
        "merge patch, large": lambda: merge_patch(large, merge),
        "JSON patch, small": lambda: json_patch(small, operations),
        "JSON patch, large": lambda: json_patch(large, operations),
        "strategic merge, small": lambda: strategic_merge(pods, image, DEPLOYMENT),
        "strategic merge, large": lambda: strategic_merge(many, images, DEPLOYMENT),
        "metadata: coerce": lambda: coerce_object_meta(META),
        "metadata: validate a create": lambda: validate_object_meta(
            META, namespaced=True, name_problems=is_dns1123_subdomain
        ),
        "metadata: validate an update": lambda: validate_object_meta_update(META, META),
        "label selector: parse": lambda: LabelSelector.parse("app=web,tier in (front,back),!gone"),
        "label selector: match": lambda: selector.matches(labels),
        "field selector: match": lambda: fields.matches({"metadata.name": "web-1"}),
        "quantity: parse and write": lambda: Quantity.parse("1.5Gi").canonical,
        "table: a row of four cells": lambda: table(columns, [ready], now=NOW, headers=False),
    }


def cost_us(step: Callable[[], object], repeats: int) -> float:
    """CPU of one call, in microseconds: the best of the runs, each of some 20 ms."""
    calls = 1
    while True:
        started = time.process_time()
        for _ in range(calls):
            step()
        if time.process_time() - started > 0.005:
            break
        calls *= 2
    calls *= 4
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        for _ in range(calls):
            step()
        best = min(best, time.process_time() - started)
    return best / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{platform.python_implementation()} {platform.python_version()}, CPU µs a call, best of {repeats}")
    for name, step in steps().items():
        print(f"{name:32} {cost_us(step, repeats):10.2f}")


if __name__ == "__main__":
    main()
