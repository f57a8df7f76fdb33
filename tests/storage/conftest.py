"""Servers for the stores that need one, once for the whole run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.storage import postgres_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A PostgreSQL of the newest version there is."""
    try:
        with postgres_server.running() as server:
            yield server
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture
def postgres_url(postgres: postgres_server.PostgresServer) -> str:
    """A store of the test's own, not made yet."""
    return new_url(postgres)


def new_url(server: postgres_server.PostgresServer) -> str:
    return f"{server.url}&schema=s{next(_numbers)}"
