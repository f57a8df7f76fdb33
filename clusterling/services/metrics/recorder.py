"""Recorder: what every request adds to the metrics, in plain dicts, lists and numbers.

It is on the way of each request, and so knows no library of metrics: one look-up finds the numbers of requests that are
alike in upstream's labels, another those of the logical cluster. What labels a tenant could choose is bounded where
such a series is made, and only there: kinds of its own, subresources that there are none of, paths.

Upstream: apiserver/pkg/endpoints/metrics/metrics.go (MonitorRequest, CleanVerb, CleanScope).
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from clusterling.services.metrics.tenants import WATCHES, Tenant, Tenants
from clusterling.services.request import StreamingResponse
from clusterling.storage.histogram import Histogram

if TYPE_CHECKING:
    from clusterling.registry.resource import Served
    from clusterling.services.request import Request, Response

# Upstream's.
REQUEST_SECONDS: Final = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0),
    *(8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
RESPONSE_BYTES: Final = tuple(float(10**power) for power in range(3, 10))
WATCH_EVENT_BYTES: Final = tuple(float(1024 << power) for power in range(8))

OWN_KINDS_MAX: Final = 200  # Series of kinds that tenants define; what is beyond has this name together:
BEYOND: Final = "other"

_VERBS: Final = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "apply": "APPLY",
    "delete": "DELETE",
    "deletecollection": "DELETE",
    "head": "GET",
    "post": "POST",
    "put": "PUT",
}
_PATHS: Final = frozenset(
    {"api", "apis", "openapi", "version", "healthz", "livez", "readyz", "metrics", "explain"}
)
_APPLY: Final = "application/apply-patch"

# Group, version, resource, subresource, verb, whether named, whether in a namespace, dry run.
_Key = tuple[str, str, str, str, str, bool, bool, str]


class Series:
    """Requests that upstream's labels do not tell apart. `labels` are theirs, in the order of `_ALIKE` in families.py."""

    __slots__ = ("codes", "deprecated", "labels", "open", "seconds", "sizes")

    def __init__(self, labels: tuple[str, ...], *, sized: bool, deprecated: bool) -> None:
        self.labels = labels
        self.codes: dict[int, int] = {}
        self.seconds = Histogram(REQUEST_SECONDS)
        self.sizes = Histogram(RESPONSE_BYTES) if sized else None
        self.open = 0  # Watches.
        self.deprecated = deprecated


class Sent:
    """What was sent to the watches of one kind."""

    __slots__ = ("events", "sizes")

    def __init__(self) -> None:
        self.events = 0
        self.sizes = Histogram(WATCH_EVENT_BYTES)


