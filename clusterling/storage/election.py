"""One leader among replicas, over any Store: a lease that is renewed, and a term that the leader's writes depend on.

Two keys. The *lease* says who leads and is rewritten at every renewal. The *term* is rewritten only when the leader
changes, in the same write; its revision is the guard of everything that a leader writes. So a leader that was
paused and wakes up after its successor began can still think what it likes: its writes are refused.

No two clocks are ever compared. A candidate takes over when it has seen the lease unchanged for its whole length
by its own monotonic clock; a leader gives up after two thirds of it without a renewal. Both only bound how long
nobody leads; that nobody acts beside the leader is the guard's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
from typing_extensions import override

from clusterling.storage.guarded import Guarding
from clusterling.storage.store import (
    ABSENT,
    Guard,
    GuardFailed,
    KeyExists,
    Limit,
    Op,
    RevisionConflict,
    StorageError,
    Store,
)

logger = logging.getLogger(__name__)

LEASE_S: Final = 8.0  # A dead leader is followed after this and a retry or two, which is below 15 s.
RETRY_S: Final = 2.0  # How often a leader renews, and a candidate looks.
LOOK_PAUSE_S: Final = 0.05
RELEASE_S: Final = 1.0  # How long a leader that stops may take to say so.

LEASES: Final = "~controllers/lease/-/"

_LOST: Final = (KeyExists, RevisionConflict, GuardFailed)


class Ticks(Protocol):
    """The part of a clock that an election needs."""

    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Term:
    """One leader's time. `guard` holds as long as nobody else has been elected."""

    number: int
    guard: Guard


@dataclass(frozen=True, slots=True)
class _Lease:
    holder: str  # "" where the last leader has stepped down.
    term: int
    length_s: float
    revision: int


_acting: ContextVar[Term | None] = ContextVar("acting term", default=None)


