"""The suites that Python's client libraries come with: those in their source distributions, and those only in their
repositories, where a checkout is at hand.

The versions, and the hashes of what is downloaded, are those of `requirements/client-suites.txt`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from tests.clients.suites.outcomes import Missing, Outcome, of_junit
from tests.e2e.clusters import Cluster

LOCK: Final = Path(__file__).parents[3] / "requirements" / "client-suites.txt"
PLUGIN: Final = Path(__file__).parent / "plugin"
NO_SETTINGS: Final = PLUGIN / "pytest.ini"
SUITE_S: Final = 3600
TEST_S: Final = 30  # What takes longer waits for something that does not come.


@dataclass(frozen=True)
class PythonSuite:
    """Tests of a library. `project` of the package index has them, or only the `repository` has: the directories `tests`."""

    pods_run: ClassVar[bool] = True
    name: str
    tests: tuple[str, ...]
    project: str = ""
    repository: str = ""
    settings: str = ""  # Where the project keeps pytest's, if it does.

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        """Raises Missing where there is nothing to run."""
        where = self._tree(cache, out)
        python = environment(cache)
        reports = out / "reports"
        settings = where / self.settings if self.settings else NO_SETTINGS
        options = (
            *("-p", "kind_is_here", "-p", "no:cacheprovider", "-c", str(settings), f"--rootdir={where}"),
            *(
                "-o",
                "addopts=",
                f"--timeout={TEST_S}",
                "-o",
                "timeout_func_only=true",
                # Some of the libraries' tests lose races with themselves on a busy machine.
                *("--reruns=1", "--only-rerun=Timeout"),
                "--tb=short",
            ),
        )
        with (out / "log.txt").open("wb") as log:
            subprocess.run(
                [python, "-m", "pytest", *options, f"--junitxml={reports / 'pytest.xml'}", *self.tests],
                cwd=where,
                env=self._env(cluster),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=SUITE_S,
                check=False,
            )
        return list(of_junit(reports))

    def _env(self, cluster: Cluster) -> Mapping[str, str]:
        return cluster.env | {
            "PYTHONPATH": str(PLUGIN),
            "SUITE_KUBECONFIG": str(cluster.kubeconfig),
            "SUITE_KUBECTL": str(cluster.kubectl_binary),
        }

    def _tree(self, cache: Path, out: Path) -> Path:
        """Where the tests are: in what the project published, where it did, with what only its repository has."""
        if not self.repository:
            return self._unpacked(cache)
        checkout = cache / "checkouts" / self.repository
        if not all((checkout / one).is_dir() for one in self.tests):
            raise Missing(f"its tests are only in {self.repository}, and there is no checkout in {checkout}")
        tree = out / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        if self.project:
            shutil.copytree(self._unpacked(cache), tree)
        for one in self.tests:
            shutil.copytree(checkout / one, tree / one)
        return tree

    def _unpacked(self, cache: Path) -> Path:
        """The source distribution, downloaded once for a version."""
        pin = _pin(self.project)
        version = pin.split("==")[1].split()[0]
        path = cache / f"{self.project}-{version}"
        if not path.is_dir():
            fresh = cache / f"{self.project}.part"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            (fresh / "pin.txt").write_text(pin)
            subprocess.run(
                [
                    *(
                        sys.executable,
                        "-m",
                        "pip",
                        "download",
                        "-q",
                        "--disable-pip-version-check",
                        "--no-deps",
                    ),
                    *(
                        "--no-binary",
                        self.project,
                        "--require-hashes",
                        "-d",
                        str(fresh),
                        "-r",
                        str(fresh / "pin.txt"),
                    ),
                ],
                check=True,
            )
            shutil.unpack_archive(next(fresh.glob("*.tar.gz")), fresh)
            next(one for one in fresh.iterdir() if one.is_dir()).rename(path)
            shutil.rmtree(fresh)
        return path


SUITES: Final = (
    PythonSuite("kr8s", ("kr8s/tests",), project="kr8s", settings="pyproject.toml"),
    PythonSuite(
        "official",
        (
            "kubernetes/dynamic/test_client.py",
            "kubernetes/dynamic/test_discovery.py",
            "kubernetes/aio/dynamic/client_test.py",
            "kubernetes/aio/dynamic/discovery_test.py",
        ),
        project="kubernetes",
    ),
    PythonSuite(
        "official-e2e",
        ("kubernetes/e2e_test", "kubernetes/aio/e2e_test"),
        project="kubernetes",
        repository="kubernetes-client/python",
    ),
    PythonSuite("lightkube", ("e2e-tests",), repository="gtsystem/lightkube"),
)


def environment(cache: Path) -> Path:
    """An interpreter with what the suites import, made anew when the lock has changed."""
    path, done, lock = cache / "venv", cache / "venv" / "lock.txt", LOCK.read_text()
    if not done.exists() or done.read_text() != lock:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        pip = (str(path / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
        done.write_text(lock)
    return path / "bin" / "python"


def _pin(project: str) -> str:
    """The lines of the lock that name a project's version and hashes."""
    found = re.search(rf"^{re.escape(project)}==.*?(?=^\S|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{project} is not in {LOCK}"
    return found[0]


def versions() -> Iterator[tuple[str, str]]:
    """Project and version of what is locked."""
    for project in ("kr8s", "kubernetes", "lightkube"):
        yield project, _pin(project).split("==")[1].split()[0]
