"""Kube, a cluster for a test; and KubeServer, the server that many of them are on, in a thread of its own.

The server has its own event loop in its own thread, so a test may block, or run a loop of its own, and the server
answers meanwhile. It listens only once somebody asks for an address: the in-process clients need none.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import yaml
from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import GroupVersion, Object, name_of, namespace_of
from clusterling.server import ApiServer
from clusterling.storage import memory
from clusterling.tenancy import pki

if TYPE_CHECKING:
    from clusterling.services.client import Client, Parameter

_T = TypeVar("_T")

# What a test may wait for at most before something is broken rather than slow.
_PATIENCE_S: Final = 60.0

_MANIFESTS: Final = (".yaml", ".yml", ".json")
_MERGE_PATCH: Final = "application/merge-patch+json"


class KubeServer:
    """A server in memory, running while the context lasts."""

    def __init__(self, directory: Path) -> None:
        """Kubeconfigs are written to `directory`, which the caller removes."""
        self.directory = directory
        self._credentials = pki.ephemeral(datetime.now(UTC))
        self._started: Future[tuple[ApiServer, asyncio.AbstractEventLoop]] = Future()
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="clusterling-kube", daemon=True)
        self._listening = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        self.server, self._loop = self._started.result(_PATIENCE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            # Whoever waits for the start gets it; later there is nobody, and pytest shows a thread's exception.
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        self._stop = stop.set
        async with memory.open() as store:
            server = ApiServer(store, ca_pem=self._credentials.ca_pem)
            async with server.running():
                self._started.set_result((server, asyncio.get_running_loop()))
                await stop.wait()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine on the server's loop and waits for it, in whatever thread the caller is."""
        return self.submit(work).result(_PATIENCE_S)

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Runs a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        with self._listening:
            if not self.server.url:
                context = pki.server_context(self._credentials, self.directory)
                self.call(self.server.listen("127.0.0.1", 0, context))
            return self.server.url

    @property
    def ca_pem(self) -> bytes:
        return self._credentials.ca_pem

    @contextmanager
    def cluster(self, name: str = "") -> Iterator[Kube]:
        """A cluster for the time of the context; without a name, one that nobody had before."""
        name = name or f"test-{secrets.token_hex(5)}"
        self.call(self.server.clusters.create(name))
        try:
            yield Kube(self, name)
        finally:
            # The test may have deleted it itself.
            with suppress(ApiError):
                self.call(self.server.clusters.delete(name))


