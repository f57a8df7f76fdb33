"""A store that replicas can share, by its URL: PostgreSQL or etcd, whichever the tests of it can start here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.storage import etcd_server, postgres_server

KINDS: Final = ("postgres", "etcd")

_numbers = itertools.count()


@dataclass(frozen=True)
class SharedStore:
    """`endpoint` is where the server listens; `url` of a store in it, reached there or through another endpoint."""

    kind: str
    endpoint: str
    name: str

    def url(self, endpoint: str = "") -> str:
        endpoint = endpoint or self.endpoint
        if self.kind == "etcd":
            return f"etcd://{endpoint}/{self.name}"
        return f"postgres://{postgres_server.USER}@{endpoint}/postgres?sslmode=disable&schema={self.name}"


@contextmanager
def shared_store(kind: str, directory: Path) -> Iterator[SharedStore]:
    """An empty store. Skips the test where its server cannot be had."""
    name = f"r{next(_numbers)}"
    try:
        if kind == "etcd":
            pytest.importorskip("etcd3aio")
            with etcd_server.running(directory / "etcd") as etcd:
                yield SharedStore(kind, etcd.members[0].endpoint, name)
        else:
            with postgres_server.running() as database:
                yield SharedStore(kind, f"127.0.0.1:{database.port}", name)
    except (postgres_server.NoPostgres, etcd_server.NoEtcd) as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    with shared_store(request.param, tmp_path) as store:
        yield store
