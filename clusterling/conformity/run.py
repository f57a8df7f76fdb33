"""The run: each row in turn, in one scene, until they are through or the time is up."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from clusterling.conformity.addressing import B
from clusterling.conformity.negotiation import A
from clusterling.conformity.row import DoesNotApply, Failed, Outcome, Result, Row, Section
from clusterling.conformity.scene import Scene
from clusterling.conformity.verbs import D
from clusterling.conformity.watching import C
from clusterling.conformity.wire import OutOfTime, Unreachable, Wire

SECTIONS: Final[Sequence[Section]] = (A, B, C, D)
ROWS: Final[Sequence[Row]] = tuple(row for section in SECTIONS for row in section.rows)

_SEEN_MAX: Final = 240


@dataclass(slots=True)
class Report:
    """What came of the rows, in their order. `server` is its gitVersion; `left` what could not be taken away."""

    server: str
    results: list[Result] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)


def chosen(patterns: str) -> list[Row]:
    """The rows of a list such as `A1,B*`; all for "". Raises ValueError for what names none."""
    wanted = [one.strip().upper() for one in patterns.split(",") if one.strip()]
    for pattern in wanted:
        if not any(fnmatch.fnmatchcase(row.id, pattern) for row in ROWS):
            raise ValueError(f"no row is called {pattern}")
    return [row for row in ROWS if not wanted or any(fnmatch.fnmatchcase(row.id, one) for one in wanted)]


def check_server(
    wire: Wire, rows: Sequence[Row], timeout_s: float, on_result: Callable[[Result], object] = lambda _: None
) -> Report:
    """Runs the checks of `rows`. Raises Unreachable where nothing answers, before anything is made."""
    wire.deadline = time.monotonic() + timeout_s
    answer = wire.get("/version")
    report = Report(_line(str(answer.document.get("gitVersion") or "unknown")))
    scene = Scene(wire)
    try:
        for result in _results(scene, rows):
            report.results.append(result)
            on_result(result)
    finally:
        report.left = [_line(one) for one in scene.clear()]
        wire.close()
    return report


def _results(scene: Scene, rows: Sequence[Row]) -> Iterator[Result]:
    for row in rows:
        outcome, seen = _outcome(scene, row)
        yield Result(row, outcome, _line(seen))


def _line(text: str) -> str:
    """What servers say is theirs: one line of it, not too long a one, and nothing that a terminal obeys."""
    found = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return found if len(found) <= _SEEN_MAX else f"{found[: _SEEN_MAX - 1]}…"


def _outcome(scene: Scene, row: Row) -> tuple[Outcome, str]:
    try:
        return Outcome.PASS, row.check(scene)
    except DoesNotApply as error:
        return Outcome.DOES_NOT_APPLY, str(error)
    except (Failed, Unreachable) as error:
        return Outcome.FAIL, str(error)
    except OutOfTime:
        return Outcome.FAIL, "the time for all checks was used up"
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        # An answer that is not shaped as the API's: what a client would stumble over too.
        return Outcome.FAIL, f"an answer of another shape: {type(error).__name__} {error}"
