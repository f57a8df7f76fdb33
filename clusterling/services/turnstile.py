"""Turnstile: who may use the event loop next. One slice of synchronous work a tick, tenants in turn.

Synchronous work that may take longer than `WORTH_QUEUEING_S` goes through here instead of running where it stands,
so that a request of another tenant, which arrives meanwhile, waits for one slice and not for all of it (decision 24).
Work that comes as an iterable is cut into slices; work that cannot be cut is one slice, however long.

Theory of operation
-------------------
Tenants, which are (realm, cluster), take turns by deficit round robin over the time that was measured: a turn allows
`SLICE_S`, and who took more owes it, and is passed over until it is paid. Who comes anew is served before those who have been
at it, once: so what needs but one slice waits for the one that is under way, however many have long work. A debt is kept
while anybody else is served, and then forgotten: there is nobody whom it was taken from.

While somebody is about who asks for no slices, those of others do not take all of the loop's time: a busy machine would have none to
spare for the thread that commits, nor for the kernel's part of a commit. What is over in a moment is done without a rest.

Within a tenant, work in its first slice and long work alternate; of the long, the first is seen through before the next
is begun, so that fifty lists are not all half made at once. Nothing here is touched by who never needs a slice.

Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin"; those who come anew: RFC 8290, section 4.1.3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Final, TypeVar

from clusterling.machinery.steps import Steps
from clusterling.telemetry.spans import part

_log = logging.getLogger(__name__)

WORTH_QUEUEING_S: Final = 0.000_3
SLICE_S: Final = 0.001
# Of the loop, for a slice. What is short takes several, a write to the store about five: it shall not wait for a slice at each.
ROUNDS: Final = 4
# While somebody is about who has no long work, slices may take this share of the loop's time, and so much at once; beyond that the loop
# rests between two. What is short finds loop, interpreter and processor free, and so does the thread that commits what it writes.
SHARE: Final = 0.4
BURST_S: Final = 0.05
REST_S: Final = 0.001
ABOUT_S: Final = 1.0  # Since his last request.
DEBT_MAX_S: Final = 0.2  # What is beyond is forgiven: it bounds how often somebody is passed over, too.

_T = TypeVar("_T")

# One slice of work, to end at about that time of the clock; whether it was the last. What it raises is its own.
Step = Callable[[float], bool]


class _Flow:
    """The work of one tenant. It may spend what its `credit_s` is, and is passed over while that is none."""

    __slots__ = ("credit_s", "first", "long", "tenant", "was_long")

    def __init__(self, tenant: Hashable, credit_s: float) -> None:
        self.tenant = tenant
        self.credit_s = credit_s
        self.first: deque[Step] = deque()  # Not begun.
        self.long: deque[Step] = deque()  # Begun, or known to be long.
        self.was_long = False

    def step(self, until: float) -> None:
        """Does one slice of one piece of work."""
        use_long = bool(self.long) and not (self.was_long and self.first)
        step = (self.long if use_long else self.first).popleft()
        try:
            finished = step(until)
        except Exception:  # noqa: BLE001 - nobody stands above a callback of the loop
            _log.exception("step-failed")
            finished = True
        if finished:
            self.was_long = use_long
            return
        self.was_long = True
        if use_long:
            self.long.appendleft(step)
        else:
            self.long.append(step)


class Turnstile:
    """One for a server. Holds no task: its ticks are callbacks of the loop, and there are none while nobody waits."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        *,
        rounds: int = ROUNDS,
        slice_s: float = SLICE_S,
    ) -> None:
        self.clock = clock
        self._rounds = rounds
        self._slice_s = slice_s
        self._flows: dict[Hashable, _Flow] = {}  # With something to do, or in their turn still.
        self._new: deque[_Flow] = deque()
        self._old: deque[_Flow] = deque()
        self._owing: dict[Hashable, float] = {}  # Credits below nothing of those who have left.
        self._ticking = False
        self._about_until = 0.0  # Somebody is.
        self._spent_s = 0.0  # By slices beyond their share, when it was counted last.
        self._counted_s = 0.0
        # For metrics: ticks, and seconds that they took together.
        self.ticks = 0
        self.seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether anything is to be done."""
        return self._ticking

    @property
    def waiting(self) -> int:
        """Pieces of work that are not finished."""
        return sum(len(flow.first) + len(flow.long) for flow in self._flows.values())

    async def run(self, tenant: Hashable, work: Callable[[], _T], *, long: bool = False) -> _T:
        """Does `work` when its turn has come; returns or raises what it does. `long`: more is to follow."""
        result: list[_T] = []

        def step(until: float) -> bool:
            result.append(work())
            return True

        await self._wait(tenant, step, long=long)
        return result[0]

    async def slices(self, tenant: Hashable, items: Iterable[_T]) -> list[_T]:
        """Everything `items` yields, drawn in slices of about `SLICE_S`. One item is never cut."""
        drawn: list[_T] = []
        iterator, clock = iter(items), self.clock

        def step(until: float) -> bool:
            for item in iterator:
                drawn.append(item)
                if clock() >= until:
                    return False
            return True

        await self._wait(tenant, step)
        return drawn

    async def made(self, tenant: Hashable, steps: Steps[_T]) -> _T:
        """What the steps return when all are done, in slices of about `SLICE_S`. One step is never cut."""
        result: list[_T] = []
        clock = self.clock

        def step(until: float) -> bool:
            try:
                next(steps)
                while clock() < until:
                    next(steps)
            except StopIteration as stop:
                result.append(stop.value)
                return True
            return False

        await self._wait(tenant, step)
        return result[0]

    async def turn(self, tenant: Hashable, cost_s: float = SLICE_S, *, long: bool = True) -> None:
        """Returns when it is the tenant's turn, for which it is charged so much: for work that is no function to be called.

        What follows, up to the next wait, is that work.
        """
        charged = False

        def step(until: float) -> bool:
            nonlocal charged
            if not charged:
                charged = True
                flow = self._flows[tenant]
                flow.credit_s -= cost_s
            return True

        await self._wait(tenant, step, long=long)

    def turns(self, tenant: Hashable) -> Callable[[], Awaitable[None]]:
        """`turn` for a tenant, to be handed to who need not know of either."""
        return lambda: self.turn(tenant)

    def add(self, tenant: Hashable, step: Step) -> None:
        """Does the steps of some work in its turns, until one was the last. They must not raise."""
        flow = self._flows.get(tenant)
        if flow is None:
            owed = self._owing.pop(tenant, None)
            flow = self._flows[tenant] = _Flow(tenant, self._slice_s if owed is None else owed)
            (self._new if owed is None else self._old).append(flow)
        flow.first.append(step)
        if not self._ticking:
            self._ticking = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._tick, loop)

    def heed(self, tenant: Hashable) -> None:
        """The tenant was here. Where others have long work, and he has none, there is to be room for what he does next."""
        if self._ticking and tenant not in self._flows:
            self._about_until = self.clock() + ABOUT_S

    async def _wait(self, tenant: Hashable, step: Step, *, long: bool = False) -> None:
        """Returns when all its steps are done, or raises what one of them did. Who has gone (deadline, disconnect) is dropped."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def careful(until: float) -> bool:
            if done.done():
                return True
            try:
                finished = step(until)
            except Exception as error:  # noqa: BLE001 - it is the caller's, who is told
                done.set_exception(error)
                return True
            if finished:
                done.set_result(None)
            return finished

        self.add(tenant, careful)
        if long:
            flow = self._flows[tenant]
            flow.long.append(flow.first.pop())
        with part("turnstile"):
            await done

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets tenants have their turns until a slice's time is over."""
        began = now = self.clock()
        until = began + self._slice_s
        while now < until and (flow := self._next()) is not None:
            before = now
            credit_s = flow.credit_s
            flow.step(until)
            now = self.clock()
            charged_s = credit_s - flow.credit_s + now - before
            if len(self._flows) == 1:
                credit_s = min(credit_s, 0.0) if credit_s > -self._slice_s else 0.0
            flow.credit_s = max(credit_s - charged_s, -DEBT_MAX_S)
            if charged_s >= self._slice_s:
                break  # Of which some may still be to come.
        self.ticks += 1
        self.seconds += now - began
        left_s = max(self._spent_s - (began - self._counted_s) * SHARE, 0.0)
        self._spent_s = min(left_s + now - began, 2 * BURST_S)
        self._counted_s = began
        if self._flows:
            self._let_pass(loop, self._rounds)
        else:
            self._ticking = False
            self._owing.clear()

    def _let_pass(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        """Lets the loop go round so often before the next slice, and rest where somebody is about."""
        if rounds > 1:
            loop.call_soon(self._let_pass, loop, rounds - 1)
        elif self._spent_s > BURST_S and self.clock() < self._about_until:
            loop.call_later(REST_S, self._tick, loop)
        else:
            loop.call_soon(self._tick, loop)

    def _next(self) -> _Flow | None:
        """Whose turn it is."""
        new, old = self._new, self._old
        while new or old:
            flows = new or old
            flow = flows[0]
            if not (flow.first or flow.long):
                flows.popleft()
                if flows is new and old:
                    # Or who always has a little would always come anew.
                    old.append(flow)
                else:
                    del self._flows[flow.tenant]
                    if flow.credit_s < 0:
                        self._owing[flow.tenant] = flow.credit_s
            elif flow.credit_s <= 0 and len(self._flows) > 1:
                flow.credit_s += self._slice_s
                flows.popleft()
                old.append(flow)
            else:
                return flow
        return None
