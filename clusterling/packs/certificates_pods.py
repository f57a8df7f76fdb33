"""PodCertificateRequests: what a kubelet asks for a pod. Kept for whoever plays the signer; the proof in it is the signer's to check.

Upstream: kubernetes pkg/registry/certificates/podcertificaterequest, ValidatePodCertificateRequestCreate.
"""

from __future__ import annotations

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
    if not spec.get("stubPKCS10Request"):
        why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
        yield FieldError(FieldErrorType.INVALID, "spec", OMITTED, why)


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
