"""Request, Response and StreamingResponse: what filters and handlers work on, whoever brought the request.

The adapter to a server (`services/http.py`) and the in-process client (`services/client.py`) each make
Requests and write Responses; nothing in between knows a socket. All three are slotted and bare: a GET
makes one of each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, overload

from clusterling.registry.strategy import ANONYMOUS, User
from clusterling.services.requestinfo import NOTHING, RequestInfo
from clusterling.telemetry.spans import part

if TYPE_CHECKING:
    from clusterling.registry.resource import Served
    from clusterling.services.app import Cluster
    from clusterling.services.tracing import Recorded
    from clusterling.storage.others import Standing
    from clusterling.storage.question import Question

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
BODY_BYTES_MAX: Final = 3 * 1024 * 1024  # Upstream: MaxRequestBodyBytes.

Header = tuple[str, str]

NOSNIFF: Final[Header] = ("X-Content-Type-Options", "nosniff")


class Headers:
    """Header fields of a request; the first of names that differ in case alone wins."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields.items():
            self._fields.setdefault(name.lower(), value)

    @classmethod
    def lowered(cls, fields: dict[str, str]) -> Headers:
        """Of a dict that is theirs from then on, and whose names are in lower case already."""
        headers = cls.__new__(cls)
        headers._fields = fields
        return headers

    def replaced(self, fields: Mapping[str, str]) -> Headers:
        """The same with other values for some names."""
        lowered = {name.lower(): value for name, value in fields.items()}
        return Headers.lowered({**self._fields, **lowered})

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    def get(self, name: str, /, default: str | None = None) -> str | None:
        """The field's value, or the default."""
        return self._fields.get(name.lower(), default)

    def __contains__(self, name: object, /) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def has_any(self, names: AbstractSet[str], /) -> bool:
        """Whether there is one of these, which are in lower case."""
        return not names.isdisjoint(self._fields)


class HeaderFields(Protocol):
    """The little that is asked of header fields. Names are case-insensitive; the first of equal names is given."""

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...

    def __contains__(self, name: object, /) -> bool: ...

    def has_any(self, names: AbstractSet[str], /) -> bool: ...


class Peer:
    """The other end of a connection. One value for all its requests.

    `address` is the IP in text, "" in process. `certificate` is the client's verified certificate as DER,
    or None. `server_name` is what TLS asked for (SNI), or "". `let_in`: the last credential that came by it was good.
    `login`: the last Authorization header that came by it, with its token and the hash of that, for who looks for the very same.
    """

    __slots__ = ("address", "certificate", "let_in", "login", "server_name")

    def __init__(self, address: str, certificate: bytes | None = None, server_name: str = "") -> None:
        self.address = address
        self.certificate = certificate
        self.server_name = server_name
        self.let_in = not address  # What has no address has no budget.
        self.login: tuple[str, str, str] | None = None


IN_PROCESS: Final = Peer("")


