"""What the SQLite file survives, and what it says when it cannot be used."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import apsw
import pytest

from clusterling.storage import sqlite
from clusterling.storage.sqlite_reading import COUNTED_MAX
from clusterling.storage.store import (
    ABSENT,
    WRITE_OPS_MAX,
    Batch,
    Compacted,
    Entry,
    Guard,
    GuardFailed,
    KeyExists,
    Op,
    RevisionConflict,
    Store,
    StoreOpenError,
    Unavailable,
    Watch,
)
from clusterling.testing.store_contract import put, remove, take

LIVES = 50
KILO = b"{" + b"x" * 1023


async def refused(path: Path) -> str:
    """What opening says; it must be one line that names the place."""
    with pytest.raises(StoreOpenError) as caught:
        async with sqlite.open(path):
            pass
    message = str(caught.value)
    assert "\n" not in message and str(path.parent) in message
    return message


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = apsw.Connection(str(path))
    db.set_busy_timeout(10_000)
    try:
        return list(db.execute(sql).fetchall())
    finally:
        db.close()


# Lives and deaths.


def live_and_die(path: Path, life: int, acknowledgements: int) -> list[str]:
    """Starts a writing process, kills it after so many acknowledgements, returns all that it made."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.writing_child", str(path), str(life)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    lines = [child.stdout.readline().decode() for _ in range(acknowledgements)]
    child.kill()
    lines += child.stdout.read().decode().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    return [line for line in lines if line.endswith("\n")]


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rng = random.Random(50)
    acknowledged: dict[str, int] = {}
    counted = (0, 0)
    last = 1
    for life in range(LIVES):
        lines = await asyncio.to_thread(live_and_die, path, life, rng.randrange(1, 60))
        revisions: list[int] = []
        for line in lines:
            key, revision, *value = line.split()
            revisions.append(int(revision))
            if value:
                assert int(value[0]) > counted[1], "an acknowledged increment was lost"
                counted = (int(revision), int(value[0]))
            else:
                acknowledged[key] = int(revision)
        assert min(revisions) > last, "a revision was used twice"
        last = max(revisions)
    assert len(acknowledged) > LIVES
    async with sqlite.open(path) as store:
        assert store.head() >= last
        found = {entry.key: entry for entry in (await store.list("apps/things/")).entries}
        for key, written in acknowledged.items():
            assert found[key] == Entry(key, key.encode() * 20, written)
        counter = await store.get("apps/counters/-/one")
        assert counter is not None and int(counter.value) >= counted[1] and counter.revision >= counted[0]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_reopened_store_has_its_history_and_identity(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        identity = await store.identity()
        first = await put(store, "apps/things/a/x", b"one")
        await put(store, "apps/things/b/x", b"dropped")
        await put(store, "apps/things/a/x", b"two")
        await remove(store, "apps/things/a/x")
        await store.drop("apps/things/b/")
        head = store.head()
    async with sqlite.open(path) as store:
        assert await store.identity() == identity and store.head() == head
        assert await store.count("") == 0
        page = await store.list("", revision=first)
        assert [(entry.key, entry.value) for entry in page.entries] == [("apps/things/a/x", b"one")]
        async with store.watch("", after=first) as watch:
            events = await take(watch, 4)
        assert events[3].dropped
        assert [event.previous() for event in events[:2]] == [None, Entry("apps/things/a/x", b"one", first)]
        await store.compact(head)
        assert await put(store, "apps/things/b/x", b"new", ABSENT) == head + 1
    async with sqlite.open(path) as store:
        with pytest.raises(Compacted):
            await store.list("", revision=first)
        assert await store.count("") == 1


async def test_a_lost_tail_of_the_wal_loses_only_the_last_writes(tmp_path: Path) -> None:
    """A WAL cut anywhere, as by a file system that lied about a sync, leaves a state that once was.

    So does one whose space was taken, but what was written there never arrived.
    """
    live = tmp_path / "live" / "state.db"
    rng = random.Random(8)
    async with sqlite.open(live) as store:
        written = [await put(store, f"apps/things/ns/{n:03}", KILO) for n in range(60)]
        whole = live.with_name("state.db-wal").read_bytes()
        wal = whole.rstrip(b"\0")
        assert len(wal) < len(whole), "space was taken ahead of need"
        database = live.read_bytes()
    for attempt in range(12):
        copy = tmp_path / f"copy{attempt}" / "state.db"
        copy.parent.mkdir()
        copy.write_bytes(database)
        cut = wal[: rng.randrange(len(wal) // 2, len(wal))]
        copy.with_name("state.db-wal").write_bytes(cut.ljust(len(whole) if attempt % 2 else 0, b"\0"))
        async with sqlite.open(copy) as store:
            entries = (await store.list("apps/things/")).entries
            assert [entry.revision for entry in entries] == written[: len(entries)]
            assert 10 < len(entries) < 60
            assert await put(store, "apps/things/ns/new", b"") == store.head() > entries[-1].revision


async def test_the_wal_begins_anew_however_long_writes_go_on(tmp_path: Path) -> None:
    """What it holds is copied beside the writer, who never rests here, and the last of it by him."""
    path = tmp_path / "db"
    large = b"x" * 1_000_000
    sizes: list[int] = []
    async with sqlite.open(path) as store:
        for at in range(100):
            await put(store, f"c/g/r/-/{at % 8}", large + str(at).encode())
            sizes.append((tmp_path / "db-wal").stat().st_size)
    assert max(sizes) < 80_000_000
    async with sqlite.open(path) as store:
        page = await store.list("c/")
    assert [entry.value for entry in page.entries] == [
        large + str(96 + at if at < 4 else 88 + at).encode() for at in range(8)
    ]


async def test_a_commit_under_way_is_seen_through_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with AsyncExitStack() as outlives:
        async with sqlite.open(path) as store:
            watch = await outlives.enter_async_context(store.watch("", after=store.head()))
            writers = [asyncio.create_task(put(store, f"apps/things/ns/{n}", b"")) for n in range(500)]
            await asyncio.sleep(0.01)
            while watch.take():
                pass
            waiting = asyncio.create_task(_next(watch))
            await asyncio.sleep(0)
        results = await asyncio.gather(*writers, return_exceptions=True)
        with pytest.raises(Unavailable):
            await waiting
            await _next(watch)
    assert all(isinstance(result, int | Unavailable) for result in results)
    done = {f"apps/things/ns/{n}" for n, result in enumerate(results) if isinstance(result, int)}
    with pytest.raises(Unavailable):
        await put(store, "apps/things/ns/late", b"")
    with pytest.raises(Unavailable):
        await store.get("apps/things/ns/late")
    async with sqlite.open(path) as store:
        assert {entry.key for entry in (await store.list("")).entries} == done


# A full disk.


async def fill(store: Store) -> dict[str, int]:
    """Writes until the store is full; what was acknowledged."""
    acknowledged: dict[str, int] = {}
    for start in range(0, 5000, 20):
        keys = [f"apps/things/ns/{number:05}" for number in range(start, start + 20)]
        results = await asyncio.gather(*(put(store, key, KILO) for key in keys), return_exceptions=True)
        acknowledged |= {key: got for key, got in zip(keys, results, strict=True) if isinstance(got, int)}
        refused = [got for got in results if not isinstance(got, int)]
        assert all(isinstance(error, Unavailable) for error in refused), refused
        if refused:
            return acknowledged
    raise AssertionError("the store was never full")


async def check_full(store: Store, acknowledged: dict[str, int]) -> None:
    page = await store.list("apps/things/")
    assert {entry.key: entry.revision for entry in page.entries} == acknowledged
    assert all(entry.value == KILO for entry in page.entries)
    key = next(iter(acknowledged))
    assert await store.get(key) == Entry(key, KILO, acknowledged[key])


async def test_a_full_store_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path, bytes_max=1 << 20) as store:
        acknowledged = await fill(store)
        assert len(acknowledged) > 100
        async with store.watch("", after=store.head()) as watch:
            with pytest.raises(Unavailable):
                await put(store, "apps/things/ns/large", KILO * 1000)
            await check_full(store, acknowledged)
            assert watch.take() is None
    async with sqlite.open(path) as store:
        await check_full(store, acknowledged)
        assert await put(store, "apps/things/ns/more", KILO) == store.head()


async def test_a_store_full_of_history_recovers_by_compaction(tmp_path: Path) -> None:
    async with sqlite.open(tmp_path / "state.db", bytes_max=1 << 20) as store:
        kept = await put(store, "apps/things/ns/kept", KILO)
        for _ in range(3):
            with pytest.raises(Unavailable):
                for _ in range(5000):
                    await asyncio.gather(*(put(store, f"apps/things/ns/busy{n}", KILO) for n in range(20)))
            assert await store.count("") == 21
            await store.compact(store.head())
        assert await put(store, "apps/things/ns/busy0", KILO) == store.head()
        assert await store.get("apps/things/ns/kept") == Entry("apps/things/ns/kept", KILO, kept)


@contextmanager
def files_limited(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond `size`: what a full disk does, without needing one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_writes_refused_by_the_file_system_are_lost_neither_before_nor_after(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        with files_limited(2 << 20):
            acknowledged = await fill(store)
            await check_full(store, acknowledged)
        acknowledged["apps/things/ns/after"] = await put(store, "apps/things/ns/after", KILO)
        await check_full(store, acknowledged)
    async with sqlite.open(path) as store:
        await check_full(store, acknowledged)


# Files that cannot be used.


async def filled(path: Path, count: int = 200) -> None:
    async with sqlite.open(path) as store:
        for number in range(count):
            await put(store, f"apps/things/ns/{number:03}", KILO)


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but someone's only copy" * 100)
    assert "damaged" in await refused(path)
    assert path.read_bytes() == b"not a database, but someone's only copy" * 100


async def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rows(path, "CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
    before = path.read_bytes()
    assert "not a Clusterling store" in await refused(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
async def test_a_damaged_page_is_found_when_the_store_is_opened(tmp_path: Path, where: float) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    content = bytearray(path.read_bytes())
    page = int(len(content) * where) // 4096 * 4096
    content[page : page + 512] = os.urandom(512)
    path.write_bytes(content)
    message = await refused(path)
    assert "damaged" in message and "backup" in message
    assert path.read_bytes() == bytes(content)


async def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in await refused(path)


async def test_data_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path, 3)
    rows(path, f"UPDATE meta SET value = {sqlite.FORMAT + 1} WHERE name = 'format'")  # noqa: S608
    before = path.read_bytes()
    message = await refused(path)
    assert f"format {sqlite.FORMAT + 1}" in message and "newer" in message
    assert path.read_bytes() == before
    rows(path, f"UPDATE meta SET value = {sqlite.FORMAT} WHERE name = 'format'")  # noqa: S608
    async with sqlite.open(path) as store:
        assert await store.count("") == 3


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "write" in await refused(tmp_path / "file" / "data" / "state.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "write" in await refused(tmp_path / "state.db")
    finally:
        tmp_path.chmod(0o700)


async def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        message = await refused(path)
        assert f"process {os.getpid()}" in message
        other = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.storage.writing_child", str(path), "0"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert other.returncode != 0 and other.stdout == ""
        assert f"{tmp_path} is in use by process {os.getpid()}" in other.stderr
        assert await put(store, "apps/things/ns/a", b"") == store.head()
    async with sqlite.open(path) as store:
        assert await store.count("") == 1


async def test_who_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    """On a file system whose locks do not reach the other host, the owner in the file still tells."""
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        await put(store, "apps/things/ns/a", b"ours")
        rows(path, "UPDATE meta SET value = 'another' WHERE name = 'owner'")
        with pytest.raises(Unavailable, match="taken over"):
            await put(store, "apps/things/ns/a", b"lost")
        entry = await store.get("apps/things/ns/a")
        assert entry is not None and entry.value == b"ours"


async def test_what_another_program_wrote_is_never_overwritten_unseen(tmp_path: Path) -> None:
    """The writer remembers where keys are; when the file says otherwise, the file is right."""
    path = tmp_path / "state.db"
    moved = "UPDATE state SET revision = revision + 1000 WHERE key = 'apps/things/ns/a'"
    async with sqlite.open(path) as store:
        revision = await put(store, "apps/things/ns/a", b"ours")
        rows(path, "INSERT INTO log SELECT revision + 1000, key, revision, x'7b7d' FROM log")
        rows(path, moved)
        with pytest.raises(RevisionConflict):
            await put(store, "apps/things/ns/a", b"lost", revision)
        entry = await store.get("apps/things/ns/a")
        assert entry == Entry("apps/things/ns/a", b"{}", revision + 1000)
        assert await put(store, "apps/things/ns/a", b"next", revision + 1000) == revision + 1


@pytest.mark.parametrize("reopened", [False, True], ids=["remembered", "unknown"])
async def test_a_refused_expectation_is_not_taken_for_the_truth(tmp_path: Path, reopened: bool) -> None:
    path = tmp_path / "state.db"
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(sqlite.open(path))
        first = await put(store, "apps/things/ns/a", b"first")
        second = await put(store, "apps/things/ns/a", b"second", first)
        await put(store, "apps/things/ns/b", b"there")
        if reopened:
            await stack.aclose()
            store = await stack.enter_async_context(sqlite.open(path))
        for wrong in (first, ABSENT, 1, -second, 1 << 62, 1 << 70):
            # Refused for b, so what is said of a is looked at by nobody.
            results = await asyncio.gather(
                store.write([Op("apps/things/ns/a", b"", wrong), Op("apps/things/ns/b", b"", ABSENT)]),
                put(store, "apps/things/ns/c", b""),
                return_exceptions=True,
            )
            assert isinstance(results[0], KeyExists | RevisionConflict) and isinstance(results[1], int)
        with pytest.raises(RevisionConflict):
            await put(store, "apps/things/ns/a", b"", first)
        with pytest.raises(KeyExists):
            await put(store, "apps/things/ns/a", b"", ABSENT)
        assert await put(store, "apps/things/ns/a", b"third", second) == store.head()


@pytest.mark.parametrize("wrong", [ABSENT, 2, 3])
async def test_a_wrong_expectation_does_not_disturb_its_neighbours(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        for value in (b"2", b"3", b"4"):
            await put(store, "apps/things/ns/a", value)
        await remove(store, "apps/things/ns/a")
        if wrong == ABSENT:
            await put(store, "apps/things/ns/a", b"6")
    async with sqlite.open(path) as store:
        results = await asyncio.gather(
            *(put(store, f"apps/things/ns/n{n}", b"", ABSENT) for n in range(3)),
            put(store, "apps/things/ns/a", b"", wrong),
            *(put(store, f"apps/things/ns/n{n}", b"", ABSENT) for n in range(3, 6)),
            return_exceptions=True,
        )
        assert isinstance(results.pop(3), KeyExists | RevisionConflict)
        assert all(isinstance(result, int) for result in results)
        assert await store.count("") == 6 + (wrong == ABSENT)


async def test_what_is_remembered_of_a_dropped_range_is_gone(tmp_path: Path) -> None:
    async with sqlite.open(tmp_path / "state.db") as store:
        revision = await put(store, "apps/things/ns/a", b"")
        await store.drop("apps/things/")
        for _ in range(2):  # While the drop is in force, and when it has been swept.
            with pytest.raises(RevisionConflict):
                await put(store, "apps/things/ns/a", b"", revision)
            with pytest.raises(GuardFailed):
                await store.write([Op("apps/others/ns/a", b"")], [Guard("apps/things/ns/a", revision)])
            await put(store, "apps/others/ns/b", b"")
            await store.compact(store.head())
        assert await put(store, "apps/things/ns/a", b"", ABSENT) == store.head()


async def test_keys_beyond_those_remembered_are_compared_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PLACES_MAX", 10)
    async with sqlite.open(tmp_path / "state.db") as store:
        written = [await put(store, f"apps/things/ns/{n}", b"", ABSENT) for n in range(50)]
        for n, revision in enumerate(written):
            with pytest.raises(KeyExists):
                await put(store, f"apps/things/ns/{n}", b"", ABSENT)
            with pytest.raises(RevisionConflict):
                await put(store, f"apps/things/ns/{n}", b"", revision + 1)
            await store.write([Op(f"apps/things/ns/{n}", None, revision)])
            with pytest.raises(RevisionConflict):
                await remove(store, f"apps/things/ns/{n}")
        assert await store.count("") == 0


async def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with sqlite.open(directory / "state.db") as store:
        await put(store, "apps/things/ns/a", b"")
        assert directory.stat().st_mode & 0o077 == 0
        for file in directory.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file


# Forgetting.


async def test_compaction_leaves_a_row_for_each_key_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rng = random.Random(2)
    async with sqlite.open(path) as store:
        for round_ in range(40):
            ops: list[Op] = []
            for number in range(40):
                key = f"apps/things/{number % 4}/{number}"
                there = await store.get(key) is not None
                ops.append(Op(key, None if there and rng.random() < 0.3 else KILO))
            await store.write(ops)
            if round_ % 7 == 6:
                await store.drop(f"apps/things/{rng.randrange(4)}/")
            if rng.random() < 0.3:
                await store.compact(store.head() - rng.randrange(50))
        await store.compact(await put(store, "apps/things/0/last", KILO))
        live = {entry.revision for entry in (await store.list("")).entries}
    assert {revision for (revision,) in rows(path, "SELECT revision FROM log")} == live
    assert {revision for (revision,) in rows(path, "SELECT revision FROM state")} == live
    assert rows(path, "SELECT * FROM drops") == []


async def test_pages_of_the_past_count_what_remained(tmp_path: Path) -> None:
    rng = random.Random(5)
    keys = [f"apps/things/ns/{number}" for number in range(8)]
    async with sqlite.open(tmp_path / "store.db") as store:
        states = [(store.head(), list[str]())]
        for _ in range(60):
            key, there = rng.choice(keys), list(states[-1][1])
            if key in there and rng.random() < 0.5:
                revision = await remove(store, key)
                there.remove(key)
            else:
                revision = await put(store, key, b"{}")
                there = sorted({*there, key})
            states.append((revision, there))
        for revision, there in states:
            for limit in (1, 3, 8):
                page = await store.list("apps/things/", limit=limit, revision=revision)
                assert page.remaining == max(0, len(there) - limit)


async def test_a_compacted_store_gives_space_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        for start in range(0, 12_000, 100):
            await store.write([Op(f"apps/things/ns/{n}", KILO) for n in range(start, start + 100)])
        await store.drop("apps/things/")
        await put(store, "apps/things/ns/last", KILO)
        await store.compact(store.head())
    size = path.stat().st_size
    assert size < 12_000 * len(KILO) // 2
    async with sqlite.open(path) as store:
        assert await store.count("") == 1


async def test_a_backup_taken_beside_a_running_server_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "live" / "state.db"
    async with sqlite.open(path) as store:
        revision = await put(store, "apps/things/ns/a", KILO)
        rows(path, f"VACUUM INTO '{tmp_path / 'copy.db'}'")
        await put(store, "apps/things/ns/b", KILO)
    (tmp_path / "restored").mkdir()
    shutil.move(tmp_path / "copy.db", tmp_path / "restored" / "state.db")
    async with sqlite.open(tmp_path / "restored" / "state.db") as store:
        assert store.head() == revision
        assert (await store.list("")).entries == [Entry("apps/things/ns/a", KILO, revision)]


async def _next(watch: Watch) -> Batch:
    return await anext(watch)


async def test_what_follows_a_later_page_is_counted_only_where_that_is_little(tmp_path: Path) -> None:
    async with sqlite.open(tmp_path / "state.db") as store:
        names = [f"c/core/configmaps/default/{number:05}" for number in range(COUNTED_MAX + 100)]
        for start in range(0, len(names), WRITE_OPS_MAX):
            await store.write([Op(name, b"{}") for name in names[start : start + WRITE_OPS_MAX]])
        first = await store.list("c/core/configmaps/", limit=10)
        assert first.remaining == len(names) - 10
        for at in (0, first.revision):
            early = await store.list("c/core/configmaps/", after=names[9], limit=10, revision=at)
            assert [entry.key for entry in early.entries] == names[10:20]
            assert early.remaining is None
            late = await store.list("c/core/configmaps/", after=names[-31], limit=10, revision=at)
            assert late.remaining == 20
