"""Calls to etcd over channels of our own, one for each endpoint.

One endpoint is used at a time, the next one after a failure. A read is repeated until its time is up. A write is
never repeated here: `write` tells apart what etcd refused, what never left this machine, and what nobody knows.

Rules of this file: gRPC's errors leave it only as StorageErrors, or as `Unsure`; so does what is no message of etcd's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from google.protobuf.message import DecodeError

from clusterling.storage.etcd.calls import Answers, CallFailed, Channel, Code
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.store import Compacted, StorageError, StoreOpenError, TooLarge, Unavailable

logger = logging.getLogger(__name__)

CALL_S: Final = 3.0  # One attempt.
READ_S: Final = 8.0  # All attempts of a read.
PORT: Final = 2379
DEFAULT_ROOT: Final = "/clusterling/"

# https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go
_COMPACTED: Final = "required revision has been compacted"
_FUTURE: Final = "required revision is a future revision"
_NO_SPACE: Final = "database space exceeded"
_TOO_LARGE: Final = ("request is too large", "received message larger than max")
_TOKEN: Final = ("invalid auth token", "revision in header is old", "user name is empty")
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


class _Method(NamedTuple):
    path: str
    answer: Any  # The class of its messages.


_TXN: Final = _Method("/etcdserverpb.KV/Txn", rpc.TxnResponse)
_RANGE: Final = _Method("/etcdserverpb.KV/Range", rpc.RangeResponse)
_COMPACT: Final = _Method("/etcdserverpb.KV/Compact", rpc.CompactionResponse)
_AUTHENTICATE: Final = _Method("/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse)
_STATUS: Final = _Method("/etcdserverpb.Maintenance/Status", rpc.StatusResponse)
_DEFRAGMENT: Final = _Method("/etcdserverpb.Maintenance/Defragment", rpc.DefragmentResponse)
_WATCH: Final = _Method("/etcdserverpb.Watch/Watch", rpc.WatchResponse)


class Wire:
    """Calls to whichever endpoint answers."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._context = _context(address)
        self._channels: list[Channel | None] = [None] * len(address.endpoints)
        self._current = 0
        self._token = ""
        self._signing_in = asyncio.Lock()
        self._closed = False

    async def read(self, request: Any) -> Any:
        """A transaction that only reads, answered by a quorum. Raises Compacted, Future, Unavailable."""
        return await self._repeated(_TXN, request)

    async def range(self, request: Any) -> Any:
        """A range, read alone, answered by a quorum. Raises as `read`."""
        return await self._repeated(_RANGE, request)

    async def status(self) -> Any:
        return await self._repeated(_STATUS, rpc.StatusRequest())

    async def defragment(self, timeout_s: float) -> None:
        """Has one endpoint after the other give free space back to its disk, which it answers nobody during."""
        for endpoint in self.address.endpoints:
            channel = self._made(endpoint)
            try:
                await self._call(channel, _DEFRAGMENT, rpc.DefragmentRequest(), timeout_s)
            except CallFailed as error:
                raise _translated(error) from error
            finally:
                await channel.close()

    async def statuses(self) -> Mapping[str, Any]:
        """By endpoint, of those that answer."""
        found: dict[str, Any] = {}
        for endpoint in self.address.endpoints:
            channel = self._made(endpoint)
            try:
                found[endpoint] = await self._call(channel, _STATUS, rpc.StatusRequest(), CALL_S)
            except CallFailed as error:
                logger.info("etcd-status-failed endpoint=%s error=%s", endpoint, error)
            finally:
                await channel.close()
        return found

    async def compact(self, mod_revision: int) -> None:
        """Forgets what is below. Does nothing where that has been done."""
        try:
            await self._repeated(_COMPACT, rpc.CompactionRequest(revision=mod_revision))
        except Compacted:
            return

    async def write(self, request: Any) -> Any:
        """A transaction that writes, once. Raises Unsure; Full; NotSent and other StorageErrors where nothing was written."""
        channel = self._channel()
        try:
            return await self._call(channel, _TXN, request, CALL_S)
        except CallFailed as error:
            self._leave(channel, error)
            if _refused(error) or not error.sent:
                raise _translated(error) from error
            raise Unsure(str(error)) from error

    async def watch(self, request: Any) -> Watch:
        """What the endpoint in use answers to a request to watch. Raises Unavailable."""
        channel = self._channel()
        message = request.SerializeToString()
        try:
            answers = await channel.ask(_WATCH.path, message, token=self._token, timeout_s=CALL_S)
        except CallFailed as error:
            self._leave(channel, error)
            raise _translated(error) from error
        return Watch(channel, answers)

    def broken(self, watch: Watch) -> None:
        """The watch's endpoint is not to be used next."""
        self._leave(watch.channel, None)

    async def close(self) -> None:
        self._closed = True
        for channel in self._channels:
            if channel is not None:
                await channel.close()

    async def _repeated(self, method: _Method, request: Any) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_S
        pause = 0.02
        while True:
            channel = self._channel()
            left = deadline - loop.time()
            try:
                return await self._call(channel, method, request, max(0.05, min(CALL_S, left)))
            except CallFailed as error:
                self._leave(channel, error)
                if _refused(error) or left <= pause:
                    raise _translated(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _call(self, channel: Channel, method: _Method, request: Any, timeout_s: float) -> Any:
        message = request.SerializeToString()
        if self.address.user and not self._token:
            await self._sign_in(channel, "")
        token = self._token
        try:
            answer = await channel.call(method.path, message, token=token, timeout_s=timeout_s)
        except CallFailed as error:
            if not self.address.user or not _matches(error, _TOKEN):
                raise
            # etcd forgets tokens when it restarts and after five minutes; a call without a valid one does nothing.
            await self._sign_in(channel, token)
            answer = await channel.call(method.path, message, token=self._token, timeout_s=timeout_s)
        return _read(method, answer)

    async def _sign_in(self, channel: Channel, token: str) -> None:
        async with self._signing_in:
            if self._token != token:
                return
            request = rpc.AuthenticateRequest(name=self.address.user, password=self.address.password)
            message = request.SerializeToString()
            answer = await channel.call(_AUTHENTICATE.path, message, token="", timeout_s=CALL_S)
            self._token = _read(_AUTHENTICATE, answer).token

    def _channel(self) -> Channel:
        if self._closed:
            raise Unavailable("the store is closed")
        channel = self._channels[self._current]
        if channel is None:
            endpoint = self.address.endpoints[self._current]
            channel = self._channels[self._current] = self._made(endpoint)
        return channel

    def _made(self, endpoint: str) -> Channel:
        return Channel(endpoint, self._context, self.address.server_name)

    def _leave(self, channel: Channel, error: CallFailed | None) -> None:
        """Uses the next endpoint from now on, if the fault may lie with this one, and nobody has done so already."""
        if error is not None and _refused(error) and not _matches(error, _NOT_DONE):
            return
        if self._channels[self._current] is channel and len(self._channels) > 1:
            logger.info("etcd-endpoint-left endpoint=%s", channel.endpoint)
            self._current = (self._current + 1) % len(self._channels)


class Watch:
    """What etcd tells until it is cancelled, breaks, or etcd ends it."""

    def __init__(self, channel: Channel, answers: Answers) -> None:
        self.channel = channel
        self._answers = answers

    async def read(self) -> Any:
        """The next answer; None where etcd has ended the watch. Raises Unavailable."""
        try:
            answer = await self._answers.read()
            return None if answer is None else _read(_WATCH, answer)
        except CallFailed as error:
            raise _translated(error) from error

    def cancel(self) -> None:
        self._answers.cancel()


def _read(method: _Method, answer: bytes) -> Any:
    """Raises CallFailed."""
    try:
        return method.answer.FromString(answer)
    except DecodeError as error:
        raise CallFailed(Code.INTERNAL, f"what {method.path} answered is not etcd's") from error


def _context(address: Address) -> ssl.SSLContext | None:
    """How to let etcd prove itself, and prove oneself. None without TLS."""
    if not address.tls:
        return None
    if (address.cert is None) != (address.key is None):
        raise StoreOpenError("the etcd URL needs both cert and key, or neither")
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None and address.key is not None:
            context.load_cert_chain(address.cert, address.key)
    except ssl.SSLError as error:
        raise StoreOpenError(f"a TLS file of the etcd store cannot be used: {error}") from error
    except OSError as error:
        raise StoreOpenError(f"a TLS file of the etcd store cannot be read: {error}") from error
    # What signed etcd's certificate is often made by hand, without all that RFC 5280 asks of an authority's.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    return context


def _matches(error: CallFailed, texts: Sequence[str]) -> bool:
    return any(text in error.details for text in texts)


def _refused(error: CallFailed) -> bool:
    """Whether etcd itself said no, before doing anything, and would say so again."""
    if error.code in {
        Code.INVALID_ARGUMENT,
        Code.OUT_OF_RANGE,
        Code.RESOURCE_EXHAUSTED,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.FAILED_PRECONDITION,
        Code.UNIMPLEMENTED,
    }:
        return True
    return error.code is Code.UNAVAILABLE and _matches(error, _NOT_DONE)


def _translated(error: CallFailed) -> StorageError:
    details = error.details
    if _COMPACTED in details:
        return Compacted(details)
    if _FUTURE in details:
        return Future(details)
    if _matches(error, _TOO_LARGE):
        return TooLarge(details)
    if _NO_SPACE in details:
        return Full("etcd is out of space: compact and defragment it, then disarm its alarm")
    if error.code is Code.PERMISSION_DENIED:
        return Denied(f"etcd: {error}")
    kind = NotSent if not error.sent or _matches(error, _NOT_DONE) else Unavailable
    return kind(f"etcd: {error}")
