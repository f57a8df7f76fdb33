"""certificates.k8s.io/v1: requests for certificates, approved and signed by others; bundles of those to trust.

Upstream: kubernetes pkg/registry/certificates, pkg/apis/certificates/validation,
plugin/pkg/admission/certificates/subjectrestriction.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.apply.fieldset import only
from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.meta import Object, name_of, rfc3339
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.table import NAME_COLUMN, Column, human_duration
from clusterling.packs import builtin
from clusterling.packs.authentication import user_info
from clusterling.packs.certificates_pods import PODCERTIFICATEREQUESTS
from clusterling.packs.core.content import read_bytes
from clusterling.packs.core.podspec.rules import Problems
from clusterling.packs.core.podspec.signers import signer_problems
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

if TYPE_CHECKING:
    from cryptography.x509 import CertificateSigningRequest

GROUP: Final = "certificates.k8s.io"

_APPROVED: Final = "Approved"
_DENIED: Final = "Denied"
_DECISIONS: Final = (_APPROVED, _DENIED)
_ONLY_TRUE: Final = (*_DECISIONS, "Failed")
_STATUSES: Final = ("False", "True", "Unknown")
_SECONDS_MIN: Final = 600
_BUNDLE_BYTES_MAX: Final = 1024 * 1024
_LEGACY: Final = "kubernetes.io/legacy-unknown"
_CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client"
_MASTERS: Final = "system:masters"
_USAGES: Final = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_HIDDEN: Final = "<value omitted>"

# The blocks of a text in PEM form; each quantifier stops at a character that it cannot take.
_PEM: Final = re.compile(r"-----BEGIN ([^\n-]+)-----[ \t]*\r?\n([^-]*)-----END \1-----")


def _blocks(text: str) -> Iterator[tuple[str, bool, bytes]]:
    """(type, whether it has headers, content) of each block in PEM form; what does not decode is none."""
    for match in _PEM.finditer(text):
        head, _, body = match[2].rpartition("\n\n")
        has_headers = ":" in head
        try:
            content = base64.b64decode("".join((body if has_headers else match[2]).split()), validate=True)
        except binascii.Error:
            continue
        yield match[1], has_headers, content


# ---------------------------------------------------------------------- requests


class SigningRequestStrategy(Strategy):
    """What is asked for never changes; who may sign says so in `approval`, the signer in `status`."""

    has_generation = False
    resets: ClassVar = {
        "": only(("spec",), ("status",)),
        "status": only(("spec",), ("status", "conditions")),
        "approval": only(("spec",), ("status", "certificate")),
    }
    name_problems = staticmethod(lambda _name: ())

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        if ctx.subresource:
            _read_field(new, new.get("status") or {}, "certificate")
            return
        _read_field(new, spec, "request")
        spec.setdefault("signerName", "")
        spec.setdefault("request", None)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        spec = new["spec"]
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        spec.update(user_info(ctx.user))
        new["status"] = {}

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        new["spec"], before = old["spec"], old.get("status") or {}
        status = new.get("status") or {}
        if not ctx.subresource:
            new["status"] = before
            return
        conditions = status.get("conditions") or []
        if ctx.subresource == "approval":
            status = {**before}
        else:
            _keep_decisions(conditions, before.get("conditions") or ())
        _stamp(conditions, before.get("conditions") or (), rfc3339(ctx.ports.clock.now()))
        status.pop("conditions", None)
        new["status"] = {**status, "conditions": conditions} if conditions else status

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        if ctx.subresource or new["spec"]["signerName"] != _CLIENT_SIGNER:
            return
        from cryptography.x509 import NameOID

        try:
            request = _parse_request(new["spec"].get("request"))
        except ValueError:
            return  # Refused as invalid.
        groups = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if any(group.value == _MASTERS for group in groups):
            why = f"use of {_CLIENT_SIGNER} signer with {_MASTERS} group is not allowed"
            raise errors.forbidden("certificatesigningrequests", GROUP, name_of(new), why)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*_request_problems(new["spec"]), *_condition_problems(new.get("status") or {})]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        status, before = new.get("status") or {}, old.get("status") or {}
        found = [*_condition_problems(status), *_certificate_problems(status, before)]
        for kind in _ONLY_TRUE:
            was, now = (_of_kind(one.get("conditions") or (), kind) for one in (before, status))
            what = f'a condition of type "{kind}"'
            if len(now) < len(was):
                found.append(forbidden_field("status.conditions", f"updates may not remove {what}"))
            elif ctx.subresource == "approval" or kind not in _DECISIONS:
                continue
            elif len(now) > len(was):
                found.append(forbidden_field("status.conditions", f"updates may not add {what}"))
            elif now != was:
                found.append(forbidden_field("status.conditions", f"updates may not modify {what}"))
        if status.get("certificate") != before.get("certificate"):
            if ctx.subresource != "status":
                found.append(forbidden_field("status.certificate", "updates may not set certificate content"))
            elif before.get("certificate"):
                why = "updates may not modify existing certificate content"
                found.append(forbidden_field("status.certificate", why))
        return found

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


def _read_field(obj: Object, part: Object, field: str) -> None:
    """Rewrites one field of bytes as Go writes it. Raises ApiError 400 for what is not base64."""
    text = part.get(field)
    if text is not None:
        holder: Object = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "data": {field: text}}
        read_bytes(holder, "data")
        part[field] = holder["data"][field]


def _parse_request(encoded: str | None) -> CertificateSigningRequest:
    """Raises ValueError with what is wrong."""
    text = base64.b64decode(encoded or "").decode("latin-1")
    kind, _, content = next(_blocks(text), ("", False, b""))
    if kind != "CERTIFICATE REQUEST":
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    # Costs 30 ms to import, and few clusters ask for certificates.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_der_x509_csr

    try:
        request = load_der_x509_csr(content)
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("asn1: structure error: malformed certificate request") from error
    if not signed:
        raise ValueError("x509: signature of the certificate request does not verify")
    return request


def _request_problems(spec: Object) -> Problems:
    try:
        _parse_request(spec.get("request"))
    except ValueError as error:
        yield invalid_value("spec.request", spec.get("request"), str(error))
    usages = spec.get("usages") or ()
    if not usages:
        yield required("spec.usages")
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            yield not_supported(f"spec.usages[{index}]", usage, _USAGES)
    seen: set[str] = set()
    for index, usage in enumerate(usages):
        if usage in seen:
            yield duplicate(f"spec.usages[{index}]", usage)
        seen.add(usage)
    if spec["signerName"] == _LEGACY:
        why = "the legacy signerName is not allowed via this API version"
        yield invalid_value("spec.signerName", _LEGACY, why)
    else:
        yield from signer_problems(spec["signerName"], "spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SECONDS_MIN:
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        yield invalid_value("spec.expirationSeconds", seconds, why)


def _condition_problems(status: Object) -> Problems:
    path, kinds, declared = "status.conditions", set[str](), []
    for index, condition in enumerate(status.get("conditions") or ()):
        here, kind, value = f"{path}[{index}]", condition.get("type") or "", condition.get("status") or ""
        allowed = ("True",) if kind in _ONLY_TRUE else _STATUSES
        if not kind:
            yield required(f"{here}.type")
        if not value:
            yield required(f"{here}.status")
        elif value not in allowed:
            yield not_supported(f"{here}.status", value, allowed)
        if kind in _DECISIONS and kinds & set(_DECISIONS) - {kind}:
            both = [f'conditions[{{"type": "{one}"}}]' for one in _DECISIONS]
            why = f"must specify at most one of: {', '.join(f'`{one}`' for one in both)}"
            declared.append(invalid_value(path, f"{{{', '.join(both)}}}", why))
        if kind in kinds:
            yield duplicate(f"{here}.type", kind)
        kinds.add(kind)
    yield from declared


def _certificate_problems(status: Object, before: Object) -> Problems:
    encoded = status.get("certificate")
    if not encoded or encoded == before.get("certificate"):
        return
    path, hidden = "status.certificate", "<certificate data>"
    found = list(_blocks(base64.b64decode(encoded).decode("latin-1")))
    from cryptography.x509 import load_der_x509_certificate

    for kind, has_headers, content in found:
        if kind != "CERTIFICATE":
            why = f"only CERTIFICATE PEM blocks are allowed, found {errors.go_quote(kind)}"
            yield invalid_value(path, hidden, why)
            return
        if has_headers:
            yield invalid_value(path, hidden, "no PEM block headers are permitted")
            return
        try:
            load_der_x509_certificate(content)
        except ValueError:
            yield invalid_value(path, hidden, "x509: malformed certificate")
            return
    if not found:
        yield invalid_value(path, hidden, "must contain at least one CERTIFICATE PEM block")


def _of_kind(conditions: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in conditions if one.get("type") == kind]


def _keep_decisions(conditions: list[Object], before: Sequence[Object]) -> None:
    """Approval is not the signer's to change: as many conditions of it as there were are those that there were."""
    for kind in _DECISIONS:
        was = _of_kind(before, kind)
        places = [index for index, one in enumerate(conditions) if one.get("type") == kind]
        if len(was) == len(places):
            for index, condition in zip(places, was, strict=True):
                conditions[index] = condition


