"""`make conformance`: Kubernetes' own e2e suite against clusters with all packs, on the embedded store.

    python -m tests.conformance.suite [--procs N] [--focus REGEXP] [--resume] [--patience SECONDS] [--out DIRECTORY]

`specs.tsv` names the specs: those of e2e.test 1.37.2 that pass on a kube-apiserver with no kubelet and no scheduler. `API`
needs no controller, `CTL` those that a cluster has by itself; `KCM` waits for workload controllers, which
kube-controller-manager would bring, and is counted, not run. `MORE` are others of the suite that ask for neither nodes nor
workload controllers. What fails has its reason, or the issue it waits for, in `reasons/conformance.yaml`.

Each spec runs in a process and a cluster of its own, within a time of its own: none waits for, or trips over, another. What
is known of each is kept in the output directory as it comes, so that a run can be resumed, and a whole one is written down in
`docs/reference/conformance.md`. The suite is found where the peers are (`PEERS`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

from benchmarks.peers import PEERS
from tests.conformance import written
from tests.conformance.differing import Difference, judge, load, report
from tests.conformance.written import PASSED, State
from tests.e2e.clusters import Cluster, ServerProcess, serving

SPECS: Final = Path(__file__).with_name("specs.tsv")
ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reference" / "conformance.md"
SUITE: Final = PEERS / "bin" / "e2e.test"
KUBECTL: Final = PEERS / "bin" / "kubectl"

RUN: Final = ("API", "CTL", "MORE")
TIMES: Final = 2  # What a spec may take, in times of what it takes on kube-apiserver.
GRACE_S: Final = 60  # For a spec out of time to clean up in, before it is killed.

# The suite waits for one that is ready; nothing runs on it.
NODE: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "node-1",
        "labels": {
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": "node-1",
        },
    },
    "spec": {"podCIDR": "10.64.0.0/24", "podCIDRs": ["10.64.0.0/24"]},
    "status": {
        "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": "node-1"},
        ],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Said",
                "message": "said to be ready",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One of the suite: what it needs (`API`, `CTL`, `KCM`, `MORE`), about how many seconds it takes on kube-apiserver, and its whole name."""

    needs: str
    theirs_s: int
    name: str

    @classmethod
    def of(cls, line: str) -> Spec:
        needs, theirs_s, name = line.split("\t")
        return cls(needs, int(theirs_s), name)

    @property
    def slug(self) -> str:
        return re.sub(r"[^A-Za-z0-9]+", "-", self.name)[-120:].strip("-")


def specs() -> list[Spec]:
    return [Spec.of(line) for line in SPECS.read_text().splitlines()]


@dataclass(frozen=True, slots=True)
class Bench:
    """A server to run specs against, where the clusters' credentials are for a while, and where what specs say is left."""

    server: ServerProcess
    credentials: Path
    out: Path
    patience_s: int

    def run(self, number: int, spec: Spec) -> State:
        """Runs one spec in a new cluster."""
        name = f"spec-{number}"
        kubeconfig = self.credentials / f"{name}.kubeconfig"
        self.server.cli("create", name, "--kubeconfig-out", str(kubeconfig), "--quiet")
        cluster = Cluster(name, kubeconfig, KUBECTL)
        cluster.http("POST", "/api/v1/nodes", json.dumps(NODE).encode())
        # Made with the taint of a node that has not said it is ready.
        cluster.kubectl("patch", "node", "node-1", "--type=merge", "-p", '{"spec":{"taints":null}}')
        found = self.out / f"{spec.slug}.json"
        found.unlink(missing_ok=True)
        began = time.monotonic()
        within_s = self.patience_s + TIMES * spec.theirs_s
        command = self._command(cluster, spec, found, within_s)
        with (self.out / f"{spec.slug}.log").open("wb") as log:
            over = _within(within_s + GRACE_S, command, cluster.env, log)
        seconds = round(time.monotonic() - began, 1)
        if not found.exists():
            return State("timed out" if over else "left no report", seconds)
        state = _told(json.loads(found.read_text()))
        found.unlink()
        return State(state or "no such spec", seconds)

    def _command(self, cluster: Cluster, spec: Spec, found: Path, within_s: int) -> list[str]:
        return [
            *(
                str(SUITE),
                f"--ginkgo.focus=(^| ){re.escape(spec.name)}$",
                f"--ginkgo.timeout={within_s}s",
            ),
            *(f"--ginkgo.json-report={found}", "--ginkgo.no-color", "--ginkgo.silence-skips"),
            *("--ginkgo.grace-period=20s", "--ginkgo.v"),
            *(f"--kubeconfig={cluster.kubeconfig}", "--provider=skeleton", f"--kubectl-path={KUBECTL}"),
            *("--kube-api-content-type=application/json", "--allowed-not-ready-nodes=-1"),
            *("--minStartupPods=0", "--num-nodes=1", "--dump-logs-on-failure=false"),
            *("--disable-log-dump=true", "--system-daemonsets-startup-timeout=1s"),
            *("--node-schedulable-timeout=30s", "--system-pods-startup-timeout=30s"),
        ]


