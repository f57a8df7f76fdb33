"""Every store and wrapper against a model: a dict for each revision, driven by hypothesis."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from clusterling.storage import memory, sqlite
from clusterling.storage.cache import CacheBudget, CachedStore
from clusterling.storage.guarded import Guarded
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.metered import MeteredStore
from clusterling.storage.overlay import Overlay
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    Entry,
    Event,
    Guard,
    GuardFailed,
    KeyExists,
    Limit,
    LimitReached,
    Measure,
    Op,
    RevisionConflict,
    Store,
    Watch,
)

Make = Callable[[AsyncExitStack, Path], Awaitable[Store]]
State = dict[str, Entry]

KEYS: Final = [
    f"{unit}/{ns}/{name}" for unit in ("g/r", "g/r-x", "h/r") for ns in ("a", "a-b", "b") for name in "xy"
]
PREFIXES: Final = ["", "g/", "g/r/", "g/r/a/", "g/r/a-b/", "g/r-x/", "h/r/b/"]
BELOW: Final = ["g/r/a/x", "g/r/b/y", "h/r/b/x"]  # What an overlay's lower store has.

# More examples, and other ones at each run: CLUSTERLING_MODEL_EXAMPLES=1000.
EXAMPLES: Final = int(os.environ.get("CLUSTERLING_MODEL_EXAMPLES", "60"))

keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(PREFIXES)
values = st.one_of(st.none(), st.binary(max_size=4).map(lambda tail: b"{" + tail))


def derive(_key: str, value: bytes) -> bytes:
    return value + b" derived"


def finish(_key: str, value: bytes, revision: int) -> bytes:
    return b"%d " % revision + value


class Follower:
    """A reader that lists once and then only watches; what it has must always be what is there."""

    def __init__(
        self, stack: AsyncExitStack, prefix: str, watch: Watch, state: dict[str, bytes], revision: int
    ) -> None:
        self.stack = stack
        self.prefix = prefix
        self.watch = watch
        self.state = state
        self.revision = revision

    def catch_up(self) -> None:
        while (batch := self.watch.take()) is not None:
            assert batch.events, "a batch was taken that says nothing"
            for event in batch.events:
                assert event.revision > self.revision, "an event came twice or out of order"
                self.revision = event.revision
                self._apply(event)
            assert batch.revision >= self.revision
        assert self.watch.revision >= self.revision

    def _apply(self, event: Event) -> None:
        assert event.key.startswith(self.prefix)
        if event.dropped:
            for key in [key for key in self.state if key.startswith(event.key)]:
                del self.state[key]
            return
        previous = event.previous()
        assert (previous.value if previous else None) == self.state.get(event.key)
        if event.entry is None:
            del self.state[event.key]
        else:
            assert event.entry.key == event.key
            assert event.entry.revision == event.revision
            self.state[event.key] = event.entry.value


class StoreMachine(RuleBasedStateMachine):
    """`states[r]` is what is there at revision r, for every revision at which something happened."""

    make: Make
    counts_what_it_shows = True
    finished: Callable[[str, bytes, int], bytes] = staticmethod(lambda _key, value, _revision: value)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.stack = AsyncExitStack()
        self.store = self.run(type(self).make(self.stack, self.directory))
        page = self.run(self.store.list(""))
        self.state: State = {entry.key: entry for entry in page.entries}
        self.states: dict[int, State] = {page.revision: dict(self.state)}
        self.seen = {key: [0, entry.revision] for key, entry in self.state.items()}
        self.head = page.revision
        self.horizon = 0
        self.expiries: dict[str, int] = {}
        self.followers: list[Follower] = []

    def run(self, work: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.loop.run_until_complete(bounded())

    @override
    def teardown(self) -> None:
        async def close() -> None:
            for follower in self.followers:
                await follower.stack.aclose()
            await self.stack.aclose()

        self.run(close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def revision_of(self, key: str) -> int:
        entry = self.state.get(key)
        return entry.revision if entry else ABSENT

    def pick(self, key: str, choice: int) -> int | None:
        """An expectation: none, absent, current, or one that was true once."""
        past = self.seen.get(key, [0])
        return [None, ABSENT, self.revision_of(key), past[choice % len(past)]][choice % 4]

    def refusal(
        self, ops: Sequence[Op], guards: Sequence[Guard], limits: Sequence[Limit] = ()
    ) -> type[Exception] | None:
        for guard in guards:
            if self.revision_of(guard.key) != guard.revision:
                return GuardFailed
        for op in ops:
            current = self.revision_of(op.key)
            if op.expected == ABSENT and current:
                return KeyExists
            if op.value is None and not current:
                return RevisionConflict
            if op.expected is not None and op.expected != current:
                return RevisionConflict
        return None

    def apply(self, op: Op, revision: int) -> None:
        assert revision > self.head
        self.head = revision
        self.expiries.pop(op.key, None)
        if op.value is None:
            del self.state[op.key]
        else:
            value = type(self).finished(op.key, op.value, revision)
            self.state[op.key] = Entry(op.key, value, revision)
            if op.expires_at is not None:
                self.expiries[op.key] = op.expires_at
        self.seen.setdefault(op.key, [0]).append(revision)
        self.states[revision] = dict(self.state)

    @rule(
        parts=st.lists(
            st.tuples(keys, values, st.integers(0, 99), st.one_of(st.none(), st.integers(1, 9))),
            min_size=1,
            max_size=4,
            unique_by=lambda part: part[0],
        ),
        guarded=st.lists(st.tuples(keys, st.integers(0, 99)), max_size=2),
    )
    def write(
        self, parts: list[tuple[str, bytes | None, int, int | None]], guarded: list[tuple[str, int]]
    ) -> None:
        ops = [Op(key, value, self.pick(key, choice), expires) for key, value, choice, expires in parts]
        guards = [Guard(key, self.pick(key, choice) or ABSENT) for key, choice in guarded]
        refused = self.refusal(ops, guards)
        if refused is not None:
            with pytest.raises(refused):
                self.run(self.store.write(ops, guards))
            return
        for op, revision in zip(ops, self.run(self.store.write(ops, guards)), strict=True):
            self.apply(op, revision)

    @rule(parts=st.lists(st.tuples(keys, values), min_size=2, max_size=8))
    def write_at_once(self, parts: list[tuple[str, bytes | None]]) -> None:
        """Concurrent writers: what happened must be what the revisions say, in their order."""

        async def all_of_them() -> list[Any]:
            writes = (self.store.write([Op(key, value)]) for key, value in parts)
            return await asyncio.gather(*writes, return_exceptions=True)

        results = self.run(all_of_them())
        done = [
            (result[0], part)
            for result, part in zip(results, parts, strict=True)
            if isinstance(result, Sequence)
        ]
        for revision, (key, value) in sorted(done):
            assert self.refusal([Op(key, value)], []) is None
            self.apply(Op(key, value), revision)
        failed = [result for result in results if not isinstance(result, Sequence)]
        assert all(isinstance(result, RevisionConflict) for result in failed), failed

    @rule(prefix=prefixes.filter(bool))
    def drop(self, prefix: str) -> None:
        before = self.store.head()
        self.run(self.store.drop(prefix))
        gone = [key for key in self.state if key.startswith(prefix)]
        for key in gone:
            del self.state[key]
            self.expiries.pop(key, None)
        if gone:
            assert self.store.head() > before
            # From the drop on, history is as it is now; before it, it may be gone.
            self.states = {self.store.head(): dict(self.state)}
        self.head = self.store.head()

    @rule(back=st.integers(0, 5))
    def compact(self, back: int) -> None:
        horizon = self.store.head() - back
        self.run(self.store.compact(horizon))
        self.horizon = max(self.horizon, horizon)
        self.states = {revision: state for revision, state in self.states.items() if revision >= self.horizon}

    @rule(key=keys)
    def get(self, key: str) -> None:
        assert self.run(self.store.get(key)) == self.state.get(key)

    @rule(prefix=prefixes)
    def list_now(self, prefix: str) -> None:
        page = self.run(self.store.list(prefix))
        assert list(page.entries) == sorted_under(self.state, prefix)
        assert page.revision >= self.head
        assert page.last_change <= page.revision
        changed = max((e.revision for e in page.entries), default=0)
        assert changed <= page.last_change
        assert self.run(self.store.count(prefix)) == len(page.entries)

    @rule(
        key=keys,
        size=st.integers(2, 6),
        prefix=st.sampled_from(["g/", "g/r/", "h/r/"]),
        what=st.sampled_from(Measure),
        room=st.integers(-2, 8),
    )
    def write_within(self, key: str, size: int, prefix: str, what: Measure, room: int) -> None:
        """What adds to what is limited happens if there is room for it; what adds nothing always does."""
        before = self.used(prefix)
        limit = Limit(prefix, what, before[what] + room)
        op = Op(key, b"{" * size)
        try:
            [revision] = self.run(self.store.write([op], limits=[limit]))
        except LimitReached as error:
            assert error.args[:2] == (limit, before[what]) and error.args[2] > max(room, 0)
            assert self.used(prefix) == before
        else:
            self.apply(op, revision)
            assert self.used(prefix)[what] <= max(limit.most, before[what])

    def used(self, prefix: str) -> dict[Measure, int]:
        usage = self.run(self.store.usage(prefix))
        return {
            Measure.OBJECTS: sum(one.objects for one in usage),
            Measure.BYTES: sum(one.bytes for one in usage),
        }

    @rule(prefix=st.sampled_from(["", "g/", "g/r/", "h/r/"]))
    def usage(self, prefix: str) -> None:
        """Where what is kept is what is shown: not over a lower store, and not where a cache finishes what it shows."""
        if type(self).counts_what_it_shows and type(self).finished is StoreMachine.finished:
            lengths = [len(entry.value) for entry in sorted_under(self.state, prefix) if len(entry.value) > 1]
            expected = {Measure.OBJECTS: len(lengths), Measure.BYTES: sum(lengths)}
            assert self.used(prefix) == expected

    @rule(prefix=prefixes, limit=st.integers(1, 5), data=st.data())
    def list_then(self, prefix: str, limit: int, data: st.DataObject) -> None:
        if not self.states:
            return
        revision = data.draw(st.sampled_from(sorted(self.states)), "revision")
        expected = sorted_under(self.states[revision], prefix)
        seen: list[Entry] = []
        while True:
            page = self.run(
                self.store.list(prefix, after=seen[-1].key if seen else "", limit=limit, revision=revision)
            )
            assert page.revision == revision and len(page.entries) <= limit
            seen += page.entries
            assert page.remaining in {None, len(expected) - len(seen)}
            if len(page.entries) < limit:
                break
        assert seen == expected

    @rule(now=st.integers(0, 10))
    def expired(self, now: int) -> None:
        due = sorted(key for key, expiry in self.expiries.items() if expiry <= now)
        found = self.run(self.store.expired(now, 100))
        assert sorted(entry.key for entry in found) == due
        assert all(entry == self.state[entry.key] for entry in found)

    @precondition(lambda self: len(self.followers) < 4)
    @rule(prefix=prefixes, data=st.data())
    def follow(self, prefix: str, data: st.DataObject) -> None:
        """From now, or from some state of the past."""
        start = data.draw(st.sampled_from([0, *sorted(self.states)]), "start")

        async def enter() -> Follower:
            stack = AsyncExitStack()
            page = await self.store.list(prefix, revision=start)
            state = {entry.key: entry.value for entry in page.entries}
            watch = await stack.enter_async_context(self.store.watch(prefix, after=page.revision))
            return Follower(stack, prefix, watch, state, page.revision)

        try:
            self.followers.append(self.run(enter()))
        except Compacted:
            assert start, "a list of now and a watch from there always go together"
            assert start < self.horizon

    @precondition(lambda self: self.followers)
    @rule()
    def leave(self) -> None:
        self.run(self.followers.pop(0).stack.aclose())

    @invariant()
    def followers_have_everything(self) -> None:
        for follower in self.followers:
            follower.catch_up()
            expected = {entry.key: entry.value for entry in sorted_under(self.state, follower.prefix)}
            assert follower.state == expected


def sorted_under(state: State, prefix: str) -> list[Entry]:
    return [state[key] for key in sorted(state) if key.startswith(prefix)]


async def of_memory(stack: AsyncExitStack, _directory: Path) -> Store:
    return await stack.enter_async_context(memory.open())


async def of_sqlite(stack: AsyncExitStack, directory: Path) -> Store:
    return await stack.enter_async_context(sqlite.open(directory / "state.db"))


async def of_keyspace(stack: AsyncExitStack, directory: Path) -> Store:
    base = await of_sqlite(stack, directory)
    for other in ("", "id-", "idd", "ic"):
        await base.write([Op(f"{other}/g/r/a/x", b"theirs")])
    return MeteredStore(Keyspace(base, "id"))


async def of_cache(stack: AsyncExitStack, directory: Path) -> Store:
    below = Keyspace(await of_sqlite(stack, directory), "id")
    budget = CacheBudget(bytes_max=9000)  # Room for two units: the others are evicted all the time.
    return await stack.enter_async_context(CachedStore(below, finish=finish, budget=budget))


async def of_overlay(stack: AsyncExitStack, _directory: Path) -> Store:
    base = await stack.enter_async_context(memory.open())
    lower = Keyspace(base, "lower")
    await lower.write([Op(key, b"below") for key in BELOW])
    reads = await stack.enter_async_context(CachedStore(lower))
    await base.write([Op("fence", b"{}")])
    return Overlay(Keyspace(Guarded(base, "fence"), "id"), lower, derive, reads=reads)


async def of_cached_overlay(stack: AsyncExitStack, directory: Path) -> Store:
    overlay = await of_overlay(stack, directory)
    return await stack.enter_async_context(CachedStore(overlay, finish=finish))


@pytest.mark.parametrize(
    ("make", "finished"),
    [
        (of_memory, None),
        (of_sqlite, None),
        (of_keyspace, None),
        (of_cache, finish),
        (of_overlay, None),
        (of_cached_overlay, finish),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_store_does_what_the_model_does(
    make: Make, finished: Callable[[str, bytes, int], bytes] | None
) -> None:
    attributes: dict[str, Any] = {"make": staticmethod(make)}
    if finished is not None:
        attributes["finished"] = staticmethod(finished)
    attributes["counts_what_it_shows"] = make is not of_overlay
    machine = type("Machine", (StoreMachine,), attributes)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=EXAMPLES == 60,
            suppress_health_check=list(HealthCheck),
        ),
    )
