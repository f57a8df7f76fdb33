from __future__ import annotations

import base64
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from tests.packs.conftest import Cluster, causes

_LOCKED = "Forbidden: field is immutable when `immutable` is set"


async def test_data_and_binary_data_are_kept_and_counted(cluster: Cluster) -> None:
    made = await cluster.create("configmaps", "a", data={"x": "1"}, binaryData={"y": "AAE=", "z": ""})
    assert made["data"] == {"x": "1"}
    assert made["binaryData"] == {"y": "AAE=", "z": ""}
    assert "generation" not in made["metadata"]
    cluster.clock.turn(5)
    assert cluster.row("configmaps", made) == ["a", 3, "5s"]


async def test_empty_maps_are_not_kept(cluster: Cluster) -> None:
    made = await cluster.create("configmaps", "a", data={}, binaryData={})
    assert made.keys() == {"apiVersion", "kind", "metadata"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"data": {"a b": "1"}},
            ("data[a b]", "Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
             " (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"),
        ),
        ({"data": {"a": "1"}, "binaryData": {"a": "MQ=="}}, ("data[a]", 'Invalid value: "a": duplicate of key present in binaryData')),
        ({"data": {"a": "x" * 1_048_577}}, ("[]", "Too long: may not be more than 1048576 bytes")),
        ({"binaryData": {"a": base64.b64encode(b"x" * 1_048_577).decode()}}, ("[]", "Too long: may not be more than 1048576 bytes")),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_in_upstreams_words(
    cluster: Cluster, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    error = await cluster.refused("configmaps", "a", **fields)
    assert error.code == 422
    assert causes(error) == [expected]


async def test_exactly_a_megabyte_is_allowed(cluster: Cluster) -> None:
    await cluster.create(
        "configmaps",
        "a",
        data={"a": "x" * 524_288},
        binaryData={"b": base64.b64encode(b"y" * 524_288).decode()},
    )


@pytest.mark.parametrize(
    ("text", "at"),
    [("*", 0), ("YQ", 0), ("YQ=", 3), ("Y", 0), ("YWJj=", 4), ("YQ==YQ==", 4), ("YQ=a", 2), ("YW\nJ*", 4), ("=", 0)],
)  # fmt: skip
async def test_what_is_not_base64_is_a_bad_request_that_names_the_byte(
    cluster: Cluster, text: str, at: int
) -> None:
    error = await cluster.refused("configmaps", "a", binaryData={"x": text})
    assert error.code == 400
    assert (
        error.message
        == f'ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte {at}'
    )


@pytest.mark.parametrize("text", ["YWI=\n", "YW\r\nI=", "YWJ=", "YWI\n="])
async def test_base64_is_written_in_one_form(cluster: Cluster, text: str) -> None:
    made = await cluster.create("configmaps", "a", binaryData={"x": text})
    assert made["binaryData"] == {"x": "YWI="}


async def test_an_immutable_configmap_keeps_its_data(cluster: Cluster) -> None:
    await cluster.create("configmaps", "a", data={"x": "1"}, immutable=True)
    await cluster.update("configmaps", "a", data={"x": "1"}, immutable=True, metadata={"labels": {"l": "v"}})
    with pytest.raises(ApiError) as caught:
        await cluster.update("configmaps", "a", data={"x": "2"}, binaryData={"y": "MQ=="})
    assert causes(caught.value) == [("immutable", _LOCKED), ("data", _LOCKED), ("binaryData", _LOCKED)]
