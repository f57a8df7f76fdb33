"""Packs: the built-in kinds, by API group, as values to hand to a server; `choose` reads what `--packs` says.

from clusterling import packs
ApiServer(store, packs=[packs.core.only("namespaces", "secrets"), packs.coordination])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clusterling.packs.apiextensions import PACK as apiextensions  # noqa: N811 - how embedders name it
from clusterling.packs.coordination import PACK as coordination  # noqa: N811 - how embedders name it
from clusterling.packs.core import PACK as core  # noqa: N811 - how embedders name it
from clusterling.packs.events import PACK as events  # noqa: N811 - how embedders name it
from clusterling.registry.pack import Pack
from clusterling.registry.resource import Resource

__all__ = ["ALL", "DEFAULT", "apiextensions", "choose", "coordination", "core", "events"]

ALL: Final[tuple[Pack, ...]] = (core, events, coordination, apiextensions)
# What a cluster without nodes needs.
DEFAULT: Final[tuple[Pack, ...]] = (core, events, coordination, apiextensions)


def choose(text: str) -> tuple[Pack, ...]:
    """The packs that a `--packs` text names: `none`, `default`, `all`, or a list, read from left to right.

    An item is a pack (`core`, or its API group `coordination.k8s.io`) or one resource of it (`core/secrets`); `-` before it
    leaves it out. `-events` without a pack also means the resource, wherever it is. A list that begins by
    leaving out starts from the default. Raises ValueError, with one line that says what there is.
    """
    chosen: dict[Resource, None] = {}
    for position, item in enumerate(one.strip() for one in text.split(",")):
        if position == 0 and item.startswith("-"):
            chosen.update(_of(DEFAULT))
        if item.startswith("-"):
            for resource in _matching(item[1:], leaving_out=True):
                chosen.pop(resource, None)
        else:
            chosen.update(dict.fromkeys(_named(item)))
    for resource in chosen:
        if resource.storage is not None and resource.storage not in chosen:
            what, where = _label(resource), _label(resource.storage)
            raise ValueError(f"{what} shows what {where} stores: choose {where} too, or leave both out")
    narrowed = (pack.only(*(one.names.plural for one in pack.resources if one in chosen)) for pack in ALL)
    return tuple(pack for pack in narrowed if pack.resources)


def _named(item: str) -> Sequence[Resource]:
    match item:
        case "none":
            return ()
        case "default":
            return tuple(_of(DEFAULT))
        case "all":
            return tuple(_of(ALL))
        case _:
            return _matching(item, leaving_out=False)


def _of(packs: Sequence[Pack]) -> dict[Resource, None]:
    return {resource: None for pack in packs for resource in pack.resources}


def _matching(item: str, *, leaving_out: bool) -> Sequence[Resource]:
    wanted, slash, plural = item.partition("/")
    found = [
        resource
        for pack in ALL
        for resource in pack.resources
        if (wanted in (pack.name, resource.group) and wanted and plural in ("", resource.names.plural))
        or (leaving_out and not slash and wanted == resource.names.plural)
    ]
    if not found or (slash and not plural):
        there = "; ".join(
            f"{pack.name} ({', '.join(one.names.plural for one in pack.resources)})" for pack in ALL
        )
        raise ValueError(f'there is no "{item}"; there are none, default, all, {there}')
    return found


def _label(resource: Resource) -> str:
    pack = next(pack for pack in ALL if resource in pack.resources)
    return f"{pack.name}/{resource.names.plural}"
