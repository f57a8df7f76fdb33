"""From what the parts of a server count to samples: one function for each part, each giving families with their rows.

Nothing here knows a format. A row is the labels' values, in the family's order, and a number or a Histogram. Rows are
made from copies, so that what is drawn slice by slice may be counted on meanwhile.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from heapq import nlargest
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from clusterling.services.metrics import families as f
from clusterling.services.metrics.families import Family
from clusterling.services.metrics.recorder import BEYOND
from clusterling.services.metrics.tenants import (
    BOUNDS,
    COUNTS,
    FAILED,
    READS,
    REFUSED,
    SECONDS,
    SENT,
    THROTTLED,
    WATCHES,
    WRITES,
    Tenant,
)
from clusterling.storage.histogram import Histogram
from clusterling.version import KUBERNETES, __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterling.services.accepting import Door
    from clusterling.services.addresses import Addresses
    from clusterling.services.health import Health
    from clusterling.services.metrics.recorder import Recorder
    from clusterling.services.workers.pool import Workers
    from clusterling.storage.backed import BackedStore
    from clusterling.storage.cache import CacheBudget
    from clusterling.tenancy.limits import Limits
    from clusterling.tenancy.rates import Rates

Value = float | Histogram

KINDS_MAX: Final = 200  # Kinds in memory that are told apart: those with most objects.


class Sampled(NamedTuple):
    """A metric as it is now."""

    family: Family
    rows: Sequence[tuple[tuple[str, ...], Value]]


Samples = Iterator[Sampled]


class QueueFigures(Protocol):
    """As `controllers.runtime.QueueFigures`."""

    adds: int
    retries: int
    waits: Histogram
    works: Histogram


def _one(family: Family, value: Value) -> Sampled:
    return Sampled(family, [((), value)])


def requests(recorder: Recorder) -> Samples:
    """What upstream tells of requests."""
    series = list(recorder.series.values())
    yield Sampled(
        f.REQUESTS,
        [((*one.labels, str(code)), count) for one in series for code, count in list(one.codes.items())],
    )
    yield Sampled(f.REQUEST_SECONDS, [(one.labels, one.seconds) for one in series if one.codes])
    yield Sampled(
        f.RESPONSE_SIZES,
        [(_sized(one.labels), one.sizes) for one in series if one.sizes is not None and not one.labels[1]],
    )
    watches = [one for one in series if one.labels[0] == "WATCH" and one.labels[4]]
    yield Sampled(f.LONG_RUNNING, _summed((_sized(one.labels), one.open) for one in watches))
    deprecated = [one for one in series if one.deprecated]
    yield Sampled(f.DEPRECATED, _summed(((*one.labels[2:6], ""), 1) for one in deprecated))


def _sized(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Upstream's labels without the dry run."""
    return (labels[0], *labels[2:])


def _summed(rows: Iterable[tuple[tuple[str, ...], float]]) -> list[tuple[tuple[str, ...], Value]]:
    """The rows, with those of equal labels as one."""
    totals: dict[tuple[str, ...], float] = {}
    for labels, value in rows:
        totals[labels] = totals.get(labels, 0) + value
    return list(totals.items())


def flow(recorder: Recorder, most: Sequence[int]) -> Samples:
    """What is in flight, who was let in, what went to watches. `most`: requests that read, and that write, at once."""
    yield Sampled(f.IN_FLIGHT, [(("readOnly",), most[0]), (("mutating",), most[1])])
    sent = list(recorder.watched.items())
    yield Sampled(f.WATCH_EVENTS, [(kind, one.events) for kind, one in sent])
    yield Sampled(f.WATCH_SIZES, [(kind, one.sizes) for kind, one in sent])
    authenticated = recorder.authenticated.items()
    yield Sampled(f.AUTHENTICATED, [((result,), taken.count) for result, taken in authenticated])
    yield Sampled(f.AUTHENTICATED_SECONDS, [((result,), taken) for result, taken in authenticated])
    yield Sampled(f.AUTHORIZED, [((result,), count) for result, count in recorder.authorized.items()])
    yield _one(f.AUDITED, recorder.audited)


