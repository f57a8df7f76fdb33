"""Files that a volume projects: from Secrets, ConfigMaps, the pod itself, tokens, trust bundles, certificates.

Upstream: validateProjectedVolumeSource, validateDownwardAPIVolumeFile, validateKeyToPath.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import forbidden_field, invalid_value, required, too_long
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain, is_qualified_name
from clusterling.machinery.objectmeta import ANNOTATIONS_BYTES_MAX
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.references import FILE_FIELDS, field_problems, resource_problems
from clusterling.packs.core.podspec.rules import (
    Problems,
    file_mode,
    items,
    local_path,
    needs,
    one_of,
)
from clusterling.packs.core.podspec.signers import signer_problems

_TOKEN_SECONDS_MIN: Final = 600
_TOKEN_SECONDS_MAX: Final = 1 << 32
_KEY_TYPES: Final = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_CERTIFICATE_SECONDS_MIN: Final = 3600
_CERTIFICATE_SECONDS_MAX: Final = 91 * 24 * 3600
_KUBERNETES_CERTIFICATE_SECONDS_MAX: Final = 24 * 3600
_CERTIFICATE_PATHS: Final = ("credentialBundlePath", "keyPath", "certificateChainPath")
_CONFLICT: Final = "conflicting duplicate paths"


def key_problems(item: Object, path: str) -> Problems:
    """A KeyToPath."""
    yield from needs(item, path, "key", "path")
    yield from local_path(item.get("path") or "", f"{path}.path")
    yield from file_mode(item, path, "mode")


def downward_file_problems(item: Object, path: str) -> Problems:
    """A file of a downward API volume; `path` is that of the volume, as upstream has it."""
    yield from needs(item, path, "path")
    yield from local_path(item.get("path") or "", f"{path}.path")
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        yield from field_problems(field, f"{path}.fieldRef", FILE_FIELDS)
        if resource is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            yield invalid_value(path, "resource", why)
    elif resource is not None:
        yield from resource_problems(resource, f"{path}.resourceFieldRef", of_container=True)
    else:
        yield required(path, "one of fieldRef and resourceFieldRef is required")
    yield from file_mode(item, path, "mode")


def projected_problems(source: Object, path: str) -> Problems:
    yield from file_mode(source, path, "defaultMode")
    taken: set[str] = set()
    for here, one in items(source, "sources", path):
        given = [field for field in _PROJECTIONS if one.get(field) is not None]
        for field in given:
            yield from _PROJECTIONS[field](one[field], f"{here}.{field}", path, taken)
        if len(given) > 1:
            yield forbidden_field(here, "may not specify more than 1 volume type per source")


def _take(wanted: str, told: str, path: str, taken: set[str]) -> Problems:
    """Claims a path for one file; `told` is the value that upstream blames for a clash."""
    if wanted in taken:
        yield invalid_value(path, told, _CONFLICT)
    taken.add(wanted)


def _keyed(source: Object, here: str, path: str, taken: set[str]) -> Problems:
    yield from needs(source, here, "name")
    for place, item in items(source, "items", here):
        yield from key_problems(item, place)
        if item.get("path"):
            yield from _take(item["path"], source.get("name") or "", path, taken)


def _downward(source: Object, here: str, path: str, taken: set[str]) -> Problems:
    for _, item in items(source, "items", here):
        yield from downward_file_problems(item, here)
        if item.get("path"):
            yield from _take(item["path"], item["path"], path, taken)


def _token(source: Object, here: str, path: str, taken: set[str]) -> Problems:
    seconds, place = source.get("expirationSeconds"), f"{here}.expirationSeconds"
    if seconds is None:
        yield required(place)
    elif seconds < _TOKEN_SECONDS_MIN:
        yield invalid_value(place, seconds, "may not specify a duration less than 10 minutes")
    elif seconds > _TOKEN_SECONDS_MAX:
        yield invalid_value(place, seconds, "may not specify a duration larger than 2^32 seconds")
    yield from needs(source, path, "path")
    yield from local_path(source.get("path") or "", f"{path}.path")


def _trust_bundle(source: Object, here: str, path: str, taken: set[str]) -> Problems:
    name, signer, selector = source.get("name"), source.get("signerName"), source.get("labelSelector")
    if name is not None and signer is not None:
        shown = as_internal("ClusterTrustBundleProjection", source)
        yield invalid_value(here, shown, "only one of name and signerName may be used")
    elif name is not None:
        if not name:
            yield required(f"{here}.name", "must be a valid object name")
        for problem in is_dns1123_subdomain(name.rpartition(":")[2]):
            why = f"not a valid clustertrustbundlename: {problem}"
            yield invalid_value(f"{here}.name", name, why)
        if selector is not None:
            why = "labelSelector must be unset if name is specified"
            yield invalid_value(f"{here}.labelSelector", selector, why)
    elif signer is not None:
        if not signer:
            yield required(f"{here}.signerName", "must be a valid signer name")
        yield from signer_problems(signer, f"{here}.signerName")
        yield from label_selector_problems(selector, f"{here}.labelSelector")
    else:
        yield required(here, "either name or signerName must be specified")
    yield from needs(source, here, "path")
    yield from local_path(source.get("path") or "", f"{here}.path")
    yield from _take(source.get("path") or "", source.get("path") or "", path, taken)


def user_annotation_problems(notes: Object, path: str) -> Problems:
    """Of those that a request for a certificate carries for its signer (upstream: ValidateUserAnnotations)."""
    for key in sorted(notes):
        name = key.lower()
        problems = is_qualified_name(name) if name else ()
        if not name:
            yield required(path)
        elif problems:
            yield from (invalid_value(path, name, problem) for problem in problems)
        elif "/" not in name:
            yield invalid_value(path, name, 'must be a domain-prefixed key (such as "acme.io/foo")')
    if sum(len(text.encode()) for pair in notes.items() for text in pair) > ANNOTATIONS_BYTES_MAX:
        yield too_long(path, ANNOTATIONS_BYTES_MAX)


def _certificate(source: Object, here: str, path: str, taken: set[str]) -> Problems:
    signer = source.get("signerName") or ""
    yield from signer_problems(signer, f"{here}.signerName")
    yield from user_annotation_problems(source.get("userAnnotations") or {}, f"{here}.userAnnotations")
    yield from one_of(source.get("keyType", ""), f"{here}.keyType", _KEY_TYPES)
    seconds, place = source.get("maxExpirationSeconds"), f"{here}.maxExpirationSeconds"
    if seconds is not None:
        if seconds < _CERTIFICATE_SECONDS_MIN:
            why = f"if provided, maxExpirationSeconds must be >= {_CERTIFICATE_SECONDS_MIN}"
            yield invalid_value(place, seconds, why)
        own = signer.partition("/")[0]
        kubernetes = own == "kubernetes.io" or own.endswith(".kubernetes.io")
        most = _KUBERNETES_CERTIFICATE_SECONDS_MAX if kubernetes else _CERTIFICATE_SECONDS_MAX
        if seconds > most:
            yield invalid_value(place, seconds, f"if provided, maxExpirationSeconds must be <= {most}")
    given = [field for field in _CERTIFICATE_PATHS if source.get(field)]
    for field in given:
        yield from local_path(source[field], f"{here}.{field}")
        yield from _take(source[field], source[field], path, taken)
    if not given:
        why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
        yield required(here, why)


_PROJECTIONS: Final = {
    "secret": _keyed,
    "configMap": _keyed,
    "downwardAPI": _downward,
    "serviceAccountToken": _token,
    "clusterTrustBundle": _trust_bundle,
    "podCertificate": _certificate,
}
