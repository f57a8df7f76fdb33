"""What every request passes before its verb, as plain functions: each takes the next and returns a handler.

The order is `IN_ORDER`, outermost first (decision 20). Errors stand around all, so that whatever is raised becomes an
answer; only requests authenticated *for* a cluster take its seats; a cluster that is not there, is suspended, or is
not the user's is refused by the same line (decision 22).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import orjson

from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    forbidden,
    go_quote,
    internal_error,
    service_unavailable,
    timeout,
    unauthorized,
)
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import SUSPENDED
from clusterling.registry.strategy import ANONYMOUS, User
from clusterling.registry.uids import new_uid
from clusterling.services import requestlog
from clusterling.services.barrier import with_barrier
from clusterling.services.begun import Begun
from clusterling.services.deadlines import Deadline, Deadlines
from clusterling.services.metrics.recorder import READING
from clusterling.services.metrics.scraping import METRICS_PATHS
from clusterling.services.negotiation import accept_anyway, wants_pretty
from clusterling.services.parameters import request_timeout_s
from clusterling.services.request import NOSNIFF, Header, Request, Response, StreamingResponse
from clusterling.services.requestinfo import RequestInfo, parse
from clusterling.services.requestlog import SLOW_S
from clusterling.storage.store import StorageError, UnknownOutcome
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.names import ROOT, ROOT_ID

if TYPE_CHECKING:
    from clusterling.registry.resource import Served
    from clusterling.services.app import App, Credentials, Handler

_log = logging.getLogger(__name__)

GZIP_BYTES_MIN: Final = 128 * 1024
AUDIT_ID_CHARACTERS_MAX: Final = 64

WARNING_RUNES_MAX: Final = 4 * 1024
WARNING_RUNES_EACH: Final = 256

_AUDIT_ID: Final = re.compile(r"[A-Za-z0-9._:/+-]+")


def with_errors(app: App, handle: Handler) -> Handler:
    """ApiError → Status; anything else → the log and 500 without a word of what happened. Adds the Warning headers."""

    async def errors(request: Request) -> Response:
        try:
            response = await handle(request)
        except ApiError as error:
            response = status_response(request, error)
        except StorageError as error:
            _log.warning(
                "storage-failed id=%s cluster=%s path=%s error=%r",
                request.id,
                _known(request),
                request.path,
                error,
            )
            if isinstance(error, UnknownOutcome):
                answer = timeout("the store did not say whether the write was kept")
            else:
                answer = service_unavailable("the store cannot serve this now; try again later")
            response = status_response(request, answer)
        except Exception:  # noqa: BLE001 - the one place that turns the unforeseen into an answer
            app.errors += 1
            _log.exception(
                "request-crashed id=%s cluster=%s method=%s path=%s",
                request.id,
                _known(request),
                request.method,
                request.path,
            )
            response = status_response(
                request,
                internal_error(f"the server could not answer; its log says why (Audit-Id {request.id})"),
            )
        if request.warnings:
            response.headers += tuple(warning_headers(request.warnings))
        return response

    return errors


def _known(request: Request) -> str:
    """The cluster, where that is one: for the log, which has so many lines of each."""
    return "" if request.cluster is None else request.cluster.name


def status_response(request: Request, error: ApiError) -> Response:
    """The error as the client asked for answers, or as JSON where it asks for what there is not."""
    encoding = accept_anyway(request.headers.get("Accept"))
    headers: tuple[Header, ...] = tuple(error.headers.items())
    # Upstream's filters say so, its handlers and admission do not.
    if error.code == 403 and request.cluster is None:
        headers += (NOSNIFF,)
    if wants_pretty(request.query, request.headers.get("User-Agent")):
        encoding = replace(encoding, pretty=True)
    body = encoding.document(_encoded(error.status()) + b"\n")
    return Response(error.code, body, encoding.content_type, headers)


def _encoded(status: Object) -> bytes:
    try:
        return orjson.dumps(status)
    except TypeError:
        # Half a surrogate pair, from a header that was not UTF-8: it is no text.
        return json.dumps(status, ensure_ascii=False).encode("utf-8", "replace")


def warning_headers(texts: list[str]) -> list[Header]:
    """`Warning: 299 - "…"`: once each, together at most `WARNING_RUNES_MAX`, cut short where they would be more.

    Upstream: apiserver/pkg/endpoints/filters/warning.go, apimachinery/pkg/util/net/http.go (NewWarningHeader).
    """
    unique = list(filter(None, dict.fromkeys(texts)))
    shown = [text for text in unique if not _has_control(text)]
    if sum(map(len, shown)) > WARNING_RUNES_MAX:
        shown, written, whole = [], 0, 0
        for text in unique:
            # All up to the first that was too much are shown, cut short; of what follows, what there is room for.
            fits = whole <= WARNING_RUNES_MAX
            if not _has_control(text) and (fits or written < WARNING_RUNES_MAX):
                shown.append(text[:WARNING_RUNES_EACH])
                written += len(shown[-1])
                whole += len(text)
    return [("Warning", f'299 - "{_escaped(text)}"') for text in shown]


def _has_control(text: str) -> bool:
    return not text.isprintable() and any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def with_telemetry(app: App, handle: Handler) -> Handler:
    """Gives the request its id, counts it, and tells the audit of it. A scraper with a token of its own is let in here."""
    recorder, metrics = app.recorder, app.metrics
    if metrics is None:
        return partial(_untold, app, handle)
    in_flight, answered = recorder.in_flight, recorder.answered

    async def telemetry(request: Request) -> Response:
        request.id = _audit_id(request.headers.get("Audit-Id"))
        if request.path in METRICS_PATHS and metrics.admits(request):
            return await metrics.everything(request)
        writes = request.method not in READING
        now = in_flight[writes] = in_flight[writes] + 1
        most = recorder.most_in_flight
        most[writes] = max(most[writes], now)
        try:
            response = await handle(request)
        finally:
            in_flight[writes] -= 1
        seconds = answered(request, response)
        if seconds > SLOW_S or response.status >= 500:
            requestlog.tell(request, response, seconds)
        if app.audit is not None:
            recorder.audited += 1
            app.audit(request, response)
        return response

    return telemetry


async def _untold(app: App, handle: Handler, request: Request) -> Response:
    """Where nothing is counted."""
    request.id = _audit_id(request.headers.get("Audit-Id"))
    response = await handle(request)
    seconds = time.perf_counter() - request.came_s
    if response.status >= 500 or (seconds > SLOW_S and not isinstance(response, StreamingResponse)):
        requestlog.tell(request, response, seconds)
    if app.audit is not None:
        app.audit(request, response)
    return response


def _audit_id(given: str | None) -> str:
    """The client's own id where it sent one (upstream: WithAuditID), else a random UUID.

    It goes into the log's lines, so it cannot have what separates the fields there.
    """
    if given and len(given) <= AUDIT_ID_CHARACTERS_MAX and _AUDIT_ID.fullmatch(given):
        return given
    return new_uid()


def with_compression(app: App, handle: Handler) -> Handler:
    """gzip for big answers to those who accept it (upstream: responsewriters, defaultGzipThresholdBytes)."""
    turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()  # There while somebody waits.

    async def compression(request: Request) -> Response:
        response = await handle(request)
        if len(response.body) > GZIP_BYTES_MIN and _accepts_gzip(request.headers.get("Accept-Encoding")):
            if any(name == "Content-Encoding" for name, _ in response.headers):
                return response
            # zlib releases the interpreter's lock, so other requests go on meanwhile. But it takes a processor, and threads
            # are few: one tenant compresses one answer at a time.
            async with turns.setdefault(request.tenant, asyncio.Lock()):
                response.body = await asyncio.to_thread(_gzip, chain((response.body,), response.rest))
            response.rest, response.rest_bytes = (), 0
            response.headers += (("Content-Encoding", "gzip"),)
            if _VARIES not in response.headers:
                response.headers += (_VARIES,)
        return response

    return compression


_VARIES: Final[Header] = ("Vary", "Accept-Encoding")
_NOT_AT_ALL: Final = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")


def _accepts_gzip(header: str | None) -> bool:
    if header is None:
        return False
    codings = (part.partition(";") for part in header.split(","))
    return any(name.strip() == "gzip" and not _NOT_AT_ALL.fullmatch(more) for name, _, more in codings)


def _gzip(parts: Iterable[bytes]) -> bytes:
    compress = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*map(compress.compress, parts), compress.flush()])


def with_request_info(app: App, handle: Handler) -> Handler:
    """Reads the target."""
    default = app.bound_cluster or app.default_cluster
    prefixed = not app.bound_cluster

    def request_info(request: Request) -> Awaitable[Response]:
        request.info = parse(request.method, request.path, request.query, prefixed=prefixed, default=default)
        return handle(request)

    return request_info


def with_deadline(app: App, handle: Handler) -> Handler:
    """Ends a request with 504 when its time is over: `timeout`, at most the server's. Watches have their own end."""
    deadlines = app.deadlines
    most_s = deadlines.allowed_s

    def deadline(request: Request) -> Awaitable[Response]:
        info = request.info
        if info.verb == "watch":
            return handle(request)
        if "timeout" in info.query:
            asked_s = request_timeout_s(info.query)
            if asked_s is not None and 0 < asked_s < most_s:
                return _within(handle(request), Deadlines(asked_s))
        return _within(handle(request), deadlines)

    return deadline


