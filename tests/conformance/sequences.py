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
        "--record", action="store_true", help="write what the real server says into recordings"
    )
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.count)
    steps = [step for number in numbers for step in sequence(number)]
    with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
        theirs = recordings.tell_owners(beside.as_peer(real), steps)
    if asked.record:
        recordings.write(story, exchange.rows(steps, theirs))
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory)) as server:
        ours = recordings.tell_owners(beside.as_peer(server), steps)
    wrong = 0
    for at, number in enumerate(numbers):
        part = slice(at * steps_each, (at + 1) * steps_each)
        wrong += _differs(number, steps[part], theirs[part], ours[part])
    print(f"{len(steps)} requests in {asked.count} sequences, {wrong} of them differ")
    return 1 if wrong else 0


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
