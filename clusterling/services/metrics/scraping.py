"""/metrics: what the parts of the server have counted, in the format that the scraper asks for.

Who may: who may GET it in `root` gets everything at `/metrics`, and so does a scraper with the token that the server was
given for that, which is let in before anything else and so while the store is away. A logical cluster's own users get
that cluster's numbers at `/clusters/<name>/metrics`, and never anybody else's.

The library that writes the formats is loaded at the first scrape. Thousands of rows take milliseconds: they are
drawn through the turnstile, slice by slice, and written out beside the loop.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from clusterling.services.metrics import families, sources
from clusterling.services.metrics.loop import LoopLag
from clusterling.services.metrics.recorder import Recorder
from clusterling.services.metrics.sources import Sampled, Samples
from clusterling.services.metrics.tenants import LIMITS_EACH, Tenant
from clusterling.services.request import NOSNIFF, Request, Response
from clusterling.services.turnstile import Turnstile
from clusterling.storage.histogram import Histogram
from clusterling.storage.store import StorageError

if TYPE_CHECKING:
    from prometheus_client import Metric

    from clusterling.services.health import Health

METRICS_PATH: Final = "/metrics"
SLIS_PATH: Final = "/metrics/slis"
METRICS_PATHS: Final = frozenset({METRICS_PATH, SLIS_PATH})

STARTED: Final = "process_start_time_seconds"

# What a scrape may spend to see how much tenants keep; each is looked at again after a while.
LOOKS: Final = 16
LOOKS_S: Final = 0.5
LOOKED_FOR_S: Final = 60.0


class Totals(Protocol):
    """How much a logical cluster keeps."""

    async def total(self, cluster_id: str) -> tuple[int, int, Mapping[str, float]]:
        """Objects, their bytes, and the part of each hard limit that is used. Raises StorageError."""


@dataclass(slots=True)
class Parts:
    """What of a server is told, besides its requests. Each gives its families when it is asked."""

    samples: Callable[[], Iterator[Sampled]] = tuple[Sampled]().__iter__
    totals: Totals | None = None


NO_PARTS: Final = Parts()  # Of an App by itself.


class Metrics:
    """Answers scrapers. `token` "": only those who may in `root`. `health`: whose results are told at /metrics/slis."""

    def __init__(
        self, recorder: Recorder, turnstile: Turnstile, parts: Parts, health: Health, *, token: str = ""
    ) -> None:
        self._health = health
        self._recorder = recorder
        self._turnstile = turnstile
        self._parts = parts
        self._digest = sha256(token.encode()).digest() if token else b""
        self._most = [0, 0]
        self.lag = LoopLag(self._second)

    def admits(self, request: Request) -> bool:
        """Whether it comes with the scrapers' token."""
        authorization = request.headers.get("Authorization")
        if not self._digest or not authorization or request.method != "GET":
            return False
        scheme, _, token = authorization.partition(" ")
        digest = sha256(token.strip().encode(errors="replace")).digest()
        return scheme.lower() == "bearer" and hmac.compare_digest(digest, self._digest)

    async def slis(self, request: Request) -> Response:
        """What came of the checks of health, and when this process began."""
        return await self._written(request, sources.slis(self._health), process=STARTED)

    async def everything(self, request: Request) -> Response:
        """All metrics of this process."""
        if request.path.endswith(SLIS_PATH):
            return await self.slis(request)
        self.lag.look()
        self._recorder.tenants.rank()
        shown = [*self._recorder.tenants.named.values(), self._recorder.tenants.other()]
        await self._look(shown)
        return await self._written(request, self._samples(shown), process="process_")

    async def of_cluster(self, request: Request, name: str, cluster_id: str) -> Response:
        """What that logical cluster used, as far as this process served it."""
        tenant = self._recorder.tenants.of(name, cluster_id)
        if tenant.name != name:
            tenant = Tenant(name, cluster_id)  # There was no room to count for it.
        await self._look([tenant])
        return await self._written(request, sources.tenants([tenant]))

    def _samples(self, shown: Sequence[Tenant]) -> Samples:
        yield from sources.requests(self._recorder)
        yield from sources.flow(self._recorder, self._most_in_flight())
        yield from sources.tenants(shown, limits_max=LIMITS_EACH)
        yield Sampled(families.TENANTS_NAMED, [((), len(shown) - 1)])
        yield Sampled(families.LOOP_LAG, [((), self.lag.late)])
        yield Sampled(families.TURNSTILE_WAITING, [((), self._turnstile.waiting)])
        yield from self._parts.samples()
        yield from sources.builds()

    def _second(self) -> None:
        recorder = self._recorder
        self._most, recorder.most_in_flight = recorder.most_in_flight, list(recorder.in_flight)

    def _most_in_flight(self) -> list[int]:
        return [max(pair) for pair in zip(self._most, self._recorder.most_in_flight, strict=True)]

    async def _look(self, tenants: Iterable[Tenant]) -> None:
        """Sees how much some of them keep, those first that it is longest known of."""
        totals = self._parts.totals
        now = monotonic()
        due = sorted(
            (one for one in tenants if one.id and now - one.looked_s >= LOOKED_FOR_S),
            key=lambda one: one.looked_s,
        )
        if totals is None or not due:
            return
        try:
            async with asyncio.timeout(LOOKS_S):
                for one in due[:LOOKS]:
                    one.looked_s = now
                    one.objects, one.bytes, one.limits = await totals.total(one.id)
        except (StorageError, TimeoutError):
            return  # They are told as they were, until a later scrape can see.

    async def _written(self, request: Request, samples: Samples, *, process: str = "") -> Response:
        """`process`: how those of the process' own metrics begin that are told as well; "" is none."""
        from prometheus_client.exposition import choose_encoder

        metrics = await self._turnstile.slices("", map(_metric, samples))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(_encoded, encode, metrics, process)
        return Response(200, body, content_type, (NOSNIFF,))


def _encoded(encode: Callable[[Any], bytes], metrics: Sequence[Metric], process: str) -> bytes:
    """The document. `encode` asks a registry for nothing but this."""
    if process:
        from prometheus_client import ProcessCollector

        own = ProcessCollector(registry=None).collect()
        metrics = [*metrics, *(one for one in own if one.name.startswith(process))]
    return encode(_Collected(metrics))


class _Collected:
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metric(sampled: Sampled) -> Metric:
    """The library's own form."""
    from prometheus_client import Metric

    family, rows = sampled
    metric = Metric(family.name.removesuffix("_total"), family.help, family.type)
    names = family.labels
    for values, value in rows:
        labels = dict(zip(names, values, strict=True))
        if isinstance(value, Histogram):
            count = 0.0
            for bound, count in sources.buckets(value):  # The last is of all.
                metric.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
            metric.add_sample(f"{family.name}_count", labels, count)
            metric.add_sample(f"{family.name}_sum", labels, value.total)
        else:
            metric.add_sample(family.name, labels, value)
    return metric
