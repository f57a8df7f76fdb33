"""Random sequences of requests, told to a real kube-apiserver and to this checkout, and compared one by one."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.conformance import beside, exchange, recordings
from tests.conformance.exchange import Json, Step

_RECORDED_BYTES: Final = 10_000  # Of the answers to a sequence that is kept.
_SHOWN: Final = 8  # Differences of one answer.
_DIRECTIVES: Final = re.compile(
    "invalid patch format|unknown patch type|declared merge key|types are not identical|doesn't match|expected a|"
    "merging lists|api field|cannot merge|data type is not struct|no elements in|is not a map"
)


def main(about: str, sequence: Callable[[int], list[Step]], steps_each: int, story: str) -> int:
    """The command line: what differs, sequence by sequence. `story`: where a recording goes. 1 if anything differs."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1, metavar="N")
    parser.add_argument("--count", type=int, default=100, metavar="N")
    parser.add_argument(
        "--record", action="store_true", help="write what both say of short ones into recordings"
    )
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.count)
    steps = [step for number in numbers for step in sequence(number)]
    with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
        theirs = recordings.tell_owners(beside.as_peer(real), steps)
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory)) as server:
        ours = recordings.tell_owners(beside.as_peer(server), steps)
    parts = [slice(at, at + steps_each) for at in range(0, len(steps), steps_each)]
    if asked.record:
        small = [part for part in parts if theirs[part] == ours[part] and _is_worth_keeping(theirs[part])]
        kept = [row for part in small for row in exchange.rows(steps[part], theirs[part])]
        recordings.write(story, kept)
    wrong = sum(
        _differs(number, steps[part], theirs[part], ours[part])
        for number, part in zip(numbers, parts, strict=True)
    )
    print(f"{len(steps)} requests in {asked.count} sequences, {wrong} of them differ")
    return 1 if wrong else 0


def _is_worth_keeping(answers: list[Json]) -> bool:
    """Short enough, and of an object that was made."""
    length = sum(len(json.dumps(answer)) for answer in answers)
    return answers[0]["status"] in (200, 201) and length < _RECORDED_BYTES


def _differs(number: int, steps: list[Step], theirs: list[Json], ours: list[Json]) -> bool:
    """Prints the first request of a sequence that was answered differently."""
    for at, (step, one, other) in enumerate(zip(steps, theirs, ours, strict=True)):
        found = [] if one["status"] == 0 else list(exchange.differences(_settled(one), _settled(other)))
        if found:
            print(f"sequence {number}, request {at}: {step.title}\n  {_text(step.body)}")
            for path, left, right in found[:_SHOWN]:
                print(
                    f"    {path}\n      theirs: {json.dumps(left)[:600]}\n      ours:   {json.dumps(right)[:600]}"
                )
            return True
    return False


def _settled(answer: Json) -> Json:
    """The answer with the errors of its message in one order: upstream's is that of a map, where several fields are wrong.

    What upstream dies of (it closes the connection) is not compared at all.
    """
    document = answer["answer"]
    if not isinstance(document, dict):
        return answer
    if _DIRECTIVES.search(str(document.get("message"))):
        return {
            "answer": "a directive is wrong"
        }  # Where several are, one is found first by the order of a map.
    if ": [" not in str(document.get("message")):
        return answer
    message = sorted(document["message"].removesuffix("]").replace(": [", ", ").split(", "))
    return answer | {"answer": document | {"message": message}}


def _text(body: Json) -> str:
    return body.decode("latin-1") if isinstance(body, bytes) else json.dumps(body)
