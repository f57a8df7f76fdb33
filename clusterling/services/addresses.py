"""Addresses: what one client address may take of the server before anybody there has shown who he is.

An IPv6 address stands for its /64, which is what one customer gets. What has no address (another process by a Unix
socket, a client in this one) has no budget, and neither has a trusted proxy, behind which are many: who comes by one
has the address that it names in X-Forwarded-For, or none.

Connections are shared out only when they are scarce: an office behind one address may have most of them, and the last
quarter is for those who have few. Failed logins are answered late once they are many, a few at a time, and those beyond
with 429 before anything is looked up; never those of a connection, or with a credential, that was let in from there before.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from clusterling.machinery.errors import ApiError
from clusterling.tenancy.limits import BUSY, CONNECTIONS_MAX, figures, too_many
from clusterling.tenancy.rates import Buckets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from clusterling.services.request import Request

_log = logging.getLogger(__name__)

DESCRIPTORS_KEPT: Final = (
    256  # For what is no connection: the store, files, other services; of few, an eighth.
)
SHARED_FROM: Final = 0.75  # Of all connections: from there on nobody gets more than
SHARE: Final = 0.125  # this part of all.

ADDRESSES_MAX: Final = 10_000  # That anything is remembered of beyond their connections.
CREDENTIALS_MAX: Final = 10_000  # Whose last way in is remembered.
FAILED_LOGINS_PER_S: Final = 5.0
DELAY_S: Final = 1.0
DELAYED_OF_ONE_MAX: Final = 10
DELAYED_OF_ALL_MAX: Final = 500
TOLD_EVERY_S: Final = 60.0  # Of who is turned away, a line in the log.
FORWARDED_MAX: Final = 16  # Proxies in a row, at most, that X-Forwarded-For is read through.

Network = IPv4Network | IPv6Network


class Origin(NamedTuple):
    """Where something comes from: the key of its budget, and whether it has none."""

    key: str
    exempt: bool


NOWHERE: Final = Origin("", exempt=True)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks from `10.0.0.0/8,2001:db8::/32`. Raises ValueError with what is wrong."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def connections_possible() -> int:
    """How many sockets the process may have open, beside what else it needs."""
    if sys.platform == "win32":
        return CONNECTIONS_MAX
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(most - min(DESCRIPTORS_KEPT, most // 8), 16)


class Addresses:
    """The budgets of a server's peers, by `tenancy.limits.DEFAULTS`' names. `trusted`: networks of proxies.

    `proxy_protocol`: these say first for whom they speak (services/proxying.py), rather than in each request.
    """

    def __init__(
        self,
        given: Mapping[str, int] | None = None,
        trusted: Sequence[Network] = (),
        *,
        proxy_protocol: bool = False,
        now: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        each = figures(given)
        self._trusted = tuple(trusted)
        self._proxy_protocol = proxy_protocol
        self.now = now
        self._sleep = sleep
        most = each["connections"]
        self.connections_max = min(most or CONNECTIONS_MAX, connections_possible())
        self._of_one = each["address.connections"]
        self.connections = 0
        self._connected: dict[str, int] = {}
        self.refused = {"all": 0, "address": 0}
        self.handshakes_max = each["handshakes"]
        self.handshakes_of_one_max = each["address.handshakes"]
        self.handshakes_per_s = each["address.handshakesPerSecond"]
        self.shaken = Buckets(now, ADDRESSES_MAX)
        self._failures_max = each["address.failedLogins"]
        self._failures = Buckets(now, ADDRESSES_MAX)
        self._delayed: dict[str, int] = {}
        self._let_in: OrderedDict[int, None] = OrderedDict()
        self.delayed = self.barred = 0  # Logins, since the start.
        self._told_s = float("-inf")

    # ------------------------------------------------------------------ who

    def origin(self, address: str) -> Origin:
        """Of a socket's peer."""
        if not address:
            return NOWHERE
        return Origin(_network(address), self._trusts(address))

    def introduced(self, origin: Origin) -> bool:
        """Whether a connection from there begins with the PROXY protocol."""
        return self._proxy_protocol and origin.exempt and origin is not NOWHERE

    def _trusts(self, address: str) -> bool:
        if not self._trusted:
            return False
        ip = _ip(address)
        return ip is not None and any(ip in network for network in self._trusted)

    def _client(self, request: Request) -> Origin:
        """Of who sent the request: its peer, or for whom a trusted proxy says that it speaks."""
        origin = self.origin(request.peer.address)
        if not origin.exempt or origin is NOWHERE:
            return origin
        said = request.headers.get("X-Forwarded-For", "").rsplit(",", FORWARDED_MAX)
        for one in reversed(said[-FORWARDED_MAX:]):
            address = _bare(one.strip())
            if _ip(address) is None:
                return NOWHERE
            if not self._trusts(address):
                return Origin(_network(address), exempt=False)
        return NOWHERE

    # ------------------------------------------------------------------ connections

    def connect(self, origin: Origin) -> bool:
        """Whether there is room for another connection from there; it is taken, to be given back by `disconnect`."""
        mine = self._connected.get(origin.key, 0)
        if self.connections >= self.connections_max:
            self.refused["all"] += 1
            return False
        if not origin.exempt and (
            (self._of_one and mine >= self._of_one)
            or (
                self.connections >= self.connections_max * SHARED_FROM
                and mine >= self.connections_max * SHARE
            )
        ):
            self.refused["address"] += 1
            return False
        self.connections += 1
        self._connected[origin.key] = mine + 1
        return True

    def disconnect(self, origin: Origin) -> None:
        """Gives the room back."""
        self.connections -= 1
        left = self._connected[origin.key] - 1
        if left:
            self._connected[origin.key] = left
        else:
            del self._connected[origin.key]

    def connected(self, address: str) -> int:
        """Connections from that address now."""
        return self._connected.get(_network(address), 0)

    @property
    def crowded(self) -> bool:
        """Whether more than one address is connected, so that one's work is another's waiting."""
        return len(self._connected) > 1

    @property
    def known(self) -> int:
        """Addresses that something is remembered of."""
        return max(len(self._connected), len(self._failures), len(self.shaken))

    @property
    def credentials(self) -> int:
        """Ways in that are remembered."""
        return len(self._let_in)

    # ------------------------------------------------------------------ logins

    def bar(self, request: Request) -> None:
        """Refuses who comes from where too many fail already. Raises ApiError 429."""
        if not self._delayed or request.peer.let_in:
            return
        origin = self._client(request)
        if origin.exempt or self._delayed.get(origin.key, 0) < DELAYED_OF_ONE_MAX:
            return
        if _way(origin, request) not in self._let_in:
            raise self._barred(origin)

    async def failed(self, request: Request) -> None:
        """Counts a login that failed, and returns when its answer may be given. Raises ApiError 429."""
        origin = self._client(request)
        if origin.exempt or not self._failures_max:
            return
        request.peer.let_in = False
        key = origin.key
        if not self._failures.draw(key, FAILED_LOGINS_PER_S, self._failures_max):
            return
        mine = self._delayed.get(key, 0)
        if mine >= DELAYED_OF_ONE_MAX or sum(self._delayed.values()) >= DELAYED_OF_ALL_MAX:
            raise self._barred(origin)
        self.delayed += 1
        self._delayed[key] = mine + 1
        try:
            await self._sleep(DELAY_S)
        finally:
            left = self._delayed[key] - 1
            if left:
                self._delayed[key] = left
            else:
                del self._delayed[key]

    def succeeded(self, request: Request) -> None:
        """Remembers the way in of who was let in by a connection for the first time."""
        origin = self._client(request)
        if origin.exempt:
            return
        # Behind a proxy, others may use the same connection.
        request.peer.let_in = not self.origin(request.peer.address).exempt
        way = _way(origin, request)
        self._let_in[way] = None
        self._let_in.move_to_end(way)
        if len(self._let_in) > CREDENTIALS_MAX:
            self._let_in.popitem(last=False)

    def _barred(self, origin: Origin) -> ApiError:
        self.barred += 1
        if self.now() - self._told_s >= TOLD_EVERY_S:
            self._told_s = self.now()
            _log.warning("logins-barred address=%s so-far=%d", origin.key, self.barred)
        name = "address.failedLogins"
        why = (
            f"Too many logins have failed from {origin.key}: {name}, limited: {self._failures_max}"
            f" (whoever runs the server can raise it: serve --limits {name}=…)"
        )
        return too_many(f"{BUSY} {why}", "TooManyFailedLogins", name, 5)


def _way(origin: Origin, request: Request) -> int:
    """A credential with where it comes from, hashed with this process' own key."""
    return hash((origin.key, request.headers.get("Authorization"), request.peer.certificate))


def _bare(text: str) -> str:
    """An address without its port, as some proxies add it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


@lru_cache(4096)
def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return (ip.version == 6 and ip.ipv4_mapped) or ip


@lru_cache(4096)
def _network(text: str) -> str:
    """The key of an address' budget."""
    ip = _ip(text)
    if not isinstance(ip, IPv6Address):
        return text if ip is None else str(ip)
    return str(IPv6Network((int(ip) >> 64 << 64, 64)))
