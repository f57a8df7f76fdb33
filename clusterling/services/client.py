"""Client: the API from the same process. The same filters, handlers and answers; no socket, no parser of HTTP.

It speaks for a User whom its owner names, so it needs no credential; it may do what that user may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from typing_extensions import override

from clusterling.machinery.errors import ApiError, too_large
from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.services.app import App
from clusterling.services.request import (
    JSON_TYPE,
    Headers,
    Request,
    Response,
    Sink,
    Stream,
    StreamingResponse,
)

MERGE_PATCH: Final = "application/merge-patch+json"

# Of a parameter: repeated where it is a sequence.
Parameter = str | int | bool | list[str]


class Client:
    """One user's view of one logical cluster. Paths are the cluster's own: `/api/v1/namespaces`.

    Every call returns the decoded document, or raises the ApiError that a client over the network would be told.
    """

    def __init__(self, app: App, cluster: str, user: User) -> None:
        self._app = app
        self._cluster = cluster
        self._user = user

    async def get(self, path: str, **parameters: Parameter) -> Object:
        return await self._document("GET", path, parameters)

    async def post(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return await self._document("POST", path, parameters, body)

    async def put(self, path: str, body: Object, **parameters: Parameter) -> Object:
        return await self._document("PUT", path, parameters, body)

    async def patch(
        self, path: str, body: Any, *, content_type: str = MERGE_PATCH, **parameters: Parameter
    ) -> Object:
        """`body` is a merge patch; another kind of patch is named by its `content_type`."""
        return await self._document("PATCH", path, parameters, body, content_type)

    async def delete(self, path: str, body: Object | None = None, **parameters: Parameter) -> Object:
        """`body`: DeleteOptions. Returns what kubectl would see: a Status, or the object while finalizers keep it."""
        return await self._document("DELETE", path, parameters, body)

    async def watch(self, path: str, **parameters: Parameter) -> AsyncIterator[Object]:
        """The events of a watch, `{"type": …, "object": …}`, until its end. An ERROR event is raised as its ApiError.

        Leaving the loop leaves the watch open until the generator is closed: prefer `watching`.
        """
        async with self.watching(path, **parameters) as events:
            async for event in events:
                yield event

    @asynccontextmanager
    async def watching(self, path: str, **parameters: Parameter) -> AsyncIterator[AsyncIterator[Object]]:
        """A watch that is in place once the context is entered, and ends with it."""
        response = await self.request("GET", path, {"watch": True, **parameters})
        if not isinstance(response, StreamingResponse):
            raise _error_of(response)
        events = _Events()
        task = asyncio.get_running_loop().create_task(events.follow(response.stream))
        try:
            yield events
        finally:
            response.stream.stop()
            try:
                await task
            finally:
                await response.close()

    async def request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Parameter] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request as it is, and its answer as it is: for what the other methods do not say."""
        path, _, query = path.partition("?")
        if parameters:
            query = "&".join(filter(None, (query, _query(parameters))))

        async def read(limit: int) -> Sequence[bytes]:
            if len(body) > limit:
                raise too_large(f"limit is {limit}")
            return (body,)

        request = Request(
            method,
            f"/clusters/{self._cluster}{path}" if not self._app.bound_cluster else path,
            query,
            Headers(headers or {}),
            read,
            authenticated_as=self._user,
        )
        response = await self._app(request)
        if response.rest:
            response.body = b"".join((response.body, *response.rest))
            response.rest, response.rest_bytes = (), 0
        return response

    async def _document(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Parameter],
        body: Any = None,
        content_type: str = JSON_TYPE,
    ) -> Object:
        data = b"" if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type} if data else None
        response = await self.request(method, path, parameters, data, headers)
        if response.status >= 400:
            raise _error_of(response)
        if isinstance(response, StreamingResponse):
            await response.close()
            raise ValueError("a watch is not one document: use watch()")  # noqa: TRY004 - the path is wrong, not a type
        document: Object = orjson.loads(response.body)
        return document


def _query(parameters: Mapping[str, Parameter]) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in parameters.items():
        values = value if isinstance(value, list) else [value]
        pairs += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in values]
    return urlencode(pairs)


def _error_of(response: Response) -> ApiError:
    """The ApiError that a Status tells; what is no Status is told by its text."""
    try:
        status = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        status = None
    headers = dict(response.headers)
    if not isinstance(status, dict):
        text = response.body.decode(errors="replace").strip()
        reason = "NotFound" if response.status == 404 else ""
        return ApiError(response.status, reason, text, None, headers)
    return _error_of_status(status, headers)


def _error_of_status(status: Object, headers: dict[str, str]) -> ApiError:
    return ApiError(
        status.get("code", 500),
        status.get("reason", ""),
        status.get("message", ""),
        status.get("details"),
        headers,
        status.get("metadata") or {},
    )


class _Events(Sink):
    """The other end of a watch: lines of JSON in, events out. Who does not read it makes the watch wait."""

    def __init__(self) -> None:
        self._unread: list[bytes] = []
        self._buffered = 0
        self._lines: list[bytes] = []
        self._ended = False
        self._arrived = asyncio.Event()
        self._drain: Callable[[], None] | None = None

    @override
    def write(self, data: bytes) -> None:
        self._unread.append(data)
        self._buffered += len(data)
        self._arrived.set()

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        self._drain = callback

    async def follow(self, stream: Stream) -> None:
        """Takes what the stream writes, until it ends, or gives up on a reader that does not read: who reads again finds the end."""
        try:
            with suppress(ConnectionAbortedError):
                await stream.run(self)
        finally:
            self._ended = True
            self._arrived.set()

    def __aiter__(self) -> AsyncIterator[Object]:
        return self

    async def __anext__(self) -> Object:
        while not self._lines:
            await self._fill()
        event: Object = orjson.loads(self._lines.pop())
        if event["type"] == "ERROR":
            raise _error_of_status(event["object"], {})
        return event

    async def _fill(self) -> None:
        while not self._unread:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        # Streams write whole frames, each a line.
        self._lines = b"".join(self._unread).splitlines()
        self._lines.reverse()
        self._unread.clear()
        self._buffered = 0
        if self._drain is not None:
            self._drain()