def tenants(of: Sequence[Tenant], limits_max: int | None = None) -> Samples:
    """What these used. `limits_max`: of how many of each one's limits, the nearest; None is all."""
    named = [((one.name,), one) for one in of]
    kinds = (("read", READS), ("write", WRITES), ("watch", WATCHES))
    codes = (("4xx", REFUSED), ("5xx", FAILED))
    yield Sampled(
        f.CLUSTER_REQUESTS, [((*name, kind), one.tally[at]) for name, one in named for kind, at in kinds]
    )
    yield Sampled(
        f.CLUSTER_ERRORS, [((*name, code), one.tally[at]) for name, one in named for code, at in codes]
    )
    yield Sampled(f.CLUSTER_SECONDS, [(name, _histogram(one)) for name, one in named])
    yield Sampled(f.CLUSTER_SENT, [(name, one.tally[SENT]) for name, one in named])
    yield Sampled(f.CLUSTER_THROTTLED, [(name, one.tally[THROTTLED]) for name, one in named])
    yield Sampled(f.CLUSTER_WATCHES, [(name, one.watches) for name, one in named])
    yield Sampled(f.CLUSTER_OBJECTS, [(name, one.objects) for name, one in named if one.objects is not None])
    yield Sampled(f.CLUSTER_BYTES, [(name, one.bytes) for name, one in named if one.bytes is not None])
    yield Sampled(
        f.CLUSTER_QUOTA,
        [
            ((*name, limit), part)
            for name, one in named
            for limit, part in islice(one.limits.items(), limits_max)
        ],
    )


def _histogram(tenant: Tenant) -> Histogram:
    made = Histogram(BOUNDS)
    made.counts = [int(count) for count in tenant.tally[COUNTS:]]
    made.total = tenant.tally[SECONDS]
    return made


_LEVELS: Final = {"leases": "leader-election", "exempt": "exempt"}
_LEVEL: Final = "global-default"


def limits(of: Limits, rates: Rates, full: Mapping[str, int]) -> Samples:
    """Who holds seats, and who was refused. `full`: how many for want of room in a queue, by whose it is."""
    sorts = [((_LEVELS.get(sort.name, _LEVEL), sort.name), sort) for sort in of.all]
    reasons = ("concurrency-limit", "tenant-concurrency-limit")
    refused: list[tuple[tuple[str, ...], Value]] = [
        ((*flow, reason), sort.refused[at]) for flow, sort in sorts for at, reason in enumerate(reasons)
    ]
    refused += [((_LEVEL, what, "rate-limit"), count) for what, count in rates.refused.items()]
    refused += [((_LEVEL, whose, "queue-full"), count) for whose, count in full.items()]
    yield Sampled(f.REJECTED, refused)
    yield Sampled(f.EXECUTING, [(flow, sort.total) for flow, sort in sorts])
    yield Sampled(f.SEATS, [(flow, sort.bounds.of_all) for flow, sort in sorts if sort.bounds.of_all])


def addresses(of: Addresses, doors: Iterable[Door]) -> Samples:
    """Who comes in, and who does not."""
    open_doors = list(doors)
    yield _one(f.CONNECTIONS_MAX, of.connections_max)
    yield Sampled(f.CONNECTIONS_REFUSED, [((limit,), count) for limit, count in of.refused.items()])
    running = sum(one.turns.under_way for one in open_doors)
    waiting = sum(one.turns.waiting for one in open_doors)
    yield Sampled(f.HANDSHAKES, [(("running",), running), (("waiting",), waiting)])
    yield _one(f.HANDSHAKES_FAILED, sum(one.failed for one in open_doors))
    yield Sampled(f.LOGINS, [(("delayed",), of.delayed), (("refused",), of.barred)])
    yield _one(f.ADDRESSES, of.known)


def workers(of: Workers) -> Samples:
    """The processes that large writes are given to."""
    yield _one(f.WORKERS, len(of))
    yield _one(f.WORKERS_STARTED, of.started)
    yield _one(f.WORKERS_DIED, of.died)
    yield _one(f.WORKER_REQUESTS, of.done)
    yield _one(f.WORKER_WAITING, of.waiting)


