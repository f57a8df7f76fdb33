"""One server process for the whole run; a fresh logical cluster for each test that asks for one.

`E2E_PEER=1` hands out kube-apiservers instead, where `benchmarks.peers` finds them built: that is how the
expectations themselves are held against the real thing (tests that need its controllers or our command line fail there).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peers
from tests.e2e.clusters import Cluster, ServerProcess, serving

NewCluster = Callable[[str], Cluster]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@contextmanager
def _clusters(request: pytest.FixtureRequest, directory: Path) -> Iterator[NewCluster]:
    """What makes clusters, named by prefix; what they cost while they stand ends with the context."""
    with ExitStack() as stack:

        def real(prefix: str) -> Cluster:
            peer = stack.enter_context(peers.kube_apiserver(directory / f"{prefix}-{secrets.token_hex(3)}"))
            return Cluster(prefix, peer.kubeconfig(directory / f"{prefix}-{secrets.token_hex(3)}.yaml"))

        def logical(prefix: str) -> Cluster:
            server: ServerProcess = request.getfixturevalue("server")
            name = f"{prefix}-{secrets.token_hex(4)}"
            server.cli("create", name)
            path = directory / f"{name}.yaml"
            path.write_text(server.cli("kubeconfig", name))
            return Cluster(name, path)

        yield real if os.environ.get("E2E_PEER") else logical


@pytest.fixture(scope="module")
def new_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewCluster]:
    """Makes a cluster whose name starts as told. It has no kubectl: `new_kubectl_cluster` has."""
    with _clusters(request, tmp_path_factory.mktemp("clusters")) as make:
        yield make


@pytest.fixture(scope="module")
def new_kubectl_cluster(new_cluster: NewCluster, kubectl_binary: Path) -> NewCluster:
    return lambda prefix: replace(new_cluster(prefix), kubectl_binary=kubectl_binary)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A fresh cluster."""
    with _clusters(request, tmp_path) as make:
        yield make("fresh")


@pytest.fixture
def k(cluster: Cluster, kubectl_binary: Path) -> Cluster:
    """A fresh cluster with kubectl aimed at it."""
    return replace(cluster, kubectl_binary=kubectl_binary)
