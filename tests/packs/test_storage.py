from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from tests.packs.conftest import Cluster, causes

_GROUP = "storage.k8s.io"


def _claimed(**changes: Any) -> Object:
    sizes = {"requests": {"storage": "1024Mi"}}
    return {"accessModes": ["ReadWriteOnce"], "resources": sizes, **changes}


def _volume(**changes: Any) -> Object:
    size, path = {"storage": "1Gi"}, {"path": "/a"}
    return {"accessModes": ["ReadWriteOnce"], "capacity": size, "hostPath": path, **changes}


def _of(plural: str) -> str:
    return f"{_GROUP}/{plural}"


def _default_class(value: str = "true") -> Object:
    return {"annotations": {"storageclass.kubernetes.io/is-default-class": value}}


async def _fields_refused_in_update(cluster: Cluster, plural: str, name: str, **fields: Any) -> list[str]:
    with pytest.raises(ApiError) as caught:
        await cluster.update(plural, name, **fields)
    return [field for field, _ in causes(caught.value)]


async def test_a_claim_without_a_class_gets_the_newest_default_one(cluster: Cluster) -> None:
    await cluster.create(_of("storageclasses"), "plain", provisioner="x/y")
    before = await cluster.create("persistentvolumeclaims", "before", spec=_claimed())
    assert "storageClassName" not in before["spec"]
    await cluster.create(_of("storageclasses"), "z-old", provisioner="x/y", metadata=_default_class())
    cluster.clock.turn(5)
    await cluster.create(_of("storageclasses"), "new", provisioner="x/y", metadata=_default_class())
    await cluster.create(_of("storageclasses"), "not", provisioner="x/y", metadata=_default_class("false"))
    made = await cluster.create("persistentvolumeclaims", "a", spec=_claimed())
    assert made["spec"]["storageClassName"] == "new"
    asked = await cluster.create("persistentvolumeclaims", "b", spec=_claimed(storageClassName=""))
    assert asked["spec"]["storageClassName"] == ""


async def test_a_claim_is_pending_protected_and_counted_as_go_counts(cluster: Cluster) -> None:
    made = await cluster.create("persistentvolumeclaims", "a", spec=_claimed())
    assert made["status"] == {"phase": "Pending"}
    assert made["spec"]["resources"] == {"requests": {"storage": "1Gi"}}
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert cluster.row("persistentvolumeclaims", made) == [
        "a", "Pending", "", "", "", "", "<unset>", "0s", "Filesystem",
    ]  # fmt: skip


async def test_a_claim_goes_at_once_unless_it_is_bound(cluster: Cluster) -> None:
    await cluster.create("persistentvolumeclaims", "a", spec=_claimed())
    assert (await cluster.delete("persistentvolumeclaims", "a"))[1]
    made = await cluster.create("persistentvolumeclaims", "b", spec=_claimed())
    bound = {"phase": "Bound"}
    await cluster.update("persistentvolumeclaims", "b", "status", status=bound, metadata=made["metadata"])
    left, gone = await cluster.delete("persistentvolumeclaims", "b")
    assert not gone
    assert cluster.row("persistentvolumeclaims", left)[1] == "Terminating"


async def test_a_claim_is_given_a_volume_once_and_grows_when_it_is_bound(cluster: Cluster) -> None:
    await cluster.create("persistentvolumeclaims", "a", spec=_claimed())
    bigger = _claimed(resources={"requests": {"storage": "2Gi"}}, volumeName="v")
    assert await _fields_refused_in_update(cluster, "persistentvolumeclaims", "a", spec=bigger) == ["spec"]
    await cluster.update("persistentvolumeclaims", "a", spec=_claimed(volumeName="v"))
    status = {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
    await cluster.update("persistentvolumeclaims", "a", "status", status=status)
    grown = await cluster.update("persistentvolumeclaims", "a", spec=bigger)
    assert cluster.row("persistentvolumeclaims", grown)[2:5] == ["v", "1Gi", "RWO"]
    smaller = _claimed(volumeName="v")
    refused = await _fields_refused_in_update(cluster, "persistentvolumeclaims", "a", spec=smaller)
    assert refused == ["spec.resources.requests.storage"]


async def test_a_volume_keeps_its_source(cluster: Cluster) -> None:
    made = await cluster.create("persistentvolumes", "v", spec=_volume())
    assert made["status"] == {"phase": "Pending", "lastPhaseTransitionTime": "2026-01-02T03:04:05Z"}
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    changed = _volume(hostPath={"path": "/b"}, volumeMode="Block")
    refused = await _fields_refused_in_update(cluster, "persistentvolumes", "v", spec=changed)
    assert refused == ["spec.persistentvolumesource", "volumeMode"]
    cluster.clock.turn(60)
    bound = await cluster.update("persistentvolumes", "v", "status", status={"phase": "Bound"})
    assert bound["status"]["lastPhaseTransitionTime"] == "2026-01-02T03:05:05Z"


async def test_a_volume_is_of_one_type_with_all_it_needs(cluster: Cluster) -> None:
    error = await cluster.refused("persistentvolumes", "v", spec={"local": {"path": "a"}, "nfs": {}})
    assert [field for field, _ in causes(error)] == [
        "spec.accessModes",
        "spec.capacity",
        "spec.capacity",
        "spec.local",
        "spec.nfs.server",
        "spec.nfs.path",
        "spec.nfs.path",
    ]


async def test_a_storage_class_is_filled_in_and_fixed(cluster: Cluster) -> None:
    made = await cluster.create(_of("storageclasses"), "a", provisioner="x/y")
    assert (made["reclaimPolicy"], made["volumeBindingMode"]) == ("Delete", "Immediate")
    assert cluster.row(_of("storageclasses"), made) == ["a", "x/y", "Delete", "Immediate", False, "0s"]
    refused = await _fields_refused_in_update(
        cluster, _of("storageclasses"), "a", provisioner="z", parameters={"a": "b"}
    )
    assert refused == ["provisioner", "parameters"]


async def test_a_driver_has_no_generation_before_its_first_change(cluster: Cluster) -> None:
    made = await cluster.create(_of("csidrivers"), "d", spec={})
    assert "generation" not in made["metadata"]
    assert cluster.row(_of("csidrivers"), made) == [
        "d", True, False, False, "<unset>", False, "Persistent", "0s",
    ]  # fmt: skip
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    changed = await cluster.update(_of("csidrivers"), "d", spec={"podInfoOnMount": True}, metadata=version)
    assert changed["metadata"]["generation"] == 1


async def test_an_attachment_is_of_a_volume_or_of_what_is_written_in_it(cluster: Cluster) -> None:
    spec = {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
    made = await cluster.create(_of("volumeattachments"), "a", spec=spec, status={"attached": True})
    assert made["status"] == {"attached": False}
    error = await cluster.refused(_of("volumeattachments"), "b", spec={**spec, "source": {}})
    why = "Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    assert causes(error) == [("spec.source", why)]