class Request:
    """One request. `path` and `query` are the raw target, still escaped, split at its first `?`.

    `id` is what `Audit-Id` answers. `chunked`: a stream's body is written in
    HTTP's chunked coding (False in process and for HTTP/1.0). `info`, `cluster` and `user` are filled in
    by the filters of those names; who reads them stands behind those filters. `served` is the resource that the
    path named, once dispatch has found it. `authenticated_as` is given
    by the in-process client, whose caller needs no credential; a socket's request has None. `came_s` is when it was made, by
    `time.perf_counter`; `asked` what the barrier asked the store for it, where it did so before the request was begun;
    `standing` what its writes depend on where the barrier asked nothing. `span`: what records it, where it is traced;
    `believed_s`, set only where anything is traced: when the barrier had let it pass.
    """

    __slots__ = (
        "_parts",
        "_read",
        "asked",
        "authenticated_as",
        "believed_s",
        "came_s",
        "chunked",
        "cluster",
        "headers",
        "id",
        "info",
        "method",
        "path",
        "peer",
        "query",
        "served",
        "span",
        "standing",
        "user",
        "warnings",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: HeaderFields,
        read: Callable[[int], Awaitable[Sequence[bytes]]],
        *,
        peer: Peer = IN_PROCESS,
        chunked: bool = False,
        authenticated_as: User | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self._read = read
        self._parts: Sequence[bytes] | None = None
        self.believed_s: float
        self.peer = peer
        self.chunked = chunked
        self.authenticated_as = authenticated_as
        self.came_s = perf_counter()
        self.asked: Question | None = None
        self.standing: Standing | None = None
        self.id = ""
        self.info: RequestInfo = NOTHING
        self.user: User = ANONYMOUS
        self.cluster: Cluster | None = None
        self.served: Served | None = None
        self.span: Recorded | None = None
        self.warnings: list[str] = []

    @property
    def tenant(self) -> tuple[str, str]:
        """Whom its work is charged to, once it is known who asks: the realm of the credential, and the cluster's name."""
        return self.user.realm, self.info.cluster

    async def read(self, limit: int) -> bytes:
        """The whole body, the same each time. Raises ApiError 413 as soon as it is known to be over `limit` bytes."""
        parts = await self.parts(limit)
        if len(parts) > 1:
            parts = self._parts = (b"".join(parts),)
        return parts[0] if parts else b""

    async def parts(self, limit: int) -> Sequence[bytes]:
        """As `read`, in the parts that it came in: putting megabytes together holds the loop for as many milliseconds."""
        parts = self._parts
        if parts is None:
            with part("body"):
                parts = self._parts = await self._read(limit)
        return parts


class Response:
    """A whole answer. `content_type` "" sends none; `headers` are those besides Content-Type and Content-Length.

    `rest`: more of the body, `rest_bytes` long, where it is so big that copying it together, or writing it at once, would take
    the loop for long. It can be walked once: each part may be made only then, and takes about `SLICE_S` to make and write.
    """

    __slots__ = ("body", "content_type", "headers", "rest", "rest_bytes", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str = JSON_TYPE,
        headers: tuple[Header, ...] = (),
        *,
        rest: Iterable[bytes] = (),
        rest_bytes: int = 0,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.rest = rest
        self.rest_bytes = rest_bytes

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return len(self.body) + self.rest_bytes


def page_not_found() -> Response:
    """Go's plain 404, which upstream's mux gives for paths that nobody serves. A new one each time: filters add to it."""
    return Response(404, b"404 page not found\n", TEXT_TYPE, (NOSNIFF,))


class Sink(Protocol):
    """Where a stream writes. Writing never waits: who writes faster than the peer reads sees `buffered` grow."""

    def write(self, data: bytes) -> None:
        """Hands bytes to the transport, in one write. Ignored once the peer has gone."""

    @property
    def buffered(self) -> int:
        """Bytes handed over that the peer has not taken yet."""

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Sets what is called, on the event loop, each time the transport has room again after it was full."""


class Stream(Protocol):
    """The body of a StreamingResponse. Whoever gets one calls `run` at most once, and `close` always."""

    async def run(self, sink: Sink) -> None:
        """Writes until the stream's own end, or until `stop`."""

    def stop(self) -> None:
        """Asks for a clean end soon: the peer has gone, or the server shuts down. Safe at any time."""

    async def close(self) -> None:
        """Gives back what the stream holds. Safe to repeat."""


class StreamingResponse(Response):
    """A head that is sent at once, and a body that its `stream` writes, already in the request's transfer coding.

    `ended` is called once, after the stream was closed: filters give back there what lasts as long as the answer.
    """

    __slots__ = ("ended", "stream")

    def __init__(
        self,
        stream: Stream,
        content_type: str = JSON_TYPE,
        headers: tuple[Header, ...] = (),
        status: int = 200,
    ) -> None:
        super().__init__(status, b"", content_type, headers)
        self.stream = stream
        self.ended: list[Callable[[], None]] = []

    async def close(self) -> None:
        """Closes the stream and tells `ended`. Safe to repeat."""
        ended, self.ended = self.ended, []
        try:
            await self.stream.close()
        finally:
            for tell in ended:
                tell()
