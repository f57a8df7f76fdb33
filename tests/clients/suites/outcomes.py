"""What tests came to, read from what their runners leave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

PASSED: Final = "passed"

_CARGO: Final = re.compile(r"^test (\S+)(?: - .*)? \.\.\. (\w+)", re.MULTILINE)
_CARGO_SAID: Final = re.compile(
    r"^---- (\S+) stdout ----\n(.*?)(?=^---- |^failures:)", re.MULTILINE | re.DOTALL
)
# Backtraces, and the line that says where, say nothing about the server.
_RUST_NOISE: Final = re.compile(
    r"^(stack backtrace:|note: run with|\s+\d+: |\s+at |thread '.*).*$\n?", re.MULTILINE
)
_GO_ENDED: Final = re.compile(r"^ *--- (\w+): (\S+) ", re.MULTILINE)
# A test's name, and what it printed until the next one had its turn.
_GO_TURN: Final = re.compile(
    r"^=== (?:RUN|CONT|NAME) +(\S+)\n(.*?)(?=^=== |^ *--- \w+: |\Z)", re.MULTILINE | re.DOTALL
)
# What ginkgo prints first; its tests are told one by one in its report.
_GINKGO: Final = "Running Suite: "


class Missing(Exception):
    """A suite's sources or tools are not at hand, and cannot be had from a package index. The message says which."""


@dataclass(frozen=True)
class Outcome:
    """A test's name, and `passed`, `skipped: why` or what it failed with."""

    name: str
    state: str

    @property
    def failed(self) -> bool:
        return self.state != PASSED and not self.state.startswith("skipped")


def of_junit(directory: Path) -> Iterator[Outcome]:
    """From the reports that pytest and Surefire write. A test is told once: by its failure where it has one."""
    states: dict[str, str] = {}
    for path in sorted(directory.glob("*.xml")):
        for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314 -- written by the runner we started
            name = f"{case.get('classname')}.{case.get('name')}".strip(".")
            if states.get(name, PASSED) == PASSED:
                states[name] = _state(case)
    yield from (Outcome(*one) for one in states.items())


def _state(case: ElementTree.Element) -> str:
    for tag in ("failure", "error", "skipped"):
        found = case.find(tag)
        if found is not None:
            said = found.get("message") or (found.text or "").strip() or found.get("type") or "?"
            return f"{tag}: {' '.join(said.split())}"
    return PASSED


def of_cargo(output: str) -> Iterator[Outcome]:
    """From what `cargo test` prints."""
    said = {name: _RUST_NOISE.sub("", text) for name, text in _CARGO_SAID.findall(output)}
    for name, state in _CARGO.findall(output):
        if state == "ok":
            yield Outcome(name, PASSED)
        elif state == "ignored":
            yield Outcome(name, "skipped: ignored")
        else:
            yield Outcome(name, f"failure: {' '.join(said.get(name, state).split())}")


def of_go(output: str) -> Iterator[Outcome]:
    """From what a Go test program prints with -v. Of a test with parts, the parts are told, and itself where it alone failed. One
    that runs ginkgo's is told only where it did not come to its end, for then there is no report of theirs."""
    states = {name: state for state, name in _GO_ENDED.findall(output)}
    printed: dict[str, str] = {}
    for name, text in _GO_TURN.findall(output):
        printed[name] = printed.get(name, "") + text
    told: list[Outcome] = []
    # The parts of a test begin after it.
    for name, text in reversed(printed.items()):
        one = Outcome(name, _go_state(states.get(name, ""), text))
        parts = [part for part in told if part.name.startswith(f"{name}/")]
        if one.state and (not parts or (one.failed and not any(part.failed for part in parts))):
            told.append(one)
    yield from reversed(told)


def _go_state(ended: str, printed: str) -> str:
    """What a test came to; "" where others tell."""
    said = " ".join(printed[-2000:].split())
    if not ended:
        return f"error: it did not end: {said}"
    if _GINKGO in printed:
        return ""
    return {"PASS": PASSED, "SKIP": f"skipped: {said}"}.get(ended, f"failure: {said}")
