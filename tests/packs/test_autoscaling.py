"""autoscaling: one stored form, two versions of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs.autoscaling.autoscalers import HORIZONTALPODAUTOSCALERS, AutoscalerStrategy
from clusterling.packs.autoscaling.conversion import from_v2, to_v2
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context
from tests.packs.conftest import Cluster, causes

KIND = "autoscaling/horizontalpodautoscalers"
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
METRICS = "autoscaling.alpha.kubernetes.io/metrics"


def stored(**spec: Any) -> Object:
    obj = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": TARGET, "maxReplicas": 3, **spec},
    }
    # The hook asks the context for nothing else.
    AutoscalerStrategy().read(cast("Context", SimpleNamespace(subresource="")), obj)
    return obj


def test_without_metrics_the_processor_is_kept_at_four_fifths() -> None:
    target = {"type": "Utilization", "averageUtilization": 80}
    assert stored()["spec"]["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    ]
    assert stored()["spec"]["minReplicas"] == 1


@pytest.mark.parametrize("kind", ["Pods", "Object", "External", "ContainerResource", "Resource"])
def test_metrics_and_behavior_come_back_from_the_first_version(kind: str) -> None:
    sources: dict[str, Object] = {
        "Pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}},
        "Object": {
            "describedObject": {"kind": "S", "name": "n"},
            "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "Value", "value": "5"},
        },
        "External": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "5"}},
        "ContainerResource": {
            "name": "cpu",
            "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 5},
        },
        "Resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    }
    metric = {"type": kind, kind[0].lower() + kind[1:]: sources[kind]}
    obj = stored(metrics=[metric], behavior={"scaleUp": {"stabilizationWindowSeconds": 5}})
    shown = from_v2(json.loads(json.dumps(obj)), "v1")
    assert set(shown["spec"]) == {"scaleTargetRef", "minReplicas", "maxReplicas"}
    assert set(shown["metadata"]["annotations"]) == {METRICS, BEHAVIOR}
    back = to_v2(shown, "v1")
    assert back["spec"] == obj["spec"]
    assert back["metadata"] == obj["metadata"]


@pytest.mark.parametrize("text", ["", "[", "5", "[5]", '[{"type":5}]', '[{"type":"Pods","pods":7}]', "null"])
def test_an_annotation_that_is_none_of_ours_is_ignored(text: str) -> None:
    obj = from_v2(stored(), "v1")
    obj["metadata"]["annotations"] = {METRICS: text, BEHAVIOR: text, "k": "v"}
    back = to_v2(obj, "v1")
    assert back["metadata"]["annotations"] == {"k": "v"}
    assert back["spec"]["metrics"] == stored()["spec"]["metrics"]


async def test_what_the_first_version_writes_the_second_shows(cluster: Cluster) -> None:
    spec = {"scaleTargetRef": TARGET, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50}
    made = await cluster.create(KIND, "h", spec=spec)
    assert made["apiVersion"] == "autoscaling/v1"
    assert made["spec"] == {**spec, "minReplicas": 1}
    assert made["status"] == {"currentReplicas": 0, "desiredReplicas": 0}
    newer = Served(HORIZONTALPODAUTOSCALERS, HORIZONTALPODAUTOSCALERS.version("v2"))
    shown = json.loads(await cluster.objects.get(newer, "default", "h"))
    assert shown["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert cluster.row(KIND, made)[:6] == ["h", "Deployment/d", "cpu: <unknown>/50%", "1", 5, 0]


async def test_an_autoscaler_has_a_target_in_a_group_and_a_most(cluster: Cluster) -> None:
    error = await cluster.refused(KIND, "h", spec={"scaleTargetRef": {"kind": "D", "name": "n"}})
    assert causes(error) == [
        ("spec.maxReplicas", "Invalid value: 0: must be greater than or equal to `minReplicas`"),
        ("spec.scaleTargetRef.apiVersion", 'Invalid value: "": apiVersion must specify API group'),
        ("spec.maxReplicas", "Required value"),
    ]


async def test_the_status_is_written_apart(cluster: Cluster) -> None:
    made = await cluster.create(KIND, "h", spec={"scaleTargetRef": TARGET, "maxReplicas": 5})
    status = {"currentReplicas": 2, "desiredReplicas": 3}
    told = await cluster.update(KIND, "h", "status", spec={**made["spec"], "maxReplicas": 9}, status=status)
    assert told["spec"]["maxReplicas"] == 5
    assert told["status"] == status
    with pytest.raises(ApiError) as caught:
        await cluster.update(
            KIND, "h", "status", spec=made["spec"], status={"currentReplicas": -2, "desiredReplicas": 0}
        )
    assert [field for field, _ in causes(caught.value)] == ["status.currentReplicas"]
