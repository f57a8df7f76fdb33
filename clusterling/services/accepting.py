"""Accepting: the open sockets of a listener, who may come in by them, and whose TLS handshake is next.

A connection is counted before TLS begins, and is closed unread where its address has its share already: that costs
microseconds. Handshakes cost a hundred times as much, and one that is not gone on with costs memory for as long as it
is waited for. So of one address only some are under way at once, and where there are other addresses so many begin in a
second; the others wait their turn as bare sockets, address by address, and none of another address waits for them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl as tls
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, NamedTuple

from clusterling.services.addresses import TOLD_EVERY_S, Addresses, Origin
from clusterling.services.proxying import read_header

_log = logging.getLogger(__name__)

BACKLOG: Final = 1024
ACCEPTED_AT_ONCE: Final = 64  # Before others have the loop.
EXHAUSTED_S: Final = 1.0  # Until the next try, where the process can open nothing more.

HANDSHAKE_S: Final = 10.0
SHUTDOWN_S: Final = 3.0  # For a peer to say goodbye to TLS.
WAITING_S: Final = 30.0  # For a turn; clients have given up by then.
TURN_S: Final = 0.02  # Between looks at who may go on, while anybody waits and nothing has ended.
LOOKS: Final = 64  # At those who wait, in one go.

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Place:
    """The room of one connection, from its acceptance to its end."""

    __slots__ = ("_addresses", "_left", "address", "entered", "origin")

    def __init__(self, addresses: Addresses, origin: Origin, address: str) -> None:
        self._addresses = addresses
        self._left = False
        self.address = address
        self.entered = False  # Its protocol has it from here on.
        self.origin = origin

    def stands_for(self, address: str) -> bool:
        """Whether there is room for the client that a proxy speaks for; if so, the place is that client's from here on."""
        origin = self._addresses.origin(address)
        self._addresses.disconnect(self.origin)
        if self._addresses.connect(origin):
            self.origin, self.address = origin, address
            return True
        self._left = True
        return False

    def leave(self) -> None:
        """Gives it back. Safe to repeat."""
        if not self._left:
            self._left = True
            self._addresses.disconnect(self.origin)


class Door:
    """`protocol` makes one for each connection that is let in; it says `entered` to its place, and `leave` at its end."""

    def __init__(
        self,
        addresses: Addresses,
        protocol: Callable[[Place], asyncio.BaseProtocol],
        ssl: tls.SSLContext | None,
    ) -> None:
        self._addresses = addresses
        self._protocol = protocol
        self._tls = ssl
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._resting: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], Place] = {}
        self._told_s = float("-inf")
        self.turns = Turns(addresses, self._begin, self._loop)
        self.accepted = 0
        self.failed = 0  # Handshakes.

    async def open(self, host: str, port: int) -> int:
        """Accepts from here on; the port, where 0 takes a free one. Raises OSError."""
        found = await self._loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        absent: OSError | None = None
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    opened = _listening(family, (address[0], port, *address[2:]))
                except OSError as error:
                    # `localhost` is both kinds of address, where the machine may have but one.
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
                    absent = error
                    continue
                port = opened.getsockname()[1]
                self._sockets.append(opened)
            if not self._sockets:
                raise absent or OSError(errno.EADDRNOTAVAIL, "no such address")
        except OSError:
            self.close()
            raise
        self._listen()
        return port

    def close(self) -> None:
        """Accepts no more, and turns away who has not come in yet."""
        if self._resting is not None:
            self._resting.cancel()
        for opened in self._sockets:
            self._loop.remove_reader(opened)
            opened.close()
        self._sockets = []
        self.turns.close()
        for task, place in self._tasks.items():
            if not place.entered:
                task.cancel()

    async def closed(self) -> None:
        """Returns when nobody is on the threshold any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _listen(self) -> None:
        self._resting = None
        for opened in self._sockets:
            self._loop.add_reader(opened, self._accept, opened)

    def _accept(self, opened: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, address = opened.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._tell("descriptors-exhausted error=%r", error)
                for one in self._sockets:
                    self._loop.remove_reader(one)
                if self._resting is None:
                    self._resting = self._loop.call_later(EXHAUSTED_S, self._listen)
                return
            self.accepted += 1
            self._admit(accepted, address[0] if isinstance(address, tuple) else "")

    def _admit(self, accepted: socket.socket, address: str) -> None:
        origin = self._addresses.origin(address)
        if not self._addresses.connect(origin):
            accepted.close()
            self._refuse(origin.key)
            return
        accepted.setblocking(False)
        place = Place(self._addresses, origin, address)
        if self._addresses.introduced(origin):
            self._run(self._introduce(accepted, place), place)
        else:
            self._enter(accepted, place)

    def _enter(self, accepted: socket.socket, place: Place) -> None:
        if self._tls is None:
            self._begin(accepted, place)
        else:
            self.turns.enter(accepted, place)

    async def _introduce(self, accepted: socket.socket, place: Place) -> None:
        """Has a proxy say for whom it speaks, before anything else is said."""
        comes_in = False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                address = await read_header(partial(self._loop.sock_recv, accepted))
            comes_in = not address or place.stands_for(address)
            if not comes_in:
                self._refuse(address)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError.
            _log.debug("not-introduced peer=%s error=%r", place.origin.key, error)
        finally:
            if not comes_in:
                accepted.close()
                place.leave()
        if comes_in:
            self._enter(accepted, place)

    def _refuse(self, address: str) -> None:
        self._tell("connection-refused address=%s connections=%d", address, self._addresses.connections)

    def _tell(self, event: str, *values: object) -> None:
        """Logs, but not each time: how often is whoever comes' choice."""
        if self._addresses.now() - self._told_s >= TOLD_EVERY_S:
            self._told_s = self._addresses.now()
            _log.warning(event, *values)

    def _begin(self, accepted: socket.socket, place: Place) -> None:
        self._run(self._bring_in(accepted, place), place)

    def _run(self, work: Coroutine[None, None, None], place: Place) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = place
        task.add_done_callback(self._tasks.pop)

    async def _bring_in(self, accepted: socket.socket, place: Place) -> None:
        """From a bare socket to a connection of the protocol, whose place is its own from there on."""
        secure = self._tls is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(place),
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if secure else None,
                ssl_shutdown_timeout=SHUTDOWN_S if secure else None,
            )
        except OSError as error:
            self.failed += secure
            place.leave()
            _log.debug("not-connected peer=%s error=%r", place.origin.key, error)
        except BaseException:
            place.leave()
            raise
        finally:
            if secure:
                self.turns.leave(place.origin)


