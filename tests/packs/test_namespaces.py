from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.selectors import FieldSelector
from clusterling.packs import core
from clusterling.packs.core.namespaces import TERMINATING_FENCE
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.options import ListOptions
from tests.packs.conftest import Cluster, causes


async def _fence(cluster: Cluster, name: str) -> bytes | None:
    entry = await cluster.store.get(NAMESPACE_FENCE + name)
    return None if entry is None else entry.value


async def test_a_new_namespace_is_active_labelled_finalized_and_fenced(cluster: Cluster) -> None:
    made = await cluster.create("namespaces", "team", status={"phase": "Terminating"})
    assert made["status"] == {"phase": "Active"}
    assert made["spec"] == {"finalizers": ["kubernetes"]}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert "generation" not in made["metadata"]
    assert await _fence(cluster, "team") == ACTIVE_FENCE


async def test_a_generated_name_is_labelled_too(cluster: Cluster) -> None:
    made = await cluster.create("namespaces", "", metadata={"generateName": "team-"})
    name = made["metadata"]["name"]
    assert name.startswith("team-")
    assert made["metadata"]["labels"]["kubernetes.io/metadata.name"] == name


async def test_a_deleted_namespace_terminates_refuses_content_and_goes_when_finalized(
    cluster: Cluster,
) -> None:
    await cluster.create("namespaces", "default2")
    obj, gone = await cluster.delete("namespaces", "default2")
    assert not gone
    assert obj["status"]["phase"] == "Terminating"
    assert "deletionTimestamp" in obj["metadata"]
    assert await _fence(cluster, "default2") == TERMINATING_FENCE

    obj, gone = await cluster.delete("namespaces", "default2")
    assert not gone

    await cluster.update("namespaces", "default2", "finalize", spec={"finalizers": []})
    with pytest.raises(ApiError) as caught:
        await cluster.get("namespaces", "default2")
    assert caught.value.code == 404
    assert await _fence(cluster, "default2") is None


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_the_first_namespaces_may_not_be_deleted(cluster: Cluster, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        await cluster.delete("namespaces", name)
    assert caught.value.code == 403
    assert caught.value.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'


async def test_only_finalize_changes_finalizers_and_only_status_the_status(cluster: Cluster) -> None:
    await cluster.create("namespaces", "team")
    changed = await cluster.update(
        "namespaces",
        "team",
        spec={"finalizers": []},
        status={"phase": "Odd"},
        metadata={"labels": {"a": "b"}},
    )
    assert changed["spec"] == {"finalizers": ["kubernetes"]}
    assert changed["status"] == {"phase": "Active"}
    assert changed["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "team"}

    condition = {"type": "X", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Active", "conditions": [condition]}
    changed = await cluster.update("namespaces", "team", "status", status=status, spec={"finalizers": []})
    assert changed["status"]["conditions"] == [condition]
    assert changed["spec"] == {"finalizers": ["kubernetes"]}

    changed = await cluster.update(
        "namespaces", "team", "finalize", spec={"finalizers": ["a.io/x"]}, status={}
    )
    assert changed["spec"] == {"finalizers": ["a.io/x"]}
    assert changed["status"]["conditions"] == [condition]


async def test_a_status_that_contradicts_the_deletion_is_invalid(cluster: Cluster) -> None:
    await cluster.create("namespaces", "team")
    with pytest.raises(ApiError) as caught:
        await cluster.update("namespaces", "team", "status", status={"phase": "Terminating"})
    assert causes(caught.value) == [
        (
            "status.Phase",
            "Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
        )
    ]


async def test_names_are_dns_labels_and_finalizers_are_qualified(cluster: Cluster) -> None:
    error = await cluster.refused("namespaces", "a.b")
    assert error.code == 422
    assert causes(error)[0][0] == "metadata.name"
    error = await cluster.refused("namespaces", "ab", spec={"finalizers": ["plain"]})
    assert causes(error) == [
        (
            "spec.finalizers",
            'Invalid value: "plain": name is neither a standard finalizer name nor is it fully qualified',
        )
    ]


async def test_namespaces_are_selected_by_phase(cluster: Cluster) -> None:
    await cluster.create("namespaces", "team")
    await cluster.delete("namespaces", "team")
    options = ListOptions(field_selector=FieldSelector.parse("status.phase=Terminating"))
    assert [one["metadata"]["name"] for one in await cluster.found("namespaces", options)] == ["team"]


async def test_the_table_shows_the_phase(cluster: Cluster) -> None:
    made = await cluster.create("namespaces", "team")
    cluster.clock.turn(90)
    assert cluster.row("namespaces", made) == ["team", "Active", "90s"]
    columns = cluster.served("namespaces").version.columns
    assert [column.type for column in columns] == ["string"] * 3


def test_every_cluster_starts_with_four_namespaces() -> None:
    assert [obj["metadata"]["name"] for obj in core.bootstrap if obj["kind"] == "Namespace"] == [
        "default",
        "kube-system",
        "kube-public",
        "kube-node-lease",
    ]


def test_names_and_verbs_are_those_of_upstreams_discovery() -> None:
    namespaces = next(one for one in core.resources if one.names.plural == "namespaces")
    assert namespaces.names.short_names == ("ns",)
    assert not namespaces.namespaced
    assert "deletecollection" not in namespaces.verbs
    assert namespaces.parts == ("finalize",)
    assert namespaces.versions[0].status