async def _within(work: Awaitable[Response], deadlines: Deadlines) -> Response:
    """Awaits `work` for so long. Raises ApiError 504.

    Most reads never wait for anything: so the work runs up to its first wait, and only its rest has a deadline.
    """
    assert isinstance(work, Coroutine), "handlers are coroutine functions, or return what one returned"
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        response: Response = done.value
        return response
    rest = Deadline(deadlines)
    try:
        with rest:
            return await Begun(work, waits_for)
    except TimeoutError:
        if not rest.late:
            raise
        raise ApiError(
            504, "Timeout", "Timeout: request did not complete within the allotted timeout", {}
        ) from None


def with_user(app: App, handle: Handler) -> Handler:
    """Finds out who asks. 401 for all who cannot say, except where anybody may ask; nothing else is told apart before.

    Who comes from an address that tries many wrong credentials waits for the answer, or gets 429.
    """
    addresses = app.addresses

    def user(request: Request) -> Awaitable[Response]:
        if request.authenticated_as is None:
            return authenticated(request)
        request.user = request.authenticated_as
        return handle(request)

    async def authenticated(request: Request) -> Response:
        has_credential = "Authorization" in request.headers or request.peer.certificate is not None
        known = None
        if has_credential:
            addresses.bar(request)
            known = await _authenticated(app, request)
            if known is None:
                await addresses.failed(request)
                raise unauthorized()
            if not request.peer.let_in:
                addresses.succeeded(request)
        request.user = known or ANONYMOUS
        if known is None or not request.info.is_resource:
            public = await app.public(request)
            if public is not None:
                return public
        if known is None:
            raise unauthorized()
        response = await handle(request)
        if app.credentials is not None and isinstance(response, StreamingResponse):
            await _held(app.credentials, request, response)
        return response

    return user


