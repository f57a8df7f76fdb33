"""Choosing packs: what `--packs` of a server and `spec.packs` of a logical cluster say, read against what there is.

Clusters that serve the same kinds share one Choice, however they said so, and with it the catalog, discovery and OpenAPI
documents. A choice is made by names alone; what was chosen is loaded when a cluster that chose it is first asked for something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from clusterling.registry.catalog import Catalog
from clusterling.registry.pack import GroupResource, Pack

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be chosen from: all `packs`; what is served where nothing is chosen; what `none` still leaves."""

    packs: tuple[Pack, ...]
    default: tuple[Pack, ...]
    none: tuple[Pack, ...] = ()

    def with_default(self, default: Sequence[Pack]) -> Offer:
        """The same, where `default` is served if nothing is chosen. What it has that is not on offer is from now on."""
        mine = _kinds(default)
        packs = {pack.name: pack for pack in default}
        for pack in self.packs:
            rest = pack.only(*(kind.plural for kind in pack.kinds if kind not in mine))
            packs[pack.name] = packs[pack.name].joined(rest) if pack.name in packs else rest
        return replace(self, packs=tuple(packs.values()), default=tuple(default))

    def kinds(self, items: Sequence[str] | None) -> frozenset[GroupResource]:
        """What a cluster serves whose `spec.packs` these are; None: the default. Raises ValueError."""
        return frozenset(_kinds(self.default) if items is None else self._chosen(",".join(items)))

    def known(self, items: Sequence[str]) -> list[str]:
        """The items that name something on offer: another replica, of another version, may have had more."""
        return [item for item in items if self._is_known(item.strip())]

    def _is_known(self, item: str) -> bool:
        try:
            return bool(self._matching(item[1:], leaving_out=True) if item[:1] == "-" else self._named(item))
        except ValueError:
            return item in ("none", "default", "all")

    def choose(self, text: str) -> tuple[Pack, ...]:
        """The packs that a text names: `none`, `default`, `all`, or a list, read from left to right. Loads nothing.

        An item is a pack (`core`, or its API group `coordination.k8s.io`) or one resource of it (`core/secrets`); `-` before it
        leaves it out. `-events` without a pack also means the resource, wherever it is. A list that begins by
        leaving out starts from the default. Raises ValueError, with one line that says what there is.
        """
        return self.of(self._chosen(text))

    def _chosen(self, text: str) -> dict[GroupResource, None]:
        chosen: dict[GroupResource, None] = {}
        for position, item in enumerate(one.strip() for one in text.split(",")):
            if position == 0 and item.startswith("-"):
                chosen.update(_kinds(self.default))
            if item.startswith("-"):
                for kind in self._matching(item[1:], leaving_out=True):
                    chosen.pop(kind, None)
            else:
                chosen.update(dict.fromkeys(self._named(item)))
        for kind in chosen:
            if kind.shows is not None and kind.shows not in chosen:
                what, where = self._label(kind), self._label(kind.shows)
                raise ValueError(f"{what} shows what {where} stores: choose {where} too, or leave both out")
        return chosen

    def of(self, kinds: Iterable[GroupResource]) -> tuple[Pack, ...]:
        """The packs on offer, narrowed to these kinds."""
        chosen = set(kinds)
        narrowed = (pack.only(*(kind.plural for kind in pack.kinds if kind in chosen)) for pack in self.packs)
        return tuple(pack for pack in narrowed if pack.kinds)

    def _named(self, item: str) -> Sequence[GroupResource]:
        whole = {"none": self.none, "default": self.default, "all": self.packs}
        return tuple(_kinds(whole[item])) if item in whole else self._matching(item, leaving_out=False)

    def _matching(self, item: str, *, leaving_out: bool) -> Sequence[GroupResource]:
        wanted, slash, plural = item.partition("/")
        found = [
            kind
            for pack in self.packs
            for kind in pack.kinds
            if (wanted in (pack.name, kind.group) and wanted and plural in ("", kind.plural))
            or (leaving_out and not slash and wanted == kind.plural)
        ]
        if not found or (slash and not plural):
            there = "; ".join(
                f"{pack.name} ({', '.join(kind.plural for kind in pack.kinds)})" for pack in self.packs
            )
            raise ValueError(f'there is no "{item}"; there are none, default, all, {there}')
        return found

    def _label(self, kind: GroupResource) -> str:
        pack = next(pack for pack in self.packs if kind in pack.kinds)
        return f"{pack.name}/{kind.plural}"


def _kinds(packs: Sequence[Pack]) -> dict[GroupResource, None]:
    return {kind: None for pack in packs for kind in pack.kinds}


class Choice:
    """What clusters that serve the same kinds share: the packs, and once they are loaded the catalog."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self.packs = tuple(packs)
        self.collections = frozenset(kind.collection for kind in _kinds(self.packs))
        self.groups = frozenset(kind.group for kind in _kinds(self.packs))
        self._catalog: Catalog | None = None
        self._loading = asyncio.Lock()

    def load(self) -> Catalog:
        """The catalog, with whatever has to be imported for it."""
        if self._catalog is None:
            self._catalog = Catalog(
                (resource for pack in self.packs for resource in pack.resources),
                admission=(one for pack in self.packs for one in pack.admission),
            )
        return self._catalog

    async def loaded(self) -> Catalog:
        """The catalog. What has to be imported is so beside the event loop: all kinds take some tenths of a second."""
        if self._catalog is not None:
            return self._catalog
        async with self._loading:
            if all(pack.is_loaded for pack in self.packs):
                return self.load()
            return await asyncio.to_thread(self.load)


class Choices:
    """The Choice of each set of kinds, made once for all clusters that serve it and kept while one of them is served."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self.default = Choice(offer.default)
        self._made: WeakValueDictionary[frozenset[GroupResource], Choice] = WeakValueDictionary()
        self._made[offer.kinds(None)] = self.default

    def of(self, items: Sequence[str] | None) -> Choice:
        """That of a cluster whose `spec.packs` these are; None: the server's own."""
        if items is None:
            return self.default
        chosen = self._chosen(items)
        found = self._made.get(chosen)
        if found is None:
            found = self._made[chosen] = Choice(self._offer.of(chosen))
        return found

    def _chosen(self, items: Sequence[str]) -> frozenset[GroupResource]:
        known = self._offer.known(items)
        if len(known) < len(items):
            logger.warning("packs-unknown packs=%s", ",".join(item for item in items if item not in known))
        try:
            return self._offer.kinds(known or ["none"])
        except ValueError as error:
            # It was right where it was written; what is left of it here is not.
            logger.warning("packs-unusable packs=%s error=%s", ",".join(items), error)
            return self._offer.kinds(["none"])
