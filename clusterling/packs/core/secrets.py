"""Secrets: named bytes of a type that says which must be there. Upstream: kubernetes pkg/registry/core/secret."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery import strictjson
from clusterling.machinery.errors import (
    FieldError,
    immutable_field,
    invalid_value,
    required,
    too_long,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.content import (
    CONTENT_BYTES_MAX,
    decoded_bytes,
    immutable_problems,
    key_problems,
    read_bytes,
)
from clusterling.registry.strategy import Context, Strategy

OPAQUE: Final = "Opaque"
ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"

_ACCOUNT_TOKEN: Final = "kubernetes.io/service-account-token"  # noqa: S105 - a type, not a secret
_BASIC_AUTH: Final = "kubernetes.io/basic-auth"
_SSH_AUTH: Final = "kubernetes.io/ssh-auth"
_TLS: Final = "kubernetes.io/tls"
_DOCKER: Final = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


class SecretStrategy(Strategy):
    has_generation = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        read_bytes(new, "data")
        texts = new.pop("stringData", None)
        if texts:
            encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
            new["data"] = {**(new.get("data") or {}), **encoded}
        if not new.get("data"):
            new.pop("data", None)
        if not new.get("type"):
            new["type"] = OPAQUE

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        data = new.get("data") or {}
        found = key_problems(data, "data")
        if sum(map(decoded_bytes, data.values())) > CONTENT_BYTES_MAX:
            found.append(too_long("data", CONTENT_BYTES_MAX))
        return found + _type_problems(new, data)

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = [] if new["type"] == old["type"] else [immutable_field("type", new["type"])]
        return [*found, *immutable_problems(new, old, ("data",)), *self.validate(ctx, new)]

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        return _key_pair_problems(new.get("data") or {}) if new.get("type") == _TLS else ()

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"type": str(obj.get("type", ""))}


def _type_problems(new: Object, data: dict[str, str]) -> list[FieldError]:
    kind = new["type"]
    if kind == _ACCOUNT_TOKEN:
        named = (meta(new).get("annotations") or {}).get(ACCOUNT_NAME)
        return [] if named else [required(f"metadata.annotations[{ACCOUNT_NAME}]")]
    if kind in _DOCKER:
        return _docker_problems(data, _DOCKER[kind])
    if kind == _BASIC_AUTH:
        if "username" in data or "password" in data:
            return []
        return [required("data[username]"), required("data[password]")]
    if kind == _SSH_AUTH:
        return [] if data.get("ssh-privatekey") else [required("data[ssh-privatekey]")]
    if kind == _TLS:
        return [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]
    return []


def _docker_problems(data: dict[str, str], key: str) -> list[FieldError]:
    if key not in data:
        return [required(f"data[{key}]")]
    try:
        value, _ = strictjson.parse(base64.b64decode(data[key]))
    except ValueError as error:
        return [invalid_value(f"data[{key}]", "<secret contents redacted>", str(error))]
    if value is None or isinstance(value, dict):
        return []
    what = {list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    wrong = f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
    return [invalid_value(f"data[{key}]", "<secret contents redacted>", wrong)]


def _key_pair_problems(data: dict[str, str]) -> Sequence[str]:
    """What Go's tls.X509KeyPair says of the certificate and its key; () where they fit."""
    certificate = base64.b64decode(data.get("tls.crt", ""))
    key = base64.b64decode(data.get("tls.key", ""))
    for what, found in (("certificate", certificate), ("key", key)):
        if b"-----BEGIN " not in found:
            return (f"tls: failed to find any PEM data in {what} input",)
    # Costs 30 ms to import, and few secrets are of this type.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        mine = load_pem_x509_certificate(certificate).public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        return ("x509: malformed certificate",)
    try:
        theirs = load_pem_private_key(key, None).public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ("tls: failed to parse private key",)
    return () if mine == theirs else ("tls: private key does not match public key",)


SECRETS: Final = builtin.resource(
    "",
    "v1",
    "secrets",
    strategy=SecretStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Type", "string", lambda obj, _: obj.get("type", "")),
        Column("Data", "string", lambda obj, _: len(obj.get("data") or ())),
        builtin.AGE,
    ),
)
