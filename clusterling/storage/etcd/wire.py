"""Calls to etcd over channels of our own, one for each endpoint; of etcd3aio only the messages are used.

One endpoint is used at a time, the next one after a failure. A read is repeated until its time is up. A write is
never repeated here: `write` tells apart what etcd refused, what never left this machine, and what nobody knows.

Rules of this file: gRPC's errors leave it only as StorageErrors, or as `Unsure`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import grpc
import grpc.aio
from etcd3aio import _protobuf

from clusterling.storage.etcd.asking import Asker
from clusterling.storage.store import Compacted, StorageError, StoreOpenError, TooLarge, Unavailable

logger = logging.getLogger(__name__)

rpc: Final[Any] = _protobuf.rpc_pb2  # type: ignore[attr-defined]

CALL_S: Final = 3.0  # One attempt.
READ_S: Final = 8.0  # All attempts of a read.
PORT: Final = 2379
RANGE: Final = "/etcdserverpb.KV/Range"
DEFAULT_ROOT: Final = "/clusterling/"

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # Pages bound answers; a watch may get what was written at once.
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),  # etcd takes more than one ping in 5 s for an attack.
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

# https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go
_COMPACTED: Final = "required revision has been compacted"
_FUTURE: Final = "required revision is a future revision"
_NO_SPACE: Final = "database space exceeded"
_TOO_LARGE: Final = "request is too large"
_TOKEN: Final = ("invalid auth token", "revision in header is old", "user name is empty")
_NOT_SENT: Final = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")
_NOT_DONE: Final = ("no leader", "too many requests", "not capable")


class Unsure(Exception):
    """A write of which nobody knows whether it happened."""


class NotSent(Unavailable):
    """A call that certainly did nothing; another endpoint may take it."""


class Full(Unavailable):
    """etcd has no space. It says so before it does anything, or after: members that reach their quota while they apply a
    transaction apply it all the same (https://github.com/etcd-io/etcd/blob/main/server/etcdserver/apply/apply.go)."""


class Denied(Unavailable):
    """etcd's access control says no."""


class Future(Unavailable):
    """A read at a revision that etcd has not reached."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an etcd is, and how to be let in.

    `etcd://[user@]host[:port][,host[:port]…][/root][?option=…]`, or `etcds://` for TLS, with the options `ca`, `cert`,
    `key` (files) and `server_name` (what the certificate must be for, where that is not the host). A password given
    beside the URL goes before one in it.
    """

    endpoints: tuple[str, ...]
    root: str = DEFAULT_ROOT
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @staticmethod
    def parsed(url: str, *, password: str | None = None) -> Address:
        """Raises StoreOpenError; its message never has the password."""
        scheme, separator, rest = url.partition("://")
        if scheme not in {"etcd", "etcds"} or not separator:
            raise StoreOpenError(
                "an etcd store is named by etcd://host:port[,host:port…][/root], or etcds://"
            )
        rest, _, query = rest.partition("?")
        authority, _, root = rest.partition("/")
        account, at, hosts = authority.rpartition("@")
        user, _, secret = account.partition(":") if at else ("", "", "")
        options = dict(parse_qsl(query, keep_blank_values=True))
        known = {"ca", "cert", "key", "server_name"}
        if unknown := options.keys() - known:
            raise StoreOpenError(
                f"the etcd URL has no option {min(unknown)!r}: there are {', '.join(sorted(known))}"
            )
        if options and scheme == "etcd":
            raise StoreOpenError(f"the option {min(options)} is for TLS: write etcds://")
        endpoints = tuple(_with_port(host) for host in hosts.split(",") if host)
        if not endpoints:
            raise StoreOpenError("the etcd URL names no host")
        ca, cert, key = (Path(options[name]) if options.get(name) else None for name in ("ca", "cert", "key"))
        root = unquote(root).strip("/")
        return Address(
            endpoints,
            f"/{root}/" if root else DEFAULT_ROOT,
            unquote(user),
            unquote(secret) if password is None else password,
            scheme == "etcds",
            ca,
            cert,
            key,
            options.get("server_name", ""),
        )

    @property
    def shown(self) -> str:
        """For messages: without user and password."""
        return f"etcd{'s' if self.tls else ''}://{','.join(self.endpoints)}{self.root.rstrip('/')}"


def _with_port(host: str) -> str:
    bare = host.rpartition(":")[2]
    return host if bare.isdigit() and not host.endswith("]") and host != bare else f"{host}:{PORT}"


def target(endpoint: str) -> str:
    """What gRPC calls `host:port`; a name is looked up again when the connection is made anew."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return f"ipv{ip_address(host).version}:{endpoint}"
    except ValueError:
        return f"dns:///{endpoint}"


class Wire:
    """Calls to whichever endpoint answers."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._credentials = _credentials(address)
        self._options = [*_OPTIONS]
        if address.server_name:
            self._options.append(("grpc.ssl_target_name_override", address.server_name))  # type: ignore[arg-type]
        self._channels: list[_Channel | None] = [None] * len(address.endpoints)
        self._current = 0
        self._token = ""
        self._asker: Asker | None = None
        self._tls_context = _tls_context(address)
        self._signing_in = asyncio.Lock()
        self._closed = False

    async def read(self, request: Any) -> Any:
        """A transaction that only reads, answered by a quorum. Raises Compacted, Future, Unavailable."""
        return await self._repeated("txn", request)

    async def range(self, request: Any) -> Any:
        """A range, read alone, answered by a quorum. Raises as `read`. Calls must not overlap."""
        if not self.address.user or self._token:
            channel = self._channel()
            if self._asker is None or self._asker.endpoint != channel.endpoint:
                self._forget_asker()
                self._asker = Asker(channel.endpoint, RANGE, self._tls_context, self.address.server_name)
            answer = await self._asker.ask(request.SerializeToString(), self._token)
            if answer is not None:
                return rpc.RangeResponse.FromString(answer)
        return await self._repeated("range", request)

    def _forget_asker(self) -> None:
        if self._asker is not None:
            self._asker.close()
            self._asker = None

    async def status(self) -> Any:
        return await self._repeated("status", rpc.StatusRequest())

    async def defragment(self, timeout_s: float) -> None:
        """Has one endpoint after the other give free space back to its disk, which it answers nobody during."""
        for endpoint in self.address.endpoints:
            channel = _Channel(endpoint, self._credentials, self._options)
            try:
                await self._call(channel, "defragment", rpc.DefragmentRequest(), timeout_s)
            except grpc.aio.AioRpcError as error:
                raise _translated(error) from error
            finally:
                await channel.close()

    async def statuses(self) -> Sequence[Any]:
        """Of every endpoint that answers."""
        found: list[Any] = []
        for endpoint in self.address.endpoints:
            channel = _Channel(endpoint, self._credentials, self._options)
            try:
                found.append(await self._call(channel, "status", rpc.StatusRequest(), CALL_S))
            except grpc.aio.AioRpcError as error:
                logger.info("etcd-status-failed endpoint=%s error=%s", endpoint, told(error))
            finally:
                await channel.close()
        return found

    async def compact(self, mod_revision: int) -> None:
        """Forgets what is below. Does nothing where that has been done."""
        try:
            await self._repeated("compact", rpc.CompactionRequest(revision=mod_revision))
        except Compacted:
            return

    async def write(self, request: Any) -> Any:
        """A transaction that writes, once. Raises Unsure; Full; NotSent and other StorageErrors where nothing was written."""
        channel = self._channel()
        try:
            return await self._call(channel, "txn", request, CALL_S)
        except grpc.aio.AioRpcError as error:
            self._leave(channel, error)
            if _refused(error) or _matches(error, _NOT_SENT):
                raise _translated(error) from error
            raise Unsure(told(error)) from error

    def watch(self) -> Any:
        """A stream to the endpoint in use. What it raises is a gRPC error: give it to `broken`."""
        channel = self._channel()
        metadata = (*self._metadata(), ("hasleader", "true"))
        stream = channel.watch(metadata=metadata)
        stream.clusterling_channel = channel
        return stream

    def broken(self, stream: Any) -> None:
        """The stream's endpoint is not to be used next."""
        self._leave(stream.clusterling_channel, None)

    async def close(self) -> None:
        self._closed = True
        self._forget_asker()
        for channel in self._channels:
            if channel is not None:
                await channel.close()

    async def _repeated(self, method: str, request: Any) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_S
        pause = 0.02
        while True:
            channel = self._channel()
            left = deadline - loop.time()
            try:
                return await self._call(channel, method, request, max(0.05, min(CALL_S, left)))
            except grpc.aio.AioRpcError as error:
                self._leave(channel, error)
                if _refused(error) or left <= pause:
                    raise _translated(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _call(self, channel: _Channel, method: str, request: Any, timeout_s: float) -> Any:
        call = getattr(channel, method)
        if self.address.user and not self._token:
            await self._sign_in(channel, "")
        token = self._token
        try:
            return await call(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            if not self.address.user or not _matches(error, _TOKEN):
                raise
        # etcd forgets tokens when it restarts and after five minutes; a call without a valid one does nothing.
        await self._sign_in(channel, token)
        return await call(request, timeout=timeout_s, metadata=self._metadata())

    async def _sign_in(self, channel: _Channel, token: str) -> None:
        async with self._signing_in:
            if self._token != token:
                return
            request = rpc.AuthenticateRequest(name=self.address.user, password=self.address.password)
            self._token = (await channel.authenticate(request, timeout=CALL_S)).token

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _channel(self) -> _Channel:
        if self._closed:
            raise Unavailable("the store is closed")
        channel = self._channels[self._current]
        if channel is None:
            endpoint = self.address.endpoints[self._current]
            channel = self._channels[self._current] = _Channel(endpoint, self._credentials, self._options)
        return channel

    def _leave(self, channel: _Channel, error: grpc.aio.AioRpcError | None) -> None:
        """Uses the next endpoint from now on, if the fault may lie with this one, and nobody has done so already."""
        if error is not None and _refused(error) and not _matches(error, _NOT_DONE):
            return
        if self._channels[self._current] is channel and len(self._channels) > 1:
            logger.info("etcd-endpoint-left endpoint=%s", channel.endpoint)
            self._current = (self._current + 1) % len(self._channels)


class _Channel:
    """A connection to one endpoint, made when first used and again whenever it breaks."""

    def __init__(self, endpoint: str, credentials: Any, options: Sequence[tuple[str, Any]]) -> None:
        self.endpoint = endpoint
        if credentials is None:
            channel = grpc.aio.insecure_channel(target(endpoint), options=options)
        else:
            channel = grpc.aio.secure_channel(target(endpoint), credentials, options=options)
        self._channel = channel

        def unary(method: str, request: Any, response: Any) -> Any:
            return channel.unary_unary(
                f"/etcdserverpb.{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

        self.txn = unary("KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
        self.range = unary("KV/Range", rpc.RangeRequest, rpc.RangeResponse)
        self.compact = unary("KV/Compact", rpc.CompactionRequest, rpc.CompactionResponse)
        self.authenticate = unary("Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse)
        self.status = unary("Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse)
        self.defragment = unary("Maintenance/Defragment", rpc.DefragmentRequest, rpc.DefragmentResponse)
        self.watch: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )

    async def close(self) -> None:
        await self._channel.close()


def _credentials(address: Address) -> Any:
    if not address.tls:
        return None
    try:
        ca, cert, key = (
            file.read_bytes() if file is not None else None
            for file in (address.ca, address.cert, address.key)
        )
    except OSError as error:
        raise StoreOpenError(f"a TLS file of the etcd store cannot be read: {error}") from error
    if (cert is None) != (key is None):
        raise StoreOpenError("the etcd URL needs both cert and key, or neither")
    return grpc.ssl_channel_credentials(ca, key, cert)


def _tls_context(address: Address) -> ssl.SSLContext | None:
    """What `_credentials` says, for a connection of our own."""
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None and address.key is not None:
            context.load_cert_chain(address.cert, address.key)
    except ssl.SSLError as error:
        raise StoreOpenError(f"a TLS file of the etcd store cannot be used: {error}") from error
    context.set_alpn_protocols(["h2"])
    return context


def told(error: grpc.aio.AioRpcError) -> str:
    """The error in one line."""
    return f"{error.code().name}: {error.details()}"


def _matches(error: grpc.aio.AioRpcError, texts: Sequence[str]) -> bool:
    details = error.details() or ""
    return any(text in details for text in texts)


def _refused(error: grpc.aio.AioRpcError) -> bool:
    """Whether etcd itself said no, before doing anything, and would say so again."""
    code = error.code()
    if code in {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }:
        return True
    return code is grpc.StatusCode.UNAVAILABLE and _matches(error, _NOT_DONE)


def _translated(error: grpc.aio.AioRpcError) -> StorageError:
    details = error.details() or ""
    if _COMPACTED in details:
        return Compacted(details)
    if _FUTURE in details:
        return Future(details)
    if _TOO_LARGE in details:
        return TooLarge(details)
    if _NO_SPACE in details:
        return Full("etcd is out of space: compact and defragment it, then disarm its alarm")
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return Denied(f"etcd: {told(error)}")
    kind = NotSent if _matches(error, (*_NOT_SENT, *_NOT_DONE)) else Unavailable
    return kind(f"etcd: {told(error)}")
