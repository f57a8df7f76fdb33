"""Work in steps: a generator that yields where others may have a turn, and returns what it made.

What takes long for a large value, and is done at once for a small one, is written once, so. `Turnstile.made` has the steps
done in slices.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar, cast

import msgspec
import orjson

PIECE_BYTES: Final = 32 * 1024
PIECES: Final = 64  # So many small parts are one step.

T = TypeVar("T")

Steps = Generator[None, None, T]


def at_once(steps: Steps[T]) -> T:
    """All of the steps; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return cast(T, stop.value)


_maps: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists: Final = msgspec.json.Decoder(list[msgspec.Raw])


def ordered(text: bytes | msgspec.Raw) -> Steps[Any]:
    """The value of a JSON text that was written here, with the keys of all maps in order, decoded piece by piece."""
    first = bytes(memoryview(text)[:1])
    if _size(text) <= PIECE_BYTES or first not in (b"{", b"["):
        yield
        return _at_once_ordered(bytes(text))
    if first == b"[":
        items: list[Any] = []
        for item in _lists.decode(text):
            items += [(yield from ordered(item))]
        return items
    parts = _maps.decode(text)
    yield
    found: dict[str, Any] = dict.fromkeys(sorted(parts))
    yield
    piece: list[bytes] = []
    pieced = 0
    for name, part in parts.items():
        if _size(part) > PIECE_BYTES:
            found[name] = yield from ordered(part)
            continue
        piece.append(b"%b:%b" % (orjson.dumps(name), bytes(part)))
        pieced += len(piece[-1])
        if pieced > PIECE_BYTES:
            found |= _at_once_ordered(b"{%b}" % b",".join(piece))
            piece, pieced = [], 0
            yield
    found |= _at_once_ordered(b"{%b}" % b",".join(piece))
    return found


def _size(text: bytes | msgspec.Raw) -> int:
    return memoryview(text).nbytes


def _at_once_ordered(text: bytes) -> Any:
    return orjson.loads(orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS))