def _stamp(conditions: Sequence[Object], before: Sequence[Object], now: str) -> None:
    for one in conditions:
        if not one.get("lastUpdateTime"):
            one["lastUpdateTime"] = now
        if not one.get("lastTransitionTime"):
            same = (
                old["lastTransitionTime"]
                for old in _of_kind(before, one.get("type") or "")
                if old.get("status") == one.get("status") and old.get("lastTransitionTime")
            )
            one["lastTransitionTime"] = next(same, now)


def _duration(obj: Object, _now: datetime) -> str:
    seconds = obj["spec"].get("expirationSeconds")
    return "<none>" if seconds is None else human_duration(timedelta(seconds=seconds))


def _condition(obj: Object, _now: datetime) -> str:
    status = obj.get("status") or {}
    kinds = {one.get("type") for one in status.get("conditions") or ()}
    told = next((kind for kind in (_DENIED, _APPROVED) if kind in kinds), "Pending")
    if "Failed" in kinds:
        told += ",Failed"
    return f"{told},Issued" if status.get("certificate") else told


# ---------------------------------------------------------------------- bundles


class TrustBundleStrategy(Strategy):
    """A bundle of a signer is named after it."""

    has_generation = False
    allow_unconditional_update = False
    name_problems = staticmethod(lambda _name: ())

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {}).setdefault("trustBundle", "")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*_bundle_name_problems(new), *_bundle_problems(new["spec"]["trustBundle"])]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        bundle, signer = new["spec"]["trustBundle"], new["spec"].get("signerName") or ""
        found = list(_bundle_name_problems(new))
        if bundle != old["spec"]["trustBundle"]:
            found += _bundle_problems(bundle)
        if signer != (old["spec"].get("signerName") or ""):
            found.append(immutable_field("spec.signerName", signer))
        return found

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


