"""From a URL to a store: the scheme names the backend, whose driver is imported only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from clusterling.storage.store import Store, StoreOpenError


class Kind(NamedTuple):
    """A kind of store that is reached by a driver: the modules that have its backend and its whole-store tools, the
    driver that they import, and the extra that brings it."""

    backend: str
    bulk: str
    driver: str
    extra: str


_POSTGRES: Final = Kind(
    "clusterling.storage.postgres", "clusterling.storage.postgres_bulk", "asyncpg", "postgres"
)
_ETCD: Final = Kind("clusterling.storage.etcd", "clusterling.storage.etcd.bulk", "hpack", "etcd")
KINDS: Final = {"postgres": _POSTGRES, "postgresql": _POSTGRES, "etcd": _ETCD, "etcds": _ETCD}


def load(scheme: str, part: Literal["backend", "bulk"]) -> ModuleType:
    """That module of the kind of store a URL's scheme names. Raises StoreOpenError."""
    kind = KINDS.get(scheme)
    if kind is None:
        raise StoreOpenError(
            f"no store is known by the scheme {scheme!r}: there are sqlite, {', '.join(sorted(KINDS))}"
        )
    try:
        import_module(kind.driver)
        return import_module(getattr(kind, part))
    except ImportError as error:
        raise StoreOpenError(
            f"{scheme}:// needs the package {error.name}: pip install 'clusterling[{kind.extra}]'"
        ) from error


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
    backend = load(scheme, "backend")
    async with backend.open(url, password=password) as store:
        yield store
