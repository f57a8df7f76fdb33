"""What targets begin with: objects, requests and answers recorded from kube-apiserver (tests/conformance)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.fuzz import values
from tests.fuzz.targets import SEED_BYTES_MAX

_CONFORMANCE: Final = Path(__file__).resolve().parent.parent / "conformance"
_FILES: Final = ("recorded.json", "mutations.json", "recordings/*.json")

Exchange = dict[str, Any]


@cache
def exchanges() -> list[Exchange]:
    """Every recorded request with its answer: `request`, perhaps `body`, `answer`."""
    found: list[Exchange] = []
    for pattern in _FILES:
        for path in sorted(_CONFORMANCE.glob(pattern)):
            _collect(json.loads(path.read_text()), found)
    return found


def _collect(told: Any, found: list[Exchange]) -> None:
    if isinstance(told, dict):
        if isinstance(told.get("request"), str):
            found.append(told)
        else:
            for one in told.values():
                _collect(one, found)
    elif isinstance(told, list):
        for one in told:
            _collect(one, found)


@cache
def bodies() -> list[Any]:
    """What was sent, each thing once."""
    sent = {json.dumps(one["body"]): one["body"] for one in exchanges() if "body" in one}
    return list(sent.values())


def objects() -> Iterator[dict[str, Any]]:
    """What was sent or answered and is an object with metadata."""
    for one in exchanges():
        for obj in (one.get("body"), one.get("answer")):
            if isinstance(obj, dict) and isinstance(obj.get("metadata"), dict):
                yield obj


def as_json(limit: int = 200) -> Iterator[bytes]:
    for body in bodies()[:: max(len(bodies()) // limit, 1)]:
        text = json.dumps(body).encode()
        if len(text) <= SEED_BYTES_MAX:
            yield text


def as_values(limit: int = 200) -> Iterator[bytes]:
    found = bodies()
    for body in found[:: max(len(found) // limit, 1)]:
        raw = values.value(body)
        if len(raw) <= SEED_BYTES_MAX:
            yield raw


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [obj for obj in objects() if obj.get("kind") in kinds]
