"""`make compare`: a real kube-apiserver 1.37.2 beside this checkout with all packs; every difference, and its reason.

    python -m tests.conformance.compare [--most N] [SECTION …]

Sections: `discovery`, `openapi-v3`, `openapi-v2`, `kubectl` (the same commands told to both), `exchanges` (the recorded
table held against both). Ends with 1 where something differs without a reason, or a reason explains nothing any more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks import peers
from tests.conformance import beside, commands, differential, published
from tests.conformance.differing import Difference, Verdict, judge, load, report
from tests.conformance.stories import STORIES
from tests.e2e.clusters import Cluster

Found = tuple[int, list[Difference]]


def of_documents(
    compare: Callable[[published.Published, published.Published], Found],
) -> Callable[[Cluster, Cluster], Found]:
    def section(theirs: Cluster, ours: Cluster) -> Found:
        with (
            closing(published.Published(beside.as_peer(theirs))) as one,
            closing(published.Published(beside.as_peer(ours))) as other,
        ):
            one.define()
            other.define()
            return compare(one, other)

    return section


def exchanges(theirs: Cluster, ours: Cluster) -> Found:
    """Both against the recorded table: is it still true, and is it kept? Its reasons are in it."""
    table = differential.recorded()
    names = list(STORIES)
    found = [
        Difference(f"recorded [{name}]", text, "as recorded", "otherwise")
        for name, text in differential.wrong(
            table, differential.tell(beside.as_peer(theirs), names), excused=False
        )
    ]
    found += [
        Difference(f"ours [{name}]", text, "as recorded", "otherwise")
        for name, text in differential.wrong(
            table, differential.tell(beside.as_peer(ours), names), excused=True
        )
    ]
    return sum(len(STORIES[name]) for name in names), found


SECTIONS: dict[str, Callable[[Cluster, Cluster], Found]] = {
    "discovery": of_documents(published.discovery),
    "openapi-v3": of_documents(published.openapi_v3),
    "openapi-v2": of_documents(published.openapi_v2),
    "kubectl": commands.compare,
    "exchanges": exchanges,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kubectl", type=Path, required=True, help="the kubectl that tells both")
    parser.add_argument("--most", type=int, default=60, help="rows without a reason that are shown a section")
    parser.add_argument("sections", nargs="*", metavar="SECTION", choices=[*SECTIONS, []])
    asked = parser.parse_args()
    if not peers.built():
        print(f"make: there is no {peers.KUBE_APISERVER} or {peers.ETCD} to compare with", file=sys.stderr)
        return 2
    verdicts: list[Verdict] = []
    for section in asked.sections or SECTIONS:
        # Each section has servers that have seen nothing yet: some of what is told to them asks for their beginning.
        with (
            tempfile.TemporaryDirectory() as name,
            beside.theirs(Path(name), asked.kubectl) as theirs,
            beside.ours(Path(name), asked.kubectl) as ours,
        ):
            compared, found = SECTIONS[section](theirs, ours)
        verdicts.append(judge(section, compared, found, load(section)))
        print("\n".join(report(verdicts[-1], asked.most)), flush=True)
    wrong = sum(len(one.unexplained) for one in verdicts)
    stale = sum(len(one.stale) for one in verdicts)
    print(f"{wrong} differences without a reason, {stale} reasons without a difference")
    return 0 if all(one.good for one in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
