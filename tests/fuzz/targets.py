"""The targets by name: what takes any bytes, returns where all is well, and raises where something is wrong.

A target asks one part of the server something that a stranger may send, and holds it to what must be true of any answer: an
error is one that the part says it raises, what was read can be written and read again, arguments stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from clusterling.machinery.errors import ApiError

Run = Callable[[bytes], None]
Seeds = Callable[[], Iterable[bytes]]

SEED_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    run: Run
    seeds: Seeds


TARGETS: Final[dict[str, Target]] = {}


def target(seeds: Seeds = tuple) -> Callable[[Run], Run]:
    """Registers a function under its name. `seeds` makes inputs to begin with."""

    def register(run: Run) -> Run:
        assert run.__name__ not in TARGETS, "a target's name is its own"
        TARGETS[run.__name__] = Target(run.__name__, run, seeds)
        return run

    return register


def load() -> dict[str, Target]:
    """All of them."""
    from tests.fuzz import asking, changing, reading, shaping, wire  # noqa: F401 - each registers its own

    return TARGETS


def foreseen(error: ApiError, *, upstreams: bool = False) -> None:
    """An error that the client made. `upstreams`: or one of those that upstream answers 500 to, which have no reason."""
    if upstreams and error.code == 500 and not error.reason:
        return
    assert 400 <= error.code < 500, f"{error.code} {error.reason}: {error.message[:200]}"
    orjson.dumps(error.status())


def written(value: Any) -> bytes:
    """The value as JSON with its keys in order: what tells 1, 1.0 and true apart. Raises where it cannot be written."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
