"""Where two documents differ, and the reasons why they may: a difference without a reason is wrong, and so is a reason
without a difference.

Reasons are kept in `reasons/<section>.yaml`: a list of `at` (a pattern over `subject: path`, `*` for anything), `why`, and
where wanted `until`, the issue that does away with it. `theirs` and `ours` narrow it to what either side says.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

REASONS: Final = Path(__file__).parent / "reasons"
ABSENT: Final = "(absent)"
SHOWN: Final = 110

Json = Any


@dataclass(frozen=True)
class Difference:
    """At one place two servers say different things; `ABSENT` is what says nothing."""

    subject: str
    path: str
    theirs: Json
    ours: Json

    @property
    def place(self) -> str:
        return f"{self.subject}: {self.path}" if self.path else self.subject


@dataclass
class Reason:
    """Why differences at some places stay. `seen` counts them."""

    at: str
    why: str
    until: str = ""
    theirs: str = "*"
    ours: str = "*"
    seen: int = field(default=0, compare=False)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        # Brackets are part of paths here, and mean themselves.
        texts = (self.at, self.theirs, self.ours)
        return tuple(re.compile(fnmatch.translate(text.replace("[", "[[]"))) for text in texts)

    def explains(self, one: Difference) -> bool:
        texts = (one.place, shown(one.theirs, None), shown(one.ours, None))
        return all(
            pattern.match(text) is not None for pattern, text in zip(self._patterns, texts, strict=True)
        )


def load(section: str, directory: Path = REASONS) -> list[Reason]:
    """The reasons of a section. Raises TypeError for a key that means nothing."""
    path = directory / f"{section}.yaml"
    return [Reason(**entry) for entry in yaml.safe_load(path.read_text()) or ()] if path.exists() else []


def shown(value: Json, width: int | None = SHOWN) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def between(subject: str, theirs: Json, ours: Json, path: str = "") -> Iterator[Difference]:
    """Wherever two documents differ. Of what one has and the other has not, only the top is told."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from between(subject, theirs.get(key, ABSENT), ours.get(key, ABSENT), inner)
    elif isinstance(theirs, list) and isinstance(ours, list):
        for index in range(max(len(theirs), len(ours))):
            one = theirs[index] if index < len(theirs) else ABSENT
            other = ours[index] if index < len(ours) else ABSENT
            yield from between(subject, one, other, f"{path}[{index}]")
    elif theirs != ours or type(theirs) is not type(ours):
        yield Difference(subject, path, theirs, ours)


@dataclass
class Verdict:
    """What a comparison came to."""

    section: str
    compared: int
    unexplained: list[Difference]
    reasons: list[Reason]

    @property
    def stale(self) -> list[Reason]:
        return [one for one in self.reasons if not one.seen]

    @property
    def good(self) -> bool:
        return not self.unexplained and not self.stale


def judge(section: str, compared: int, found: Iterable[Difference], reasons: Sequence[Reason]) -> Verdict:
    """Sorts differences into those with a reason and those without. The first reason that fits is the one that counts."""
    unexplained = []
    for one in found:
        reason = next((reason for reason in reasons if reason.explains(one)), None)
        if reason is None:
            unexplained.append(one)
        else:
            reason.seen += 1
    return Verdict(section, compared, unexplained, list(reasons))


def report(verdict: Verdict, most: int) -> Iterator[str]:
    """The verdict as lines: a table of what is explained, then what is not, alike ones together."""
    explained = [one for one in verdict.reasons if one.seen]
    total = sum(one.seen for one in explained) + len(verdict.unexplained)
    yield f"== {verdict.section}: {verdict.compared} compared, {total} differences, {len(verdict.unexplained)} without a reason"
    for reason in explained:
        until = f" (until {reason.until})" if reason.until else ""
        yield f"  {reason.seen:6} × {reason.at}{until}\n           {reason.why}"
    alike: dict[tuple[str, str, str], list[Difference]] = {}
    for one in verdict.unexplained:
        last = re.sub(r"\[\d+\]", "[]", one.path.rpartition(".")[2])
        alike.setdefault((last, shown(one.theirs), shown(one.ours)), []).append(one)
    for (_, theirs, ours), many in list(alike.items())[:most]:
        yield f"  WRONG {len(many):4} × {many[0].place}\n           theirs: {theirs}\n           ours:   {ours}"
    if len(alike) > most:
        yield f"  … and {len(alike) - most} more of this kind"
    for reason in verdict.stale:
        yield f"  STALE      {reason.at}: nothing differs there any more"
