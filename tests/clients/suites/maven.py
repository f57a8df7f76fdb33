"""fabric8's client for Java: a program of ours, pinned by its pom.xml."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from tests.clients.suites.outcomes import Missing, Outcome, of_junit
from tests.e2e.clusters import Cluster

OURS: Final = Path(__file__).parents[1] / "java"
RUN_S: Final = 900


@dataclass(frozen=True)
class Program:
    """Tests with JUnit."""

    pods_run: ClassVar[bool] = True
    name: str = "fabric8"

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        maven = shutil.which("mvn")
        if maven is None or shutil.which("javac") is None:
            raise Missing("there is no mvn, or no JDK")
        built, reports = cache / "java", out / "reports"
        shutil.rmtree(reports, ignore_errors=True)
        command = [
            *(maven, "-B", "-q", "test", f"-Doutput={built}", "-Dmaven.test.failure.ignore=true"),
            *("-f", str(OURS / "pom.xml"), f"-Dreports={reports}"),
        ]
        # Maven looks for its own things at home.
        env = cluster.env | {"HOME": str(Path.home())}
        with (out / "log.txt").open("wb") as log:
            subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, timeout=RUN_S, check=False)
        return list(of_junit(reports))


SUITES: Final = (Program(),)
