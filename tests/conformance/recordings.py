"""Kinds, group by group: what kube-apiserver 1.37.2 was recorded to answer, each story in a cluster with all packs.

A file of `recordings/` holds requests with their answers, a row a request in the order they were made, so it is both the
story and the record of it. A row without an answer is one to be recorded. Of a failure there is its message, which has
the causes; how a Status holds them is seen elsewhere (`recorded.json`). To record stories anew, each told to a real
server of its own (`benchmarks/peers.py`):

    python -m tests.conformance.recordings [NAME …]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from tests.conformance import beside, exchange
from tests.conformance.exchange import Json, Peer, Step, Story, Teller

RECORDED: Final = Path(__file__).parent / "recordings"

# Stories of who owns what: their answers have managedFields, and custom kinds are there for them, `ws` and `es`.
AT_RANDOM: Final = "owners_at_random"
PATCHED: Final = "patches_at_random"
OWNERS: Final = frozenset({"owners", "applies", "scales", "wrong_kinds", AT_RANDOM, PATCHED})
OWNED: Final = Path(__file__).parent / "owned.yaml"
# Stories of bodies with something wrong in them, which have a custom kind for that.
BODIES: Final = "bodies_at_random"
LOOSE: Final = Path(__file__).parent / "loose.yaml"

# Of most answers, and left out of their rows.
_USUAL: Final = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
# Said here where webhooks and policies of admission are written, until they are called.
_KEPT: Final = '299 - "this server keeps the object and does not act on it yet"'
# Of a name that is none: an example and the expression that it is not of, long and always the same.
_FORM: Final = re.compile(r"\(e\.g\. [^()]*(?:regex used for validation is '[^']*'|::[a-z0-9/]*)\)")
_NAMED_BY_PATH: Final = frozenset({"apiVersion", "kind"})
# Whoever tells the story: an administrator has another name in each cluster.
_REQUESTER: Final = frozenset({"username", "uid", "groups", "extra"})


def names() -> list[str]:
    """The stories that there are."""
    return sorted(path.stem for path in RECORDED.glob("*.json"))


def table(name: str) -> list[Json]:
    """The rows of a story, in order."""
    found: list[Json] = json.loads((RECORDED / f"{name}.json").read_text())
    return [row if "headers" in row else row | {"headers": _USUAL} for row in found]


def story(rows: list[Json]) -> Story:
    """The requests of the rows."""
    return [_step(row) for row in rows]


def _step(row: Json) -> Step:
    method, _, path = row["request"].partition(" ")
    body = row.get("body")
    if isinstance(body, str):
        body = body.encode("latin-1")
    return Step(
        method, path, body, row.get("sent", {}), save=row.get("save", ""), differs=row.get("differs", {})
    )


def tell(peer: Peer, steps: Story) -> list[Json]:
    """What a server answers."""
    return [_shortened(answer) for answer in Teller(peer, "no.group.example.com").tell(steps)]


def tell_owners(peer: Peer, steps: Story) -> list[Json]:
    """What a server answers, with who owns what."""
    group = exchange.prepare(peer, list(yaml.safe_load_all(OWNED.read_text())))
    return [_shortened(answer) for answer in Teller(peer, group, owners=True).tell(steps)]


def tell_bodies(peer: Peer, steps: Story) -> list[Json]:
    """What a server answers that has the kind of `LOOSE`."""
    group = exchange.prepare(peer, [yaml.safe_load(LOOSE.read_text())])
    return [_shortened(answer) for answer in Teller(peer, group).tell(steps)]


def teller(name: str) -> Callable[[Peer, Story], list[Json]]:
    """How a story is told."""
    return tell_owners if name in OWNERS else tell_bodies if name == BODIES else tell


def _shortened(answer: Json) -> Json:
    document, headers = answer["answer"], dict(answer["headers"])
    if headers.get("Warning") == [_KEPT]:
        del headers["Warning"]
    if isinstance(document, dict) and document.get("status") == "Failure":
        message = _FORM.sub("(…)", document["message"])
        document = {"message": message, "reason": document.get("reason")}
    elif isinstance(document, dict) and document.get("kind") == "CertificateSigningRequest":
        spec = {key: value for key, value in document["spec"].items() if key not in _REQUESTER}
        document = {**document, "spec": spec}
    if isinstance(document, dict) and "metadata" in document:
        document = {key: value for key, value in document.items() if key not in _NAMED_BY_PATH}
    return answer | {"headers": headers, "answer": document}


def record(peer: Peer, name: str) -> None:
    """Writes down what the real server answers to the same requests."""
    steps = story(table(name))
    write(name, exchange.rows(steps, teller(name)(peer, steps)))


def write(name: str, rows: list[Json]) -> None:
    """Makes the file of a story: a row a line, without what is usual."""
    shown = [
        {key: value for key, value in row.items() if key != "headers" or value != _USUAL} for row in rows
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in shown)
    (RECORDED / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names(), []])
    for name in parser.parse_args().names or names():
        with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
            record(beside.as_peer(real), name)


if __name__ == "__main__":
    main()
