"""Pack: built-in kinds that belong together, as a value handed to the server's constructor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission
from clusterling.registry.resource import Resource


@dataclass(frozen=True, slots=True)
class Pack:
    """Kinds of one API group (or of an embedder), and the objects every cluster has from the start.

    `bootstrap` objects live once, in the read-only underlay that all clusters share (decision 16). `admission` looks at
    writes of every kind, in clusters that serve the pack's; it asks the catalog whether they do.
    """

    name: str
    resources: tuple[Resource, ...]
    bootstrap: tuple[Object, ...] = ()
    admission: tuple[Admission, ...] = ()

    def only(self, *plurals: str) -> Self:
        """The pack narrowed to these resources. Raises ValueError for one it does not have."""
        return replace(
            self,
            resources=self._chosen(plurals),
            bootstrap=self._bootstrap_of(self._chosen(plurals)),
        )

    def joined(self, other: Self) -> Self:
        """The pack with the resources and objects of another of the same name."""
        return replace(
            self,
            resources=(*self.resources, *other.resources),
            bootstrap=(*self.bootstrap, *other.bootstrap),
            admission=tuple(dict.fromkeys((*self.admission, *other.admission))),
        )

    def without(self, *plurals: str) -> Self:
        """The pack less these resources. Raises ValueError for one it does not have."""
        gone = self._chosen(plurals)
        kept = tuple(resource for resource in self.resources if resource not in gone)
        return replace(self, resources=kept, bootstrap=self._bootstrap_of(kept))

    def _chosen(self, plurals: Sequence[str]) -> tuple[Resource, ...]:
        by_plural = {resource.names.plural: resource for resource in self.resources}
        unknown = [plural for plural in plurals if plural not in by_plural]
        if unknown:
            raise ValueError(f"pack {self.name} has no {', '.join(unknown)}; it has {', '.join(by_plural)}")
        return tuple(by_plural[plural] for plural in plurals)

    def _bootstrap_of(self, resources: Sequence[Resource]) -> tuple[Object, ...]:
        kinds = {(resource.group, resource.names.kind) for resource in resources}
        return tuple(obj for obj in self.bootstrap if _group_kind(obj) in kinds)


def _group_kind(obj: Object) -> tuple[str, str]:
    group, _, _ = obj["apiVersion"].rpartition("/")
    return group, obj["kind"]
