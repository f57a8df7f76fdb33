"""`make conformance`: Kubernetes' own e2e suite against a cluster with all packs, on its embedded store.

    python -m tests.conformance.suite [--procs N] [--classes API,CTL] [--focus REGEXP] [--out DIRECTORY]

`specs.tsv` names the specs: those of e2e.test 1.37.2 that pass on a kube-apiserver with no kubelet and no scheduler. `API`
needs no controller, `CTL` those that a cluster has by itself, `KCM` workload controllers, which kube-controller-manager
would bring; `APPLY` repeats a server-side apply until it works, and without one ends only with the suite. What fails has
its reason, or the issue it waits for, in `reasons/conformance.yaml`. The suite and its runner are found where the peers
are (`PEERS`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from benchmarks.peers import PEERS
from tests.conformance import beside
from tests.conformance.differing import Difference, judge, load, report
from tests.e2e.clusters import Cluster

SPECS: Final = Path(__file__).with_name("specs.tsv")
GINKGO: Final = PEERS / "bin" / "ginkgo"
SUITE: Final = PEERS / "bin" / "e2e.test"
KUBECTL: Final = PEERS / "bin" / "kubectl"

ACCOUNTS_S: Final = 0.2  # Between looks at the namespaces.

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


def specs(classes: Sequence[str]) -> list[str]:
    """The names of the specs of these classes."""
    rows = (line.split("\t") for line in SPECS.read_text().splitlines())
    return [name for kind, name in rows if kind in classes]


@contextmanager
def accounts(cluster: Cluster) -> Iterator[None]:
    """Gives each new namespace its service account and the CA's certificate: what a controller of accounts does, until
    clusters have one."""
    over = Event()

    def keep() -> None:
        known: set[str] = set()
        while not over.wait(ACCOUNTS_S):
            _, body = cluster.http("GET", "/api/v1/namespaces")
            for name in {one["metadata"]["name"] for one in json.loads(body)["items"]} - known:
                known.add(name)
                account = {"metadata": {"name": "default"}}
                certificate = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "none"}}
                for plural, made in (("serviceaccounts", account), ("configmaps", certificate)):
                    cluster.http("POST", f"/api/v1/namespaces/{name}/{plural}", json.dumps(made).encode())

    thread = Thread(target=keep, name="accounts")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(cluster: Cluster, names: Sequence[str], out: Path, *, procs: int, within_s: int) -> dict[str, str]:
    """State by spec: `passed`, or why it failed, in the suite's words."""
    cluster.http("POST", "/api/v1/nodes", json.dumps(NODE).encode())
    # Made with the taint of a node that has not said it is ready.
    cluster.kubectl("patch", "node", "node-1", "--type=merge", "-p", '{"spec":{"taints":null}}', code=None)
    focus = [f"--focus={re.escape(name)}$" for name in names]
    command = [
        *(str(GINKGO), "run", *focus, f"--procs={procs}", f"--timeout={within_s}s", "--no-color"),
        *(
            "--json-report=report.json",
            f"--output-dir={out}",
            "--silence-skips",
            "--succinct",
            "--poll-progress-after=60s",
            str(SUITE),
            "--",
        ),
        *(f"--kubeconfig={cluster.kubeconfig}", "--provider=skeleton", f"--kubectl-path={KUBECTL}"),
        *("--kube-api-content-type=application/json", "--allowed-not-ready-nodes=-1", "--minStartupPods=0"),
        *("--num-nodes=1", "--dump-logs-on-failure=false", "--disable-log-dump=true"),
        *("--system-daemonsets-startup-timeout=1s", "--node-schedulable-timeout=30s"),
        "--system-pods-startup-timeout=30s",
    ]
    with (out / "log.txt").open("wb") as log, accounts(cluster):
        subprocess.run(command, cwd=out, stdout=log, stderr=subprocess.STDOUT, env=cluster.env, check=False)
    path = out / "report.json"
    if not path.exists():
        raise RuntimeError(f"the suite left no report:\n{(out / 'log.txt').read_text()[-3000:]}")
    return dict(_states(json.loads(path.read_text())))


def _states(reports: Any) -> Iterator[tuple[str, str]]:
    for suite in reports:
        for spec in suite.get("SpecReports") or ():
            if spec["LeafNodeType"] != "It" or (spec["State"] == "skipped" and not spec.get("RunTime")):
                continue
            name = " ".join([*(spec.get("ContainerHierarchyTexts") or ()), spec["LeafNodeText"]])
            message = (spec.get("Failure") or {}).get("Message", "").strip()
            yield name, spec["State"] if spec["State"] == "passed" else f"{spec['State']}: {message}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--procs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--classes", default="API,CTL")
    parser.add_argument("--focus", default="", help="only specs that this pattern is found in")
    parser.add_argument("--timeout", type=int, default=3600, metavar="SECONDS")
    parser.add_argument("--out", type=Path, help="where the suite's log and report are left")
    asked = parser.parse_args()
    missing = [str(path) for path in (GINKGO, SUITE, KUBECTL) if not path.is_file()]
    if missing:
        print(f"make: the suite is not built: there is no {', '.join(missing)}", file=sys.stderr)
        return 2
    names = [name for name in specs(asked.classes.split(",")) if re.search(asked.focus, name)]
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory), KUBECTL) as cluster:
        out = (asked.out or Path(directory) / "out").resolve()
        out.mkdir(parents=True, exist_ok=True)
        states = run(cluster, names, out, procs=asked.procs, within_s=asked.timeout)
    failed = [
        Difference(name, "", "passed", states.get(name, "not run"))
        for name in names
        if states.get(name) != "passed"
    ]
    reasons = load("conformance")
    verdict = judge("conformance", len(names), failed, reasons)
    print("\n".join(report(verdict, len(names))))
    counts = Counter(states.get(name, "not run").partition(":")[0] for name in names)
    print(f"{counts['passed']} of {len(names)} specs passed; {dict(counts)}")
    # Where only some were asked for, reasons of the others have nothing to explain.
    whole = not asked.focus and {"API", "CTL"} <= set(asked.classes.split(","))
    return 0 if verdict.good or (not whole and not verdict.unexplained) else 1


if __name__ == "__main__":
    sys.exit(main())