async def _held(credentials: Credentials, request: Request, response: StreamingResponse) -> None:
    """Has the stream end with the credential that it was asked for with."""
    try:
        response.ended.append(await credentials.hold(request, response.stream))
    except BaseException:
        await response.close()
        raise


async def _authenticated(app: App, request: Request) -> User | None:
    """Whom the credential means, counted by what came of it."""
    began = time.perf_counter()
    result = "error"
    try:
        user = await app.authenticator.authenticate(request)
        result = "failure" if user is None else "success"
        return user
    finally:
        app.recorder.authenticated[result].observe(time.perf_counter() - began)


_IMPERSONATING: Final = frozenset({"impersonate-user", "impersonate-group", "impersonate-uid"})


def with_impersonation(app: App, handle: Handler) -> Handler:
    """Nobody may impersonate yet: refused as upstream refuses who is not authorized to."""

    def impersonation(request: Request) -> Awaitable[Response]:
        headers = request.headers
        if not headers.has_any(_IMPERSONATING):
            return handle(request)
        name = headers.get("Impersonate-User")
        if name:
            raise forbidden(
                "users",
                "",
                name,
                _sanitized(
                    f'User {go_quote(request.user.name)} cannot impersonate resource "users" in API group "" '
                    "at the cluster scope"
                ),
            )
        group, uid = headers.get("Impersonate-Group"), headers.get("Impersonate-Uid")
        if group or uid:
            groups = f"[]string{{{go_quote(group)}}}" if group else "[]string(nil)"
            raise bad_request(
                f'requested &user.DefaultInfo{{Name:"", UID:{go_quote(uid or "")}, Groups:{groups}, '
                "Extra:map[string][]string(nil)} without impersonating a user name"
            )
        return handle(request)

    return impersonation


def with_limits(app: App, handle: Handler) -> Handler:
    """A seat for (realm of the credential, cluster), kept until the answer is complete; 429 where there is none."""
    limits = app.limits
    if limits is None:
        return handle
    by_verb = {
        "watch": limits.watches,
        "list": limits.lists,
        "deletecollection": limits.lists,
        **dict.fromkeys(("create", "update", "patch", "delete"), limits.writes),
    }
    others, leases, exempt = limits.requests, limits.leases, limits.exempt

    async def seats(request: Request) -> Response:
        info, user = request.info, request.user
        if user.realm == ROOT_ID and MASTERS in user.groups:
            sort = exempt
        elif info.resource == "leases" and leads(request):
            sort = leases
        else:
            sort = by_verb.get(info.verb, others)
        tenant = (user.realm, info.cluster)
        sort.take(tenant)
        streams = False
        try:
            response = await handle(request)
            if isinstance(response, StreamingResponse):
                response.ended.append(lambda: sort.leave(tenant))
                streams = True
            return response
        finally:
            if not streams:
                sort.leave(tenant)

    return seats


