from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from tests.packs.conftest import Cluster, causes

_LEASES = "coordination.k8s.io/leases"


async def test_a_put_creates_a_lease_and_times_keep_six_digits(cluster: Cluster) -> None:
    spec = {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "renewTime": "2026-01-02T04:04:05.120000+01:00",
    }
    made = await cluster.update(_LEASES, "l", spec=spec)
    assert made["spec"]["renewTime"] == "2026-01-02T03:04:05.120000Z"
    cluster.clock.turn(3)
    assert cluster.row(_LEASES, made) == ["l", "me", "3s"]


async def test_a_lease_is_not_overwritten_blindly(cluster: Cluster) -> None:
    await cluster.create(_LEASES, "l")
    with pytest.raises(ApiError) as caught:
        await cluster.update(_LEASES, "l", spec={"holderIdentity": "me"})
    assert causes(caught.value) == [
        ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
    ]


async def test_lease_numbers_are_checked(cluster: Cluster) -> None:
    error = await cluster.refused(_LEASES, "l", spec={"leaseDurationSeconds": 0, "leaseTransitions": -1})
    assert causes(error) == [
        ("spec.leaseDurationSeconds", "Invalid value: 0: must be greater than 0"),
        ("spec.leaseTransitions", "Invalid value: -1: must be greater than or equal to 0"),
    ]


async def test_an_account_names_secrets_by_name_alone(cluster: Cluster) -> None:
    made = await cluster.create(
        "serviceaccounts", "sa", secrets=[{"name": "s", "namespace": "x"}], imagePullSecrets=[{"name": "p"}]
    )
    assert made["secrets"] == [{"name": "s"}]
    assert made["imagePullSecrets"] == [{"name": "p"}]
    assert cluster.row("serviceaccounts", made) == ["sa", "0s"]


async def test_the_deprecated_annotation_of_accounts_is_warned_of(cluster: Cluster) -> None:
    await cluster.create(
        "serviceaccounts", "sa", metadata={"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    )
    assert cluster.warnings == [
        "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; "
        "prefer separate namespaces to isolate access to mounted secrets"
    ]
