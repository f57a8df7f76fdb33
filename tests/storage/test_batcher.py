"""What shares a commit, what waits, and who hears of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TypeVar

import pytest
from typing_extensions import override

from clusterling.storage.backed import FEW, BackedStore, serve
from clusterling.storage.backend import Committed, Done, Transaction
from clusterling.storage.batcher import (
    BATCH_BYTES_MAX,
    BATCH_ENOUGH,
    BATCH_OPS_MAX,
    GATHER_MAX_S,
    WAITING_BYTES_MAX,
    WAITING_MAX,
)
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.store import (
    ABSENT,
    VALUE_BYTES_MAX,
    Crowded,
    Guard,
    GuardFailed,
    KeyExists,
    Op,
    StorageError,
    Unavailable,
    UnknownOutcome,
)
from clusterling.testing.store_contract import put, remove

T = TypeVar("T")


class SlowBackend(MemoryBackend):
    """Commits when told to, and remembers what came together."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Transaction]] = []
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    @override
    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        self.batches.append(list(transactions))
        await self.go.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return await super().commit(transactions)

    def together(self) -> list[list[str]]:
        return [[op.key for transaction in batch for op in transaction.ops] for batch in self.batches]


@asynccontextmanager
async def slow() -> AsyncIterator[tuple[SlowBackend, BackedStore]]:
    backend = SlowBackend()
    async with serve(backend) as store:
        yield backend, store


async def started(*writes: Coroutine[None, None, T]) -> list[asyncio.Task[T]]:
    """Starts the writes one after the other and lets them queue."""
    tasks: list[asyncio.Task[T]] = []
    for write in writes:
        tasks.append(asyncio.create_task(write))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_during_a_commit_shares_the_next() -> None:
    async with slow() as (backend, store):
        tasks = await started(*(store.write([Op(f"a/b/{n}", b"")]) for n in range(10)))
        assert backend.together() == [["a/b/0"]]
        backend.go.set()
        revisions = await asyncio.gather(*tasks)
        assert backend.together() == [["a/b/0"], [f"a/b/{n}" for n in range(1, 10)]]
        assert [revision for [revision] in revisions] == list(range(2, 12))


