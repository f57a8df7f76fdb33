"""Clusterling: many isolated Kubernetes APIs from one process.

    from clusterling import ApiServer, memory

    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("dev")
        await server.client("dev").get("/api/v1/namespaces")

These names are the embedder's vocabulary. Each is imported when it is first used: importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from clusterling.version import __version__

if TYPE_CHECKING:
    from clusterling import packs as packs
    from clusterling.machinery.errors import ApiError as ApiError
    from clusterling.registry.admission import Admission as Admission
    from clusterling.registry.pack import Pack as Pack
    from clusterling.registry.resource import Resource as Resource
    from clusterling.registry.strategy import Context as Context
    from clusterling.registry.strategy import Strategy as Strategy
    from clusterling.registry.strategy import User as User
    from clusterling.server import AllowAll as AllowAll
    from clusterling.server import ApiServer as ApiServer
    from clusterling.services.app import Decision as Decision
    from clusterling.services.client import Client as Client
    from clusterling.storage import memory as memory
    from clusterling.storage import sqlite as sqlite
    from clusterling.storage.store import Store as Store

_HOMES: Final = {
    "Admission": "clusterling.registry.admission",
    "AllowAll": "clusterling.server",
    "ApiError": "clusterling.machinery.errors",
    "ApiServer": "clusterling.server",
    "Client": "clusterling.services.client",
    "Context": "clusterling.registry.strategy",
    "Decision": "clusterling.services.app",
    "Pack": "clusterling.registry.pack",
    "Resource": "clusterling.registry.resource",
    "Store": "clusterling.storage.store",
    "Strategy": "clusterling.registry.strategy",
    "User": "clusterling.registry.strategy",
}
_MODULES: Final = {
    "memory": "clusterling.storage.memory",
    "packs": "clusterling.packs",
    "sqlite": "clusterling.storage.sqlite",
}

__all__ = [
    "Admission",
    "AllowAll",
    "ApiError",
    "ApiServer",
    "Client",
    "Context",
    "Decision",
    "Pack",
    "Resource",
    "Store",
    "Strategy",
    "User",
    "__version__",
    "memory",
    "packs",
    "sqlite",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
