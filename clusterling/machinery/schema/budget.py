"""What validation may cost: steps spent in the branches of a schema (allOf, anyOf, oneOf, not), counted for each object.

Without branches each value is looked at once. With them a tenant multiplies: five thousand branches below an
item, half a million items. Upstream lets its tenants wait for themselves; here others would wait with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Well under a second of this process. The Gateway API's largest objects spend a few hundred.
STEPS_MAX: Final = 200_000

# RE2 is linear in the text, but where its automaton outgrows its memory each character costs as much as the pattern has
# instructions: 7 ns each. So many (instructions times characters) one object may cause; a match by automaton is free.
MATCH_STEPS_MAX: Final = 10_000_000

# Instructions of all the distinct patterns in one schema; compiling takes about a microsecond for each.
PATTERN_INSTRUCTIONS_MAX: Final = 250_000
PATTERN_INSTRUCTIONS_MIN: Final = 100  # What a pattern counts for at least.


class TooCostly(Exception):
    """The object has used up its steps. It is refused."""


class PatternsTooCostly(TooCostly):
    """The schema has used up its instructions. It is refused."""


class _Meter:
    """One for the process: validation runs to its end without giving way, so there is one object at a time."""

    __slots__ = ("instructions", "left", "match", "patterns")

    def __init__(self) -> None:
        self.left = STEPS_MAX
        self.match = MATCH_STEPS_MAX
        self.instructions = PATTERN_INSTRUCTIONS_MAX
        self.patterns: set[str] = set()


_meter: Final = _Meter()


def refill() -> None:
    """Another object begins."""
    _meter.left = STEPS_MAX
    _meter.match = MATCH_STEPS_MAX


def refill_patterns() -> None:
    """Another schema begins."""
    _meter.instructions = PATTERN_INSTRUCTIONS_MAX
    _meter.patterns.clear()


def spend_match(instructions: int, characters: int) -> None:
    """Pays for a search that may take its time. Raises TooCostly."""
    _meter.match -= instructions * characters
    if _meter.match < 0:
        raise TooCostly


def spend_pattern(pattern: str, instructions: int) -> None:
    """Pays for a pattern of a schema, once. Raises PatternsTooCostly."""
    if pattern in _meter.patterns:
        return
    _meter.patterns.add(pattern)
    _meter.instructions -= max(instructions, PATTERN_INSTRUCTIONS_MIN)
    if _meter.instructions < 0:
        raise PatternsTooCostly


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
