"""Pack: built-in kinds that belong together, as a value handed to the server's constructor.

A pack knows its kinds by name. What they are, it may have from modules that are imported when something of them is first
needed: narrowing, joining and choosing packs need names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, NamedTuple, Self

from typing_extensions import override

from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission
from clusterling.registry.resource import Resource

_keeping: Final = Lock()


@dataclass(frozen=True, slots=True)
class GroupResource:
    """The name of a kind as paths have it. `shows`: that of the kind whose objects it shows in its own form, if any."""

    group: str
    plural: str
    shows: GroupResource | None = field(default=None, compare=False)

    @property
    def collection(self) -> str:
        """The key prefix of its objects within a cluster, as `Resource.collection`."""
        stored = self.shows or self
        return f"{stored.group or 'core'}/{stored.plural}/"

    @override
    def __str__(self) -> str:
        """`<plural>.<group>`, for people."""
        return f"{self.plural}.{self.group}".removesuffix(".")


def name_of(resource: Resource) -> GroupResource:
    """The name of a kind that is there."""
    shows = None if resource.storage is None else name_of(resource.storage)
    return GroupResource(resource.group, resource.names.plural, shows)


class _Contents(NamedTuple):
    resources: tuple[Resource, ...]
    bootstrap: tuple[Object, ...]
    admission: tuple[Admission, ...]


class _Source:
    """Where kinds come from that are loaded together: once, and by whoever first asks, on whatever thread."""

    __slots__ = ("_contents", "_load", "names")

    def __init__(
        self,
        names: tuple[GroupResource, ...],
        load: Callable[[], Pack] | None,
        contents: _Contents | None = None,
    ) -> None:
        self.names = names
        self._load = load
        self._contents = contents

    @property
    def is_loaded(self) -> bool:
        return self._contents is not None

    def contents(self) -> _Contents:
        if self._contents is None:
            assert self._load is not None, "what is not loaded yet can be"
            pack = self._load()
            found = {str(name) for name in pack.kinds}
            assert found == {str(name) for name in self.names}, f"{pack!r} is not as it was announced"
            with _keeping:
                # Of two threads that loaded it, both go on with what the first of them has kept.
                if self._contents is None:
                    self._contents = _Contents(pack.resources, pack.bootstrap, pack.admission)
        return self._contents


class _Part(NamedTuple):
    """Of a source, the kinds that a pack has."""

    kinds: tuple[GroupResource, ...]
    source: _Source


class Pack:
    """Kinds of one API group (or of an embedder), and the objects every cluster has from the start. Immutable.

    `bootstrap` objects live once, in the read-only underlay that all clusters share (decision 16). `admission` looks at
    writes of every kind, in clusters that serve any of the pack's.
    """

    __slots__ = ("_parts", "name")

    def __init__(
        self,
        name: str,
        resources: Iterable[Resource] = (),
        bootstrap: Iterable[Object] = (),
        admission: Iterable[Admission] = (),
    ) -> None:
        self.name = name
        contents = _Contents(tuple(resources), tuple(bootstrap), tuple(admission))
        kinds = tuple(name_of(resource) for resource in contents.resources)
        strange = {_group_kind(obj) for obj in contents.bootstrap} - {
            (one.group, one.names.kind) for one in contents.resources
        }
        assert not strange, f"pack {name} starts with objects of kinds that it does not have: {strange}"
        self._parts: tuple[_Part, ...] = (_Part(kinds, _Source(kinds, None, contents)),)

    @classmethod
    def later(cls, name: str, kinds: Iterable[GroupResource], load: Callable[[], Pack]) -> Self:
        """A pack of these kinds, which `load` gives when they are needed; it may be called more than once, and on any thread."""
        names = tuple(kinds)
        return cls._of(name, (_Part(names, _Source(names, load)),))

    @classmethod
    def _of(cls, name: str, parts: Iterable[_Part]) -> Self:
        made = cls(name)
        made._parts = tuple(part for part in parts if part.kinds)
        return made

    @property
    def kinds(self) -> tuple[GroupResource, ...]:
        """What it has, by name. Loads nothing."""
        return tuple(kind for part in self._parts for kind in part.kinds)

    @property
    def is_loaded(self) -> bool:
        return all(part.source.is_loaded for part in self._parts)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Its kinds, loaded now where they are not yet."""
        return tuple(resource for part in self._parts for resource in _resources(part))

    @property
    def bootstrap(self) -> tuple[Object, ...]:
        """What clusters begin with of its kinds, loaded as `resources`."""
        found: list[Object] = []
        for part in self._parts:
            kinds = {(one.group, one.names.kind) for one in _resources(part)}
            found += (obj for obj in part.source.contents().bootstrap if _group_kind(obj) in kinds)
        return tuple(found)

    @property
    def admission(self) -> tuple[Admission, ...]:
        """Who has a say with writes in clusters that serve any of it, loaded as `resources`."""
        return tuple(dict.fromkeys(one for part in self._parts for one in part.source.contents().admission))

    def comes_from(self, packs: Iterable[Pack]) -> bool:
        """Whether all that it has is of these packs. Loads nothing."""
        sources = {id(part.source) for pack in packs for part in pack._parts}
        return all(id(part.source) in sources for part in self._parts)

    def only(self, *plurals: str) -> Self:
        """The pack narrowed to these resources. Raises ValueError for one it does not have."""
        self._check(plurals)
        return self._narrowed(lambda kind: kind.plural in plurals)

    def without(self, *plurals: str) -> Self:
        """The pack less these resources. Raises ValueError for one it does not have."""
        self._check(plurals)
        return self._narrowed(lambda kind: kind.plural not in plurals)

    def joined(self, *others: Pack) -> Self:
        """The pack with the resources, objects and admission of others."""
        return self._of(self.name, (*self._parts, *(part for pack in others for part in pack._parts)))

    def _narrowed(self, keeps: Callable[[GroupResource], bool]) -> Self:
        return self._of(
            self.name, (_Part(tuple(filter(keeps, part.kinds)), part.source) for part in self._parts)
        )

    def _check(self, plurals: Sequence[str]) -> None:
        there = [kind.plural for kind in self.kinds]
        unknown = [plural for plural in plurals if plural not in there]
        if unknown:
            raise ValueError(f"pack {self.name} has no {', '.join(unknown)}; it has {', '.join(there)}")

    @override
    def __repr__(self) -> str:
        return f"Pack({self.name}: {', '.join(kind.plural for kind in self.kinds)})"


def _resources(part: _Part) -> list[Resource]:
    by_name = {name_of(one): one for one in part.source.contents().resources}
    return [by_name[kind] for kind in part.kinds]


def _group_kind(obj: Object) -> tuple[str, str]:
    group, _, _ = obj["apiVersion"].rpartition("/")
    return group, obj["kind"]