class Kube:
    """One logical cluster, and every way to reach it."""

    def __init__(self, server: KubeServer, name: str) -> None:
        self.server = server
        self.name = name
        self.client = SyncClient(server, name)
        self.async_client = AsyncClient(server, name)
        self._resources: dict[tuple[str, str], tuple[str, bool]] = {}

    @override
    def __repr__(self) -> str:
        return f"Kube({self.name!r})"

    @property
    def url(self) -> str:
        """The server URL of this cluster: what a kubeconfig's `server` says."""
        return f"{self.server.url}/clusters/{self.name}"

    @property
    def ca_pem(self) -> str:
        """The CA to trust, PEM."""
        return self.server.ca_pem.decode("ascii")

    @cached_property
    def kubeconfig_dict(self) -> Object:
        """A kubeconfig as a document. Its token is an administrator's of this cluster."""
        assert self.server.url, "a kubeconfig needs an address"
        return self.server.call(self.server.server.clusters.kubeconfig(self.name))

    @cached_property
    def kubeconfig(self) -> Path:
        """The kubeconfig in a file."""
        path = self.server.directory / f"{self.name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(self.kubeconfig_dict))
        return path

    @property
    def token(self) -> str:
        """The bearer token of the kubeconfig."""
        return str(self.kubeconfig_dict["users"][0]["user"]["token"])

    @property
    def env(self) -> Mapping[str, str]:
        """What a child process needs in its environment, besides what it has."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def apply(self, manifests: Path | str | Object | Sequence[Object]) -> list[Object]:
        """Creates objects, or merges them into what is there; returns them as stored.

        A Path is a file or a directory (its .yaml, .yml and .json files by name); a str is YAML or JSON, or, where it
        is one line that begins with no bracket, a path. A `v1 List` is its items. Raises ApiError, FileNotFoundError,
        LookupError for a kind that is not served, ValueError for what is no object.
        """
        return [self._apply_one(obj) for obj in _documents(manifests)]

    def _apply_one(self, obj: Object) -> Object:
        plural, namespaced = self._resource(obj["apiVersion"], obj["kind"])
        root = _root(obj["apiVersion"])
        place = f"/namespaces/{namespace_of(obj) or 'default'}" if namespaced else ""
        collection = f"{root}{place}/{plural}"
        try:
            return self.client.post(collection, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        return self.client.patch(f"{collection}/{name_of(obj)}", obj)

    def _resource(self, api_version: str, kind: str) -> tuple[str, bool]:
        """The plural of a kind and whether it is namespaced, as discovery tells."""
        known = self._resources.get((api_version, kind))
        if known is None:
            for one in self.client.get(_root(api_version))["resources"]:
                if "/" not in one["name"]:
                    self._resources[api_version, one["kind"]] = (one["name"], one["namespaced"])
            known = self._resources.get((api_version, kind))
        if known is None:
            raise LookupError(f"{self.name} serves no {kind} in {api_version}")
        return known


class SyncClient:
    """The in-process client for code that blocks: each call returns the answer's document, or raises ApiError.

    Paths are those below the cluster, as in `/api/v1/namespaces`; parameters are the query's.
    """

    def __init__(self, server: KubeServer, cluster: str) -> None:
        self._server = server
        self._client: Client = server.server.client(cluster)

    def get(self, path: str, **parameters: Parameter) -> Object:
        return self._server.call(self._client.get(path, **parameters))

    def post(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return self._server.call(self._client.post(path, body, **parameters))

    def put(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return self._server.call(self._client.put(path, body, **parameters))

    def patch(
        self, path: str, body: Any, *, content_type: str = _MERGE_PATCH, **parameters: Parameter
    ) -> Object:
        """A JSON merge patch, or what `content_type` names."""
        return self._server.call(self._client.patch(path, body, content_type=content_type, **parameters))

    def delete(self, path: str, body: Object | None = None, **parameters: Parameter) -> Object:
        """`body`: DeleteOptions."""
        return self._server.call(self._client.delete(path, body, **parameters))


class AsyncClient:
    """The same for code on an event loop, whichever it is."""

    def __init__(self, server: KubeServer, cluster: str) -> None:
        self._server = server
        self._client: Client = server.server.client(cluster)

    async def get(self, path: str, **parameters: Parameter) -> Object:
        return await self._elsewhere(self._client.get(path, **parameters))

    async def post(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return await self._elsewhere(self._client.post(path, body, **parameters))

    async def put(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return await self._elsewhere(self._client.put(path, body, **parameters))

    async def patch(
        self, path: str, body: Any, *, content_type: str = _MERGE_PATCH, **parameters: Parameter
    ) -> Object:
        """A JSON merge patch, or what `content_type` names."""
        return await self._elsewhere(self._client.patch(path, body, content_type=content_type, **parameters))

    async def delete(self, path: str, body: Object | None = None, **parameters: Parameter) -> Object:
        """`body`: DeleteOptions."""
        return await self._elsewhere(self._client.delete(path, body, **parameters))

    async def _elsewhere(self, work: Coroutine[Any, Any, Object]) -> Object:
        return await asyncio.wrap_future(self._server.submit(work))


def _root(api_version: str) -> str:
    group_version = GroupVersion.parse(api_version)
    return f"/apis/{group_version}" if group_version.group else f"/api/{group_version}"


def _documents(manifests: Path | str | Object | Sequence[Object]) -> Iterator[Object]:
    """The objects in whatever a test hands to `apply`."""
    if isinstance(manifests, dict):
        yield from _items(manifests)
    elif isinstance(manifests, Path):
        yield from _from_path(manifests)
    elif isinstance(manifests, str):
        # YAML of one line that is an object has to be in brackets.
        if "\n" in manifests.strip() or manifests.lstrip().startswith(("{", "[")):
            yield from _from_text(manifests)
        else:
            yield from _from_path(Path(manifests))
    else:
        for one in manifests:
            yield from _items(one)


def _from_path(path: Path) -> Iterator[Object]:
    files = sorted(one for one in path.iterdir() if one.suffix in _MANIFESTS) if path.is_dir() else [path]
    for file in files:
        yield from _from_text(file.read_text())


def _from_text(text: str) -> Iterator[Object]:
    for document in yaml.safe_load_all(text):
        for one in document if isinstance(document, list) else [document]:
            if isinstance(one, dict):
                yield from _items(one)
            elif one is not None:
                raise ValueError(f"this is no object: {str(one)[:80]!r}")


def _items(document: Object) -> Iterator[Object]:
    if document.get("kind") == "List" and "items" in document:
        yield from document["items"]
    else:
        yield document
