"""Services and networking: what kube-apiserver 1.37.2 was recorded to answer, one story in a cluster with all packs.

`networks.json` holds the requests with their answers, a row a request in the order they were made, so it is both the
story and the record of it. To record it anew, beside the real server:

    python -m tests.conformance.networks --url https://127.0.0.1:16443 --token admin-token --ca ca.crt
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from tests.conformance import exchange
from tests.conformance.exchange import Json, Peer, Step, Story, Teller

RECORDED: Final = Path(__file__).parent / "networks.json"


def table() -> list[Json]:
    """The rows, in order."""
    found: list[Json] = json.loads(RECORDED.read_text())
    return found


def story(rows: list[Json]) -> Story:
    """The requests of the rows."""
    return [_step(row) for row in rows]


def _step(row: Json) -> Step:
    method, _, path = row["request"].partition(" ")
    return Step(method, path, row.get("body"), row.get("sent", {}), differs=row.get("differs", {}))


def tell(peer: Peer, steps: Story) -> list[Json]:
    """What a server answers."""
    return Teller(peer, "no.group.example.com").tell(steps)


def record(peer: Peer) -> None:
    """Writes down what the real server answers to the same requests."""
    steps = story(table())
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in exchange.rows(steps, tell(peer, steps)))
    RECORDED.write_text(f"[\n{lines}\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", default="admin-token")
    parser.add_argument("--ca", type=Path, required=True)
    asked = parser.parse_args()
    record(Peer(asked.url, asked.token, asked.ca.read_text()))


if __name__ == "__main__":
    main()
