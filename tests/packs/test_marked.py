"""What upstream's markers say of objects, from the compiled data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterling.packs import builtin, marked


def _told(api: tuple[str, str, str], new: Any, *wanted: str, old: Any = None, under: str = "") -> list[str]:
    return [str(one) for one in marked.problems(*api, new, wanted, old=old, under=under)]


SERVICE = ("", "v1", "Service")


def test_a_value_out_of_an_enum_is_told_with_those_that_are_in_it() -> None:
    spec = {"type": "Odd", "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "QUIC"}]}
    assert _told(SERVICE, {"spec": spec}, "enum") == [
        'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
        'spec.ports[1].protocol: Unsupported value: "QUIC": supported values: "SCTP", "TCP", "UDP"',
    ]


def test_elements_of_lists_have_their_enum_and_the_path_of_their_place() -> None:
    claim = {"spec": {"accessModes": ["ReadWriteOnce", "Odd"]}}
    (told,) = _told(("", "v1", "PersistentVolumeClaim"), claim, "enum")
    assert told.startswith(
        'spec.accessModes[1]: Unsupported value: "Odd": supported values: "ReadOnlyMany", '
    )


def test_what_is_absent_or_empty_is_no_unsupported_value() -> None:
    assert _told(SERVICE, {"spec": {"type": "", "ports": None}}, "enum") == []
    assert _told(SERVICE, {}, "enum") == []


def test_only_the_rules_asked_for_are_told() -> None:
    stateful_set = ("apps", "v1", "StatefulSet")
    old = {"spec": {"serviceName": "a", "podManagementPolicy": "Parallel"}}
    new = {"spec": {"serviceName": "b", "podManagementPolicy": "Odd"}}
    assert _told(stateful_set, new, "immutable", old=old) == [
        'spec.podManagementPolicy: Invalid value: "Odd": field is immutable',
        'spec.serviceName: Invalid value: "b": field is immutable',
    ]
    assert _told(stateful_set, new, "required") == ["spec.selector: Required value"]
    assert _told(stateful_set, new, "enum", under="status") == []


def test_a_rule_without_a_value_is_nothing() -> None:
    replicas = ("", "v1", "ReplicationController")
    assert _told(replicas, {"spec": {"replicas": -1}}, "minimum") == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ]
    assert _told(replicas, {"spec": {"replicas": 0}}, "minimum") == []


@pytest.mark.parametrize("kind", ["Pod", "PersistentVolume", "Node"])
def test_recursive_and_large_kinds_are_walked(kind: str) -> None:
    assert _told(("", "v1", kind), {"spec": {}}, "enum", "required", "maxItems") == []


def test_markers_name_fields_that_upstream_publishes() -> None:
    """A marker of a field that no schema has would never be told."""
    strangers = []
    for definition in builtin.definitions:
        published = builtin.definitions[definition].get("properties", {})
        strangers += [
            f"{definition}.{field}" for field in builtin.markers_of(definition) if field not in published
        ]
    assert strangers == []


def test_rules_are_plain_facts() -> None:
    rules = builtin.markers_of("io.k8s.api.core.v1.Container")
    assert json.loads(json.dumps(rules["imagePullPolicy"])) == {"enum": ["Always", "IfNotPresent", "Never"]}
