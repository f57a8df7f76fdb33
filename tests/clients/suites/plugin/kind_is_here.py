"""A pytest plugin for other people's suites: where they ask for a cluster of their own, they get the one of KUBECONFIG.

It stands in for pytest-kind (which would start one in containers) and for the module of the official client's suite that is
not in its source distribution. It runs in the suites' environment, which has nothing of ours: pytest and the standard library.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class KindCluster:
    """What of pytest-kind's class suites use."""

    def __init__(self, name: str, *_: object, **__: object) -> None:
        self.name = name
        self.kubeconfig_path = Path(os.environ["SUITE_KUBECONFIG"])
        self.kubectl_path = Path(os.environ["SUITE_KUBECTL"])

    def create(self, config_file: object = None) -> None:
        """It is there already."""

    def delete(self) -> None:
        """Whoever made it ends it."""

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """The output of a kubectl call. Raises CalledProcessError when it fails."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig_path)}
        command = [str(self.kubectl_path), *arguments]
        return str(subprocess.check_output(command, env=env, encoding="utf-8", **options))


def pytest_addoption(parser: Any) -> None:
    parser.getgroup("kind").addoption("--keep-cluster", action="store_true", help="of no effect")


def _module(name: str, **has: object) -> None:
    module = ModuleType(name)
    vars(module).update(has)
    sys.modules[name] = module


def _official(flavour: str) -> Any:
    """`get_e2e_configuration` of the official client, synchronous or not."""

    def get_e2e_configuration() -> Any:
        configuration = importlib.import_module(f"{flavour}.client").Configuration()
        load = importlib.import_module(f"{flavour}.config").load_kube_config
        loading = load(client_configuration=configuration)
        if loading is not None:
            importlib.import_module("asyncio").run(loading)
        return configuration

    return get_e2e_configuration


_module("pytest_kind")
_module("pytest_kind.cluster", KindCluster=KindCluster)


def pytest_configure() -> None:
    for flavour in ("kubernetes", "kubernetes.aio"):
        name = f"{flavour}.e2e_test"
        if not Path(*name.split(".")).is_dir():
            _module(f"{name}.base", get_e2e_configuration=_official(flavour))
            _module(name, base=sys.modules[f"{name}.base"])
