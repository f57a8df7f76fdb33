"""From a URL to a store: the scheme names the backend, whose driver is imported only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Final
from urllib.parse import unquote, urlsplit

from clusterling.storage.store import Store, StoreOpenError

# For each scheme: its module, the driver that this imports when it opens, and the extra that brings it.
_POSTGRES: Final = ("clusterling.storage.postgres", "asyncpg", "postgres")
_ETCD: Final = ("clusterling.storage.etcd", "grpc", "etcd")
BACKENDS: Final = {"postgres": _POSTGRES, "postgresql": _POSTGRES, "etcd": _ETCD, "etcds": _ETCD}


@asynccontextmanager
async def open_store(url: str, *, password: str | None = None) -> AsyncIterator[Store]:
    """The store that `url` names, open while the context lasts. Raises StoreOpenError.

    - `sqlite:///absolute/path/state.db`: one file, one process.
    - `postgres://USER@HOST:PORT/DATABASE?schema=clusterling&sslmode=verify-full`: any number of replicas.
    - `etcd://HOST:PORT,HOST:PORT/prefix`: any number of replicas; `etcds://` over TLS.

    `password` goes before one in the URL, where it would be seen by whoever lists processes.
    """
    try:
        scheme, path = urlsplit(url).scheme, urlsplit(url).path
    except ValueError as error:
        raise StoreOpenError(f"the store's URL cannot be read: {error}") from error
    if scheme == "sqlite":
        from clusterling.storage import sqlite

        if urlsplit(url).netloc or path in ("", "/"):
            raise StoreOpenError(
                f"{url} names no file: write sqlite:///PATH, three slashes and an absolute path"
            )
        async with sqlite.open(unquote(path)) as store:
            yield store
        return
    if scheme not in BACKENDS:
        raise StoreOpenError(
            f"no store is known by the scheme {scheme!r}: there are sqlite, {', '.join(sorted(BACKENDS))}"
        )
    module, driver, extra = BACKENDS[scheme]
    try:
        import_module(driver)
        backend = import_module(module)
    except ImportError as error:
        raise StoreOpenError(
            f"{scheme}:// needs the package {error.name}: pip install 'clusterling[{extra}]'"
        ) from error
    async with backend.open(url, password=password) as store:
        yield store