def cache(budget: CacheBudget) -> Samples:
    """What is in memory."""
    entries = budget.entries()
    most = dict(nlargest(KINDS_MAX, entries.items(), key=lambda item: item[1]))
    most[""] = sum(entries.values()) - sum(most.values())
    yield Sampled(f.OBJECTS, _by_kind(most))
    yield Sampled(f.CACHE_LOADS, _by_kind(budget.loads))
    yield _one(f.CACHE_BYTES, budget.bytes)
    yield _one(f.CACHE_BYTES_MAX, budget.bytes_max)
    yield _one(f.CACHE_UNITS, len(budget))
    yield _one(f.CACHE_HITS, budget.hits)
    yield _one(f.CACHE_MISSES, budget.misses)
    yield _one(f.CACHE_EVICTIONS, budget.evictions)


def _by_kind(counts: Mapping[str, int]) -> list[tuple[tuple[str, ...], Value]]:
    """Counts by prefix as rows of kinds; what has no prefix is of all the others, what is no kind is left out."""
    rows: list[tuple[tuple[str, ...], float]] = []
    for prefix, count in counts.items():
        group, _, rest = prefix.partition("/")
        resource = rest.removesuffix("/")
        if "~" in prefix:
            continue
        if not prefix:
            group = resource = BEYOND
        rows.append(((group, resource), count))
    return _summed(rows)


def store(of: BackedStore) -> Samples:
    """What the store was asked, and what it takes."""
    figures, batcher, feed = of.figures, of.batcher, of.feed
    calls = list(figures.durations.items())
    yield Sampled(
        f.STORE_SECONDS,
        [*(((method, "", ""), taken) for method, taken in calls), (("write", "", ""), batcher.commits)],
    )
    yield Sampled(
        f.STORE_CALLS,
        [
            *(((method, "", ""), taken.count) for method, taken in calls),
            (("write", "", ""), batcher.commits.count),
        ],
    )
    errors = _summed(((method, "", ""), count) for (method, _), count in list(figures.errors.items()))
    yield Sampled(f.STORE_ERRORS, [*errors, (("write", "", ""), batcher.failures)])
    yield _one(f.BATCH_SECONDS, batcher.commits)
    yield _one(f.BATCH_WRITES, batcher.batches)
    yield _one(f.BATCH_FAILURES, batcher.failures)
    yield _one(f.STORE_QUEUED, batcher.waiting)
    yield _one(f.STORE_BYTES, batcher.value_bytes)
    yield _one(f.FEED_REVISION, feed.revision)
    yield _one(f.FEED_EVENTS, feed.events)
    yield _one(f.FEED_LOST, feed.gaps)
    yield _one(f.FEED_WATCHES, feed.watches)


def slis(health: Health) -> Samples:
    """What came of the checks of health."""
    yield Sampled(f.HEALTHCHECK, [(key, int(well)) for key, well in sorted(health.results.items())])
    yield Sampled(
        f.HEALTHCHECKS,
        [
            ((name, endpoint, "success" if well else "error"), count)
            for (name, endpoint, well), count in sorted(health.counts.items())
        ],
    )


def queues(of: Iterable[tuple[str, int, QueueFigures]], *, leads: bool) -> Samples:
    """The controllers' work: name, keys to look at, figures of each."""
    known = list(of)
    yield Sampled(f.QUEUE_DEPTH, [((name,), depth) for name, depth, _ in known])
    yield Sampled(f.QUEUE_ADDS, [((name,), figures.adds) for name, _, figures in known])
    yield Sampled(f.QUEUE_RETRIES, [((name,), figures.retries) for name, _, figures in known])
    yield Sampled(f.QUEUE_WAIT, [((name,), figures.waits) for name, _, figures in known])
    yield Sampled(f.QUEUE_WORK, [((name,), figures.works) for name, _, figures in known])
    yield Sampled(f.LEADER, [(("main",), int(leads))])


def builds() -> Samples:
    """What runs here."""
    major, minor, _ = KUBERNETES.split(".")
    python = platform.python_version()
    where = f"{platform.system().lower()}/{platform.machine()}"
    yield Sampled(
        f.KUBERNETES_BUILD,
        [((major, minor, f"v{KUBERNETES}", "", "", "", f"python{python}", "python", where), 1)],
    )
    yield Sampled(f.BUILD, [((__version__, python), 1)])


def buckets(value: Histogram) -> list[tuple[str, float]]:
    """Upper bound, as text, and how many values were at most that; the last is all."""
    bounds = [f"{bound:g}" for bound in value.bounds]  # As Go writes them, and dashboards select them.
    return list(zip([*bounds, "+Inf"], accumulate(value.counts), strict=True))
