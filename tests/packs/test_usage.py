"""What one object uses of a quota, by kind: pure."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.packs.core import amounts
from clusterling.packs.core.usage import Scope, evaluator


def _used(plural: str, obj: Any, group: str = "") -> dict[str, str]:
    how = evaluator(group, plural)
    assert how is not None
    return amounts.written(how.usage({"metadata": {}, **obj}))


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": [], **spec}}


def _asking(cpu: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}


def test_events_are_never_counted() -> None:
    assert evaluator("", "events") is None
    assert evaluator("events.k8s.io", "events") is None


def test_old_names_go_with_the_core_group_alone() -> None:
    assert _used("secrets", {}) == {"count/secrets": "1", "secrets": "1"}
    assert _used("secrets", {}, "example.com") == {"count/secrets.example.com": "1"}
    assert _used("pods", {}, "example.com") == {"count/pods.example.com": "1"}


def test_claims_are_charged_whole_bytes_and_to_their_class() -> None:
    claim = {"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}
    assert _used("persistentvolumeclaims", claim) == {
        "count/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/requests.storage": "2",
        "persistentvolumeclaims": "1",
        "requests.storage": "2",
    }
    grown = {**claim, "status": {"allocatedResources": {"storage": "5Gi"}}}
    assert _used("persistentvolumeclaims", grown)["requests.storage"] == "5Gi"


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [_asking("1"), _asking("500m")]}, "1500m"),
        ({"containers": [_asking("1")], "initContainers": [_asking("3")]}, "3"),
        ({"containers": [_asking("1")], "initContainers": [_asking("3", restartPolicy="Always")]}, "4"),
        (
            {"containers": [_asking("1")], "initContainers": [_asking("1", restartPolicy="Always"), _asking("3")]},
            "4",
        ),
        ({"containers": [_asking("1")], "overhead": {"cpu": "250m"}}, "1250m"),
        ({"containers": [_asking("1")], "resources": {"requests": {"cpu": "2"}}}, "2"),
    ],
)  # fmt: skip
def test_a_pod_asks_for_what_its_containers_take_at_once(spec: Any, cpu: str) -> None:
    assert _used("pods", _pod(**spec))["requests.cpu"] == cpu


def test_a_pod_that_was_given_more_than_it_asks_for_is_charged_that() -> None:
    status = {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "3"}}]}
    pod = {**_pod(containers=[_asking("1")]), "status": status}
    assert _used("pods", pod)["requests.cpu"] == "3"
    pod["status"] = {"phase": "Failed"}
    assert _used("pods", pod) == {"count/pods": "1"}


def test_devices_and_huge_pages_are_charged_by_their_requests() -> None:
    asked = {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}
    pod = _pod(containers=[{"name": "c", "resources": {"requests": asked, "limits": asked}}])
    assert _used("pods", pod) == {
        "count/pods": "1",
        "hugepages-2Mi": "4Mi",
        "pods": "1",
        "requests.example.com/gpu": "2",
        "requests.hugepages-2Mi": "4Mi",
    }


def test_of_a_quotas_names_each_kind_takes_its_own() -> None:
    named = [
        "pods",
        "secrets",
        "requests.example.com/gpu",
        "requests.storage",
        "count/pods",
        "services.nodeports",
    ]
    taken = {
        plural: how.names(named)
        for plural in ("pods", "secrets", "services")
        if (how := evaluator("", plural))
    }
    assert taken == {
        "pods": ["pods", "requests.example.com/gpu", "count/pods"],
        "secrets": ["secrets"],
        "services": ["services.nodeports"],
    }


@pytest.mark.parametrize(
    ("scope", "spec", "holds"),
    [
        (Scope("Terminating"), {"activeDeadlineSeconds": 0}, True),
        (Scope("NotTerminating"), {"activeDeadlineSeconds": 5}, False),
        (Scope("BestEffort"), {"containers": [_asking("0")]}, True),
        (Scope("NotBestEffort"), {"containers": [_asking("1")]}, True),
        (Scope("PriorityClass"), {}, False),
        (Scope("PriorityClass", "DoesNotExist"), {}, True),
        (Scope("PriorityClass", "In", ("high",)), {"priorityClassName": "high"}, True),
        (Scope("PriorityClass", "NotIn", ("high",)), {"priorityClassName": "high"}, False),
        (Scope("PriorityClass", "NotIn", ("high",)), {}, True),
        (Scope("VolumeAttributesClass"), {}, False),
        (
            Scope("CrossNamespacePodAffinity"),
            {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["a"]}]}}},
            True,
        ),
        (Scope("CrossNamespacePodAffinity"), {"affinity": {"podAffinity": {}}}, False),
    ],
)  # fmt: skip
def test_a_pod_is_in_a_scope_or_not(scope: Scope, spec: Any, holds: bool) -> None:
    how = evaluator("", "pods")
    assert how is not None
    assert how.counts([scope], _pod(**spec)) is holds


def test_a_claim_of_devices_is_charged_by_class_what_it_may_come_to_have() -> None:
    requests = [
        {"name": "a", "exactly": {"deviceClassName": "gold", "allocationMode": "ExactCount", "count": 3}},
        {
            "name": "b",
            "firstAvailable": [
                {"deviceClassName": "gold", "allocationMode": "ExactCount", "count": 2},
                {"deviceClassName": "tin", "allocationMode": "All"},
                {"deviceClassName": "gold", "allocationMode": "ExactCount", "count": 1},
            ],
        },
    ]
    assert _used("resourceclaims", {"spec": {"devices": {"requests": requests}}}, "resource.k8s.io") == {
        "count/resourceclaims.resource.k8s.io": "1",
        "gold.deviceclass.resource.k8s.io/devices": "5",
        "tin.deviceclass.resource.k8s.io/devices": "32",
    }
