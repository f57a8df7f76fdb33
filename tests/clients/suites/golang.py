"""controller-runtime's own tests: the packages that want a control plane, each against a fresh cluster that is there already.

They are compiled from a copy of the module, whose own go.sum pins all that they need; the copy is of the version that
`controller-runtime.mod` beside our go.mod names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from tests.clients.suites.outcomes import Missing, Outcome, of_go, of_junit
from tests.e2e.clusters import Cluster

OURS: Final = Path(__file__).parents[1]
MODULE: Final = "sigs.k8s.io/controller-runtime"
BUILD_S: Final = 1800
PACKAGE_S: Final = 600
TRIES: Final = 3  # Some tests give themselves a millisecond, and one of those ends the program.

# Counts the client's connections a second after its end. Over HTTP/1.1 it finds one more now and then, with kube-apiserver too
# (DISABLE_HTTP2=1), since requests under way have one each.
BY_CHANCE: Final = ("should not leak goroutines when manager is stopped .* with leader election enabled",)


@dataclass(frozen=True)
class Package:
    """The tests of one package of controller-runtime. `of` is its path below pkg/."""

    pods_run: ClassVar[bool] = (
        False  # envtest's control plane has no kubelet, and the tests are written for that.
    )

    of: str

    @property
    def name(self) -> str:
        return f"controller-runtime-{self.of.replace('/', '-')}"

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        tree = _tree(cache)
        program = _compiled(tree, self.of)
        for _ in range(TRIES):
            outcomes = self._run(program, tree, cluster, out)
            if not any(one.state.startswith("error: it did not end") for one in outcomes):
                break
        return outcomes

    def _run(self, program: Path, tree: Path, cluster: Cluster, out: Path) -> list[Outcome]:
        reports = out / "reports"
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        command = [str(program), "-test.v", f"-test.timeout={PACKAGE_S}s"]
        if _with_ginkgo(tree, self.of):
            command += [
                *("--ginkgo.no-color", f"--ginkgo.timeout={PACKAGE_S}s"),
                *(f"--ginkgo.flake-attempts={TRIES}", f"--ginkgo.skip={'|'.join(BY_CHANCE)}"),
                f"--ginkgo.junit-report={reports / 'ginkgo.xml'}",
            ]
        env = cluster.env | {"USE_EXISTING_CLUSTER": "true"}
        with (out / "log.txt").open("wb") as log:
            subprocess.run(
                command,
                cwd=tree / "pkg" / self.of,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=PACKAGE_S + 60,
                check=False,
            )
        # Ginkgo reports what surrounds its tests, too: no test of anything, unless it failed.
        specs = [one for one in of_junit(reports) if one.failed or "[It]" in one.name]
        return [*specs, *of_go((out / "log.txt").read_text(errors="replace"))]


def _tree(cache: Path) -> Path:
    """The module's files where they may be written beside: the copy that Go keeps may not."""
    command = (*_go(), "mod", "download", "-json", "-modfile=controller-runtime.mod", MODULE)
    done = subprocess.run(command, cwd=OURS, env=_env(), check=True, capture_output=True)
    module = json.loads(done.stdout)
    tree = cache / f"controller-runtime-{module['Version']}"
    if not tree.is_dir():
        fresh = tree.with_suffix(".part")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(module["Dir"], fresh)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        fresh.rename(tree)
    return tree


def _compiled(tree: Path, package: str) -> Path:
    program = tree / "compiled" / f"{package.replace('/', '-')}.test"
    if not program.exists():
        # Two at a time: the linker of such a test wants a gigabyte.
        command = (*_go(), "test", "-c", "-p=2", "-ldflags=-s -w", "-o", str(program), f"./pkg/{package}")
        subprocess.run(command, cwd=tree, env=_env(), check=True, timeout=BUILD_S)
    return program


def _with_ginkgo(tree: Path, package: str) -> bool:
    """Whether the program knows ginkgo's flags: it does when one of its test files imports it."""
    tests = (tree / "pkg" / package).glob("*_test.go")
    return any(re.search(r'"github\.com/onsi/ginkgo/v2"', one.read_text()) for one in tests)


def _go() -> tuple[str, ...]:
    found = shutil.which("go")
    if found is None:
        raise Missing("there is no go")
    return (found,)


def _env() -> dict[str, str]:
    """Go's caches are those of whoever calls."""
    return {**os.environ, "GOFLAGS": "-trimpath -buildvcs=false", "GOWORK": "off"}


# Those that start an envtest control plane, and those which are about what a server says.
SUITES: Final = tuple(
    Package(one)
    for one in (
        "client",
        "client/apiutil",
        "cache",
        "manager",
        "manager/internal/integration",
        "cluster",
        "controller",
        "controller/controllerutil",
        "internal/controller",
        "internal/recorder",
        "builder",
        "source",
        "handler",
        "reconcile",
        "finalizer",
        "webhook",
        "metrics/filters",
        "envtest",
    )
)
