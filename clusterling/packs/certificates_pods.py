"""PodCertificateRequests: what a kubelet asks for a pod. Kept for whoever plays the signer; the proof in it is the signer's to check.

Upstream: kubernetes pkg/registry/certificates/podcertificaterequest, ValidatePodCertificateRequestCreate.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    OMITTED,
    FieldError,
    FieldErrorType,
    immutable_field,
    invalid_value,
    required,
    too_long,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec.rules import Problems, named
from clusterling.packs.core.podspec.signers import signer_problems
from clusterling.packs.split import SplitStrategy
from clusterling.registry.strategy import RESETS_METADATA, Context

_GROUP: Final = "certificates.k8s.io"
_STUB_BYTES_MAX: Final = 10 * 1024
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_MODULUS_BITS: Final = frozenset({3072, 4096})
_SECONDS: Final = 24 * 3600
_SECONDS_MIN: Final = 3600
_SECONDS_MAX: Final = 91 * 24 * 3600
_UID_BYTES_MAX: Final = 128
_OWN_SIGNERS: Final = "kubernetes.io"
_ENDS: Final = ("Issued", "Denied", "Failed")


class PodRequestStrategy(SplitStrategy):
    resets = RESETS_METADATA
    has_generation = False
    allow_unconditional_update = False

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        _default(new)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_problems(new["spec"]))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource != "status":
            return [] if new["spec"] == old["spec"] else [immutable_field("spec", new["spec"])]
        status, before = new["status"], old.get("status") or {}
        if _ended(before) and status != before:
            return [immutable_field("status", status)]
        return []

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        fields = ("signerName", "podName", "nodeName")
        spec = obj.get("spec") or {}
        return {f"spec.{field}": spec.get(field) or "" for field in fields}


def _default(new: Object) -> None:
    new.setdefault("spec", {}).setdefault("maxExpirationSeconds", _SECONDS)


def _problems(spec: Object) -> Problems:
    yield from signer_problems(spec.get("signerName") or "", "spec.signerName")
    for whom in ("pod", "serviceAccount", "node"):
        uid = spec.get(f"{whom}UID") or ""
        yield from named(spec.get(f"{whom}Name") or "", f"spec.{whom}Name", is_dns1123_subdomain)
        if not uid:
            yield invalid_value(f"spec.{whom}UID", "", "must not be empty")
        if len(uid.encode()) > _UID_BYTES_MAX:
            yield too_long(f"spec.{whom}UID", _UID_BYTES_MAX)
    seconds = spec.get("maxExpirationSeconds")
    if seconds is None:
        yield required("spec.maxExpirationSeconds", "must be set")
        return
    domain = (spec.get("signerName") or "").partition("/")[0]
    own = domain == _OWN_SIGNERS or domain.endswith(f".{_OWN_SIGNERS}")
    most = _SECONDS if own else _SECONDS_MAX
    if not _SECONDS_MIN <= seconds <= most:
        why = f"must be in the range [{_SECONDS_MIN}, {most}]"
        yield invalid_value("spec.maxExpirationSeconds", seconds, why)
    # Upstream's text names two fields more, which this version has not.
    if spec.get("stubPKCS10Request"):
        yield from _stub_problems(spec["stubPKCS10Request"], "spec.stubPKCS10Request")
    else:
        why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
        yield FieldError(FieldErrorType.INVALID, "spec", OMITTED, why)


def _stub_problems(encoded: str, path: str) -> Problems:
    """An empty request for a certificate, which proves that who sends it has the key."""
    content = base64.b64decode(encoded)
    if len(content) > _STUB_BYTES_MAX:
        yield too_long(path, _STUB_BYTES_MAX)
        return
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509 import load_der_x509_csr

    try:
        request = load_der_x509_csr(content)
        key = request.public_key()
    except ValueError:
        yield FieldError(FieldErrorType.INVALID, path, OMITTED, "must be a valid PKCS#10 CSR")
        return
    match key:
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                why = "elliptic public keys must use curve P256, P384, or P521"
                yield invalid_value(path, f"curve {key.curve.name}", why)
                return
        case rsa.RSAPublicKey():
            if key.key_size not in _MODULUS_BITS:
                why = "RSA keys must have modulus size 3072 or 4096"
                yield invalid_value(path, f"{key.key_size}-bit modulus", why)
                return
        case ed25519.Ed25519PublicKey():
            pass
        case _:
            why = "unknown public key type; supported types are Ed25519, ECDSA, and RSA"
            yield FieldError(FieldErrorType.INVALID, path, OMITTED, why)
            return
    if not request.is_signature_valid:
        yield FieldError(FieldErrorType.INVALID, path, OMITTED, "invalid signature")


def _ended(status: Object) -> str:
    """The end that the request has come to, "" while it has none."""
    kinds = [one.get("type") for one in status.get("conditions") or ()]
    return next((kind for kind in reversed(_ENDS) if kind in kinds), "")


def _annotations(obj: Object, _now: datetime) -> str:
    given = obj["spec"].get("unverifiedUserAnnotations") or {}
    return ",".join(f"{key}={given[key]}" for key in sorted(given)) or "<none>"


PODCERTIFICATEREQUESTS: Final = builtin.resource(
    _GROUP,
    "v1",
    "podcertificaterequests",
    strategy=PodRequestStrategy(),
    columns=(
        NAME_COLUMN,
        Column("PodName", "string", builtin.at("spec", "podName")),
        Column("ServiceAccountName", "string", builtin.at("spec", "serviceAccountName")),
        Column("NodeName", "string", builtin.at("spec", "nodeName")),
        Column("SignerName", "string", builtin.at("spec", "signerName")),
        Column("State", "string", lambda obj, _: _ended(obj.get("status") or {}) or "Pending"),
        Column("UnverifiedUserAnnotations", "string", _annotations),
    ),
)
