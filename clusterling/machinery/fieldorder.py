"""The order in which Go's decoders tell of fields: where each stands in its document, as it was read or its keys sorted.

A field is told of by its path (`spec.items[0].x`), whose keys may have dots and brackets themselves: so places are found
in the document, not in the path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import islice
from operator import itemgetter
from typing import Final

SEPARATORS_MAX: Final = 32  # Dots and brackets in one key, of a field whose place is found.

_separator: Final = re.compile(r"[.\[]").finditer
_index: Final = re.compile(r"\[([0-9]{1,9})\]").match

# Field or index → its place among its siblings, and the order below it.
Order = dict[str | int, tuple[int, "Order"]]


def order_of(value: object, *, by_keys: bool = False) -> Order:
    """Where each field of a decoded document stands; {} for what is neither a map nor a list."""
    items: Iterable[tuple[str | int, object]]
    if isinstance(value, dict):
        items = sorted(value.items(), key=itemgetter(0)) if by_keys else value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {}
    return {
        key: (at, order_of(item, by_keys=by_keys) if isinstance(item, dict | list) else {})
        for at, (key, item) in enumerate(items)
    }


def place_of(path: str, order: Order) -> tuple[int, ...]:
    """Where the field stands, level by level, as far as the document has it: sorts as it was read."""
    place = []
    while order:
        if (index := _index(path)) and 0 in order:
            at, order = order.get(int(index[1]), (len(order), {}))
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


def quoted_path(text: str) -> str:
    """The path in what is told of a field (`unknown field "spec.x"`), read back from Go's quotes."""
    quoted = text[text.find('"') :]
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[
            1:-1
        ]  # An escape that JSON does not have: the field is found as far as it is written alike.
