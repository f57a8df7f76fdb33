"""Warnings of volumes that put one file where another is, or under it. Upstream: warningsForOverlappingVirtualPaths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clusterling.machinery.errors import go_quote
from clusterling.machinery.meta import Object
from clusterling.packs.core.podspec.rules import items

# Files that a further one is held against; comparing all with all costs a hostile tenant nothing.
_COMPARED_MAX: Final = 64
_CERTIFICATE_PATHS: Final = {
    "certificateChainPath": "PodCertificate chain",
    "keyPath": "PodCertificate key",
    "credentialBundlePath": "PodCertificate credential bundle",
}


def overlap_warnings(spec: Object) -> Iterator[str]:
    for _, volume in items(spec, "volumes", ""):
        name = go_quote(volume.get("name") or "")
        for field, told in (("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")):
            source = volume.get(field)
            if source is not None:
                what = told if field == "downwardAPI" else f"{told} {go_quote(_name_of(source))}"
                for overlap in _overlaps(_files(source, "")):
                    yield f"volume {name} ({what}): overlapping paths: {overlap}"
        if volume.get("projected") is not None:
            yield from _of_projection(volume["projected"], name)


def _of_projection(projected: Object, name: str) -> Iterator[str]:
    files: list[tuple[str, str]] = []
    for _, source in items(projected, "sources", ""):
        if not any(value is not None for value in source.values()):
            yield f"volume {name} (Projected) has no sources provided"
        files += _of_source(source)
    for overlap in _overlaps(files):
        yield f"volume {name} (Projected): overlapping paths: {overlap}"


def _of_source(source: Object) -> list[tuple[str, str]]:
    """(path, where it is from) of each file of a projection's source."""
    for field, told in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if (source.get(field) or {}).get("items"):
            return _files(source[field], f"{told} {go_quote(_name_of(source[field]))}")
    if (source.get("downwardAPI") or {}).get("items"):
        return _files(source["downwardAPI"], "DownwardAPI")
    if source.get("serviceAccountToken") is not None:
        return [(source["serviceAccountToken"].get("path") or "", "ServiceAccountToken")]
    bundle = source.get("clusterTrustBundle")
    if bundle is not None:
        name = bundle.get("name") if bundle.get("name") is not None else bundle.get("signerName")
        return [(bundle.get("path") or "", f"ClusterTrustBundle {go_quote(name or '')}")]
    certificate = source.get("podCertificate") or {}
    return [
        (certificate[field], told) for field, told in _CERTIFICATE_PATHS.items() if certificate.get(field)
    ]


def _name_of(source: Object) -> str:
    return str(source.get("name") or source.get("secretName") or "")


def _files(source: Object, told: str) -> list[tuple[str, str]]:
    return [(one.get("path") or "", told) for _, one in items(source, "items", "")]


def _overlaps(files: list[tuple[str, str]]) -> Iterator[str]:
    known: list[tuple[str, str]] = []
    for path, source in files:
        one = (path.rstrip("/"), source)
        for other in known if one[0] else ():
            if other[0] and (_is_under(one[0], other[0]) or _is_under(other[0], one[0])):
                yield f"{_shown(one)} with {_shown(other)}"
        if len(known) < _COMPARED_MAX:
            known.append(one)


def _is_under(path: str, other: str) -> bool:
    return f"{path}/".startswith(f"{other}/")


def _shown(file: tuple[str, str]) -> str:
    path, source = file
    return f"{go_quote(path)} ({source})" if source else go_quote(path)
