"""pytest plugin: a fresh logical cluster as a fixture.

    def test_my_operator(kube):
        kube.apply("crds/")
        subprocess.run(["my-operator", "--once"], env={**os.environ, **kube.env}, check=True)
        assert kube.client.get("/apis/example.com/v1/namespaces/default/widgets/one")["status"]["phase"] == "Ready"

One server runs for the session, in memory, in a thread of its own: so synchronous and asynchronous tests use it alike.
It is started by the first test that asks; where none does, nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clusterling.testing.kube import Kube, KubeServer


@pytest.fixture(scope="session")
def kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """The server that all clusters of this session are on."""
    from clusterling.testing.kube import KubeServer

    with KubeServer(tmp_path_factory.mktemp("clusterling")) as server:
        yield server


@pytest.fixture
def kube(kube_server: KubeServer) -> Iterator[Kube]:
    """A fresh cluster with a random name, deleted after the test."""
    with kube_server.cluster() as fresh:
        yield fresh


@pytest.fixture
def kube_factory(kube_server: KubeServer) -> Iterator[Callable[[], Kube]]:
    """Makes as many fresh clusters as a test needs."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda: stack.enter_context(kube_server.cluster())
