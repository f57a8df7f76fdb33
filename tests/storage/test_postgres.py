"""PostgreSQL under the contract, and what several replicas over one database see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from clusterling.storage import postgres
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store
from clusterling.testing.store_contract import StoreContract


class TestPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with postgres.open(postgres_url) as store:
            yield store


class TestCacheOverPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with postgres.open(postgres_url) as base, CachedStore(Keyspace(base, "mmmm")) as store:
            yield store
