"""Paths that name no resource: which document each means. Discovery, OpenAPI, version, and the list of paths.

Upstream: apiserver/pkg/server/routes; its router answers 405 to whatever does more than read, and HEAD is not reading
for all but OpenAPI. kube-aggregator/pkg/apiserver/handler_apis.go does not look at the method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from clusterling.machinery.errors import ApiError
from clusterling.machinery.steps import Steps
from clusterling.registry.catalog import Catalog
from clusterling.services import discovery
from clusterling.services.conditional import Conditions
from clusterling.services.negotiation import wants_pretty
from clusterling.services.request import Request, Response
from clusterling.services.requestinfo import first

# Does all of these steps, while others have their turns.
Prepare = Callable[[Steps[None]], Awaitable[None]]

OTHER_PATHS = ("/healthz", "/livez", "/readyz")


async def respond(request: Request, catalog: Catalog | None, prepare: Prepare) -> Response | None:
    """The document that the path means; None where it means none.

    `catalog` None: only what is told of every name alike, which is the version. `prepare` does what takes long, in turns.
    """
    info = request.info
    path = info.path
    headers = request.headers
    if path in {"/version", "/version/"}:
        _only_get(request)
        return discovery.version(headers.get("Accept"))
    if catalog is None:
        return None
    if path in {"/", "/index.html"}:
        return discovery.root(catalog, OTHER_PATHS)
    head, _, _ = path[1:].partition("/")
    if head in {"api", "apis"}:
        if not _is_groups(path) and discovery.has(catalog, path):
            _only_get(request)
        return discovery.respond(
            catalog,
            path,
            accept_header=headers.get("Accept"),
            if_none_match=headers.get("If-None-Match"),
            server_address=headers.get("Host") or "",
            pretty=wants_pretty(request.query, headers.get("User-Agent")),
        )
    if head == "openapi":
        from clusterling.services import openapi
        from clusterling.services.openapi.schemas import builtin_definitions

        # A tenant's kinds may be megabytes.
        await prepare(openapi.preparing(catalog, path))
        return openapi.respond(
            catalog,
            path,
            definitions=builtin_definitions(),
            now=datetime.now(UTC),
            asked_hash=first(info.query, "hash"),
            accept_header=headers.get("Accept"),
            conditions=Conditions(headers, request.method),
        )
    return None


def _is_groups(path: str) -> bool:
    """The list of groups, or one of them: upstream's aggregator answers those whatever the method."""
    return path.startswith("/apis") and path.strip("/").count("/") < 2


def _only_get(request: Request) -> None:
    if request.method != "GET":
        raise ApiError(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
        )
