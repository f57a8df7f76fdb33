"""Specs of claims: of PersistentVolumeClaims, of StatefulSets' templates, of ephemeral volumes.

Upstream: ValidatePersistentVolumeClaimSpec, ValidatePersistentVolumeClaimTemplate.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain
from clusterling.machinery.objectmeta import validate_annotations, validate_labels
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.internal import metadata_set
from clusterling.packs.core.podspec.resources import quantities
from clusterling.packs.core.podspec.rules import Problems, named, needs, one_of, only

ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES: Final = ("Block", "Filesystem")
_TEMPLATE_META: Final = frozenset(("annotations", "labels"))


def claim_template_problems(template: Object, path: str) -> Problems:
    """A PersistentVolumeClaimTemplate: of its metadata only labels and annotations may be set."""
    metadata = template.get("metadata") or {}
    yield from validate_annotations(metadata.get("annotations") or {}, f"{path}.metadata.annotations")
    yield from validate_labels(metadata.get("labels") or {}, f"{path}.metadata.labels")
    yield from only(metadata_set(metadata), f"{path}.metadata", _TEMPLATE_META, "cannot be set")
    yield from claim_spec_problems(template.get("spec") or {}, f"{path}.spec")


def claim_spec_problems(spec: Object, path: str) -> Problems:
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{path}.accessModes", "at least 1 access mode is required")
    yield from label_selector_problems(spec.get("selector"), f"{path}.selector")
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield not_supported(f"{path}.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and set(modes) & set(ACCESS_MODES) - {"ReadWriteOncePod"}:
        why = "may not use ReadWriteOncePod with other access modes"
        yield forbidden_field(f"{path}.accessModes", why)
    yield from _size_problems(spec, f"{path}.resources[storage]")
    if spec.get("storageClassName"):
        yield from named(spec["storageClassName"], f"{path}.storageClassName", is_dns1123_subdomain)
    if spec.get("volumeMode") is not None:
        yield from one_of(spec["volumeMode"], f"{path}.volumeMode", VOLUME_MODES)
    yield from _data_source_problems(spec, path)
    if spec.get("volumeAttributesClassName"):
        here = f"{path}.volumeAttributesClassName"
        yield from named(spec["volumeAttributesClassName"], here, is_dns1123_subdomain)


def _size_problems(spec: Object, path: str) -> Problems:
    size = quantities(spec.get("resources") or {}, "requests").get("storage")
    if size is None:
        yield required(path)
    elif size <= Quantity(0):
        yield invalid_value(path, str(size), "must be greater than zero")


def _data_source_problems(spec: Object, path: str) -> Problems:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field, one in (("dataSource", source), ("dataSourceRef", reference)):
        if one is not None:
            yield from _reference_problems(one, f"{path}.{field}")
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        yield _both(path, "may not be specified when dataSourceRef.namespace is specified")
    elif any(source.get(field) != reference.get(field) for field in ("apiGroup", "kind", "name")):
        yield _both(path, "must match dataSourceRef")


def _both(path: str, why: str) -> FieldError:
    # Upstream shows a path, of which nothing is to be seen.
    return invalid_value(path, {}, why)


def _reference_problems(reference: Object, path: str) -> Problems:
    yield from needs(reference, path, "name", "kind")
    group, kind = reference.get("apiGroup") or "", reference.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        yield invalid_value(path, kind, why)
    if group:
        yield from named(group, f"{path}.apiGroup", is_dns1123_subdomain)
    if reference.get("namespace"):
        yield from named(reference["namespace"], f"{path}.namespace", is_dns1123_label)