def _within(seconds: float, command: Sequence[str], env: Mapping[str, str], log: Any) -> bool:
    """Runs a command and all that it starts. True where it had to be killed."""
    started = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=dict(env), start_new_session=True
    )
    try:
        started.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    return False


def _told(reports: Any) -> str | None:
    """What the suite's report says of the one spec that ran: `passed`, or why it did not."""
    for suite in reports:
        for spec in suite.get("SpecReports") or ():
            if spec["State"] == "skipped" and not spec.get("RunTime"):
                continue
            message = (spec.get("Failure") or {}).get("Message", "").strip()
            if spec["LeafNodeType"] == "It" or spec["State"] != PASSED:
                return PASSED if spec["State"] == PASSED else f"{spec['State']}: {message}"
    return None


class Kept:
    """What is known of each spec, in a file that is whole after every spec."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        told = json.loads(path.read_text()) if path.exists() else {}
        self.states = {name: State(**state) for name, state in told.items()}

    def keep(self, spec: Spec, state: State) -> None:
        with self._lock:
            self.states[spec.name] = state
            whole = {name: asdict(state) for name, state in sorted(self.states.items())}
            self._path.write_text(json.dumps(whole, indent=1))


def run(chosen: Sequence[Spec], kept: Kept, out: Path, *, procs: int, patience_s: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory) / "data", "--packs", "all") as server,
        ThreadPoolExecutor(procs) as pool,
    ):
        bench = Bench(server, Path(directory), out, patience_s)

        def one(number: int, spec: Spec) -> None:
            state = bench.run(number, spec)
            kept.keep(spec, state)
            print(f"{state.seconds:6.1f} s  {state.line[:60]:60}  {spec.name}", flush=True)

        # Those that take longest first, so that no long one is left alone at the end.
        ordered = sorted(chosen, key=lambda spec: -spec.theirs_s)
        try:
            list(pool.map(one, range(len(ordered)), ordered))
        finally:
            pool.shutdown(cancel_futures=True)  # Interrupted, it ends with those that are under way.


def verdict(states: Mapping[str, State], every: Sequence[Spec], *, whole: bool) -> int:
    """Prints what came out of it; where all were run, writes the page as well."""
    ran = [spec for spec in every if spec.name in states]
    failed = [
        Difference(spec.name, "", PASSED, states[spec.name].line)
        for spec in ran
        if not states[spec.name].passed
    ]
    reasons = load("conformance")
    judged = judge("conformance", len(ran), failed, reasons)
    if not whole:  # The reasons of the others have nothing to explain.
        judged.reasons = [reason for reason in judged.reasons if reason.seen]
    print("\n".join(report(judged, len(ran))))
    print(f"{len(ran) - len(failed)} of {len(ran)} specs that were run passed; {len(every)} there are")
    if not whole:
        return 1 if judged.unexplained else 0
    PAGE.write_text(written.page([(spec.needs, spec.name) for spec in every], states, reasons))
    print(f"written down in {PAGE.relative_to(ROOT)}")
    return 0 if judged.good else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--procs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--needs", default=",".join(RUN), help="what the specs to run may need")
    parser.add_argument("--focus", default="", help="only specs that this pattern is found in")
    parser.add_argument("--resume", action="store_true", help="only what has not passed yet")
    parser.add_argument(
        "--patience",
        type=int,
        default=60,
        metavar="SECONDS",
        help=f"for each spec, and {TIMES} times what it took there",
    )
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "conformance")
    asked = parser.parse_args()
    missing = [str(path) for path in (SUITE, KUBECTL) if not path.is_file()]
    if missing:
        print(f"make: the suite is not built: there is no {', '.join(missing)}", file=sys.stderr)
        return 2
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    every = specs()
    ours = [spec for spec in every if spec.needs in asked.needs.split(",")]
    chosen = [spec for spec in ours if re.search(asked.focus, spec.name)]
    kept = Kept(out / "states.json")
    whole = not asked.focus and set(RUN) <= set(asked.needs.split(","))
    if asked.resume:
        chosen = [s for s in chosen if s.name not in kept.states or not kept.states[s.name].passed]
    else:
        for spec in every if whole else chosen:
            kept.states.pop(spec.name, None)
    run(chosen, kept, out, procs=asked.procs, patience_s=asked.patience)
    judged = every if whole else ours if asked.resume else chosen
    return verdict({s.name: kept.states[s.name] for s in judged if s.name in kept.states}, every, whole=whole)


if __name__ == "__main__":
    sys.exit(main())
