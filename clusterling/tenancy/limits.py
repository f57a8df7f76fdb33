"""Limits: how much may be in flight at once, by all and by one tenant, so that one tenant's flood is its own problem.

A seat belongs to (realm of the credential, cluster). Only requests authenticated *for* a cluster take its seats
(decision 20): whoever has no credential cannot fill them. Each sort of request has seats of its own, so that what is
long or big (watches, lists) takes none from what is small, and nothing takes the place of leader election.
Nobody waits for a seat: a full house answers 429, and says how long to stay away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Final

from clusterling.machinery.errors import ApiError, too_many_requests

# Upstream's defaults for a whole server are 400 reading and 200 writing (server/options/server_run_options.go).
REQUESTS_OF_ALL_MAX: Final = 4_000
REQUESTS_OF_ONE_MAX: Final = 600
WRITES_OF_ALL_MAX: Final = 2_000
WRITES_OF_ONE_MAX: Final = 300
LISTS_OF_ALL_MAX: Final = 1_000
LISTS_OF_ONE_MAX: Final = 100
LEASES_OF_ALL_MAX: Final = 1_000
LEASES_OF_ONE_MAX: Final = 100
WATCHES_OF_ALL_MAX: Final = 50_000
WATCHES_OF_ONE_MAX: Final = 10_000

CONNECTIONS_MAX: Final = 100_000
HANDSHAKES_OF_ALL_MAX: Final = 2_000
HANDSHAKES_OF_ONE_MAX: Final = 32  # Each may hold the event loop for half a millisecond.
HANDSHAKES_OF_ONE_PER_S: Final = 200
FAILED_LOGINS_OF_ONE_MAX: Final = 100

RETRY_AFTER_MAX_S: Final = 8
REFUSED_MAX: Final = 1_000  # Tenants whose refusals are remembered.

# By the names that --limits has. 0 is no limit; of connections, what the process' file descriptors allow.
DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "requests": REQUESTS_OF_ALL_MAX,
        "tenant.requests": REQUESTS_OF_ONE_MAX,
        "writes": WRITES_OF_ALL_MAX,
        "tenant.writes": WRITES_OF_ONE_MAX,
        "lists": LISTS_OF_ALL_MAX,
        "tenant.lists": LISTS_OF_ONE_MAX,
        "leases": LEASES_OF_ALL_MAX,
        "tenant.leases": LEASES_OF_ONE_MAX,
        "watches": WATCHES_OF_ALL_MAX,
        "tenant.watches": WATCHES_OF_ONE_MAX,
        "connections": CONNECTIONS_MAX,
        "address.connections": 0,
        "handshakes": HANDSHAKES_OF_ALL_MAX,
        "address.handshakes": HANDSHAKES_OF_ONE_MAX,
        "address.handshakesPerSecond": HANDSHAKES_OF_ONE_PER_S,
        "address.failedLogins": FAILED_LOGINS_OF_ONE_MAX,
    }
)


# What client-go and people know (upstream: server/filters/priority-and-fairness.go).
BUSY: Final = "Too many requests, please try again later."


def figures(given: Mapping[str, int] | None) -> Mapping[str, int]:
    """The limits given, and for the others the defaults. Raises ValueError where there is none of that name."""
    unknown = (given or {}).keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is none of {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **(given or {})}


def parse_limits(text: str) -> dict[str, int]:
    """Limits from `tenant.lists=50,watches=20000`. Raises ValueError with what is wrong."""
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{item!r} is not NAME=NUMBER")
        if name not in DEFAULTS:
            raise ValueError(f"{name!r} is none of {', '.join(DEFAULTS)}")
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise ValueError(f"{name}={value} is no number of at most 9 digits")
        found[name] = int(value)
    return found


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most requests in flight, by all and by one (realm, cluster); 0 is no limit."""

    of_all: int
    of_one: int


