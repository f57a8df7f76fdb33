"""Endpoints and EndpointSlices: stored and checked; nothing here watches services."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from tests.packs.conftest import Cluster, causes

SLICES = "discovery.k8s.io/endpointslices"


async def test_endpoints_are_shown_three_at_a_time(cluster: Cluster) -> None:
    addresses = [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]
    ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
    made = await cluster.update("endpoints", "e", subsets=[{"addresses": addresses, "ports": ports}])
    assert [one["protocol"] for one in made["subsets"][0]["ports"]] == ["TCP", "TCP"]
    assert cluster.row("endpoints", made) == ["e", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...", "0s"]
    made = await cluster.update("endpoints", "e")
    assert cluster.row("endpoints", made)[1] == "<none>"


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ({}, ("subsets[0]", "Required value: must specify `addresses` or `notReadyAddresses`")),
        (
            {"addresses": [{"ip": "127.0.0.1"}]},
            (
                "subsets[0].addresses[0].ip",
                'Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
            ),
        ),
        (
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 0}]},
            ("subsets[0].ports[0].port", "Invalid value: 0: must be between 1 and 65535, inclusive"),
        ),
        (
            {"notReadyAddresses": [{"ip": "010.0.0.1"}]},
            ("subsets[0].notReadyAddresses[0].ip", 'Invalid value: "010.0.0.1": must not have leading 0s'),
        ),
    ],
)
async def test_what_is_wrong_with_endpoints_is_told(
    cluster: Cluster, subset: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert causes(await cluster.refused("endpoints", "e", subsets=[subset])) == [expected]


async def test_a_slice_is_completed_and_shown(cluster: Cluster) -> None:
    made = await cluster.create(
        SLICES,
        "s",
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}],
        ports=[{"port": 80}],
    )
    assert made["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {}}]
    assert made["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    assert cluster.row(SLICES, made) == ["s", "IPv4", "80", "10.0.0.1", "0s"]
    made = await cluster.create(SLICES, "t", addressType="FQDN")
    assert (made["endpoints"], made["ports"]) == (None, None)
    assert cluster.row(SLICES, made) == ["t", "FQDN", "<unset>", "<unset>", "0s"]
    assert cluster.warnings == ["spec.addressType: FQDN endpoints are deprecated"]


async def test_labels_of_a_slice_raise_its_generation(cluster: Cluster) -> None:
    await cluster.create(SLICES, "s", addressType="IPv4")
    changed = await cluster.update(SLICES, "s", addressType="IPv4", metadata={"labels": {"a": "b"}})
    assert changed["metadata"]["generation"] == 2
    changed = await cluster.update(
        SLICES, "s", addressType="IPv4", metadata={"labels": {"a": "b"}, "annotations": {"a": "b"}}
    )
    assert changed["metadata"]["generation"] == 2


async def test_a_slice_keeps_its_kind_of_addresses(cluster: Cluster) -> None:
    await cluster.create(SLICES, "s", addressType="IPv4")
    with pytest.raises(ApiError) as caught:
        await cluster.update(SLICES, "s", addressType="IPv6")
    assert causes(caught.value) == [("addressType", "Invalid value: null: field is immutable")]


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        ("IPv4", "fd00::1", ("endpoints[0].addresses", 'Invalid value: "fd00::1": must be an IPv4 address')),
        (
            "IPv6",
            "FD00::1",
            ("endpoints[0].addresses[0]", 'Invalid value: "FD00::1": must be in canonical form ("fd00::1")'),
        ),
        (
            "FQDN",
            "a",
            (
                "endpoints[0].addresses[0]",
                'Invalid value: "a": should be a domain with at least two segments separated by dots',
            ),
        ),
        (
            "X",
            "a",
            ("addressType", 'Unsupported value: "X": supported values: "FQDN", "IPv4", "IPv6"'),
        ),
    ],
)
async def test_addresses_are_of_the_kind_that_the_slice_names(
    cluster: Cluster, kind: str, address: str, expected: tuple[str, str]
) -> None:
    error = await cluster.refused(SLICES, "s", addressType=kind, endpoints=[{"addresses": [address]}])
    assert causes(error) == [expected]
