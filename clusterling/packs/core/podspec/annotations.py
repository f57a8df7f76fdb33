"""Annotations that once were fields of the pod: still judged, and held against the fields that took their place.

Upstream: ValidatePodSpecificAnnotations, validateSeccompAnnotationsAndFields, validateAppArmorAnnotationsAndFieldsMatchOnCreate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from clusterling.machinery.errors import forbidden_field, go_quote, invalid_value
from clusterling.machinery.meta import Object
from clusterling.packs.core.podspec.defaults import CONTAINER_LISTS
from clusterling.packs.core.podspec.rules import Problems, descending_path, items

_MIRROR: Final = "kubernetes.io/config.mirror"
_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_is_cost = re.compile(r"-[0-9]+|0|[1-9][0-9]*").fullmatch
_COST_DIGITS_MAX: Final = 11


@dataclass(frozen=True, slots=True)
class _Profiles:
    """How the annotation of one mechanism says what its field says."""

    field: str
    what: str
    unconfined: str
    runtime_default: tuple[str, ...]
    localhost: str


_SECCOMP: Final = _Profiles(
    "seccompProfile", "seccomp", "unconfined", ("runtime/default", "docker/default"), "localhost/"
)
_APPARMOR: Final = _Profiles("appArmorProfile", "apparmor", "unconfined", ("runtime/default",), "localhost/")


def pod_annotation_problems(metadata: Object, spec: Object, path: str) -> Problems:
    """`path` is that of the annotations, `x.metadata.annotations` of a pod and `x.annotations` of a template."""
    notes = metadata.get("annotations") or {}
    if _MIRROR in notes and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        yield invalid_value(f"{path}[{_MIRROR}]", notes[_MIRROR], why)
    cost = notes.get(_DELETION_COST)
    if cost is not None and not _is_int32(cost):
        yield invalid_value(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer")
    if SECCOMP_POD in notes:
        yield from _seccomp_problems(notes[SECCOMP_POD], f"{path}.{SECCOMP_POD}")
    names = {one.get("name") for field in CONTAINER_LISTS for _, one in items(spec, field, "")}
    for key in sorted(notes):
        if key.startswith(SECCOMP_CONTAINER):
            yield from _seccomp_problems(notes[key], f"{path}.{key}")
    for key in sorted(notes):
        if not key.startswith(APPARMOR):
            continue
        name, profile = key.removeprefix(APPARMOR), notes[key]
        if name not in names:
            yield invalid_value(f"{path}[{key}]", name, "container not found")
        if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
            why = f"invalid AppArmor profile name: {go_quote(profile)}"
            yield invalid_value(f"{path}[{key}]", profile, why)


def field_match_problems(metadata: Object, spec: Object, path: str) -> Problems:
    """Annotations that say otherwise than the fields; `path` is the spec's."""
    notes = metadata.get("annotations") or {}
    of_pod = spec.get("securityContext") or {}
    profile = of_pod.get("seccompProfile")
    if profile is not None and SECCOMP_POD in notes:
        yield from _match(_SECCOMP, profile, notes[SECCOMP_POD], f"{path}.securityContext")
    for field in CONTAINER_LISTS:
        for here, one in items(spec, field, path):
            profile = (one.get("securityContext") or {}).get("seccompProfile")
            note = notes.get(f"{SECCOMP_CONTAINER}{one.get('name', '')}")
            if profile is not None and note is not None:
                yield from _match(_SECCOMP, profile, note, f"{here}.securityContext")
    if (spec.get("os") or {}).get("name") == "windows":
        return
    for field in CONTAINER_LISTS:
        for here, one in items(spec, field, path):
            own = (one.get("securityContext") or {}).get("appArmorProfile")
            profile = of_pod.get("appArmorProfile") if own is None else own
            note = notes.get(f"{APPARMOR}{one.get('name', '')}")
            if profile is not None and note is not None:
                yield from _match(_APPARMOR, profile, note, f"{here}.securityContext")


def _match(profiles: _Profiles, profile: Object, note: str, path: str) -> Problems:
    here, kind = f"{path}.{profiles.field}", profile.get("type")
    right = {
        "Unconfined": note == profiles.unconfined,
        "RuntimeDefault": note in profiles.runtime_default,
        "Localhost": note.startswith(profiles.localhost),
    }.get(str(kind), True)
    if not right:
        yield forbidden_field(f"{here}.type", f"{profiles.what} type in annotation and field must match")
    elif kind == "Localhost" and note.removeprefix(profiles.localhost) != profile.get("localhostProfile"):
        why = f"{profiles.what} profile in annotation and field must match"
        yield forbidden_field(f"{here}.localhostProfile", why)


def _is_int32(text: str) -> bool:
    if len(text) > _COST_DIGITS_MAX or not _is_cost(text):
        return False
    return -(1 << 31) <= int(text) < 1 << 31


def _seccomp_problems(profile: str, path: str) -> Problems:
    if profile in ("runtime/default", "docker/default", "unconfined"):
        return
    if profile.startswith("localhost/"):
        yield from descending_path(profile.removeprefix("localhost/"), path)
    else:
        yield invalid_value(path, profile, "must be a valid seccomp profile")