LEASE_BYTES_MAX: Final = 16 * 1024

_LEADING: Final = frozenset({"get", "create", "update", "patch"})


def leads(request: Request) -> bool:
    """Whether the request is one of leader election: about one Lease, and small.

    Upstream: the FlowSchema system-leader-election, of some users; which ones elect leaders in a cluster is not known here.
    """
    info = request.info
    if info.verb not in _LEADING or info.resource != "leases" or info.group != "coordination.k8s.io":
        return False
    headers = request.headers
    length = headers.get("Content-Length", "0")
    small = "Transfer-Encoding" not in headers and len(length) < 6 and length.isdigit()
    return small and int(length) <= LEASE_BYTES_MAX


def with_authorization(app: App, handle: Handler) -> Handler:
    """Refuses, in one way, what is not allowed and what is not there."""
    decided = app.recorder.authorized

    async def authorization(request: Request) -> Response:
        info, user = request.info, request.user
        name = info.cluster
        if request.path in METRICS_PATHS and user.realm == ROOT_ID:
            # The server's own, which are `root`'s to see.
            name = str(ROOT)
        cluster = await app.clusters.find(name) if name else None
        decision = await app.authorizer.authorize(user, cluster, info)
        if cluster is None or not decision.allowed:
            decided["denied"] += 1
            raise refusal(user, info, decision.reason)
        decided["allowed"] += 1
        if cluster.access == SUSPENDED:
            raise suspended(info.cluster)
        if cluster.warning is not None and (text := cluster.warning()):
            request.warnings.append(text)
        request.cluster = cluster
        return await handle(request)

    return authorization


def with_rates(app: App, handle: Handler) -> Handler:
    """What the cluster's own quota lets it do a second, and how many watches it may hold; not for `root`'s users, who help."""
    rates = app.rates
    if rates is None:
        return handle

    def rated(request: Request) -> Awaitable[Response]:
        cluster = request.cluster
        if cluster is None or request.user.realm == ROOT_ID:
            return handle(request)
        leave = rates.admit(cluster.id, cluster.name, request.info.verb, leads=leads(request))
        return handle(request) if leave is None else held(request, leave)

    async def held(request: Request, leave: Callable[[], None]) -> Response:
        streams = False
        try:
            response = await handle(request)
            if isinstance(response, StreamingResponse):
                response.ended.append(leave)
                streams = True
            return response
        finally:
            if not streams:
                leave()

    return rated


def suspended(cluster: str) -> ApiError:
    """503 without `Retry-After`: clients obey that, and wait in vain for what only the platform ends."""
    why = f"logical cluster {go_quote(cluster)} is suspended"
    return ApiError(503, "ServiceUnavailable", why, {"causes": [{"reason": SUSPENDED, "message": why}]})


def read_only(request: Request, served: Served) -> ApiError:
    """403, as from an admission plugin: another attempt would fare no better, and nothing is wrong with the request."""
    why = f"logical cluster {go_quote(request.info.cluster)} is read-only: its objects cannot be changed now"
    return forbidden(served.plural, served.group, request.info.name, why)


def refusal(user: User, info: RequestInfo, reason: str = "") -> ApiError:
    """403 in upstream's words (apiserver/pkg/endpoints/handlers/responsewriters/errors.go, ForbiddenStatusError)."""
    who = f"User {go_quote(user.name)}"
    if info.is_resource:
        resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        where = f"in the namespace {go_quote(info.namespace)}" if info.namespace else "at the cluster scope"
        why = f"{who} cannot {info.verb} resource {go_quote(resource)} in API group {go_quote(info.group)} {where}"
    else:
        why = f"{who} cannot {info.verb} path {go_quote(info.path)}"
    why = _sanitized(why)
    return forbidden(info.resource, info.group, info.name, f"{why}: {reason}" if reason else why)


def _sanitized(text: str) -> str:
    """Keeps a message from looking like HTML (upstream's sanitizer)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


Filter = Callable[["App", "Handler"], "Handler"]

IN_ORDER: Final[tuple[Filter, ...]] = (
    with_telemetry,
    with_compression,
    with_errors,
    with_request_info,
    with_deadline,
    with_barrier,
    with_user,
    with_impersonation,
    with_limits,
    with_authorization,
    with_rates,
)
