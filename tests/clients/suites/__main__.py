"""`make client-suites`: the client libraries' own tests, and programs written with them, against a cluster with all packs.

    python -m tests.clients.suites --cache DIRECTORY --kubectl PATH [--out DIRECTORY] [--real] [SUITE ...]

Each suite gets a fresh cluster of one server process, in which something plays kubelet (`kubelet.py`). What fails has its reason,
or the issue it waits for, in `reasons.yaml`: a failure without a reason is WRONG, a reason without a failure STALE, and either
ends the command with 1. A suite whose sources or tools are not at hand is skipped, and said so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

from benchmarks import peers
from tests.clients.suites import cargo, golang, maven, python
from tests.clients.suites.kubelet import playing
from tests.clients.suites.outcomes import PASSED, Missing, Outcome
from tests.conformance.differing import Difference, Reason, judge, load, report
from tests.e2e.clusters import Cluster, serving

HERE: Final = Path(__file__).parent


class Suite(Protocol):
    """Tests that run against one cluster."""

    @property
    def name(self) -> str: ...

    @property
    def pods_run(self) -> bool:
        """Whether it wants a cluster in which pods become ready."""

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        """Raises Missing where its sources or tools are not at hand."""


SUITES: Final[tuple[Suite, ...]] = (*python.SUITES, *cargo.SUITES, *maven.SUITES, *golang.SUITES)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(one.name for one in SUITES))
    parser.add_argument("--cache", type=Path, required=True, help="where sources and environments are kept")
    parser.add_argument("--kubectl", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where logs and reports are left")
    parser.add_argument(
        "--real",
        action="store_true",
        help="against kube-apiservers instead, where they are built; reasons do not count",
    )
    asked = parser.parse_args()
    unknown = set(asked.suites) - {one.name for one in SUITES}
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    reasons = [] if asked.real else load("reasons", HERE)
    chosen = [one for one in SUITES if not asked.suites or one.name in asked.suites]
    good = True
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clusters = _real if asked.real else stack.enter_context(_ours(directory))
        for suite in chosen:
            out = (asked.out or directory / "out").resolve() / suite.name
            out.mkdir(parents=True, exist_ok=True)
            with clusters(suite.name, directory) as kubeconfig:
                cluster = Cluster(suite.name, kubeconfig, asked.kubectl.resolve())
                good &= _run(suite, cluster, asked.cache.resolve(), out, reasons)
    return 0 if good else 1


Clusters = Callable[[str, Path], AbstractContextManager[Path]]
"""A fresh cluster, by name, as its kubeconfig in a directory."""


@contextmanager
def _ours(directory: Path) -> Iterator[Clusters]:
    with serving(directory / "data", "--packs", "all") as server:

        @contextmanager
        def made(name: str, directory: Path) -> Iterator[Path]:
            kubeconfig = directory / f"{name}.kubeconfig"
            server.cli("create", name, "--kubeconfig-out", str(kubeconfig), "--quiet")
            yield kubeconfig

        yield made


@contextmanager
def _real(name: str, directory: Path) -> Iterator[Path]:
    with peers.kube_apiserver(directory / name) as peer:
        yield peer.kubeconfig(directory / f"{name}.kubeconfig")


def _run(suite: Suite, cluster: Cluster, cache: Path, out: Path, reasons: list[Reason]) -> bool:
    """One suite, its verdict printed."""
    try:
        with playing(cluster, pods_run=suite.pods_run):
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