class Election:
    """One candidate. `run` takes part until cancelled; `elected` and `over` tell who wants to know.

    `holder` names this process and no other (a random part is needed: a restarted process is another one).
    """

    def __init__(
        self,
        store: Store,
        clock: Ticks,
        *,
        holder: str,
        name: str = "main",
        lease_s: float = LEASE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        assert holder, "a holder has a name"
        assert retry_s * 2 <= lease_s, "a lease outlives a renewal that fails"
        self._store = store
        self._clock = clock
        self.holder = holder
        self._lease_key = f"{LEASES}{name}"
        self._term_key = f"~controllers/term/-/{name}"
        self._lease_s = lease_s
        self._retry_s = retry_s
        self._term: Term | None = None
        self._valid_until = 0.0
        self._lease: _Lease | None = None  # As last seen,
        self._since = 0.0  # and since when it is as it is.
        self._changed = asyncio.Event()

    @property
    def term(self) -> Term | None:
        """The term in which this process leads now, if it does."""
        return self._term if self._clock.monotonic() < self._valid_until else None

    @property
    def is_led(self) -> bool:
        """Some process leads, as far as this one has seen."""
        lease = self._lease
        if self.term is not None or lease is None:
            return self.term is not None
        return bool(lease.holder) and self._clock.monotonic() - self._since <= lease.length_s

    async def elected(self) -> Term:
        """Waits until this process leads."""
        while (term := self.term) is None:
            await self._changed.wait()
        return term

    async def over(self, term: Term) -> None:
        """Waits until that term has ended for this process."""
        while self._term is term:
            await self._changed.wait()

    async def run(self) -> None:
        """Takes part until cancelled, then steps down so that another may follow at once."""
        try:
            while True:
                try:
                    await self._step()
                except StorageError as error:
                    logger.info("election-retry holder=%s error=%s", self.holder, error)
                if self._term is not None and self._clock.monotonic() >= self._valid_until:
                    self._end("not renewed in time")
                await self._pause()
        finally:
            await self._step_down()

    async def _pause(self) -> None:
        """Until the next step: a candidate's comes at once when the lease changes, as when the leader steps down."""
        lease = self._lease
        if self._term is not None or lease is None:
            await asyncio.sleep(self._retry_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_s):
                try:
                    async with self._store.watch(LEASES, after=lease.revision) as watch:
                        await anext(watch)
                    # However often it changes, looking at it must not be all that is done here.
                    await asyncio.sleep(min(self._retry_s, LOOK_PAUSE_S))
                except StorageError:
                    await asyncio.sleep(self._retry_s)

    async def _step(self) -> None:
        """One renewal of a leader, or one look of a candidate: who finds its own lease there need not wait for its end."""
        if self._term is None:
            await self._look()
            return
        started = self._clock.monotonic()
        try:
            # A store that does not answer must not keep a leader in office.
            async with asyncio.timeout(max(0.0, self._valid_until - started)):
                await self._renew(self._term, started)
        except TimeoutError:
            self._end("the store did not answer")

    async def _renew(self, term: Term, started: float) -> None:
        assert self._lease is not None, "who leads has written a lease"
        lease = self._encoded(self.holder, term.number)
        try:
            revisions = await self._store.write(
                [Op(self._lease_key, lease, self._lease.revision)], [term.guard]
            )
        except _LOST:
            # Either somebody follows, or an earlier renewal happened whose answer was lost.
            seen = await self._read()
            if seen is None or seen.holder != self.holder or seen.term != term.number:
                self._end("another holds the lease")
            else:
                self._lease = seen
            return
        self._lease = _Lease(self.holder, term.number, self._lease_s, revisions[0])
        self._valid_until = started + self._lease_s * 2 / 3

    async def _look(self) -> None:
        seen = await self._read()
        now = self._clock.monotonic()  # After the answer: what was seen is at least as old.
        before = self._lease
        if seen is not None and (before is None or before.revision != seen.revision):
            self._lease, self._since = seen, now
            before = seen
        if seen is None:
            await self._take_over(None)
        elif seen.holder in ("", self.holder) or now - self._since >= max(seen.length_s, self._lease_s):
            await self._take_over(seen)

    async def _take_over(self, seen: _Lease | None) -> None:
        started = self._clock.monotonic()
        number = seen.term + 1 if seen is not None else 1
        term = await self._store.get(self._term_key)
        ops = [
            Op(self._lease_key, self._encoded(self.holder, number), seen.revision if seen else ABSENT),
            Op(
                self._term_key,
                orjson.dumps({"holder": self.holder, "term": number}),
                term.revision if term is not None else ABSENT,
            ),
        ]
        try:
            lease_revision, term_revision = await self._store.write(ops)
        except _LOST:
            return
        self._lease = _Lease(self.holder, number, self._lease_s, lease_revision)
        self._valid_until = started + self._lease_s * 2 / 3
        self._term = Term(number, Guard(self._term_key, term_revision))
        logger.info("election-won holder=%s term=%d", self.holder, number)
        self._announce()

    async def _read(self) -> _Lease | None:
        entry = await self._store.get(self._lease_key)
        if entry is None:
            return None
        fields: dict[str, Any] = orjson.loads(entry.value)
        return _Lease(fields["holder"], fields["term"], fields["leaseSeconds"], entry.revision)

    async def _step_down(self) -> None:
        term, lease = self._term, self._lease
        if term is None or lease is None:
            return
        self._end("stepping down")
        with contextlib.suppress(StorageError, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._store.write(
                    [Op(self._lease_key, self._encoded("", term.number), lease.revision)], [term.guard]
                )

    def _encoded(self, holder: str, term: int) -> bytes:
        return orjson.dumps({"holder": holder, "term": term, "leaseSeconds": self._lease_s})

    def _end(self, why: str) -> None:
        if self._term is not None:
            logger.info("election-over holder=%s term=%d why=%s", self.holder, self._term.number, why)
        self._term = None
        self._valid_until = 0.0
        self._lease = None
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def lead(election: Election, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` whenever this process leads, and cancels it when its term ends. Returns when `work` does.

    What `work` writes through a `Led` store is guarded by the term, from any task that it starts.
    """
    loop = asyncio.get_running_loop()
    while True:
        term = await election.elected()
        with acting(term):
            working = loop.create_task(work(), name="leading")
        ending = loop.create_task(election.over(term), name="term")
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            finished = working.done()
        finally:
            ending.cancel()
            working.cancel()
            await asyncio.wait({working, ending})
        if finished:
            await working
            return
        if not working.cancelled() and (error := working.exception()) is not None:
            # It could not end in order, which is no reason not to begin again.
            logger.warning("leading-ended term=%d error=%r", term.number, error)


@contextmanager
def acting(term: Term) -> Iterator[None]:
    """What is written inside, and by tasks started inside, is written in that term."""
    token = _acting.set(term)
    try:
        yield
    finally:
        _acting.reset(token)


class Led(Guarding):
    """Guards the writes of a leader by its term (GuardFailed once it is over); others' go through as they are."""

    @override
    def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Coroutine[Any, Any, Sequence[int]]:
        # Nearly all writes are nobody's acting for the leader.
        if _acting.get() is None:
            return self._store.write(ops, guards, limits)
        return super().write(ops, guards, limits)

    @override
    async def added(self) -> Sequence[Guard]:
        term = _acting.get()
        return () if term is None else (term.guard,)
