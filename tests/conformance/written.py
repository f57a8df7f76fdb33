"""What came out of `make conformance`, as a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.conformance.differing import Difference, Reason

PASSED: Final = "passed"
BESIDES: Final = "MORE"  # What those are said to need that are not of the list.

HEAD: Final = """\
# Kubernetes' own tests

Written by `make conformance`, which runs specs of Kubernetes' e2e suite (e2e.test 1.37.2, unchanged) against logical clusters
with all packs, on the embedded store: those specs that pass on a kube-apiserver 1.37.2 with no kubelet and no scheduler. Each has a
process and a cluster of its own. Others that ask for neither nodes nor workload controllers are run besides.

Specs that wait for workload controllers (replica sets, jobs, disruption budgets: what kube-controller-manager runs) are counted,
not run. Specs that need nodes, which are most of the suite, are not in the list at all. Those of NodeAuthorizer that expect to be
refused pass because nobody may impersonate a node yet, not because nodes are kept from what is not theirs.
"""


@dataclass(frozen=True, slots=True)
class State:
    """How a spec ended, in the suite's words, and after how many seconds."""

    said: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.said == PASSED

    @property
    def line(self) -> str:
        return " ".join(self.said.split())


def page(every: Sequence[tuple[str, str]], states: Mapping[str, State], reasons: Sequence[Reason]) -> str:
    """The page. `every` has what each spec needs and its name; those without a state were not run."""
    names = [name for _, name in every]
    failed = [name for name in names if name in states and not states[name].passed]
    lines = [
        HEAD,
        *_totals(every, states),
        "## Not passed",
        "",
        *_failed(failed, states, reasons),
        "## Not run",
        "",
        *(f"- {_text(name)}" for name in names if name not in states),
        "",
        "## Passed",
        "",
        *(f"- {_text(name)}" for name in names if name in states and states[name].passed),
    ]
    return "\n".join(lines) + "\n"


def _totals(every: Sequence[tuple[str, str]], states: Mapping[str, State]) -> Iterator[str]:
    yield "| | specs | passed | not passed | not run |"
    yield "|---|--:|--:|--:|--:|"
    groups: dict[str, list[str]] = {}
    listed = [name for needs, name in every if needs != BESIDES]
    for name in listed:
        groups.setdefault(name[1 : name.index("]")], []).append(name)
    besides = [name for needs, name in every if needs == BESIDES]
    for group, mine in [*sorted(groups.items()), ("all of them", listed), ("besides", besides)]:
        ran = [states[name] for name in mine if name in states]
        passed = sum(state.passed for state in ran)
        yield f"| {group} | {len(mine)} | {passed} | {len(ran) - passed} | {len(mine) - len(ran)} |"
    yield ""


def _failed(names: Sequence[str], states: Mapping[str, State], reasons: Sequence[Reason]) -> Iterator[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for name in names:
        one = Difference(name, "", PASSED, states[name].line)
        reason = next((reason for reason in reasons if reason.explains(one)), None)
        why = (reason.why, reason.until) if reason else ("no reason is known", "")
        alike.setdefault(why, []).append(name)
    for (text, until), mine in alike.items():
        yield f"{text[0].upper()}{text[1:]}" + (f" (until {until}):" if until else ":")
        yield ""
        yield from (f"- {_text(name)}" for name in mine)
        yield ""


def _text(name: str) -> str:
    """A spec's name where Markdown would read brackets as links and stars as stress."""
    return re.sub(r"([\[\]*<>_`|])", r"\\\1", name)