class Seats:
    """Requests in flight, of one sort. `name` is that of its limit, `what` says of what in the plural."""

    def __init__(
        self,
        bounds: Bounds,
        name: str = "requests",
        what: str = "requests",
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.bounds = bounds
        self.name = name
        self.total = 0
        self.refused = [0, 0]  # For want of seats of all, and of one's own.
        self._what = what
        self._taken: dict[Hashable, int] = {}
        self._patience = Patience(now)

    def taken(self, tenant: Hashable) -> int:
        """How many seats that tenant holds now."""
        return self._taken.get(tenant, 0)

    def take(self, tenant: Hashable) -> None:
        """Takes a seat, to be given back by `leave`. Raises ApiError 429."""
        mine = self._taken.get(tenant, 0)
        bounds = self.bounds
        if (bounds.of_one and mine >= bounds.of_one) or (bounds.of_all and self.total >= bounds.of_all):
            self._refuse(tenant, mine)
        self._taken[tenant] = mine + 1
        self.total += 1

    def leave(self, tenant: Hashable) -> None:
        """Gives one seat back."""
        mine = self._taken[tenant] - 1
        if mine:
            self._taken[tenant] = mine
        else:
            del self._taken[tenant]
        self.total -= 1

    def _refuse(self, tenant: Hashable, mine: int) -> None:
        own = bool(self.bounds.of_one) and mine >= self.bounds.of_one
        self.refused[own] += 1
        if own:
            name, figures = f"tenant.{self.name}", f"used: {mine}, limited: {self.bounds.of_one}"
            why = f"This cluster has too many {self._what} in flight"
        else:
            name, figures = self.name, f"limited: {self.bounds.of_all}"
            why = f"This server has too many {self._what} in flight"
        why = f"{why}: {name}, {figures} (whoever runs the server can raise it: serve --limits {name}=…)"
        raise too_many(f"{BUSY} {why}", "TooManyInFlight", name, self._patience.after(tenant))


def too_many(message: str, reason: str, limit: str, retry_after_s: int) -> ApiError:
    """429 whose details name the limit."""
    error = too_many_requests(message, retry_after_s)
    causes = [{"reason": reason, "message": message, "field": limit}]
    error.details = {"causes": causes, "retryAfterSeconds": retry_after_s}
    return error


class Patience:
    """How long who is refused should stay away: twice as long as before while it is refused more than three times a second.

    Upstream: util/flowcontrol/dropped_requests_tracker.go.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: OrderedDict[Hashable, tuple[int, int, float]] = OrderedDict()

    def after(self, who: Hashable) -> int:
        """Seconds. Counts a refusal."""
        now = self._now()
        stay_s, count, since = self._known.get(who, (1, 0, now))
        count += 1
        passed = now - since
        if passed >= stay_s:
            insists = passed < 2 * stay_s and count > 3 * stay_s
            stay_s = min(2 * stay_s, RETRY_AFTER_MAX_S) if insists else 1
            count, since = 0, now
        self._known[who] = stay_s, count, since
        self._known.move_to_end(who)
        if len(self._known) > REFUSED_MAX:
            self._known.popitem(last=False)
        return stay_s


class Limits:
    """The seats of a server, each sort apart. `given` are limits by name, over `DEFAULTS`. Raises ValueError."""

    def __init__(self, given: Mapping[str, int] | None = None, now: Callable[[], float] = monotonic) -> None:
        each = figures(given)

        def seats(name: str, what: str) -> Seats:
            return Seats(Bounds(each[name], each[f"tenant.{name}"]), name, what, now)

        self.requests = seats("requests", "requests")
        self.writes = seats("writes", "requests that write")
        self.lists = seats("lists", "lists")
        self.leases = seats("leases", "requests for Leases")
        self.watches = seats("watches", "watches")
        # Of the platform's own, whom nothing may keep from helping (upstream: the priority level `exempt`).
        self.exempt = Seats(Bounds(0, 0), "exempt")

    @property
    def all(self) -> tuple[Seats, ...]:
        """Each sort."""
        return (self.requests, self.writes, self.lists, self.leases, self.watches, self.exempt)

    @property
    def in_flight(self) -> int:
        """Requests of all sorts."""
        return sum(sort.total for sort in self.all)
