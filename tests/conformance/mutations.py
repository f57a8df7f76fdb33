"""Specs with one field wrong: what kube-apiserver 1.37.2 was recorded to say of each, and of those that are right after all.

`mutations.json` holds themes: a request's path, an object that is right, its answer, and cases. A case is
[field, value, status, what was said, warnings …]: the field as a path into the object (`-` before it: taken away), and of a
failure its message, of a success what the answer says otherwise than that to the object itself (a merge patch). All are dry
runs. To record them anew, told to a real server of its own (`benchmarks/peers.py`):

    python -m tests.conformance.mutations
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.conformance import beside
from tests.conformance.exchange import Json, Peer, Step, Teller

RECORDED: Final = Path(__file__).parent / "mutations.json"

_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_ACCOUNTS: Final = "/api/v1/namespaces/${ns}/serviceaccounts"
# Without tokens of accounts, whose volumes have random names.
_READY: Final = (
    Step("POST", _ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
    Step("PATCH", f"{_ACCOUNTS}/default", {"automountServiceAccountToken": False}, _MERGE),
)


def table() -> dict[str, Json]:
    """The themes."""
    found: dict[str, Json] = json.loads(RECORDED.read_text())
    return found


def mutated(base: Json, field: str, value: Json) -> Json:
    """The object with one field otherwise."""
    changed = copy.deepcopy(base)
    *path, last = (int(step) if step.isdigit() else step for step in field.removeprefix("-").split("/"))
    place: Any = changed
    for step in path:
        place = place[step]
    if field.startswith("-"):
        del place[last]
    else:
        place[last] = value
    return changed


def tell(peer: Peer, themes: dict[str, Json]) -> Iterator[tuple[str, Json, Json]]:
    """(theme, its answer, its cases) as a server has them."""
    with closing(Teller(peer, "no.group.example.com")) as teller:
        teller.tell(_READY)
        for name, theme in themes.items():
            right = teller.do(Step("POST", f"{theme['path']}?dryRun=All", theme["object"]))
            cases = []
            for field, value, *_ in theme["cases"]:
                wrong = mutated(theme["object"], field, value)
                answer = teller.do(Step("POST", f"{theme['path']}?dryRun=All", wrong))
                cases.append([field, value, *_said(answer, right["answer"])])
            yield name, right["answer"], cases


def _said(answer: Json, right: Json) -> list[Json]:
    document = answer["answer"]
    said = document.get("message") if answer["status"] >= 400 else difference(right, document)
    return [answer["status"], said, *answer["headers"].get("Warning", ())]


def difference(one: Json, other: Json) -> Json:
    """What makes the other of the one, as a merge patch; lists are taken whole."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    gone = dict.fromkeys((key for key in one if key not in other), None)
    return gone | {key: difference(one.get(key), other[key]) for key in other if one.get(key) != other[key]}


def write(themes: dict[str, Json]) -> None:
    """One case a line, so that a change of the table reads as one."""
    texts = []
    for name, theme in themes.items():
        head = {key: theme[key] for key in ("path", "object", "answer")}
        cases = ",\n".join(
            json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in theme["cases"]
        )
        start = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
        texts.append(f'{json.dumps(name)}:{start},"cases":[\n{cases}\n]}}')
    RECORDED.write_text("{\n" + ",\n".join(texts) + "\n}\n")


def main() -> None:
    themes = table()
    with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
        for name, answer, cases in tell(beside.as_peer(real), themes):
            themes[name] |= {"answer": answer, "cases": cases}
    write(themes)


if __name__ == "__main__":
    main()
