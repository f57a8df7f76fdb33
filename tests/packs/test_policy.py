from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from tests.packs.conftest import Cluster, causes

BUDGETS = "policy/poddisruptionbudgets"


async def test_a_budget_begins_with_nothing_counted(cluster: Cluster) -> None:
    made = await cluster.create(BUDGETS, "b", spec={"minAvailable": 2}, status={"currentHealthy": 5})
    assert made["status"] == {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    }
    assert cluster.row(BUDGETS, made) == ["b", "2", "N/A", 0, "0s"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"minAvailable": 1, "maxUnavailable": "10%"},
            (
                "spec",
                'Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":"10%",'
                '"UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set',
            ),
        ),
        (
            {"maxUnavailable": "110%"},
            ("spec.maxUnavailable", 'Invalid value: "110%": must not be greater than 100%'),
        ),
        (
            {"maxUnavailable": -1},
            ("spec.maxUnavailable", "Invalid value: -1: must be greater than or equal to 0"),
        ),
        (
            {"unhealthyPodEvictionPolicy": "x"},
            (
                "spec.unhealthyPodEvictionPolicy",
                'Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget"',
            ),
        ),
    ],
)
async def test_what_is_wrong_with_a_budget_is_told(
    cluster: Cluster, spec: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert causes(await cluster.refused(BUDGETS, "b", spec=spec)) == [expected]


async def test_a_budget_is_not_overwritten_blindly(cluster: Cluster) -> None:
    await cluster.create(BUDGETS, "b")
    with pytest.raises(ApiError) as caught:
        await cluster.update(BUDGETS, "b", spec={"minAvailable": 1})
    assert causes(caught.value) == [
        ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
    ]


async def test_whoever_counts_pods_writes_the_status_alone(cluster: Cluster) -> None:
    made = await cluster.create(BUDGETS, "b", spec={"minAvailable": 1})
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    changed = await cluster.update(
        BUDGETS, "b", "status", metadata=version, spec={}, status={"currentHealthy": 1}
    )
    assert changed["spec"] == {"minAvailable": 1}
    assert changed["metadata"]["generation"] == 1
    version = {"resourceVersion": changed["metadata"]["resourceVersion"]}
    condition = {"type": "a", "status": "Maybe"}
    with pytest.raises(ApiError) as caught:
        await cluster.update(
            BUDGETS,
            "b",
            "status",
            metadata=version,
            status={"expectedPods": -1, "conditions": [condition]},
        )
    assert [field for field, _ in causes(caught.value)] == [
        "status.conditions[0].status",
        "status.conditions[0].lastTransitionTime",
        "status.conditions[0].reason",
        "status.expectedPods",
    ]
