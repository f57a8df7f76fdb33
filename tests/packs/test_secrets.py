from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.selectors import FieldSelector
from clusterling.registry.options import ListOptions
from tests.packs.conftest import Cluster, causes


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


async def test_string_data_overwrites_data_and_is_not_kept(cluster: Cluster) -> None:
    made = await cluster.create(
        "secrets", "a", data={"x": "b2xk", "y": "eQ=="}, stringData={"x": "new", "z": "é"}
    )
    assert made["data"] == {"x": _b64("new"), "y": "eQ==", "z": _b64("é")}
    assert "stringData" not in made
    assert made["type"] == "Opaque"
    cluster.clock.turn(1)
    assert cluster.row("secrets", made) == ["a", "Opaque", 3, "1s"]


@pytest.mark.parametrize(
    ("kind", "data", "fields"),
    [
        ("kubernetes.io/service-account-token", {}, ["metadata.annotations[kubernetes.io/service-account.name]"]),
        ("kubernetes.io/dockercfg", {}, ["data[.dockercfg]"]),
        ("kubernetes.io/dockerconfigjson", {}, ["data[.dockerconfigjson]"]),
        ("kubernetes.io/basic-auth", {}, ["data[username]", "data[password]"]),
        ("kubernetes.io/ssh-auth", {"ssh-privatekey": ""}, ["data[ssh-privatekey]"]),
        ("kubernetes.io/tls", {}, ["data[tls.crt]", "data[tls.key]"]),
    ],
)  # fmt: skip
async def test_types_say_which_keys_must_be_there(
    cluster: Cluster, kind: str, data: dict[str, str], fields: list[str]
) -> None:
    error = await cluster.refused("secrets", "a", type=kind, data=data)
    assert causes(error) == [(field, "Required value") for field in fields]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": _b64("{}")}),
        ("kubernetes.io/basic-auth", {"username": ""}),
        ("kubernetes.io/ssh-auth", {"ssh-privatekey": "eA=="}),
        ("example.com/anything", {}),
    ],
)
async def test_what_has_its_keys_is_kept(cluster: Cluster, kind: str, data: dict[str, str]) -> None:
    assert (await cluster.create("secrets", "a", type=kind, data=data))["type"] == kind


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ],
)
async def test_docker_configs_must_be_json_and_are_not_repeated(
    cluster: Cluster, content: str, why: str
) -> None:
    error = await cluster.refused(
        "secrets",
        "a",
        type="kubernetes.io/dockerconfigjson",
        data={".dockerconfigjson": _b64(content)},
    )
    assert causes(error) == [
        ("data[.dockerconfigjson]", f"Invalid value: {json.dumps('<secret contents redacted>').replace('<', chr(60))}: {why}")
    ]  # fmt: skip


async def test_the_type_is_immutable_and_opaque_where_none_is_given(cluster: Cluster) -> None:
    await cluster.create("secrets", "a", type="example.com/x")
    with pytest.raises(ApiError) as caught:
        await cluster.update("secrets", "a", data={"x": "eA=="})
    assert causes(caught.value) == [("type", 'Invalid value: "Opaque": field is immutable')]


async def test_an_immutable_secret_keeps_its_data(cluster: Cluster) -> None:
    await cluster.create("secrets", "a", data={"x": "eA=="}, immutable=True)
    with pytest.raises(ApiError) as caught:
        await cluster.update("secrets", "a", stringData={"x": "y"}, immutable=True)
    assert causes(caught.value) == [("data", "Forbidden: field is immutable when `immutable` is set")]


async def test_secrets_are_selected_by_type(cluster: Cluster) -> None:
    await cluster.create("secrets", "a")
    await cluster.create("secrets", "b", type="example.com/x")
    options = ListOptions(field_selector=FieldSelector.parse("type=Opaque"))
    assert [one["metadata"]["name"] for one in await cluster.found("secrets", options)] == ["a"]


def _key_pair(seed: int) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.derive_private_key(seed, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), seed, now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


_GOOD, _OTHER = _key_pair(7), _key_pair(8)


@pytest.mark.parametrize(
    ("certificate", "key", "warnings"),
    [
        (_GOOD[0], _GOOD[1], []),
        (_GOOD[0], _OTHER[1], ["tls: private key does not match public key"]),
        (b"x", _GOOD[1], ["tls: failed to find any PEM data in certificate input"]),
        (_GOOD[0], b"x", ["tls: failed to find any PEM data in key input"]),
    ],
)
async def test_a_key_that_does_not_fit_its_certificate_is_warned_of(
    cluster: Cluster, certificate: bytes, key: bytes, warnings: list[str]
) -> None:
    data: dict[str, Any] = {"tls.crt": _b64(certificate), "tls.key": _b64(key)}
    await cluster.create("secrets", "a", type="kubernetes.io/tls", data=data)
    assert cluster.warnings == warnings
