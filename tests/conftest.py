"""What all tests have: the command-line clients that they drive, built by `make clients` or named by KUBECTL and HELM."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from clusterling.version import KUBERNETES

settings.register_profile("tests", deadline=None)  # A machine may stand still for a moment.
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent


def built(variable: str, pattern: str) -> Path:
    """A client that an environment variable names, or that `make clients` built. Skips the test where there is none."""
    if named := os.environ.get(variable):
        return Path(named)
    for found in sorted((ROOT / ".cache" / "clients").glob(pattern)):
        return found
    pytest.skip(f"{variable.lower()} is not built: `make clients` builds it where Go is installed")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Commands that run in the tests' process make files for their owner only and say what is logged: not for the next test."""
    log = logging.getLogger("clusterling")
    level, umask = log.level, os.umask(0o022)
    os.umask(umask)
    yield
    log.setLevel(level)
    os.umask(umask)


@pytest.fixture(scope="session")
def kubectl_binary() -> Path:
    """kubectl of the version that the server speaks."""
    return built("KUBECTL", f"kubectl-{KUBERNETES}/kubectl")


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    wanted = re.search(r"helm\.sh/helm/v4 v(\S+)", (ROOT / "tests/clients/go.mod").read_text())
    assert wanted, "tests/clients/go.mod pins helm"
    return built("HELM", f"helm-{wanted[1]}/helm")
