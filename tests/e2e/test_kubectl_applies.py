"""`kubectl apply --server-side`, with what belongs to it: conflicts, diff, the way over from `kubectl apply`, apply sets, prune."""

from __future__ import annotations

import json

import pytest

from tests.e2e.clusters import Cluster

pytestmark = pytest.mark.kubectl


def settings(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def values(k: Cluster, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(k.kubectl("get", "configmap", name, "-o", "json"))["data"]
    return found


def managers(k: Cluster, name: str) -> set[str]:
    found = json.loads(k.kubectl("get", "configmap", name, "-o", "json", "--show-managed-fields"))
    return {f"{entry['manager']} {entry['operation']}" for entry in found["metadata"]["managedFields"]}


def test_what_is_applied_is_owned_and_others_who_change_it_are_in_conflict(k: Cluster) -> None:
    applied = k.kubectl("apply", "--server-side", "-f", "-", stdin=settings("shared", a="1", b="1"))
    assert applied == "configmap/shared serverside-applied\n"
    mine = ("apply", "--server-side", "--field-manager=mine", "-f", "-")
    refused = k.kubectl(*mine, stdin=settings("shared", a="2"), code=1)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in refused
    k.kubectl(*mine, "--force-conflicts", stdin=settings("shared", a="2"))
    assert values(k, "shared") == {"a": "2", "b": "1"}
    k.kubectl("apply", "--server-side", "-f", "-", stdin=settings("shared"))
    assert values(k, "shared") == {"a": "2"}
    assert managers(k, "shared") == {"mine Apply", "kubectl Apply"}


def test_a_diff_tells_what_an_apply_would_change(k: Cluster) -> None:
    k.kubectl("apply", "--server-side", "-f", "-", stdin=settings("differing", a="1"))
    code, told, _ = k.kubectl_whole("diff", "--server-side", "-f", "-", stdin=settings("differing", a="2"))
    assert code == 1
    assert '-  a: "1"' in told
    assert '+  a: "2"' in told
    assert values(k, "differing") == {"a": "1"}


def test_who_applied_on_the_client_goes_over_without_conflicts(k: Cluster) -> None:
    k.kubectl("apply", "-f", "-", stdin=settings("moved", a="1", gone="1"))
    assert managers(k, "moved") == {"kubectl-client-side-apply Update"}
    k.kubectl("apply", "--server-side", "-f", "-", stdin=settings("moved", a="2"))
    assert values(k, "moved") == {"a": "2"}
    # kubectl applies once more as the annotation says, for who goes back.
    assert managers(k, "moved") == {"kubectl Apply", "kubectl-last-applied Apply"}


def test_what_a_set_has_no_more_is_pruned(k: Cluster) -> None:
    k.kubectl("create", "namespace", "pruned")
    env = {"KUBECTL_APPLYSET": "true"}
    one, two = settings("one", a="1"), settings("two", a="1")
    command = ("apply", "-n", "pruned", "--server-side", "--prune", "--applyset=configmaps/parent", "-f", "-")
    k.kubectl(*command, stdin=f"{one}\n---\n{two}", env=env)
    told = k.kubectl(*command, stdin=one, env=env)
    assert "configmap/two pruned" in told
    left = k.kubectl("get", "configmaps", "-n", "pruned", "-o", "name").split()
    assert left == ["configmap/kube-root-ca.crt", "configmap/one", "configmap/parent"]