class Recorder:
    """One for a server."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, ...], Series] = {}  # By their labels.
        self._known: dict[_Key, Series] = {}  # The same, by what a request says at once.
        self.tenants = Tenants()
        self.in_flight = [0, 0]  # Requests that read, and that write;
        self.most_in_flight = [0, 0]  # the most since somebody looked.
        self.watched: dict[tuple[str, str, str], Sent] = {}
        self.authenticated = {result: Histogram() for result in ("success", "failure", "error")}
        self.authorized = {"allowed": 0, "denied": 0}
        self.audited = 0
        self._own_kinds = 0

    @property
    def busy(self) -> int:
        """Requests in flight."""
        return sum(self.in_flight)

    def requests(self) -> dict[tuple[str, str, str, int], int]:
        """How many there were, by verb, group, resource and code."""
        found: dict[tuple[str, str, str, int], int] = {}
        for (verb, _, group, _, resource, *_), series in self.series.items():
            for code, count in series.codes.items():
                key = (verb, group, resource, code)
                found[key] = found.get(key, 0) + count
        return found

    def answered(self, request: Request, response: Response) -> float:
        """Counts a request whose answer was made; of a watch, when that has ended. How long it took, in seconds; a watch 0."""
        info, served = request.info, request.served
        verb = info.verb
        if served is not None:
            if verb == "patch" and (request.headers.get("Content-Type") or "").startswith(_APPLY):
                verb = "apply"
            dry_run = _dry_run(info.query["dryRun"]) if info.query and "dryRun" in info.query else ""
            key = (
                served.group,
                served.version.name,
                served.plural,
                info.subresource,
                verb,
                info.name != "",
                info.namespace != "",
                dry_run,
            )
        else:
            key = _no_kind(request)
        series = self._known.get(key)
        if series is None:
            series = self._made(key, served)
        cluster = request.cluster
        tenant: Tenant | None = None
        if cluster is not None:
            tenant = self.tenants.known.get(cluster.name) or self.tenants.of(cluster.name, cluster.id)
        elif response.status == 429 and (known := self.tenants.known.get(info.cluster)) is not None:
            # It was refused. Only who has been known to be there is told apart.
            known.refused(429)
        if isinstance(response, StreamingResponse):
            self._began(series, tenant, request.came_s, response)
            return 0.0
        seconds = perf_counter() - request.came_s
        status = response.status
        codes = series.codes
        codes[status] = codes.get(status, 0) + 1
        series.seconds.observe(seconds)
        size = response.size
        if series.sizes is not None:
            series.sizes.observe(size)
        if tenant is not None:
            tenant.answered(status, seconds, size, writes=request.method not in READING)
        return seconds

    def _began(
        self, series: Series, tenant: Tenant | None, came_s: float, response: StreamingResponse
    ) -> None:
        series.open += 1
        if tenant is not None:
            tenant.watches += 1
        response.ended.append(partial(self._ended, series, tenant, came_s, response.status))

    def _ended(self, series: Series, tenant: Tenant | None, came_s: float, status: int) -> None:
        series.open -= 1
        series.codes[status] = series.codes.get(status, 0) + 1
        series.seconds.observe(perf_counter() - came_s)
        if tenant is not None:
            tenant.watches -= 1
            tenant.tally[WATCHES] += 1

    def _made(self, key: _Key, served: Served | None) -> Series:
        """The series of a key that is not known, which may be a wider one that is."""
        group, version, plural, part, verb, named, namespaced, dry_run = key
        if served is not None:
            if part and part not in served.resource.subresources and part not in {"status", "scale"}:
                part = BEYOND
            if not served.resource.builtin:
                if self._own_kinds >= OWN_KINDS_MAX:
                    group = version = plural = BEYOND
                    part = BEYOND if part else ""
                self._own_kinds += (group, version, plural, part, *key[4:]) not in self._known
        key = (group, version, plural, part, verb, named, namespaced, dry_run)
        scope = _scope(verb, named, namespaced, resource=served is not None)
        labels = (_VERBS.get(verb, BEYOND), dry_run, group, version, plural, part, scope, "apiserver")
        series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = Series(
                labels,
                sized=labels[0] in {"GET", "LIST"},
                deprecated=bool(served is not None and served.version.deprecation_warning),
            )
        self._known[key] = series
        return series

    def sent(self, served: Served, events: int, size: int) -> None:
        """Counts events that were written to watches of a kind, `size` bytes in all."""
        key = (served.group, served.version.name, served.plural)
        sent = self.watched.get(key)
        if sent is None:
            if not served.resource.builtin and len(self.watched) >= OWN_KINDS_MAX:
                key = (BEYOND, BEYOND, BEYOND)
            sent = self.watched.setdefault(key, Sent())
        sent.events += events
        sent.sizes.observe_many(size / events, events)


READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def _no_kind(request: Request) -> _Key:
    """Of what was refused before its kind was known, or is a path that is none of a kind's."""
    info = request.info
    first = info.path[1:].partition("/")[0]
    known = first in _PATHS and not info.is_resource
    verb = info.verb if info.verb in _VERBS else BEYOND
    return "", "", "", f"/{first}" if known else "", verb, False, False, ""


def _scope(verb: str, named: bool, namespaced: bool, *, resource: bool) -> str:
    if not resource:
        return ""
    if named or verb == "create":
        return "resource"
    return "namespace" if namespaced else "cluster"


def _dry_run(values: list[str]) -> str:
    return "All" if set(values) == {"All"} else "invalid"
