"""`explain-deletion`, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from clusterling.cli.explain_deletion import tree
from clusterling.cli.program import run
from clusterling.testing.kube import Kube, KubeServer
from tests.cli.processes import eventually

NAMESPACES = "/api/v1/namespaces"
HOLD = "example.com/hold"

Explain = Callable[..., str]


@pytest.fixture
def kube(kube_server: KubeServer) -> Iterator[Kube]:
    with kube_server.cluster() as kube:
        yield kube


@pytest.fixture
def explain(kube_server: KubeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    path = tmp_path / "root.kubeconfig"
    path.write_text(yaml.safe_dump(Kube(kube_server, "root").kubeconfig_dict))

    def call(*arguments: str, code: int = 0) -> str:
        found = run(["explain-deletion", *arguments, "--kubeconfig", str(path)])
        out, err = capsys.readouterr()
        assert (found, err if not code else "") == (code, ""), err
        return err if code else out

    return call


def _held(kube: Kube) -> None:
    kube.client.post(NAMESPACES, {"metadata": {"name": "stage"}})
    for name in ("a", "b"):
        metadata = {"name": name, "finalizers": [HOLD]}
        kube.client.post(f"{NAMESPACES}/stage/configmaps", {"metadata": metadata}, fieldManager="operator")
    kube.client.delete(f"{NAMESPACES}/stage")
    for name in ("a", "b"):
        kube.client.delete(f"{NAMESPACES}/stage/configmaps/{name}")
    # They are written once all else in it was deleted, as what each namespace has from its first moment.
    assert eventually(lambda: "conditions" in kube.client.get(f"{NAMESPACES}/stage")["status"])


def test_the_tree_names_what_holds_a_namespace_and_who_put_it_there(kube: Kube, explain: Explain) -> None:
    _held(kube)
    lines = explain(kube.name, "ns", "stage").splitlines()
    assert lines[0].startswith("Namespace stage is being deleted since ")
    assert lines[1] == "└─ waits for what is in it: 2 configmaps"
    assert lines[2] == f"   └─ 2 configmaps, finalizers {HOLD} in 2"
    assert lines[3].startswith("      ├─ ConfigMap stage/a, being deleted since ")
    assert lines[4].startswith(
        f"      │  └─ waits for finalizer {HOLD}, put there by operator (wrote last at "
    )
    assert lines[5].startswith("      └─ ConfigMap stage/b, being deleted since ")
    assert len(lines) == 7


@pytest.mark.parametrize("kind", ["cm", "configmaps", "configmap", "ConfigMap", "configmaps."])
def test_a_kind_is_named_as_kubectl_takes_it(kube: Kube, explain: Explain, kind: str) -> None:
    _held(kube)
    told = json.loads(explain(kube.name, kind, "a", "-n", "stage", "-o", "json"))
    assert told["kind"] == "DeletionExplanation"
    assert told["blockedBy"][0]["finalizer"] == HOLD


def test_a_logical_cluster_is_explained_in_root(kube: Kube, explain: Explain) -> None:
    told = explain("root", "logicalcluster.tenancy.clusterling.io", kube.name)
    assert told.startswith(f"LogicalCluster {kube.name} is not being deleted")


def test_what_is_not_there_is_said_to_be_missing(kube: Kube, explain: Explain) -> None:
    assert 'namespaces "nowhere" not found' in explain(kube.name, "ns", "nowhere", code=3)
    assert f"cluster {kube.name} serves no gadgets" in explain(kube.name, "gadgets", "x", code=3)
    assert "whether there is a cluster no-such" in explain("no-such", "ns", "x", code=1)


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    blocker = {"message": "put there by \x1b[31mme\n"}
    told = {
        "object": {"kind": "A", "name": "a"},
        "deleting": False,
        "blockedBy": [blocker],
        "truncated": True,
    }
    assert list(tree(told, coloured=False)) == [
        "A a is not being deleted",
        "└─ put there by �[31mme�",
        "there is more than is told here",
    ]


def test_colour_marks_what_is_at_the_end_of_a_branch_and_nothing_without_it() -> None:
    blocker = {"message": "m", "examples": [{"kind": "B", "name": "b"}], "count": 3}
    told = {
        "object": {"kind": "A", "name": "a"},
        "deleting": False,
        "blockedBy": [blocker],
        "truncated": False,
    }
    plain = list(tree(told, coloured=False))
    assert plain == ["A a is not being deleted", "└─ m", "   ├─ B b", "   └─ and 2 more"]
    coloured = list(tree(told, coloured=True))
    assert ["\x1b[33m" in line for line in coloured] == [False, False, True, True]
