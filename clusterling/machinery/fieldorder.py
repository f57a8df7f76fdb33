"""The order in which Go's decoders tell of fields: where each stands in its document, as it was read or its keys sorted.

A field is told of by its path (`spec.items[0].x`), whose keys may have dots and brackets themselves: so places are found
in the document, not in the path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from itertools import islice
from typing import Final

SEPARATORS_MAX: Final = 32  # Dots and brackets in one key, of a field whose place is found.

WITHIN_CHARACTERS_MAX: Final = 2_048

_separator: Final = re.compile(r"[.\[]").finditer
_index: Final = re.compile(r"\[([0-9]{1,9})\]").match

# Fields and lists that are placed: who has more of them reads no list of what is wrong with them in the right order.
PLACED_MAX: Final = 20_000

# Field or index → its place among its siblings, and the order below it. Of a list only what has fields is there.
Order = dict[str | int, tuple[int, "Order"]]
_NOTHING: Final[Order] = {}


def order_of(value: object, *, by_keys: bool = False) -> Order:
    """Where the fields of a decoded document stand, level by level; {} for what is neither a map nor a list."""
    root: Order = {}
    level, placed = [(value, root)], 0
    while level:
        below: list[tuple[object, Order]] = []
        for one, order in level:
            placed += len(one) if isinstance(one, dict | list) else 0
            if placed > PLACED_MAX:
                return root
            if isinstance(one, dict):
                for at, key in enumerate(sorted(one) if by_keys else one):
                    order[key] = (at, _placed(one[key], below))
            elif isinstance(one, list):
                for at, item in enumerate(one):
                    if isinstance(item, dict | list):
                        order[at] = (at, _placed(item, below))
        level = below
    return root


def _placed(value: object, below: list[tuple[object, Order]]) -> Order:
    """The order of a value, to be filled in with the next level."""
    if not isinstance(value, dict | list):
        return _NOTHING
    order: Order = {}
    below.append((value, order))
    return order


def place_of(path: str, order: Order) -> tuple[int, ...]:
    """Where the field stands, level by level, as far as the document has it: sorts as it was read."""
    place = []
    while True:
        index = _index(path)
        if index and not (order and type(next(iter(order))) is str):
            at, order = order.get(int(index[1]), (int(index[1]), {}))
            rest = path[index.end() :]
        else:
            path = path.removeprefix(".")
            key = _longest_key(path, order)
            if key is None:
                break
            at, order = order[key]
            rest = path[len(key) :]
        place.append(at)
        if not rest:
            break
        path = rest
    return tuple(place)


def _longest_key(path: str, order: Order) -> str | None:
    """Of the keys that the path begins with the longest: each is looked up, for there may be as many as there are paths."""
    if path in order:
        return path
    ends = [found.start() for found in islice(_separator(path), SEPARATORS_MAX)]
    return next((path[:end] for end in reversed(ends) if path[:end] in order), None)


def is_within(path: str, fields: Set[str]) -> bool:
    """The path is that of one of the fields, or below it; as far as it is looked at."""
    path = path[:WITHIN_CHARACTERS_MAX]
    return path in fields or any(path[: found.start()] in fields for found in _separator(path))


def quoted_path(text: str) -> str:
    """The path in what is told of a field (`unknown field "spec.x"`), read back from Go's quotes."""
    quoted = text[text.find('"') :]
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[
            1:-1
        ]  # An escape that JSON does not have: the field is found as far as it is written alike.
