"""A row: one thing that clients assume of the API, who assumes it, and the check that looks whether it is so.

A check returns what was seen, in a few words that are the same at each run: no names, times or revisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from clusterling.machinery.meta import Object

if TYPE_CHECKING:
    from clusterling.conformity.scene import Scene
    from clusterling.conformity.wire import Answer

Check = Callable[["Scene"], str]


class Outcome(StrEnum):
    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    DOES_NOT_APPLY = "does not apply"


class Failed(Exception):
    """The assumption does not hold. The message is what was seen."""


class DoesNotApply(Exception):
    """The server does not have what the row is about. The message says what."""


@dataclass(frozen=True, slots=True)
class Row:
    """`id` is a letter, the section's, and a number. `remark`: where kube-apiserver itself is not as people say."""

    id: str
    assumes: str
    who: str
    check: Check
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row on one server."""

    row: Row
    outcome: Outcome
    seen: str

    def document(self) -> Object:
        found: Object = {
            "id": self.row.id,
            "assumes": self.row.assumes,
            "reliedOnBy": self.row.who,
            "outcome": str(self.outcome),
            "seen": self.seen,
        }
        return found | ({"remark": self.row.remark} if self.row.remark else {})


class Section:
    """The rows of one letter, in the order they are written."""

    def __init__(self, letter: str, title: str) -> None:
        self.letter = letter
        self.title = title
        self.rows: list[Row] = []

    def row(self, number: int, assumes: str, who: str, remark: str = "") -> Callable[[Check], Check]:
        """Makes the function below it the check of a row."""

        def take(check: Check) -> Check:
            self.rows.append(Row(f"{self.letter}{number}", assumes, who, check, remark))
            return check

        return take


def need(condition: object, seen: str) -> None:
    """Raises Failed with what was seen unless the condition holds."""
    if not condition:
        raise Failed(seen)


def need_ok(answer: Answer, what: str) -> Object:
    """The document of a 2xx. Raises Failed with the code and the message of anything else."""
    if not answer.ok:
        message = str(answer.document.get("message") or answer.body[:120].decode(errors="replace").strip())
        raise Failed(f"{what}: {answer.code} {message}".strip())
    return answer.document
