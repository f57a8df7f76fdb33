"""apps/v1 and the replication controllers before it."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from tests.packs.conftest import Cluster, causes

DEPLOYMENTS = "apps/deployments"
LABELS = {"app": "a"}


def spec(**more: Any) -> Object:
    pod = {"containers": [{"name": "c", "image": "nginx"}]}
    template = {"metadata": {"labels": dict(LABELS)}, "spec": pod}
    return {"selector": {"matchLabels": dict(LABELS)}, "template": template, **more}


async def test_a_deployment_rolls_a_quarter_at_a_time_and_begins_without_a_status(cluster: Cluster) -> None:
    made = await cluster.create(DEPLOYMENTS, "d", spec=spec(), status={"replicas": 5})
    assert made["status"] == {}
    assert made["metadata"]["generation"] == 1
    rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert made["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    assert (made["spec"]["replicas"], made["spec"]["progressDeadlineSeconds"]) == (1, 600)
    assert cluster.row(DEPLOYMENTS, made)[:4] == ["d", "0/1", 0, 0]
    assert cluster.row(DEPLOYMENTS, made)[5:] == ["c", "nginx", "app=a"]


async def test_a_deployment_needs_a_selector_that_its_template_matches(cluster: Cluster) -> None:
    error = await cluster.refused(DEPLOYMENTS, "d", spec={**spec(), "selector": {"matchLabels": {"x": "y"}}})
    why = 'Invalid value: {"app":"a"}: `selector` does not match template `labels`'
    assert causes(error) == [("spec.template.metadata.labels", why)]
    error = await cluster.refused(DEPLOYMENTS, "d", spec={**spec(), "selector": {}})
    assert causes(error) == [("spec.selector", "Invalid value: {}: empty selector is invalid for deployment")]


async def test_the_selector_of_a_deployment_stays(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, "d", spec=spec())
    other = spec(selector={"matchLabels": {"b": "b"}})
    other["template"]["metadata"]["labels"]["b"] = "b"
    with pytest.raises(ApiError) as caught:
        await cluster.update(DEPLOYMENTS, "d", spec=other)
    assert causes(caught.value) == [
        ("spec.selector", 'Invalid value: {"matchLabels":{"b":"b"}}: field is immutable')
    ]


async def test_annotations_of_a_deployment_count_as_a_change_and_labels_do_not(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, "d", spec=spec())
    labelled = await cluster.update(DEPLOYMENTS, "d", spec=spec(), metadata={"labels": {"l": "1"}})
    assert labelled["metadata"]["generation"] == 1
    noted = await cluster.update(DEPLOYMENTS, "d", spec=spec(), metadata={"annotations": {"a": "1"}})
    assert noted["metadata"]["generation"] == 2


async def test_the_status_of_a_deployment_is_written_apart(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, "d", spec=spec())
    status = {"replicas": 2, "readyReplicas": 2, "collisionCount": 1, "updatedReplicas": 0}
    told = await cluster.update(DEPLOYMENTS, "d", "status", spec=spec(replicas=9), status=status)
    assert told["spec"]["replicas"] == 1
    assert told["status"] == {"replicas": 2, "readyReplicas": 2, "collisionCount": 1}
    with pytest.raises(ApiError) as caught:
        await cluster.update(DEPLOYMENTS, "d", "status", spec=spec(), status={"readyReplicas": 3})
    assert causes(caught.value) == [
        ("status.readyReplicas", "Invalid value: 3: cannot be greater than status.replicas"),
        ("status.collisionCount", "Invalid value: 0: cannot be decremented"),
    ]


async def test_a_name_that_makes_no_host_names_is_warned_of(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, "a.b", spec=spec())
    assert cluster.warnings[0].startswith("metadata.name: this is used in Pod names and hostnames")


async def test_a_stateful_set_has_a_volume_for_each_claim(cluster: Cluster) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    wanted = spec(volumeClaimTemplates=[claim])
    wanted["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/d"}]
    made = await cluster.create("apps/statefulsets", "s", spec=wanted)
    assert made["spec"]["volumeClaimTemplates"][0]["status"] == {"phase": "Pending"}
    assert made["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 0, "maxUnavailable": 1}
    assert made["status"] == {"replicas": 0, "availableReplicas": 0}
    with pytest.raises(ApiError) as caught:
        await cluster.update("apps/statefulsets", "s", spec={**wanted, "serviceName": "other"})
    assert causes(caught.value) == [("spec.serviceName", 'Invalid value: "other": field is immutable')]


async def test_a_daemon_set_counts_the_changes_of_its_template(cluster: Cluster) -> None:
    counted = "deprecated.daemonset.template.generation"
    made = await cluster.create("apps/daemonsets", "n", spec=spec())
    assert made["metadata"]["annotations"] == {counted: "1"}
    wanted = spec()
    wanted["template"]["spec"]["hostNetwork"] = True
    changed = await cluster.update("apps/daemonsets", "n", spec=wanted)
    assert changed["metadata"]["annotations"] == {counted: "2"}
    error = await cluster.refused(
        "apps/daemonsets", "m", spec=spec(), metadata={"annotations": {counted: "x"}}
    )
    assert error.code == 400


async def test_a_daemon_set_surges_or_lacks_but_not_both(cluster: Cluster) -> None:
    update = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    error = await cluster.refused("apps/daemonsets", "n", spec=spec(updateStrategy=update))
    why = "Invalid value: 1: may not be set when maxUnavailable is non-zero"
    assert causes(error) == [("spec.updateStrategy.rollingUpdate.maxSurge", why)]


async def test_a_revision_does_not_change_its_data(cluster: Cluster) -> None:
    await cluster.create("apps/controllerrevisions", "r", data={"a": 1}, revision=1)
    with pytest.raises(ApiError) as caught:
        await cluster.update("apps/controllerrevisions", "r", data={"a": 2}, revision=1)
    assert causes(caught.value) == [("data", 'Invalid value: {"a":2}: field is immutable')]
    error = await cluster.refused("apps/controllerrevisions", "s", data=[])
    assert causes(error) == [("data", "Required value: data must be a valid JSON object")]


async def test_a_replication_controller_selects_what_its_template_says(cluster: Cluster) -> None:
    wanted = spec()
    del wanted["selector"]
    made = await cluster.create("replicationcontrollers", "r", spec=wanted)
    assert made["spec"]["selector"] == made["metadata"]["labels"] == LABELS
    assert made["status"] == {"replicas": 0}
    error = await cluster.refused("replicationcontrollers", "q", spec={"selector": {"a": "b"}})
    assert causes(error) == [("spec.template", "Required value")]


async def test_a_pod_template_counts_its_changes(cluster: Cluster) -> None:
    made = await cluster.create("podtemplates", "t", template=spec()["template"])
    assert made["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    changed = spec()["template"]
    changed["spec"]["hostNetwork"] = True
    assert (await cluster.update("podtemplates", "t", template=changed))["metadata"]["generation"] == 2
