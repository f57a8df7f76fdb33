"""A copy is the whole store or none: between every two kinds of store, whatever happens on the way."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from clusterling.storage import bulk, copying
from clusterling.storage.bulk import COPIED_KEY, HEAD_JUMP, Record, Sorter, Vessel
from clusterling.storage.opening import open_store
from clusterling.storage.store import (
    ABSENT,
    VALUE_BYTES_MAX,
    Compacted,
    Op,
    RevisionConflict,
    Store,
    StoreOpenError,
    Unavailable,
)
from clusterling.testing.store_contract import put, remove, take
from tests.storage import etcd_server, postgres_server
from tests.storage.conftest import new_url
from tests.storage.proxy import proxied

KINDS = ("sqlite", "postgres", "etcd")
AT = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
_roots = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_server.Etcd]:
    try:
        with etcd_server.running(tmp_path_factory.mktemp("etcd")) as server:
            yield server
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))


Place = Callable[[str], str]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new place for a store of that kind: its URL."""

    def of(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite://{tmp_path / f'store-{next(_roots)}' / 'state.db'}"
        if kind == "postgres":
            server: postgres_server.PostgresServer = request.getfixturevalue("postgres")
            return new_url(server)
        cluster: etcd_server.Etcd = request.getfixturevalue("etcd")
        return cluster.url(f"copy-{next(_roots)}")

    return of


def silent(_phase: str, _done: int, _total: int) -> None:
    pass


async def copied(source: str, target: str, progress: copying.Progress = silent) -> copying.Copied:
    async with bulk.snapshot(source) as snapshot, bulk.vessel(target) as vessel:
        return await copying.copy(snapshot, vessel, progress, now=AT)


async def contents(store: Store) -> list[tuple[str, bytes]]:
    return [(one.key, one.value) for one in (await store.list("")).entries if one.key != COPIED_KEY]


async def fill(store: Store) -> dict[str, int]:
    """A life: rewrites, deletions, a dropped range that is filled again, expiries, compaction. The revisions."""
    rng = random.Random(4)
    for number in range(300):
        key = f"apps/things/ns/{rng.randrange(120):03}"
        await store.write([Op(key, b"{%d}" % number + b"x" * rng.randrange(600), None)])
    for number in range(40):
        await put(store, f"gone/things/ns/{number}", b"dropped")
    await store.compact(store.head() - 30)
    await store.drop("gone/")
    await put(store, "gone/things/ns/3", b"again")
    await remove(store, "apps/things/ns/007") if await store.get("apps/things/ns/007") else None
    await store.write([Op("core/others/-/é", b"\x18"), Op("core/others/-/late", b"{}", None, 2_000_000_000)])
    await store.write([Op(f"core/others/-/soon-{n}", b"{}", None, 100 + n // 3) for n in range(20)])
    await put(store, "core/others/-/a", b"the last shall be first")
    return {entry.key: entry.revision for entry in (await store.list("")).entries}


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
async def test_a_copy_has_everything_and_goes_on_above_the_source(
    source: str, target: str, place: Place
) -> None:
    here, there = place(source), place(target)
    async with open_store(here) as store:
        revisions = await fill(store)
        wanted = await contents(store)
        expiring = [(one.key, one.value) for one in await store.expired(150, 1000)]
        identity, head = await store.identity(), store.head()
    told: list[tuple[str, int, int]] = []
    done = await copied(here, there, lambda *step: told.append(step))
    assert (done.records, done.revision) == (len(wanted), head)
    assert told[0] == ("copying", 0, len(wanted)) and told[-1] == ("verifying", len(wanted), len(wanted))
    async with open_store(there) as store:
        assert await contents(store) == wanted
        assert sorted((one.key, one.value) for one in await store.expired(150, 1000)) == sorted(expiring)
        assert len(expiring) == 20
        now = await store.identity()
        assert (now.id, now.epoch) == (identity.id, identity.epoch + 1)
        found = {one.key: one.revision for one in (await store.list("")).entries if one.key != COPIED_KEY}
        if target == "etcd":
            assert min(found.values()) > head + HEAD_JUMP
        else:
            assert found == revisions
        # What was written before something else still was.
        assert sorted(found, key=found.__getitem__) == sorted(revisions, key=revisions.__getitem__)
        assert store.head() == done.head > head + HEAD_JUMP
        assert store.head() == await store.fresh() > max(found.values())
        note = await store.get(COPIED_KEY)
        assert note is not None
        assert json.loads(note.value) == {
            "from": identity.id,
            "epoch": identity.epoch,
            "revision": head,
            "objects": len(wanted),
            "digest": done.digest,
            "at": AT.isoformat(),
        }


@pytest.mark.parametrize("target", KINDS)
async def test_the_copy_is_a_store_like_any_other(target: str, place: Place) -> None:
    here, there = place("sqlite"), place(target)
    async with open_store(here) as store:
        first = await put(store, "apps/things/ns/a", b"one")
        await put(store, "apps/things/ns/b", b"two")
        last = store.head()
    await copied(here, there)
    async with open_store(there) as store:
        with pytest.raises(Compacted):
            await store.list("", revision=last)
        with pytest.raises(Compacted):
            async with store.watch("apps/things/", after=last) as watch:
                await anext(watch)
        entry = await store.get("apps/things/ns/a")
        assert entry is not None
        if target == "etcd":
            with pytest.raises(RevisionConflict):
                await put(store, "apps/things/ns/a", b"stale", first)
        async with store.watch("apps/things/", after=store.head()) as watch:
            await put(store, "apps/things/ns/a", b"three", entry.revision)
            await remove(store, "apps/things/ns/b")
            await put(store, "apps/things/ns/b", b"four", ABSENT)
            events = await take(watch, 3)
        before = [one.previous() for one in events]
        assert [one and one.value for one in before] == [b"one", b"two", None]
        await store.compact(store.head())
        assert await store.count("apps/") == 2
    async with open_store(there) as store:
        assert await contents(store) == [("apps/things/ns/a", b"three"), ("apps/things/ns/b", b"four")]
    async with bulk.snapshot(there) as snapshot:
        assert [one async for one in snapshot.findings()] == []


@pytest.mark.parametrize("target", KINDS)
async def test_a_place_that_is_not_empty_is_refused_and_stays_as_it_is(target: str, place: Place) -> None:
    here, there = place("sqlite"), place(target)
    for url in (here, there):
        async with open_store(url) as store:
            await put(store, "apps/things/ns/a", url.encode())
    with pytest.raises(StoreOpenError, match="is not empty"):
        await copied(here, there)
    async with open_store(there) as store:
        assert await contents(store) == [("apps/things/ns/a", there.encode())]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_place_that_was_opened_and_never_written_to_is_empty(kind: str, place: Place) -> None:
    here, there = place("sqlite"), place(kind)
    async with open_store(here) as store:
        await put(store, "apps/things/ns/a", b"one")
    async with open_store(there):
        pass
    await copied(here, there)
    async with open_store(there) as store:
        assert await contents(store) == [("apps/things/ns/a", b"one")]


@pytest.mark.parametrize("source", KINDS)
async def test_an_empty_store_is_copied_as_one(source: str, place: Place) -> None:
    here, there = place(source), place("sqlite")
    async with open_store(here):
        pass
    assert (await copied(here, there)).records == 0
    async with open_store(there) as store:
        assert await contents(store) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_there_cannot_be_copied(kind: str, place: Place) -> None:
    with pytest.raises(StoreOpenError):
        await copied(place(kind), place("sqlite"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_store_that_is_being_written_is_copied_as_it_was(kind: str, place: Place) -> None:
    """Two keys are always written together: a copy that had one without the other would show it."""
    here, there = place(kind), place("sqlite")
    async with open_store(here) as store:
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                value = b"%d" % number
                rest = [Op(f"apps/things/{number % 50}/{n}", value * 100) for n in range(8)]
                await store.write([Op("a/first", value), *rest, Op("z/last", value)])

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            await asyncio.sleep(0.1)
            first = await copied(here, there)
            stop.set()
        assert first.revision <= store.head() < first.head
    async with open_store(there) as store:
        a, z = await store.get("a/first"), await store.get("z/last")
        assert a is not None and z is not None and a.value == z.value


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
async def test_the_largest_values_go_over(source: str, target: str, place: Place) -> None:
    here, there = place(source), place(target)
    async with open_store(here) as store:
        for number in range(12):
            await put(store, f"apps/things/ns/{number:02}", b"%02d" % number + b"v" * (VALUE_BYTES_MAX - 2))
    assert (await copied(here, there)).bytes == 12 * VALUE_BYTES_MAX
    async with open_store(there) as store:
        assert await store.count("apps/") == 12


class Interrupted(Exception):
    pass


async def interrupted(here: str, there: str) -> None:
    """A copy that ends in the middle, as it does when its process dies: nothing is done after that."""

    def progress(_phase: str, done: int, _total: int) -> None:
        if done:
            raise Interrupted

    with pytest.raises(Interrupted):
        await copied(here, there, progress)


@pytest.mark.parametrize("target", KINDS)
async def test_what_an_interrupted_copy_leaves_is_no_store_and_is_cleared_by_the_next(
    target: str, place: Place
) -> None:
    here, there = place("sqlite"), place(target)
    async with open_store(here) as store:
        for number in range(30):
            await put(store, f"apps/things/ns/{number}", b"one")
    await interrupted(here, there)
    with pytest.raises(StoreOpenError):
        async with bulk.snapshot(there) as snapshot:
            assert await snapshot.count() == 0
            raise StoreOpenError("it is an empty store, which is as good")
    if target == "etcd":
        with pytest.raises(StoreOpenError, match="a copy that has not ended"):
            async with open_store(there):
                pass
    async with open_store(here) as store:
        await store.drop("apps/")
        await put(store, "apps/things/ns/x", b"two")
    await copied(here, there)
    async with open_store(there) as store:
        assert await contents(store) == [("apps/things/ns/x", b"two")]
        assert list(await store.expired(1 << 40, 10)) == []


async def test_of_two_copies_into_one_etcd_one_is_given_up(place: Place) -> None:
    one, two, there = place("sqlite"), place("sqlite"), place("etcd")
    for url in (one, two):
        async with open_store(url) as store:
            for number in range(500):
                await put(store, f"apps/things/ns/{number:03}", url.encode())
    async with bulk.snapshot(one) as first, bulk.snapshot(two) as second:
        async with bulk.vessel(there) as late, bulk.vessel(there) as early:
            await early.begin(1)
            await early.put([Record("apps/things/ns/early", 2, None, b"early")])
            await copying.copy(second, late, silent, now=AT)
            with pytest.raises(Unavailable, match="somebody else"):
                await early.put([Record("apps/things/ns/early2", 3, None, b"early")])
        assert first.head
    async with open_store(there) as store:
        assert {value for _, value in await contents(store)} == {two.encode()}


async def test_answers_that_are_lost_on_the_way_to_etcd_lose_and_repeat_nothing(
    etcd: etcd_server.Etcd, place: Place
) -> None:
    here = place("sqlite")
    async with open_store(here) as store:
        for number in range(1500):
            await put(store, f"apps/things/ns/{number * 7 % 1500:04}", b"%d" % number)
        order = sorted((await store.list("")).entries, key=lambda entry: entry.revision)
    root = f"copy-{next(_roots)}"
    async with proxied(etcd.members[0].endpoint) as proxy:

        async def disturb() -> None:
            for _ in range(4):
                proxy.answering = False
                await asyncio.sleep(0.02)
                proxy.cut()
                proxy.answering = True
                await asyncio.sleep(0.1)

        there = f"etcd://127.0.0.1:{proxy.port}/{root}"
        async with bulk.snapshot(here) as snapshot, bulk.vessel(there) as vessel:
            task = asyncio.create_task(disturb())
            try:
                await copying.copy(snapshot, vessel, silent, now=AT)
            finally:
                task.cancel()
    async with open_store(etcd.url(root)) as store:
        entries = [entry for entry in (await store.list("")).entries if entry.key != COPIED_KEY]
        entries.sort(key=lambda entry: entry.revision)
        assert [entry.key for entry in entries] == [entry.key for entry in order]
        assert {entry.value for entry in entries} == {entry.value for entry in order}


async def test_a_database_that_goes_away_ends_the_copy_and_nothing_is_there(
    postgres: postgres_server.PostgresServer, place: Place
) -> None:
    here, there = place("sqlite"), place("postgres")
    async with open_store(here) as store:
        await put(store, "apps/things/ns/a", b"1")
    parts = urlsplit(there)
    async with proxied(f"127.0.0.1:{postgres.port}") as proxy:
        through = urlunsplit(parts._replace(netloc=f"{postgres_server.USER}@127.0.0.1:{proxy.port}"))

        def cut(_phase: str, done: int, _total: int) -> None:
            if done:
                proxy.open = False
                proxy.cut()

        with pytest.raises(Unavailable, match="gone away"):
            await copied(here, through, cut)
    await copied(here, there)
    async with open_store(there) as store:
        assert await contents(store) == [("apps/things/ns/a", b"1")]


class Leaky:
    """A vessel that loses or alters something on the way."""

    def __init__(self, vessel: Vessel, alter: Callable[[Sequence[Record]], Sequence[Record]]) -> None:
        self._vessel = vessel
        self._alter = alter
        self.address = vessel.address
        self.keeps_revisions = vessel.keeps_revisions
        self.begin = vessel.begin
        self.contents = vessel.contents
        self.finish = vessel.finish

    async def put(self, records: Sequence[Record]) -> None:
        await self._vessel.put(self._alter(records))


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize(
    "alter",
    [
        lambda page: page[:-1],
        lambda page: [page[0]._replace(value=b"{1}"), *page[1:]],
        lambda page: [page[0]._replace(expires_at=1), *page[1:]],
        lambda page: [
            page[0]._replace(value=page[1].value),
            page[1]._replace(value=page[0].value),
            *page[2:],
        ],
    ],
    ids=["lost", "altered", "expiring", "exchanged"],
)
async def test_what_arrives_otherwise_than_it_was_sent_becomes_no_store(
    target: str, alter: Callable[[Sequence[Record]], Sequence[Record]], place: Place
) -> None:
    here, there = place("sqlite"), place(target)
    async with open_store(here) as store:
        for number in range(5):
            await put(store, f"apps/things/ns/{number}", b"{%d}" % (number + 2))
    async with bulk.snapshot(here) as snapshot:
        with pytest.raises(copying.CopyFailed):
            async with bulk.vessel(there) as vessel:
                await copying.copy(snapshot, Leaky(vessel, alter), silent, now=AT)
    if target == "postgres":
        async with bulk.snapshot(there) as found:
            assert (await found.count(), found.head) == (0, 1)
    else:
        with pytest.raises(StoreOpenError):
            async with bulk.snapshot(there):
                pass


async def test_round_and_round_revisions_only_rise(place: Place) -> None:
    url = place("sqlite")
    async with open_store(url) as store:
        last = await put(store, "apps/things/ns/a", b"0")
        identity = await store.identity()
    for number, kind in enumerate(("postgres", "etcd", "sqlite", "etcd", "postgres", "sqlite"), 1):
        there = place(kind)
        await copied(url, there)
        url = there
        async with open_store(url) as store:
            revision = await put(store, "apps/things/ns/a", b"%d" % number)
            assert revision > last + HEAD_JUMP
            last = revision
            assert await store.count("") == 2
            assert (await store.identity()).epoch == identity.epoch + number


@pytest.mark.parametrize("target", KINDS)
async def test_of_a_backup_restored_twice_no_revision_means_two_things(target: str, place: Place) -> None:
    backup, first, second = place("sqlite"), place(target), place(target)
    async with open_store(backup) as store:
        await put(store, "apps/things/ns/a", b"0")
    seen = []
    for url, now in ((first, AT), (second, AT + timedelta(seconds=1))):
        async with bulk.snapshot(backup) as snapshot, bulk.vessel(url) as vessel:
            await copying.copy(snapshot, vessel, silent, now=now)
        async with open_store(url) as store:
            seen.append([await put(store, "apps/things/ns/a", b"%d" % n) for n in range(300)])
    assert seen[0][-1] < seen[1][0]


def test_sorting_takes_more_than_memory_holds() -> None:
    rng = random.Random(1)
    items = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(2000)] + [b"", b"x" * 600_000]
    sorter = Sorter(run_bytes=100_000)
    for item in items:
        sorter.add(item)
    assert list(sorter) == sorted(items)
    assert list(zip(sorter, sorter, strict=True))[5] == (sorted(items)[5],) * 2
    sorter.close()
