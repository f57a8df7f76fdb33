"""Nodes, as whoever plays kubelet registers them, and what is told of a control plane's components."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.selectors import FieldSelector
from clusterling.registry.options import ListOptions
from tests.packs.conftest import Cluster, causes


async def test_a_node_is_registered_with_its_status_and_not_ready(cluster: Cluster) -> None:
    status = {"capacity": {"cpu": "1000m"}, "conditions": [{"type": "Ready", "status": "True"}]}
    node = await cluster.create("nodes", "n", spec={"podCIDR": "10.0.0.0/24"}, status=status)
    assert node["spec"] == {
        "podCIDR": "10.0.0.0/24",
        "podCIDRs": ["10.0.0.0/24"],
        "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}],
    }
    assert node["status"]["allocatable"] == node["status"]["capacity"] == {"cpu": "1"}
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert node["status"]["nodeInfo"]["kubeletVersion"] == ""
    assert "generation" not in node["metadata"]
    cluster.clock.turn(5)
    assert cluster.row("nodes", node)[:5] == ["n", "Ready", "<none>", "5s", ""]


async def test_a_nodes_columns_tell_roles_addresses_and_what_it_runs(cluster: Cluster) -> None:
    labels = {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "z"}
    status = {
        "addresses": [
            {"type": "InternalIP", "address": "1.2.3.4"},
            {"type": "ExternalIP", "address": "4.3.2.1"},
        ],
        "nodeInfo": {"kernelVersion": "k", "architecture": "amd64", "osImage": "o"},
    }
    node = await cluster.create(
        "nodes", "n", metadata={"labels": labels}, spec={"unschedulable": True}, status=status
    )
    assert cluster.row("nodes", node) == [
        "n",
        "Unknown,SchedulingDisabled",
        "worker,z",
        "0s",
        "",
        "1.2.3.4",
        "4.3.2.1",
        "o",
        "k (amd64)",
        "<unknown>",
    ]


async def test_cordoned_nodes_are_found_by_that(cluster: Cluster) -> None:
    await cluster.create("nodes", "a", spec={"unschedulable": True})
    await cluster.create("nodes", "b")
    found = await cluster.found(
        "nodes", ListOptions(field_selector=FieldSelector.parse("spec.unschedulable=true"))
    )
    assert [one["metadata"]["name"] for one in found] == ["a"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"podCIDRs": ["nope"]},
            (
                "spec.podCIDRs[0]",
                'Invalid value: "nope": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
            ),
        ),
        (
            {"podCIDRs": ["10.0.0.0/16", "10.1.0.0/16"]},
            (
                "spec.podCIDRs",
                'Invalid value: ["10.0.0.0/16","10.1.0.0/16"]: may specify no more than one CIDR for each IP family',
            ),
        ),
        (
            {"taints": [{"key": "a", "effect": "No"}]},
            (
                "metadata.taints[0].effect",
                'Unsupported value: "No": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
            ),
        ),
    ],
)
async def test_what_is_wrong_with_a_node_is_told(
    cluster: Cluster, spec: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert causes(await cluster.refused("nodes", "n", spec=spec)) == [expected]


async def test_what_a_node_once_is_it_stays(cluster: Cluster) -> None:
    await cluster.create("nodes", "n", spec={"podCIDR": "10.0.0.0/24", "providerID": "a://b"})
    with pytest.raises(ApiError) as caught:
        await cluster.update("nodes", "n", spec={"podCIDR": "10.0.1.0/24", "providerID": "a://c"})
    assert causes(caught.value) == [
        ("spec.podCIDRs", 'Forbidden: node updates may not change podCIDR except from "" to valid'),
        ("spec.providerID", "Invalid value: null: field cannot be modified once set"),
    ]


async def test_a_node_and_its_status_are_written_apart(cluster: Cluster) -> None:
    await cluster.create("nodes", "n")
    changed = await cluster.update("nodes", "n", spec={"unschedulable": True}, status={"phase": "x"})
    assert "phase" not in changed["status"]
    changed = await cluster.update("nodes", "n", "status", spec={}, status={"phase": "Running"})
    assert changed["status"]["phase"] == "Running"
    assert changed["spec"]["unschedulable"] is True
    with pytest.raises(ApiError) as caught:
        await cluster.update("nodes", "n", "status", status={"allocatable": {"cpu": "-1"}})
    assert causes(caught.value) == [
        ("status.allocatable.cpu", 'Invalid value: "-1": must be greater than or equal to 0')
    ]


async def test_three_components_are_told_of(cluster: Cluster) -> None:
    found = await cluster.found("componentstatuses", ListOptions())
    assert [cluster.row("componentstatuses", one) for one in found] == [
        ["controller-manager", "Healthy", "ok", ""],
        ["etcd-0", "Healthy", "ok", ""],
        ["scheduler", "Unhealthy", "this cluster has no scheduler", ""],
    ]
