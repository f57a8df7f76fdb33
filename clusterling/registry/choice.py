"""Choosing packs: what `--packs` of a server and `spec.packs` of a logical cluster say, read against what there is.

Clusters that serve the same kinds share one Catalog, however they said so, and with it discovery and OpenAPI documents.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.pack import Pack
from clusterling.registry.resource import Resource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be chosen from: all `packs`; what is served where nothing is chosen; what `none` still leaves."""

    packs: tuple[Pack, ...]
    default: tuple[Pack, ...]
    none: tuple[Pack, ...] = ()

    @property
    def admission(self) -> tuple[Admission, ...]:
        """What the packs have a say with in every write, whoever serves them."""
        return tuple(dict.fromkeys(one for pack in self.packs for one in pack.admission))

    def with_default(self, default: Sequence[Pack]) -> Offer:
        """The same, where `default` is served if nothing is chosen. What it has that is not on offer is from now on."""
        mine = {(one.group, one.names.plural) for pack in default for one in pack.resources}
        packs = {pack.name: pack for pack in default}
        for pack in self.packs:
            others = [one for one in pack.resources if (one.group, one.names.plural) not in mine]
            rest = pack.only(*(one.names.plural for one in others))
            packs[pack.name] = packs[pack.name].joined(rest) if pack.name in packs else rest
        return replace(self, packs=tuple(packs.values()), default=tuple(default))

    def resources(self, items: Sequence[str] | None) -> frozenset[Resource]:
        """What a cluster serves whose `spec.packs` these are; None: the default. Raises ValueError."""
        chosen = self.default if items is None else self.choose(",".join(items))
        return frozenset(_of(chosen))

    def known(self, items: Sequence[str]) -> list[str]:
        """The items that name something on offer: another replica, of another version, may have had more."""
        return [item for item in items if self._is_known(item.strip())]

    def _is_known(self, item: str) -> bool:
        try:
            return bool(self._matching(item[1:], leaving_out=True) if item[:1] == "-" else self._named(item))
        except ValueError:
            return item in ("none", "default", "all")

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


class Catalogs:
    """The catalog of each choice, made once for all clusters that make it and kept while one of them is served."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self.default = Catalog(resource for pack in offer.default for resource in pack.resources)
        self._made: WeakValueDictionary[frozenset[Resource], Catalog] = WeakValueDictionary()
        self._made[frozenset(self.default.resources)] = self.default

    def of(self, items: Sequence[str] | None) -> Catalog:
        """The catalog of a cluster whose `spec.packs` these are; None: the server's own choice."""
        if items is None:
            return self.default
        chosen = self._chosen(items)
        found = self._made.get(chosen)
        if found is None:
            in_order = (one for pack in self._offer.packs for one in pack.resources if one in chosen)
            found = self._made[chosen] = Catalog(in_order)
        return found

    def _chosen(self, items: Sequence[str]) -> frozenset[Resource]:
        known = self._offer.known(items)
        if len(known) < len(items):
            logger.warning("packs-unknown packs=%s", ",".join(item for item in items if item not in known))
        try:
            return self._offer.resources(known or ["none"])
        except ValueError as error:
            # It was right where it was written; what is left of it here is not.
            logger.warning("packs-unusable packs=%s error=%s", ",".join(items), error)
            return self._offer.resources(["none"])


def kinds(resources: Iterable[Resource]) -> set[str]:
    """The names of resources, as `<plural>.<group>`, for people."""
    return {f"{one.names.plural}.{one.group}".removesuffix(".") for one in resources}
