"""Kinds that are kept for others to act on: admission, flow control, registration, devices, migrations."""

from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from tests.packs.conftest import Cluster, causes

_HOOKS = "admissionregistration.k8s.io/mutatingwebhookconfigurations"
_POLICIES = "admissionregistration.k8s.io/validatingadmissionpolicies"
_SCHEMAS = "flowcontrol.apiserver.k8s.io/flowschemas"
_LEVELS = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations"
_SERVICES = "apiregistration.k8s.io/apiservices"
_CLAIMS = "resource.k8s.io/resourceclaims"
_MIGRATIONS = "storagemigration.k8s.io/storageversionmigrations"
_HOOK: Object = {
    "name": "a.b.c",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "clientConfig": {"url": "https://a/b"},
}


async def _fields_of(cluster: Cluster, plural: str, name: str, **fields: object) -> list[str]:
    return [field for field, _ in causes(await cluster.refused(plural, name, **fields))]


async def test_a_webhook_is_filled_in_and_said_not_to_be_called(cluster: Cluster) -> None:
    made = await cluster.create(_HOOKS, "a", webhooks=[dict(_HOOK)])
    hook = made["webhooks"][0]
    assert (hook["failurePolicy"], hook["matchPolicy"], hook["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert (hook["reinvocationPolicy"], hook["objectSelector"]) == ("Never", {})
    assert cluster.row(_HOOKS, made) == ["a", 1, "0s"]
    assert cluster.warnings == ["this server keeps the object and does not act on it yet"]


async def test_webhooks_are_reached_by_https_and_named_once(cluster: Cluster) -> None:
    odd = {**_HOOK, "clientConfig": {"url": "http://u@a/b?c#d"}, "sideEffects": "Some", "timeoutSeconds": 99}
    assert await _fields_of(cluster, _HOOKS, "a", webhooks=[dict(_HOOK), odd]) == [
        "webhooks[1].sideEffects",
        "webhooks[1].timeoutSeconds",
        *["webhooks[1].clientConfig.url"] * 4,
        "webhooks[1].name",
    ]


async def test_rules_of_webhooks_do_not_say_things_twice(cluster: Cluster) -> None:
    rule = {
        "operations": ["X", "*"],
        "apiGroups": ["*", "a"],
        "apiVersions": [""],
        "resources": ["*/*", "a/*", "a/b", "*", ""],
        "scope": "q",
    }
    path = "webhooks[0].rules[0]"
    assert await _fields_of(cluster, _HOOKS, "a", webhooks=[{**_HOOK, "rules": [rule]}]) == [
        f"{path}.operations",
        f"{path}.operations[0]",
        f"{path}.apiGroups",
        f"{path}.apiVersions[0]",
        f"{path}.resources[1]",
        f"{path}.resources[2]",
        f"{path}.resources[4]",
        f"{path}.resources",
        f"{path}.scope",
    ]


async def test_a_policy_says_what_it_is_about_and_what_must_hold(cluster: Cluster) -> None:
    spec = {"paramKind": {"apiVersion": "a/b/c"}, "variables": [{"name": "a-b", "expression": "1"}]}
    assert await _fields_of(cluster, _POLICIES, "a", spec=spec) == [
        "spec.paramKind.apiVersion",
        "spec.paramKind.kind",
        "spec.matchConstraints",
        "spec.variables[0].name",
        "spec.validations",
        "spec.auditAnnotations",
    ]


async def test_every_cluster_begins_with_upstreams_flow_schemas_and_levels(cluster: Cluster) -> None:
    schema = await cluster.get(_SCHEMAS, "service-accounts")
    assert cluster.row(_SCHEMAS, schema)[1:4] == ["workload-low", 9000, "ByUser"]
    level = await cluster.get(_LEVELS, "workload-low")
    assert cluster.row(_LEVELS, level)[1:6] == ["Limited", 100, 128, 6, 50]


async def test_the_catch_all_stays_as_it_is(cluster: Cluster) -> None:
    with pytest.raises(ApiError) as caught:
        await cluster.update(_SCHEMAS, "catch-all", spec={"priorityLevelConfiguration": {"name": "x"}})
    assert "spec of 'catch-all' must equal the fixed value" in caught.value.message


async def test_levels_are_filled_in_and_bounded(cluster: Cluster) -> None:
    queue: Object = {"limitResponse": {"type": "Queue", "queuing": {}}}
    made = await cluster.create(_LEVELS, "a", spec={"type": "Limited", "limited": queue})
    assert made["spec"]["limited"]["limitResponse"]["queuing"] == {
        "queues": 64, "handSize": 8, "queueLengthLimit": 50,
    }  # fmt: skip
    dealt = {"limitResponse": {"type": "Queue", "queuing": {"handSize": 64, "queues": 10_000_000}}}
    fields = await _fields_of(cluster, _LEVELS, "b", spec={"type": "Limited", "limited": dealt})
    assert fields == ["spec.limited.limitResponse.queuing.handSize"]


async def test_local_apis_are_available_and_those_of_others_are_not(cluster: Cluster) -> None:
    assert cluster.row(_SERVICES, await cluster.get(_SERVICES, "v1.apps"))[1:3] == ["Local", "True"]
    spec = {"group": "x.com", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}
    service = {"name": "s", "namespace": "n"}
    made = await cluster.create(_SERVICES, "v1.x.com", spec={**spec, "service": service})
    assert made["spec"]["service"]["port"] == 443
    assert cluster.row(_SERVICES, made)[1:3] == ["n/s", "False (NotAggregated)"]
    assert await _fields_of(cluster, _SERVICES, "foo", spec=spec) == ["metadata.name"]


async def test_a_claim_of_devices_is_filled_in_and_never_changes(cluster: Cluster) -> None:
    requests = [{"name": "r", "exactly": {"deviceClassName": "c"}}]
    made = await cluster.create(_CLAIMS, "a", spec={"devices": {"requests": requests}}, status={"x": 1})
    assert made["spec"]["devices"]["requests"][0]["exactly"] == {
        "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1,
    }  # fmt: skip
    assert cluster.row(_CLAIMS, made) == ["a", "pending", "0s"]
    with pytest.raises(ApiError) as caught:
        await cluster.update(_CLAIMS, "a", spec={})
    assert causes(caught.value) == [("spec", "Invalid value: null: field is immutable")]
    both = {"name": "R", "exactly": {"deviceClassName": "c"}, "firstAvailable": [{"name": "x"}]}
    assert await _fields_of(cluster, _CLAIMS, "b", spec={"devices": {"requests": [both]}}) == [
        "spec.devices.requests[0].name",
        "spec.devices.requests[0]",
    ]


async def test_a_migration_names_a_resource(cluster: Cluster) -> None:
    made = await cluster.create(_MIGRATIONS, "a", spec={"resource": {"resource": "pods"}})
    assert cluster.row(_MIGRATIONS, made) == ["a", "pods", "Unknown"]
    assert await _fields_of(cluster, _MIGRATIONS, "b", spec={}) == ["spec.resource.resource"]
