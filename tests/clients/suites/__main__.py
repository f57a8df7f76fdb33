"""`make client-suites`: the client libraries' own tests, and programs written with them, against a cluster with all packs.

    python -m tests.clients.suites --cache DIRECTORY --kubectl PATH [--out DIRECTORY] [SUITE ...]

Each suite gets a fresh cluster of one server process, in which something plays kubelet (`kubelet.py`). What fails has its reason,
or the issue it waits for, in `reasons.yaml`: a failure without a reason is WRONG, a reason without a failure STALE, and either
ends the command with 1. A suite whose sources or tools are not at hand is skipped, and said so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final, Protocol

from tests.clients.suites import cargo, maven, python
from tests.clients.suites.kubelet import playing
from tests.clients.suites.outcomes import PASSED, Missing, Outcome
from tests.conformance.differing import Difference, Reason, judge, load, report
from tests.conformance.suite import accounts
from tests.e2e.clusters import Cluster, ServerProcess, serving

HERE: Final = Path(__file__).parent


class Suite(Protocol):
    """Tests that run against one cluster."""

    @property
    def name(self) -> str: ...

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        """Raises Missing where its sources or tools are not at hand."""


SUITES: Final[tuple[Suite, ...]] = (*python.SUITES, *cargo.SUITES, *maven.SUITES)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(one.name for one in SUITES))
    parser.add_argument("--cache", type=Path, required=True, help="where sources and environments are kept")
    parser.add_argument("--kubectl", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where logs and reports are left")
    asked = parser.parse_args()
    unknown = set(asked.suites) - {one.name for one in SUITES}
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    reasons = load("reasons", HERE)
    good = True
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory) / "data", "--packs", "all") as server,
    ):
        for suite in SUITES:
            if not asked.suites or suite.name in asked.suites:
                out = (asked.out or Path(directory) / "out").resolve() / suite.name
                out.mkdir(parents=True, exist_ok=True)
                cluster = _cluster(server, suite.name, Path(directory), asked.kubectl.resolve())
                good &= _run(suite, cluster, asked.cache.resolve(), out, reasons)
    return 0 if good else 1


def _cluster(server: ServerProcess, name: str, directory: Path, kubectl: Path) -> Cluster:
    kubeconfig = directory / f"{name}.kubeconfig"
    server.cli("create", name, "--kubeconfig-out", str(kubeconfig), "--quiet")
    return Cluster(name, kubeconfig, kubectl)


def _run(suite: Suite, cluster: Cluster, cache: Path, out: Path, reasons: list[Reason]) -> bool:
    """One suite, its verdict printed."""
    try:
        with accounts(cluster), playing(cluster):
            outcomes = suite.run(cluster, cache, out)
    except Missing as missing:
        print(f"== {suite.name}: skipped: {missing}")
        return True
    if not outcomes:
        print(f"== {suite.name}: WRONG: it ran no test\n{(out / 'log.txt').read_text()[-3000:]}")
        return False
    failed = [
        Difference(f"{suite.name}: {one.name}", "", PASSED, one.state) for one in outcomes if one.failed
    ]
    own = [one for one in reasons if one.at.startswith(f"{suite.name}: ")]
    verdict = judge(suite.name, len(outcomes), failed, own)
    print("\n".join(report(verdict, len(outcomes))))
    counts = Counter(one.state.partition(":")[0] for one in outcomes)
    print(f"{suite.name}: {counts[PASSED]} of {len(outcomes)} tests passed; {dict(counts)}", flush=True)
    return verdict.good


if __name__ == "__main__":
    sys.exit(main())
