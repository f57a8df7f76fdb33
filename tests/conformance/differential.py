"""Records what the real kube-apiserver answers, and compares it with what this checkout does.

    python -m tests.conformance.differential --url https://127.0.0.1:16443 --token admin-token --ca ca.crt [--record] [STORY …]

Without `--record` the answers are compared with the recorded table, to see whether that still holds; with it they are
written there. Either way the in-process server is then held against the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clusterling.testing.kube import KubeServer
from tests.conformance import exchange
from tests.conformance.exchange import RECORDED, Json, Peer
from tests.conformance.stories import DEFINITIONS, STORIES


def recorded() -> dict[str, list[Json]]:
    """The table: story → rows."""
    found: dict[str, list[Json]] = json.loads(RECORDED.read_text())["stories"]
    return found


def write(table: dict[str, list[Json]]) -> None:
    """One row a line, so that a change of the table reads as one."""
    stories = []
    for name in STORIES:
        lines = ",\n".join("   " + json.dumps(row, ensure_ascii=False) for row in table.get(name, ()))
        stories.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    head = '{"server": "kube-apiserver v1.37.2", "stories": {\n'
    RECORDED.write_text(head + ",\n".join(stories) + "\n}}\n")


def ours(names: list[str]) -> dict[str, list[Json]]:
    """What this checkout answers."""
    with (
        tempfile.TemporaryDirectory() as directory,
        KubeServer(Path(directory)) as server,
        server.cluster() as kube,
    ):
        return tell(Peer(kube.url, kube.token, kube.ca_pem), names)


def tell(peer: Peer, names: list[str]) -> dict[str, list[Json]]:
    """What a server answers to the stories named."""
    return exchange.tell_all(peer, {name: STORIES[name] for name in names}, DEFINITIONS)


def wrong(
    table: dict[str, list[Json]], answers: dict[str, list[Json]], *, excused: bool
) -> Iterator[tuple[str, str]]:
    """(story, what differs from the table). `excused`: where the table gives a reason, that is right."""
    for name, told in answers.items():
        for step, row, answer in zip(STORIES[name], table[name], told, strict=True):
            if excused:
                yield from ((name, text) for text in exchange.judge(step, row, answer))
            else:
                compared = {key: row[key] for key in answer}
                yield from (
                    (name, f"{step.title}: {found}") for found in exchange.differences(compared, answer)
                )


def report(what: str, table: dict[str, list[Json]], answers: dict[str, list[Json]], *, excused: bool) -> int:
    """Prints what differs from the table; how many did."""
    found = list(wrong(table, answers, excused=excused))
    for name, text in found:
        print(f"{what} [{name}] {text}")
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="the real server; without it only this checkout is looked at")
    parser.add_argument("--token", default="admin-token")
    parser.add_argument("--ca", type=Path)
    parser.add_argument(
        "--record", action="store_true", help="write what the real server says into the table"
    )
    parser.add_argument("stories", nargs="*", metavar="STORY")
    asked = parser.parse_args()
    names: list[str] = asked.stories or list(STORIES)
    table = recorded() if RECORDED.exists() else {}
    count = 0
    if asked.url:
        answers = tell(Peer(asked.url, asked.token, asked.ca.read_text()), names)
        if asked.record:
            table |= {name: exchange.rows(STORIES[name], told) for name, told in answers.items()}
            write(table)
        else:
            count += report("recorded", table, answers, excused=False)
    count += report("ours", table, ours(names), excused=True)
    requests = sum(len(STORIES[name]) + sum(len(step.during) for step in STORIES[name]) for name in names)
    print(f"{requests} requests in {len(names)} stories, {count} differences", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
