"""Choosing packs: what `--packs` of a server and `spec.packs` of a logical cluster say, read against what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterling.registry.pack import Pack
from clusterling.registry.resource import Resource


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be chosen from: all `packs`; what is served where nothing is chosen; what `none` still leaves."""

    packs: tuple[Pack, ...]
    default: tuple[Pack, ...]
    none: tuple[Pack, ...] = ()

    def choose(self, text: str) -> tuple[Pack, ...]:
        """The packs that a text names: `none`, `default`, `all`, or a list, read from left to right.

        An item is a pack (`core`, or its API group `coordination.k8s.io`) or one resource of it (`core/secrets`); `-` before it
        leaves it out. `-events` without a pack also means the resource, wherever it is. A list that begins by
        leaving out starts from the default. Raises ValueError, with one line that says what there is.
        """
        chosen: dict[Resource, None] = {}
        for position, item in enumerate(one.strip() for one in text.split(",")):
            if position == 0 and item.startswith("-"):
                chosen.update(_of(self.default))
            if item.startswith("-"):
                for resource in self._matching(item[1:], leaving_out=True):
                    chosen.pop(resource, None)
            else:
                chosen.update(dict.fromkeys(self._named(item)))
        for resource in chosen:
            if resource.storage is not None and resource.storage not in chosen:
                what, where = self._label(resource), self._label(resource.storage)
                raise ValueError(f"{what} shows what {where} stores: choose {where} too, or leave both out")
        return self._narrowed(chosen)

    def _narrowed(self, chosen: dict[Resource, None]) -> tuple[Pack, ...]:
        narrowed = (
            pack.only(*(one.names.plural for one in pack.resources if one in chosen)) for pack in self.packs
        )
        return tuple(pack for pack in narrowed if pack.resources)

    def _named(self, item: str) -> Sequence[Resource]:
        whole = {"none": self.none, "default": self.default, "all": self.packs}
        return tuple(_of(whole[item])) if item in whole else self._matching(item, leaving_out=False)

    def _matching(self, item: str, *, leaving_out: bool) -> Sequence[Resource]:
        wanted, slash, plural = item.partition("/")
        found = [
            resource
            for pack in self.packs
            for resource in pack.resources
            if (wanted in (pack.name, resource.group) and wanted and plural in ("", resource.names.plural))
            or (leaving_out and not slash and wanted == resource.names.plural)
        ]
        if not found or (slash and not plural):
            there = "; ".join(
                f"{pack.name} ({', '.join(one.names.plural for one in pack.resources)})"
                for pack in self.packs
            )
            raise ValueError(f'there is no "{item}"; there are none, default, all, {there}')
        return found

    def _label(self, resource: Resource) -> str:
        pack = next(pack for pack in self.packs if resource in pack.resources)
        return f"{pack.name}/{resource.names.plural}"


def _of(packs: Sequence[Pack]) -> dict[Resource, None]:
    return {resource: None for pack in packs for resource in pack.resources}
