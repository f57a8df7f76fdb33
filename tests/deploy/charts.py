"""The chart, and helm over it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

from tests.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "clusterling"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
TOOLS = ROOT / ".cache" / "deploy" / "bin"
CALL_S = 120

Manifest = dict[str, Any]


def tool(name: str) -> Path:
    """A program that `make deploy-tools` builds."""
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{name} is not built: `make deploy-tools` builds it where Go is installed")
    return path


def call(
    *command: str | Path, stdin: str | None = None, code: int | None = 0, env: dict[str, str] | None = None
) -> str:
    """stdout of a command, and stderr after it; `code` is what it must end with (None: anything)."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CALL_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    said = f"{done.stdout}{done.stderr}"
    assert code is None or done.returncode == code, f"{command}\nexit {done.returncode}, not {code}\n{said}"
    return said


@dataclass(frozen=True, slots=True)
class Helm:
    """helm with a home of its own; `template` and `lint` ask no cluster."""

    binary: Path
    home: Path

    def __call__(
        self, *arguments: str | Path, code: int | None = 0, env: dict[str, str] | None = None
    ) -> str:
        return call(self.binary, *arguments, code=code, env={"HOME": str(self.home), **(env or {})})

    def template(self, *arguments: str | Path, chart: Path = CHART, release: str = "r") -> str:
        return self(
            "template", release, chart, "--namespace", "there", "--kube-version", "1.37.2", *arguments
        )

    def manifests(self, *arguments: str | Path, chart: Path = CHART) -> list[Manifest]:
        """What is rendered, without the pods of `helm test`."""
        return list(parsed(self.template("--skip-tests", *arguments, chart=chart)))


class Rendered:
    """What each scenario renders, with the pod of `helm test`; rendered once."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm
        self._texts: dict[Path, str] = {}

    def text(self, values: Path) -> str:
        if values not in self._texts:
            self._texts[values] = self._helm.template("-f", values)
        return self._texts[values]

    def manifests(self, values: Path) -> list[Manifest]:
        return list(parsed(self.text(values)))


def parsed(text: str) -> Iterator[Manifest]:
    for document in yaml.load_all(text, Loader=_Strict):
        if document is not None:
            yield document


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML's loader would take the last, and a template's slip would not show."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        assert len(names) == len(set(names)), f"a key is there twice: {names} at {node.start_mark}"
        return super().construct_mapping(node, deep)


def only(manifests: list[Manifest], kind: str) -> Manifest:
    found = [one for one in manifests if one["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}: {[one['metadata']['name'] for one in found]}"
    return found[0]


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each pod's spec there is, with what it is of."""
    for one in manifests:
        what = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield what, one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            yield what, one["spec"]["template"]["spec"]
        elif one["kind"] == "CronJob":
            yield what, one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def flag(key: str, value: Any) -> list[str]:
    """The arguments that set one value of any type."""
    return ["--set-json", f"{key}={json.dumps(value)}"]