def _bundle_name_problems(new: Object) -> Problems:
    name, signer, path = name_of(new), new["spec"].get("signerName") or "", "metadata.name"
    if not signer and ":" in name:
        why = 'ClusterTrustBundle without signer name must not have ":" in its name'
        yield invalid_value(path, name, why)
        return
    prefix = signer.replace("/", ":") + ":" if signer else ""
    if not name.startswith(prefix):
        why = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        yield invalid_value(path, name, why)
    else:
        for problem in is_dns1123_subdomain(name.removeprefix(prefix)):
            yield invalid_value(path, name, problem)
    if signer:
        yield from signer_problems(signer, "spec.signerName")


def _bundle_problems(text: str) -> list[FieldError]:
    path = "spec.trustBundle"
    if len(text.encode()) > _BUNDLE_BYTES_MAX:
        return [too_long(path, _BUNDLE_BYTES_MAX)]
    found: list[FieldError] = []
    places: dict[bytes, list[int]] = {}
    for index, (kind, has_headers, content) in enumerate(_blocks(text)):
        if kind != "CERTIFICATE":
            why = f"entry {index} has bad block type: {kind}"
        elif has_headers:
            why = f"entry {index} has PEM block headers"
        else:
            why = _anchor_problem(index, content)
        if why:
            found.append(invalid_value(path, _HIDDEN, why))
        else:
            places.setdefault(content, []).append(index)
    if found:
        return found
    if not places:
        return [invalid_value(path, _HIDDEN, "at least one trust anchor must be provided")]
    return [
        invalid_value(path, _HIDDEN, f"duplicate trust anchor (indices [{' '.join(map(str, indices))}])")
        for indices in places.values()
        if len(indices) > 1
    ]


def _anchor_problem(index: int, content: bytes) -> str:
    from cryptography.x509 import BasicConstraints, ExtensionNotFound, load_der_x509_certificate

    try:
        extensions = load_der_x509_certificate(content).extensions
        is_authority = extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        is_authority = False
    except ValueError:
        return f"entry {index} does not parse as X.509"
    return "" if is_authority else f"entry {index} does not have the CA bit set"


CERTIFICATESIGNINGREQUESTS: Final = builtin.resource(
    GROUP,
    "v1",
    "certificatesigningrequests",
    strategy=SigningRequestStrategy(),
    columns=(
        NAME_COLUMN,
        builtin.AGE,
        Column("SignerName", "string", lambda obj, _: obj["spec"].get("signerName") or "<none>"),
        Column("Requestor", "string", builtin.at("spec", "username")),
        Column("RequestedDuration", "string", _duration),
        Column("Condition", "string", _condition),
    ),
    parts=("approval",),
)
CLUSTERTRUSTBUNDLES: Final = builtin.resource(
    GROUP,
    "v1",
    "clustertrustbundles",
    strategy=TrustBundleStrategy(),
    columns=(
        NAME_COLUMN,
        Column("SignerName", "string", lambda obj, _: obj["spec"].get("signerName") or "<none>"),
    ),
)

PACK: Final = Pack("certificates", (CERTIFICATESIGNINGREQUESTS, CLUSTERTRUSTBUNDLES, PODCERTIFICATEREQUESTS))