async def test_a_batch_is_bounded_in_ops_and_bytes_and_a_large_value_goes_alone() -> None:
    async with slow() as (backend, store):
        small = [store.write([Op(f"a/b/{n:03}", b"")]) for n in range(1 + BATCH_OPS_MAX + 20)]
        halves = [store.write([Op(f"c/d/{n}", b"x" * (BATCH_BYTES_MAX // 2))]) for n in range(3)]
        large = [store.write([Op(f"e/f/{n}", b"x" * (BATCH_BYTES_MAX + 1))]) for n in range(2)]
        tasks = await started(*small, *halves, *large)
        backend.go.set()
        await asyncio.gather(*tasks)
        assert [len(keys) for keys in backend.together()] == [
            1,
            BATCH_OPS_MAX,
            22,
            1,
            1,
            1,
        ]  # Small before large, then clusters in turns.
        for batch in backend.batches:
            assert sum(len(t.ops) for t in batch) <= BATCH_OPS_MAX
            size = sum(len(op.value or b"") for t in batch for op in t.ops)
            assert size <= BATCH_BYTES_MAX or len(batch) == 1


async def test_a_key_is_written_once_in_a_batch_and_in_order() -> None:
    async with slow() as (backend, store):
        tasks = await started(*(put(store, f"a/b/{n % 2}", str(n).encode()) for n in range(6)))
        backend.go.set()
        revisions = await asyncio.gather(*tasks)
        assert backend.together() == [["a/b/0"], ["a/b/1", "a/b/0"], ["a/b/1", "a/b/0"], ["a/b/1"]]
        assert revisions == sorted(revisions)


async def test_others_pass_a_waiting_transaction_but_not_on_its_keys() -> None:
    async with slow() as (backend, store):
        tasks = await started(
            put(store, "a/b/first", b""),
            put(store, "a/b/hot", b"1"),
            store.write([Op("a/b/hot", b"2"), Op("a/b/other", b"2")]),
            put(store, "a/b/other", b"3"),
            put(store, "a/b/free", b""),
        )
        backend.go.set()
        await asyncio.gather(*tasks)
        assert backend.together() == [
            ["a/b/first"],
            ["a/b/hot", "a/b/free"],
            ["a/b/hot", "a/b/other"],
            ["a/b/other"],
        ]
        entry = await store.get("a/b/other")
        assert entry is not None and entry.value == b"3"


async def test_a_guard_on_a_key_that_the_batch_writes_waits() -> None:
    async with slow() as (backend, store):
        tasks = await started(
            put(store, "a/b/first", b""),
            put(store, "a/b/fence", b""),
            store.write([Op("a/b/guarded", b"")], [Guard("a/b/fence", ABSENT)]),
        )
        backend.go.set()
        with pytest.raises(GuardFailed):
            await tasks[2]
        assert len(backend.batches) == 3


async def test_results_equal_those_of_one_after_the_other() -> None:
    """Whatever shares a batch, the outcomes are those of executing in the order of arrival, key by key."""
    async with slow() as (backend, store):
        tasks = await started(
            put(store, "a/b/k", b"1", ABSENT),
            put(store, "a/b/k", b"2", ABSENT),
            remove(store, "a/b/k", 2),
            put(store, "a/b/k", b"4", ABSENT),
            remove(store, "a/b/k", 2),
        )
        backend.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            "int",
            "KeyExists",
            "int",
            "int",
            "RevisionConflict",
        ]


async def test_a_writer_that_leaves_before_its_turn_writes_nothing() -> None:
    async with slow() as (backend, store):
        first, leaves, stays = await started(*(put(store, f"a/b/{n}", b"") for n in range(3)))
        leaves.cancel()
        first.cancel()
        backend.go.set()
        assert await stays
        assert backend.together() == [["a/b/0"], ["a/b/2"]]
        assert await store.get("a/b/0") is not None


async def test_a_failed_commit_fails_its_writers_and_the_next_is_tried() -> None:
    async with slow() as (backend, store):
        backend.failure = Unavailable("the disk is full")
        first, *others = await started(*(put(store, f"a/b/{n}", b"") for n in range(3)))
        backend.go.set()
        with pytest.raises(Unavailable, match="full"):
            await first
        assert await asyncio.gather(*others) == [2, 3]


async def test_a_backend_that_breaks_leaves_nobody_waiting() -> None:
    with pytest.raises(ZeroDivisionError):
        async with slow() as (backend, store):
            backend.failure = ZeroDivisionError()
            first, waiting = await started(put(store, "a/b/0", b""), put(store, "a/b/1", b""))
            backend.go.set()
            with pytest.raises(UnknownOutcome):
                await first
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable):
                await put(store, "a/b/2", b"")


async def test_each_writer_gets_an_error_of_its_own() -> None:
    async with slow() as (backend, store):
        backend.go.set()
        await put(store, "a/b/k", b"")
        results = await asyncio.gather(
            *(put(store, "a/b/k", b"", ABSENT) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, KeyExists) for result in results)
        assert len({id(result) for result in results}) == 3


# Company.


async def in_numbers(backend: SlowBackend, store: BackedStore, count: int) -> None:
    """So many write together, which takes the store a while."""
    writing = [asyncio.create_task(put(store, f"a/c/{n}", b"")) for n in range(count)]
    await asyncio.sleep(2 * GATHER_MAX_S)
    backend.go.set()
    await asyncio.gather(*writing)
    backend.batches.clear()


async def test_a_batch_stays_open_until_as_many_have_come_as_wrote_lately() -> None:
    async with slow() as (backend, store):
        await in_numbers(backend, store, 4)
        tasks: list[asyncio.Task[int]] = []
        for n in range(8):
            tasks.append(asyncio.create_task(put(store, f"a/b/{n}", b"")))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert backend.together()[0] == [f"a/b/{n}" for n in range(4)]


async def test_a_batch_closes_when_it_has_enough_though_more_wrote_lately() -> None:
    async with slow() as (backend, store):
        await in_numbers(backend, store, 2 * BATCH_ENOUGH)
        tasks: list[asyncio.Task[int]] = []
        for n in range(2 * BATCH_ENOUGH):
            tasks.append(asyncio.create_task(put(store, f"a/b/{n}", b"")))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert backend.together()[0] == [f"a/b/{n}" for n in range(BATCH_ENOUGH)]


async def test_a_batch_closes_where_no_more_come() -> None:
    async with slow() as (backend, store):
        await in_numbers(backend, store, 4)
        await asyncio.gather(put(store, "a/b/x", b""), put(store, "a/b/y", b""))
        await put(store, "a/b/z", b"")
        assert backend.together() == [["a/b/x", "a/b/y"], ["a/b/z"]]


async def test_a_batch_stays_open_for_a_bounded_time_though_ever_more_come() -> None:
    async with slow() as (backend, store):
        await in_numbers(backend, store, BATCH_OPS_MAX)
        first = asyncio.create_task(put(store, "a/b/first", b""))
        others: list[asyncio.Task[int]] = []
        while not first.done():
            assert len(others) < BATCH_OPS_MAX - 1, "it waited until all had come"
            others.append(asyncio.create_task(put(store, f"a/b/{len(others)}", b"")))
            await asyncio.sleep(GATHER_MAX_S / 3)
        await asyncio.gather(*others)


async def begins_at_once(backend: SlowBackend, store: BackedStore) -> None:
    """The commit of a write that comes alone."""
    backend.go.clear()
    task = asyncio.create_task(put(store, "a/b/lone", b""))
    await asyncio.sleep(0)  # It asks,
    await asyncio.sleep(0)  # the batcher wakes,
    await asyncio.sleep(0)
    assert backend.together()[-1] == ["a/b/lone"]
    backend.go.set()
    await task


async def test_a_lone_writer_waits_for_nobody() -> None:
    async with slow() as (backend, store):
        backend.go.set()
        for n in range(3):
            await put(store, f"a/b/{n}", b"")
        await begins_at_once(backend, store)


async def test_a_few_writers_to_a_store_of_this_process_alone_do_not_wait_for_each_other() -> None:
    backend = SlowBackend()
    async with serve(backend, shared=False) as store:
        backend.go.set()
        await put(store, "a/b/first", b"")
        await asyncio.gather(*(put(store, f"a/b/{n}", b"") for n in range(FEW)))
        await begins_at_once(backend, store)


class Beside(SlowBackend):
    """Commits when it is told to, and is not awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Callable[[], None]] = []

    def begin_commit(self, transactions: Sequence[Transaction], done: Done) -> None:
        self.batches.append(list(transactions))

        def end() -> None:
            if self.failure is not None:
                done(self.failure)
                return
            commit = MemoryBackend.commit(self, transactions)
            try:
                commit.send(None)
            except StopIteration as over:
                done(over.value)

        self.ends.append(end)


@asynccontextmanager
async def beside() -> AsyncIterator[tuple[Beside, BackedStore]]:
    backend = Beside()
    async with serve(backend, shared=False) as store:
        yield backend, store


async def test_a_commit_beside_the_loop_begins_with_its_write_and_the_next_with_its_end() -> None:
    async with beside() as (backend, store):
        writes = [store.write([Op(f"a/b/{n}", b"")]) for n in range(4)]
        waited_for = [write.send(None) for write in writes]
        assert backend.together() == [["a/b/0"]]
        backend.ends.pop()()
        assert backend.together() == [["a/b/0"], ["a/b/1", "a/b/2", "a/b/3"]]
        assert [future.done() for future in waited_for] == [True, False, False, False]
        backend.ends.pop()()
        assert [[*future.result()] for future in waited_for] == [[2], [3], [4], [5]]
        assert not backend.ends
        for write in writes:
            write.close()


async def test_what_is_committed_beside_the_loop_waits_for_company_too() -> None:
    async with beside() as (backend, store):
        tasks = await started(*(put(store, f"a/b/{n}", b"") for n in range(2 * FEW)))
        assert [len(keys) for keys in backend.together()] == [1]
        backend.ends.pop()()
        assert len(backend.batches) == 1, "those who were answered may write again"
        await asyncio.sleep(2 * GATHER_MAX_S)
        assert [len(keys) for keys in backend.together()] == [1, 2 * FEW - 1]
        backend.ends.pop()()
        await asyncio.gather(*tasks)


async def test_a_store_that_closes_sees_its_commit_through_beside_the_loop() -> None:
    async with beside() as (backend, store):
        under_way, waiting = await started(put(store, "a/b/0", b""), put(store, "a/b/1", b""))
        asyncio.get_running_loop().call_later(0.01, backend.ends.pop())
    assert await under_way == 2
    with pytest.raises(Unavailable):
        await waiting


async def test_a_backend_that_breaks_beside_the_loop_leaves_nobody_waiting() -> None:
    with pytest.raises(ZeroDivisionError):
        async with beside() as (backend, store):
            backend.failure = ZeroDivisionError()
            first, waiting = await started(put(store, "a/b/0", b""), put(store, "a/b/1", b""))
            backend.ends.pop()()
            with pytest.raises(UnknownOutcome):
                await first
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable):
                await put(store, "a/b/2", b"")


async def test_who_has_thousands_queued_makes_another_wait_for_the_next_batch_at_most() -> None:
    async with slow() as (backend, store), asyncio.TaskGroup() as group:
        for number in range(3_000):
            group.create_task(store.write([Op(f"loud/b/{number}", b"")]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(5):
            group.create_task(store.write([Op(f"quiet/b/{number}", b"")]))
        backend.go.set()
    batches = backend.together()
    assert {f"quiet/b/{n}" for n in range(5)} <= {key for batch in batches[:3] for key in batch}
    keys = [key for batch in batches for key in batch]
    assert [key for key in keys if key.startswith("loud/")] == [f"loud/b/{n}" for n in range(3_000)]


async def test_large_writes_of_one_cluster_take_turns_with_small_ones_of_another() -> None:
    large = b"x" * (BATCH_BYTES_MAX - 10)
    async with slow() as (backend, store), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(store.write([Op(f"loud/b/{number}", large)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(3):
            group.create_task(store.write([Op(f"quiet/b/{number}", b"x" * 100)]))
        backend.go.set()
    batches = backend.together()
    first = next(place for place, batch in enumerate(batches) if "quiet/b/0" in batch)
    assert first == 1
    assert {"quiet/b/1", "quiet/b/2"} <= set(batches[first])
    assert [key for batch in batches for key in batch if key.startswith("loud/")] == [
        f"loud/b/{number}" for number in range(20)
    ]


@pytest.mark.parametrize("others", [0, BATCH_OPS_MAX])
async def test_small_writes_go_before_large_ones_every_other_time(others: int) -> None:
    """Whether all wait in one queue, or in lines."""
    async with slow() as (backend, store):
        large = [store.write([Op(f"loud/b/{number}", b"x" * (BATCH_BYTES_MAX + 1))]) for number in range(3)]
        tasks = await started(
            *large, *(store.write([Op(f"more/b/{number}", b"")]) for number in range(others))
        )
        small = 0

        async def committed() -> None:
            """Another small write arrives while each batch is under way."""
            nonlocal small
            tasks.extend(await started(store.write([Op(f"quiet/b/{small}", b"")])))
            small += 1
            count = len(backend.batches)
            backend.go.set()
            while len(backend.batches) == count and not all(task.done() for task in tasks):
                await asyncio.sleep(0)
                backend.go.clear()

        while not all(task.done() for task in tasks[:3]):
            await committed()
        backend.go.set()
        await asyncio.gather(*tasks)
    together = backend.together()
    of_large = [place for place, batch in enumerate(together) if batch[0].startswith("loud/")]
    assert len(of_large) == 3
    assert all(1 < later - sooner <= 4 for sooner, later in pairwise(of_large)), together
    for number in range(small - 1):
        [place] = [place for place, batch in enumerate(together) if f"quiet/b/{number}" in batch]
        assert place <= number + 2, "one large write at most is between"


async def test_a_small_write_of_a_key_that_a_large_one_waits_for_comes_after_it() -> None:
    async with slow() as (backend, store):
        tasks = await started(
            store.write([Op("a/b/0", b"")]),
            store.write([Op("a/b/1", b"x" * BATCH_BYTES_MAX)]),
            store.write([Op("a/b/1", b"small")]),
            store.write([Op("a/b/2", b"")]),
        )
        backend.go.set()
        await asyncio.gather(*tasks)
        assert backend.together() == [["a/b/0"], ["a/b/2"], ["a/b/1"], ["a/b/1"]]
        entry = await store.get("a/b/1")
        assert entry is not None and entry.value == b"small"


async def test_writers_of_one_hot_key_keep_no_other_cluster_waiting() -> None:
    async with slow() as (backend, store), asyncio.TaskGroup() as group:
        for number in range(1_000):
            group.create_task(store.write([Op("loud/b/hot", str(number).encode())]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        group.create_task(store.write([Op("quiet/b/a", b"")]))
        backend.go.set()
    batches = backend.together()
    assert next(place for place, batch in enumerate(batches) if "quiet/b/a" in batch) <= 2
    written = [op.value for batch in backend.batches for transaction in batch for op in transaction.ops]
    assert [value for value in written if value] == [str(number).encode() for number in range(1_000)]


async def test_more_than_a_cluster_may_have_queued_is_refused_and_others_are_not() -> None:
    async with slow() as (backend, store):
        tasks = [
            asyncio.create_task(store.write([Op(f"loud/b/{number}", b"")]))
            for number in range(WAITING_MAX + 200)
        ]
        quiet = asyncio.create_task(store.write([Op("quiet/b/0", b"")]))
        backend.go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await quiet
    refused = [one for one in done if isinstance(one, BaseException)]
    assert 0 < len(refused) <= 200
    assert all(
        isinstance(one, Crowded) and "5,000 writes of this logical cluster wait" in str(one)
        for one in refused
    )
    assert all(isinstance(one, Crowded) for one in done[-50:])


async def test_more_bytes_than_a_cluster_may_have_queued_are_refused_but_never_its_only_write() -> None:
    large = b"x" * VALUE_BYTES_MAX
    fitting = WAITING_BYTES_MAX // VALUE_BYTES_MAX
    async with slow() as (backend, store):
        tasks = [
            asyncio.create_task(store.write([Op(f"loud/b/{number}", large)]))
            for number in range(fitting + 10)
        ]
        quiet = asyncio.create_task(store.write([Op("quiet/b/0", large)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        backend.go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await quiet
    refused = [one for one in done if isinstance(one, BaseException)]
    assert 0 < len(refused) <= 10
    assert all(isinstance(one, Crowded) and "and 64 MiB may" in str(one) for one in refused)


async def test_who_waits_in_a_line_hears_that_the_store_is_closed() -> None:
    async with slow() as (backend, store):
        tasks = [asyncio.create_task(store.write([Op(f"a/b/{number}", b"")])) for number in range(500)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        backend.go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(one, Unavailable) for one in done)
