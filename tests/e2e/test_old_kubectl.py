"""kubectls that people still have work as today's does: `make old-clients` builds them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from tests.e2e.clusters import Cluster
from tests.e2e.conftest import NewCluster

pytestmark = pytest.mark.kubectl

MODULES = sorted(path.stem for path in (ROOT / "tests" / "clients").glob("kubectl-*.mod"))
MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "b"}}


@pytest.fixture(scope="module", params=MODULES)
def old(request: pytest.FixtureRequest, new_cluster: NewCluster) -> Cluster:
    binary = ROOT / ".cache" / "clients" / request.param / "kubectl"
    if not binary.is_file():
        pytest.skip(f"{request.param} is not built: `make old-clients` builds it where Go is installed")
    return replace(new_cluster("old"), kubectl_binary=binary)


def test_an_old_kubectl_creates_gets_and_deletes(old: Cluster) -> None:
    assert "created" in old.kubectl("create", "configmap", "made", "--from-literal=a=b")
    assert old.kubectl("get", "configmap", "made", "-o", "jsonpath={.data.a}") == "b"
    assert old.kubectl("get", "cm", "made").split()[:3] == ["NAME", "DATA", "AGE"]
    assert "deleted" in old.kubectl("delete", "configmap", "made")
    assert "NotFound" in old.kubectl("get", "configmap", "made", code=1)


def test_an_old_kubectl_applies(old: Cluster) -> None:
    assert "created" in old.kubectl("apply", "-f", "-", stdin=json.dumps(MANIFEST))
    assert "unchanged" in old.kubectl("apply", "-f", "-", stdin=json.dumps(MANIFEST))
    changed = {**MANIFEST, "data": {"c": "d"}}
    assert "configured" in old.kubectl("apply", "-f", "-", stdin=json.dumps(changed))
    assert old.kubectl("get", "configmap", "applied", "-o", "jsonpath={.data}") == '{"c":"d"}'


def test_an_old_kubectl_refuses_unknown_fields(old: Cluster) -> None:
    wrong = {**MANIFEST, "metadata": {"name": "wrong"}, "dat": {}}
    assert 'unknown field "dat"' in old.kubectl("create", "-f", "-", stdin=json.dumps(wrong), code=1)


def test_an_old_kubectl_explains_and_lists_what_there_is(old: Cluster) -> None:
    assert "immutable" in old.kubectl("explain", "configmap")
    assert "configmaps" in old.kubectl("api-resources", "--no-headers")
    assert "v1.37" in old.kubectl("version", "-o", "json")


def test_an_old_kubectl_watches(old: Cluster) -> None:
    old.kubectl("create", "configmap", "watched")
    with old.kubectl_started("get", "configmap", "watched", "-w", "-o", "name") as lines:
        assert lines.next() == "configmap/watched"
        old.kubectl("label", "configmap", "watched", "seen=yes")
        assert lines.next() == "configmap/watched"
    old.kubectl("delete", "configmap", "watched")
