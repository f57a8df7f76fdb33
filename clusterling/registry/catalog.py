"""Catalog: the Resources that one logical cluster serves. Immutable; a changed CRD makes another catalog.

All clusters with the same packs and no CRDs of their own share one catalog, and with it whatever was
derived from it (`views`: discovery and OpenAPI documents), so an idle cluster costs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from clusterling.registry.resource import Resource, Served

if TYPE_CHECKING:
    from clusterling.registry.admission import Admission

_T = TypeVar("_T")

_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")


def version_priority(name: str) -> tuple[int, int, int, str]:
    """Sorts versions as discovery shows them: v2, v1, v2beta1, v1alpha1, then others by name.

    Upstream: apimachinery/pkg/version/helpers.go, CompareKubeAwareVersionStrings.
    """
    match = _VERSION.fullmatch(name)
    if match is None:
        return (1, 0, 0, name)
    stability = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (0, stability, -int(match[1]) * 10_000 - int(match[3] or 0), "")


class Catalog:
    """What a logical cluster serves. `find` is the request path's only question."""

    def __init__(
        self,
        resources: Iterable[Resource],
        *,
        parent: Catalog | None = None,
        admission: Iterable[Admission] = (),
    ) -> None:
        """`parent` supplies what its own resources do not name; on a clash the parent wins (built-ins over CRDs).

        `admission`: what has a say with every write where this is served.
        """
        taken = {(r.group, r.names.plural) for r in parent.resources} if parent else set()
        own = [r for r in resources if (r.group, r.names.plural) not in taken]
        self.resources: tuple[Resource, ...] = (*(parent.resources if parent else ()), *own)
        self.admission: tuple[Admission, ...] = (*(parent.admission if parent else ()), *admission)
        self.views: dict[Hashable, object] = {}
        self._served: dict[tuple[str, str, str], Served] = {
            (resource.group, version.name, resource.names.plural): Served(resource, version)
            for resource in self.resources
            for version in resource.served_versions
        }

    def find(self, group: str, version: str, plural: str) -> Served | None:
        """The resource under `/apis/<group>/<version>/…/<plural>` (`/api/v1` for the empty group), or None."""
        return self._served.get((group, version, plural))

    def view(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` derives from the catalog, made once and kept as long as the catalog; `key` stands for it alone."""
        known = self.views.get(key)
        if known is None:
            known = self.views[key] = make()
        return known  # type: ignore[return-value]

    def resource(self, group: str, plural: str) -> Resource | None:
        for resource in self.resources:
            if resource.group == group and resource.names.plural == plural:
                return resource
        return None

    def by_kind(self, group: str, version: str, kind: str) -> Served | None:
        """The served resource of a kind, as owner references and manifests name it."""
        return self._by_kind.get((group, version, kind))

    @cached_property
    def _by_kind(self) -> dict[tuple[str, str, str], Served]:
        return {(served.group, served.version.name, served.kind): served for served in self._served.values()}

    @cached_property
    def storage(self) -> tuple[Served, ...]:
        """Each kind that stores objects, once, at its storage version (to walk everything a cluster holds)."""
        return tuple(
            Served(resource, resource.version(resource.storage_version))
            for resource in self.resources
            if resource.storage is None and "list" in resource.verbs
        )

    @cached_property
    def group_versions(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Groups with their versions, preferred first: the core group, then groups in order of first appearance."""
        groups: dict[str, set[str]] = {}
        for group, version, _ in self._served:
            groups.setdefault(group, set()).add(version)
        ordered = sorted(groups, key=lambda group: group != "")
        return tuple((group, tuple(sorted(groups[group], key=version_priority))) for group in ordered)

    def served_in(self, group: str, version: str) -> Sequence[Served]:
        """The resources of one group-version, by plural."""
        found = (served for key, served in self._served.items() if key[:2] == (group, version))
        return sorted(found, key=lambda served: served.plural)