class _Waiting(NamedTuple):
    since: float
    socket: socket.socket
    place: Place


class Turns:
    """Handshakes, under way and waiting. `begin` begins one, and has `leave` called when it is over."""

    def __init__(
        self,
        addresses: Addresses,
        begin: Callable[[socket.socket, Place], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._addresses = addresses
        self._begin = begin
        self._loop = loop
        self._of: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # When that goes off.
        self._closed = False
        self.under_way = 0
        self.waiting = 0

    def enter(self, accepted: socket.socket, place: Place) -> None:
        """Begins it at once, or when it is its turn."""
        key = place.origin.key
        if key not in self._waiting and self._may(place.origin):
            self._start(accepted, place)
            return
        self._waiting.setdefault(key, deque()).append(_Waiting(self._addresses.now(), accepted, place))
        self.waiting += 1
        self._look(TURN_S)

    def leave(self, origin: Origin) -> None:
        """One is over."""
        self.under_way -= 1
        left = self._of[origin.key] - 1
        if left:
            self._of[origin.key] = left
        else:
            del self._of[origin.key]
        if self._waiting:
            self._look(0.0)

    def close(self) -> None:
        """Turns away who waits."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for queue in self._waiting.values():
            for one in queue:
                one.socket.close()
                one.place.leave()
        self._waiting.clear()
        self.waiting = 0

    def _may(self, origin: Origin) -> bool:
        """Whether one from there may begin now; if so, it has been counted against its rate."""
        budget = self._addresses
        if budget.handshakes_max and self.under_way >= budget.handshakes_max:
            return False
        if origin.exempt:
            return True
        most, rate = budget.handshakes_of_one_max, budget.handshakes_per_s
        if most and self._of.get(origin.key, 0) >= most:
            return False
        return not (rate and budget.crowded) or not budget.shaken.draw(origin.key, rate, 2 * rate)

    def _start(self, accepted: socket.socket, place: Place) -> None:
        key = place.origin.key
        self.under_way += 1
        self._of[key] = self._of.get(key, 0) + 1
        self._begin(accepted, place)

    def _look(self, within_s: float) -> None:
        """Has those who wait looked at, so soon at the latest."""
        due_s = self._loop.time() + within_s
        if self._closed or (self._timer is not None and self._due_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self._loop.call_later(within_s, self._go_on)

    def _go_on(self) -> None:
        """Begins what may begin, one of each address in turn."""
        self._timer = None
        until = self._addresses.now() - WAITING_S
        missed = 0
        for _ in range(LOOKS):
            if missed >= len(self._waiting):
                break
            key, queue = next(iter(self._waiting.items()))
            self._waiting.move_to_end(key)
            first = queue[0]
            missed += 1
            if first.since < until:
                first.socket.close()
                first.place.leave()
            elif self._may(first.place.origin):
                self._start(first.socket, first.place)
            else:
                continue
            missed = 0
            self.waiting -= 1
            queue.popleft()
            if not queue:
                del self._waiting[key]
        if self._waiting:
            self._look(TURN_S)


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    """Raises OSError."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Those accepted inherit it.
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened
