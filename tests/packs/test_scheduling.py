"""Priority classes and runtime classes, and what each does to a pod."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from tests.packs.conftest import Cluster, causes

CLASSES = "scheduling.k8s.io/priorityclasses"
RUNTIMES = "node.k8s.io/runtimeclasses"


def _spec(**fields: Any) -> Object:
    return {"containers": [{"name": "c", "image": "nginx"}], **fields}


async def test_two_classes_are_there_from_the_start_and_stay(cluster: Cluster) -> None:
    found = await cluster.get(CLASSES, "system-node-critical")
    assert (found["value"], found["preemptionPolicy"]) == (2_000_001_000, "PreemptLowerPriority")
    with pytest.raises(ApiError) as caught:
        await cluster.delete(CLASSES, "system-node-critical")
    assert caught.value.message == (
        'priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: '
        "this is a system priority class and cannot be deleted"
    )


async def test_a_class_keeps_its_value_and_its_generation(cluster: Cluster) -> None:
    made = await cluster.create(CLASSES, "p", value=5)
    assert cluster.row(CLASSES, made) == ["p", 5, False, "0s", "PreemptLowerPriority"]
    changed = await cluster.update(CLASSES, "p", value=5, description="d")
    assert changed["metadata"]["generation"] == 1
    with pytest.raises(ApiError) as caught:
        await cluster.update(CLASSES, "p", value=6, preemptionPolicy="Never")
    assert causes(caught.value) == [
        ("value", "Forbidden: may not be changed in an update."),
        ("preemptionPolicy", 'Invalid value: "Never": field is immutable'),
    ]


async def test_names_and_values_of_the_system_are_its_own(cluster: Cluster) -> None:
    assert causes(await cluster.refused(CLASSES, "system-x", value=1)) == [
        (
            "metadata.name",
            "Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: "
            "system-x is not a known system priority class",
        )
    ]
    assert causes(await cluster.refused(CLASSES, "big", value=1_000_000_001)) == [
        ("value", "Forbidden: maximum allowed value of a user defined priority is 1000000000")
    ]


async def test_one_class_is_the_default_and_gives_pods_its_priority(cluster: Cluster) -> None:
    await cluster.create(CLASSES, "low", value=7, globalDefault=True, preemptionPolicy="Never")
    error = await cluster.refused(CLASSES, "other", value=8, globalDefault=True)
    assert error.message.endswith(
        "PriorityClass low is already marked as default. Only one default can exist"
    )
    spec = (await cluster.create("pods", "p", spec=_spec()))["spec"]
    assert (spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"]) == ("low", 7, "Never")


async def test_a_runtime_class_gives_pods_its_overhead_and_its_nodes(cluster: Cluster) -> None:
    tolerated = [{"key": "k", "operator": "Exists"}]
    made = await cluster.create(
        RUNTIMES,
        "r",
        handler="h",
        overhead={"podFixed": {"cpu": "0.1"}},
        scheduling={"nodeSelector": {"a": "b"}, "tolerations": tolerated},
    )
    assert cluster.row(RUNTIMES, made) == ["r", "h", "0s"]
    spec = (await cluster.create("pods", "p", spec=_spec(runtimeClassName="r")))["spec"]
    assert spec["overhead"] == {"cpu": "100m"}
    assert spec["nodeSelector"] == {"a": "b"}
    assert spec["tolerations"][-1:] == tolerated
    error = await cluster.refused("pods", "q", spec=_spec(runtimeClassName="r", nodeSelector={"a": "c"}))
    assert error.message.endswith(
        "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c"
    )


async def test_a_runtime_class_keeps_its_handler(cluster: Cluster) -> None:
    assert causes(await cluster.refused(RUNTIMES, "r")) == [("handler", "Required value")]
    made = await cluster.create(RUNTIMES, "r", handler="h")
    with pytest.raises(ApiError) as caught:
        await cluster.update(RUNTIMES, "r", handler="i", metadata=made["metadata"])
    assert causes(caught.value) == [("handler", "Invalid value: null: field is immutable")]
