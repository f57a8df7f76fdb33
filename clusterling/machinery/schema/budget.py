"""What validation may cost: steps spent in the branches of a schema (allOf, anyOf, oneOf, not), counted for each object.

Without branches each value is looked at once. With them a tenant multiplies: five thousand branches below an
item, half a million items. Upstream lets its tenants wait for themselves; here others would wait with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Well under a second of this process. The Gateway API's largest objects spend a few hundred.
STEPS_MAX: Final = 200_000


class TooCostly(Exception):
    """The object has used up its steps. It is refused."""


class _Meter:
    """One for the process: validation runs to its end without giving way, so there is one object at a time."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = STEPS_MAX


_meter: Final = _Meter()


def refill() -> None:
    """Another object begins."""
    _meter.left = STEPS_MAX


def spend(value: object) -> None:
    """Pays for one look at a value and its parts. Raises TooCostly."""
    _meter.left -= 1 + len(value) if isinstance(value, dict | list) else 1
    if _meter.left < 0:
        raise TooCostly


def metered(check: Callable[[object], bool]) -> Callable[[object], bool]:
    def run(value: object) -> bool:
        spend(value)
        return check(value)

    return run
