"""The store in etcd: what every store does, and what is particular to several replicas over one etcd."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from clusterling.storage import etcd
from clusterling.storage.store import Store
from clusterling.testing.store_contract import StoreContract
from tests.storage.etcd_server import Etcd, running

_roots = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def url(server: Etcd) -> str:
    """An empty store of its own."""
    return server.url(f"test-{next(_roots)}")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class TestEtcd(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack, url: str) -> Store:
        return await stack.enter_async_context(etcd.open(url))
