"""kubectl in clusters that serve few kinds or none: it works as far as they go, and says so of what is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clusters import Cluster, ServerProcess

pytestmark = pytest.mark.kubectl

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "sprockets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {
            "plural": "sprockets",
            "singular": "sprocket",
            "kind": "Sprocket",
            "shortNames": ["spr"],
            "categories": ["all"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"teeth": {"type": "integer"}}}
                        },
                    }
                },
            }
        ],
    },
}


def sprocket(name: str, teeth: int) -> str:
    return json.dumps(
        {
            "apiVersion": "example.com/v1",
            "kind": "Sprocket",
            "metadata": {"name": name},
            "spec": {"teeth": teeth},
        }
    )


@pytest.fixture
def with_packs(server: ServerProcess, tmp_path: Path, kubectl_binary: Path) -> Callable[[str, str], Cluster]:
    def make(name: str, packs: str) -> Cluster:
        kubeconfig = tmp_path / f"{name}.yaml"
        server.cli("create", name, "--packs", packs, "--kubeconfig-out", str(kubeconfig), "--quiet")
        return Cluster(name, kubeconfig, kubectl_binary)

    return make


def test_without_packs_kubectl_works_with_custom_kinds_alone(
    with_packs: Callable[[str, str], Cluster],
) -> None:
    bare = with_packs("kubectl-bare", "none")
    assert bare.kubectl("api-versions") == "apiextensions.k8s.io/v1\n"
    assert bare.kubectl("api-resources", "-o", "name") == "customresourcedefinitions.apiextensions.k8s.io\n"
    for kind in ("namespaces", "secrets", "events", "clusterroles"):
        assert (
            bare.kubectl("get", kind, code=1) == f'error: the server doesn\'t have a resource type "{kind}"\n'
        )

    bare.kubectl("create", "-f", "-", stdin=json.dumps(DEFINITION))
    bare.kubectl("wait", "--for=condition=established", "crd/sprockets.example.com")
    assert "teeth\t<integer>" in bare.kubectl("explain", "sprockets.spec")
    bare.kubectl("create", "-f", "-", stdin=sprocket("small", 12))
    bare.kubectl("apply", "-f", "-", "-n", "nowhere", stdin=sprocket("small", 13))
    assert bare.kubectl("get", "all", "-A", "-o", "name").split() == ["sprocket.example.com/small"] * 2
    bare.kubectl("label", "spr", "small", "size=s")
    bare.kubectl("patch", "spr", "small", "--type=merge", "-p", '{"spec":{"teeth":14}}')
    assert bare.kubectl("get", "spr", "-l", "size=s", "-o", "jsonpath={.items[*].spec.teeth}") == "14"
    assert "Teeth:  14" in bare.kubectl("describe", "sprocket", "small")
    # Without events there are none to describe; deletion needs no namespaces.
    bare.kubectl("delete", "sprockets", "--all")
    bare.kubectl("delete", "crd", "sprockets.example.com")
    assert bare.kubectl("api-versions") == "apiextensions.k8s.io/v1\n"


def test_where_secrets_are_left_out_kubectl_finds_no_trace_of_them(
    with_packs: Callable[[str, str], Cluster],
) -> None:
    team = with_packs("kubectl-core", "core,-secrets")
    listed = team.kubectl("api-resources", "-o", "name").split()
    assert "configmaps" in listed
    assert "secrets" not in listed
    assert (
        team.kubectl("get", "secrets", code=1)
        == 'error: the server doesn\'t have a resource type "secrets"\n'
    )
    refused = team.kubectl("create", "secret", "generic", "s", "--from-literal=a=b", code=1)
    assert refused == "error: failed to create secret the server could not find the requested resource\n"
    assert "doesn't have a resource type" in team.kubectl("explain", "secrets", code=1)
    for path in ("/api/v1", "/openapi/v3/api/v1", "/openapi/v2"):
        document = team.kubectl("get", "--raw", path)
        assert "/secrets" not in document
        assert '"name":"secrets"' not in document
        assert 'core.v1.Secret"' not in document

    team.kubectl("create", "namespace", "here")
    team.kubectl("create", "configmap", "c", "--from-literal=a=b", "-n", "here")
    team.kubectl("run", "p", "--image=i", "-n", "here")
    assert team.kubectl("get", "all,cm,sa", "-n", "here", "-o", "name").split() == [
        "pod/p",
        "configmap/c",
        "configmap/kube-root-ca.crt",
        "serviceaccount/default",
    ]
    team.kubectl("delete", "namespace", "here")
