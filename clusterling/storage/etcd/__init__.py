"""etcd (3.5.13 and later, 3.6) as the store of any number of replicas.

`layout.py` says what lies where and how revisions are counted, `wire.py` how etcd is called (`asking.py`: one question,
in the shortest way), `writing.py` how batches become transactions, `following.py` how its watch becomes events, and
`backend.py` puts them together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.etcd.backend import EtcdBackend, connect
from clusterling.storage.etcd.wire import Address

__all__ = ["Address", "EtcdBackend", "connect", "open"]


@asynccontextmanager
async def open(url: str, *, password: str | None = None) -> AsyncIterator[BackedStore]:  # noqa: A001 - `etcd.open(url)` reads as it should
    """A complete store in the etcd at `url` (`Address` has its form), made there if there is none.

    Raises StoreOpenError.
    """
    async with serve(await connect(Address.parsed(url, password=password))) as store:
        yield store
