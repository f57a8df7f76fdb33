"""The order in which Go's decoders tell of fields: where each stands in its document, as it was read or its keys sorted.

A field is told of by its path (`spec.items[0].x`), whose keys may have dots and brackets themselves: so places are found
in the document, not in the path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import itemgetter

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
        if path.startswith("[") and 0 in order:
            index, _, rest = path[1:].partition("]")
            at, order = order.get(int(index), (len(order), {}))
        else:
            path = path.removeprefix(".")
            fitting = [key for key in order if type(key) is str and _begins(path, key)]
            if not fitting:
                break
            key = max(fitting, key=len)
            at, order = order[key]
            rest = path[len(key) :]
        place.append(at)
        if not rest:
            break
        path = rest
    return tuple(place)


def _begins(path: str, key: str) -> bool:
    return path.startswith(key) and path[len(key) : len(key) + 1] in ("", ".", "[")


def quoted_path(text: str) -> str:
    """The path in what is told of a field (`unknown field "spec.x"`), read back from Go's quotes."""
    quoted = text[text.find('"') :]
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[
            1:-1
        ]  # An escape that JSON does not have: the field is found as far as it is written alike.
