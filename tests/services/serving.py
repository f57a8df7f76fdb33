"""An App over two logical clusters in a memory store, with three built-in kinds and one custom: enough for every path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from typing import Any

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.schema import compile_schema
from clusterling.packs import builtin
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.crd import CustomResourceStrategy
from clusterling.registry.objects import ObjectStore
from clusterling.registry.ports import Ports
from clusterling.registry.resource import Names, Resource, Scale, Subresource, SubresourceCall, Version
from clusterling.registry.strategy import Context, User
from clusterling.services import documents
from clusterling.services.app import App, Cluster, Decision
from clusterling.services.client import Client
from clusterling.services.request import Headers, Request, Response
from clusterling.services.requestinfo import RequestInfo
from clusterling.storage import memory
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store
from clusterling.tenancy.limits import Limits

ADMIN = User("admin", ("system:masters",), realm="root")
TEAM_A = User("ann", ("system:masters",), realm="id-team-a")

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"

_SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "colour": {"type": "string"}},
        },
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class NoTokens:
    async def issue(self, cluster_id: str, user: str, groups: tuple[str, ...], **_more: object) -> str:
        raise AssertionError("these tests issue no tokens")


class NoKubeconfigs:
    def kubeconfig(self, cluster: str, token: str) -> Object:
        raise AssertionError("these tests make no kubeconfigs")

    def url(self, cluster: str) -> str:
        return ""


async def _double(ctx: Context, call: SubresourceCall) -> Object:
    """A subresource that computes: twice what it is sent, and whose object it is."""
    count = (call.body or {}).get("spec", {}).get("count", 0)
    owner = call.parent["metadata"]["name"] if call.parent else ""
    return {
        "apiVersion": "example.com/v1",
        "kind": "Double",
        "count": 2 * count,
        "owner": owner,
        "by": ctx.user.name,
    }


def widgets(**changes: Any) -> Resource:
    version = Version(
        "v1",
        compile_schema(_SCHEMA),
        status=True,
        scale=Scale("spec.replicas", "status.replicas", "status.selector"),
    )
    double = Subresource("double", "example.com", "v1", "Double", ("create", "get"), _double)
    resource = Resource(
        group="example.com",
        names=Names("widgets", "widget", "Widget", "WidgetList"),
        namespaced=True,
        versions=(version, replace(version, name="v2", deprecation_warning="widgets v2 is deprecated")),
        storage_version="v1",
        strategy=CustomResourceStrategy(),
        subresources=MappingProxyType({"double": double}),
        builtin=False,
    )
    return replace(resource, **changes)


def clusters_kind() -> Resource:
    """A custom kind whose plural is `clusters`, as another project's is."""
    return Resource(
        group="example.com",
        names=Names("clusters", "cluster", "Cluster", "ClusterList"),
        namespaced=False,
        versions=(Version("v1", compile_schema({"type": "object"})),),
        storage_version="v1",
        strategy=CustomResourceStrategy(),
        builtin=False,
    )


@dataclass
class ServedCluster:
    """A logical cluster as dispatch wants it."""

    name: str
    id: str
    catalog: Catalog
    objects: ObjectStore
    ports: Ports
    access: str = ""
    warning: Callable[[], str] | None = None

    async def ready(self) -> None:
        """It is from the start."""

    def context(self, user: User, *, dry_run: bool = False, subresource: str = "") -> Context:
        return Context(
            user, self.name, self.id, self.objects, self.catalog, self.ports, dry_run, [], subresource
        )


class Tokens:
    """Bearer tokens by cluster: `root` tokens are good everywhere, others in their own cluster."""

    def __init__(self) -> None:
        self.users = {("", "admin-token"): ADMIN, ("team-a", "ann-token"): TEAM_A}

    async def authenticate(self, request: Request) -> User | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return None
        return self.users.get((request.info.cluster, token)) or self.users.get(("", token))


class ByRealm:
    """Root's realm may do everything, another realm everything in its cluster but what `denied` names."""

    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()

    async def authorize(self, user: User, cluster: Cluster | None, info: RequestInfo) -> Decision:
        known = cluster is not None and user.realm in {"root", cluster.id}
        return Decision(known and (info.verb, info.resource or info.path) not in self.denied)


@dataclass
class Serving:
    app: App
    store: Store
    authorizer: ByRealm
    limits: Limits
    clusters: dict[str, ServedCluster] = field(default_factory=dict)

    async def find(self, name: str) -> ServedCluster | None:
        return self.clusters.get(name)

    def client(self, cluster: str = "team-a", user: User = ADMIN) -> Client:
        return Client(self.app, cluster, user)

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        """One request by its raw target, as a socket would bring it."""
        path, _, query = target.partition("?")

        async def read(limit: int) -> list[bytes]:
            return [body]

        fields = {"Authorization": "Bearer admin-token"} if headers is None else headers
        return await self.app(Request(method, path, query, Headers(fields), read))

    async def send(
        self,
        method: str,
        target: str,
        body: object,
        content_type: str = "application/apply-patch+yaml",
        agent: str = "test/1.0",
    ) -> tuple[int, Object]:
        """What the administrator sends to team-a with a body, and what the answer is: its code and document."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": "Bearer admin-token", "Content-Type": content_type, "User-Agent": agent}
        response = await self.ask(method, f"/clusters/team-a{target}", data, headers)
        return response.status, orjson.loads(response.body)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Serving]:
    """`options` go to App."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(memory.open())
        authorizer, limits = ByRealm(), options.pop("limits", None) or Limits()
        found: dict[str, ServedCluster] = {}

        class Clusters:
            async def find(self, name: str) -> ServedCluster | None:
                return found.get(name)

        app = App(
            clusters=Clusters(),
            authenticator=Tokens(),
            authorizer=authorizer,
            documents=documents.respond,
            limits=limits,
            **options,
        )
        catalog = Catalog(
            [
                builtin.resource("", "v1", "configmaps"),
                builtin.resource("", "v1", "secrets"),
                builtin.resource("", "v1", "nodes"),
                widgets(),
                clusters_kind(),
            ]
        )
        for name in ("team-a", "team-b"):
            records = Keyspace(store, f"id-{name}")
            cache = await stack.enter_async_context(CachedStore(records, finish=views.finish))
            objects = ObjectStore(cache, records, Admission(), SystemClock())
            ports = Ports(SystemClock(), NoTokens(), NoKubeconfigs())
            found[name] = ServedCluster(name, f"id-{name}", catalog, objects, ports)
        yield Serving(app, store, authorizer, limits, found)


def status_of(response: Response) -> Object:
    document: Object = orjson.loads(response.body)
    assert document["kind"] == "Status", document
    return document


def configmap(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def widget(name: str, **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
