"""What a schema costs an object: CPU microseconds to default, prune and validate, and to compile.

    python -m benchmarks.schema [--seconds S]

The widget is a custom resource of 1 KB such as operators have: spec, a list of ports, labels, conditions. Target:
15 µs for the three steps together. The interpreter's own speed is printed beside, since it varies more between
builds than this code does between versions.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Callable
from typing import Any

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.schema import compile_schema
from clusterling.machinery.structural import validate_schema
from clusterling.packs.apiextensions import CUSTOM_RESOURCE_DEFINITIONS

STRING: Object = {"type": "string"}
SCHEMA: Object = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "apiVersion": STRING,
        "kind": STRING,
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {"type": "string", "minLength": 1},
                "replicas": {"type": "integer", "format": "int32", "minimum": 0, "default": 1},
                "paused": {"type": "boolean", "default": False},
                "strategy": {"type": "string", "enum": ["Recreate", "RollingUpdate"], "default": "Recreate"},
                "labels": {"type": "object", "additionalProperties": STRING},
                "ports": {
                    "type": "array",
                    "maxItems": 16,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name", "port"],
                        "properties": {
                            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
                            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                            "targetPort": {"x-kubernetes-int-or-string": True},
                            "protocol": {"type": "string", "default": "TCP"},
                        },
                    },
                },
                "resources": {
                    "type": "object",
                    "properties": {
                        name: {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}}
                        for name in ("limits", "requests")
                    },
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "conditions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "status"],
                        "properties": {
                            "type": STRING,
                            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                            "reason": {"type": "string", "maxLength": 1024},
                            "message": {"type": "string", "maxLength": 32768},
                            "lastTransitionTime": {"type": "string", "format": "date-time"},
                        },
                    },
                },
            },
        },
    },
}
WIDGET: Object = {
    "apiVersion": "example.com/v1",
    "kind": "Widget",
    "metadata": {
        "name": "widget-0001",
        "namespace": "default",
        "uid": "5f7ad1e0-6c41-4a0b-8a4e-0d3d2f9f2a11",
        "resourceVersion": "123456",
        "generation": 3,
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "widget", "tier": "backend"},
        "annotations": {"example.com/note": "x" * 120},
    },
    "spec": {
        "image": "registry.example.com/widgets/widget:1.2.3",
        "replicas": 3,
        "paused": False,
        "labels": {"a": "b", "c": "d", "e": "f"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"name": "metrics", "port": 9090, "targetPort": "metrics"},
        ],
        "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": 1}},
    },
    "status": {
        "replicas": 3,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllReplicasAreReady",
                "message": "all replicas of the widget are ready and have been for a while now",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    },
}


def cost_us(step: Callable[[], object], seconds: float) -> float:
    """CPU microseconds of one call, the best of five rounds."""
    calls, spent = 1, 0.0
    while spent < seconds / 50:
        calls *= 2
        spent = _spent(step, calls)
    rounds = max(1, int(calls * seconds / 5 / spent))
    return min(_spent(step, rounds) for _ in range(5)) / rounds * 1e6


def _spent(step: Callable[[], object], calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        step()
    return time.process_time() - begun


def _fresh(source: Object) -> Callable[[], object]:
    """Compiles another schema each time: a title keeps it apart from those that are kept."""
    count = 0

    def compile_and_use() -> None:
        nonlocal count
        count += 1
        schema = compile_schema({**source, "title": str(count)})
        schema.default({})
        schema.prune({})
        schema.validate({})

    return compile_and_use


def _wrong() -> Object:
    made = copy.deepcopy(WIDGET)
    made["spec"]["replicas"] = "three"
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=1.0, help="spent on each line")
    seconds: float = options.parse_args().seconds
    schema = compile_schema(SCHEMA)
    obj, wrong = copy.deepcopy(WIDGET), _wrong()
    schema.default(obj)
    assert schema.prune(obj) == []
    assert schema.validate(obj) == []
    crd: Any = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": SCHEMA}}]}}
    crd_schema = CUSTOM_RESOURCE_DEFINITIONS.versions[0].schema
    steps: dict[str, Callable[[], object]] = {
        "default": lambda: schema.default(obj),
        "prune": lambda: schema.prune(obj),
        "validate": lambda: schema.validate(obj),
        "validate, one field wrong": lambda: schema.validate(wrong),
        "validate an update": lambda: schema.validate(obj, WIDGET),
        "compile": _fresh(SCHEMA),
        "compile again (kept)": lambda: compile_schema(SCHEMA),
        "rules of a structural schema": lambda: validate_schema(SCHEMA, "schema"),
        "the CRD's own schema": lambda: crd_schema.prune(crd),
    }
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    print(
        f"{interpreter}, empty call {cost_us(lambda: None, seconds):.3f} µs, {len(orjson.dumps(obj))} bytes"
    )
    total = 0.0
    for name, step in steps.items():
        spent = cost_us(step, seconds)
        total += spent if name in ("default", "prune", "validate") else 0
        print(f"{name:32}{spent:10.2f} µs")
    print(f"{'default + prune + validate':32}{total:10.2f} µs")


if __name__ == "__main__":
    main()
