"""What the store in etcd does when answers are lost, members die, space runs out, or a backup comes back."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

pytest.importorskip("etcd3aio")

from etcd3aio import Etcd3Client, PermissionType

from clusterling.storage import etcd
from clusterling.storage.backend import Transaction
from clusterling.storage.etcd.reading import Reads
from clusterling.storage.guarded import Guarded
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    GuardFailed,
    KeyExists,
    Op,
    RevisionConflict,
    Store,
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
)
from clusterling.testing.store_contract import PATIENCE_S, put, take
from tests.storage.certificates import certificates
from tests.storage.etcd_server import Etcd, Member, NoEtcd, running
from tests.storage.following import followed_to
from tests.storage.proxy import Proxy, proxied

T = TypeVar("T")
KEY = "apps/things/ns/a"

_roots = itertools.count()


@contextmanager
def had(directory: Path, members: int = 1, *options: str) -> Iterator[Etcd]:
    try:
        with running(directory, members, options) as server:
            yield server
    except NoEtcd as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with had(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def patiently(ask: Awaitable[T]) -> T:
    async with asyncio.timeout(2 * PATIENCE_S):
        return await ask


async def put_patiently(store: Store, key: str, value: bytes) -> int:
    while True:
        try:
            return await patiently(put(store, key, value))
        except Unavailable:
            await asyncio.sleep(0.05)


async def fresh_patiently(store: Store) -> int:
    while True:
        try:
            return await patiently(store.fresh())
        except Unavailable:
            await asyncio.sleep(0.05)


async def there(store: Store, key: str, value: bytes) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            entry = await store.get(key)
            if entry is not None and entry.value == value:
                return entry.revision
            await asyncio.sleep(0.01)


async def saved(member: Member, backup: Path) -> None:
    await asyncio.to_thread(member.kill)
    shutil.copytree(member.directory / "data", backup)
    await asyncio.to_thread(member.restart)


async def put_back(member: Member, backup: Path) -> None:
    await asyncio.to_thread(member.kill)
    shutil.rmtree(member.directory / "data")
    shutil.copytree(backup, member.directory / "data")
    await asyncio.to_thread(member.restart)


@pytest.fixture
async def behind(server: Etcd, stack: AsyncExitStack) -> tuple[Store, Proxy, Store]:
    """A store behind a proxy, the proxy, and the same store without it."""
    root = f"fault-{next(_roots)}"
    proxy = await stack.enter_async_context(proxied(server.members[0].endpoint))
    through = await stack.enter_async_context(etcd.open(f"etcd://127.0.0.1:{proxy.port}/{root}"))
    direct = await stack.enter_async_context(etcd.open(server.url(root)))
    return through, proxy, direct


async def test_a_write_whose_answer_was_lost_is_answered_with_its_revision(
    behind: tuple[Store, Proxy, Store],
) -> None:
    store, proxy, direct = behind
    for number in range(3):
        await put(store, f"{KEY}-before", b"%d" % number)
        proxy.answering = False
        writing = asyncio.create_task(put(store, KEY, b"%d" % number))
        revision = await there(direct, KEY, b"%d" % number)
        proxy.answering = True
        proxy.cut()
        assert await patiently(writing) == revision
    assert await put(store, KEY, b"after", revision) > revision


async def test_what_was_refused_in_a_batch_whose_answer_was_lost_is_still_refused(
    behind: tuple[Store, Proxy, Store],
) -> None:
    store, proxy, direct = behind
    taken = await put(store, f"{KEY}-taken", b"")
    refused = [Op(f"{KEY}-taken", b"", ABSENT), Op(f"{KEY}-absent", b"", taken)]
    # After one that is refused, batches are not tried as a whole first.
    await asyncio.gather(*(store.write([op]) for op in refused), return_exceptions=True)
    proxy.answering = False
    ops = [refused[0], Op(f"{KEY}-new", b"v", ABSENT), refused[1]]
    writing = asyncio.gather(*(store.write([op]) for op in ops), return_exceptions=True)
    await there(direct, f"{KEY}-new", b"v")
    proxy.answering = True
    proxy.cut()
    results = await patiently(writing)
    assert [type(result) for result in results] == [KeyExists, range, RevisionConflict]
    assert await direct.count("apps/") == 2


async def test_a_write_that_never_arrived_happens_once_or_not_at_all(
    behind: tuple[Store, Proxy, Store],
) -> None:
    store, proxy, direct = behind
    async with direct.watch("apps/", after=direct.head()) as watch:
        proxy.asking = False
        writing = asyncio.create_task(put(store, KEY, b"v", ABSENT))
        await asyncio.sleep(0.3)
        proxy.asking = True
        proxy.cut()
        try:
            revision = await patiently(writing)
        except Unavailable:
            assert await direct.get(KEY) is None
            return
        last = await put(direct, f"{KEY}-last", b"")
        assert [event.revision for event in await take(watch, 2)] == [revision, last]


async def test_a_replica_that_is_cut_off_refuses_then_catches_up_without_a_gap(
    behind: tuple[Store, Proxy, Store],
) -> None:
    store, proxy, direct = behind
    start = store.head()
    async with store.watch("apps/", after=start) as watch:
        proxy.open = False
        proxy.cut()
        revisions = [await put(direct, f"{KEY}-{number}", b"") for number in range(200)]
        with pytest.raises(Unavailable):
            await patiently(store.fresh())
        with pytest.raises((Unavailable, UnknownOutcome)):
            await patiently(put(store, KEY, b""))
        proxy.open = True
        revisions.append(await put_patiently(store, f"{KEY}-own", b""))
        seen: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(seen) < len(revisions):
                seen += [event.revision for event in (await anext(watch)).events]
    assert seen == revisions


async def test_a_replica_that_history_has_left_behind_says_so_to_its_watches(
    behind: tuple[Store, Proxy, Store],
) -> None:
    store, proxy, direct = behind
    await put(store, KEY, b"")
    async with store.watch("apps/", after=store.head()) as watch:
        proxy.open = False
        proxy.cut()
        for number in range(5):
            await put(direct, KEY, b"%d" % number)
        await direct.compact(direct.head())
        proxy.open = True
        with pytest.raises(Compacted):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await anext(watch)
    revision = await put(store, KEY, b"on")
    async with store.watch("apps/", after=revision) as again:
        later = await put(direct, KEY, b"later")
        assert [event.revision for event in await take(again, 1)] == [later]


async def test_a_watch_that_is_given_up_at_any_point_of_its_making_is_made_anew(
    server: Etcd, stack: AsyncExitStack
) -> None:
    backend = await etcd.connect(etcd.Address.parsed(server.url(f"fault-{next(_roots)}")))
    stack.push_async_callback(backend.close)
    loop = asyncio.get_running_loop()
    for number in range(5):
        until = loop.time() + 0.1
        while loop.time() < until:
            backend._sever()
            await asyncio.sleep(0)
        await patiently(backend.commit([Transaction([Op(KEY, b"%d" % number)])]))


async def test_a_store_restored_from_a_backup_goes_on_above_every_revision_given_out(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    with had(tmp_path / "etcd") as server:
        [member] = server.members
        store = await stack.enter_async_context(etcd.open(server.url("restored")))
        other = await stack.enter_async_context(etcd.open(server.url("restored")))
        kept = await put(store, KEY, b"kept")
        await put(store, "root/fence", b"")
        fenced = [Guarded(one, "root/fence") for one in (store, other)]
        for guarded in fenced:
            await put(guarded, f"{KEY}-fenced", b"")
        identity = await store.identity()
        await saved(member, tmp_path / "backup")
        for number in range(20):
            lost = await put_patiently(store, KEY, b"lost %d" % number)
        async with store.watch("apps/", after=store.head()) as watch:
            await put_back(member, tmp_path / "backup")
            with pytest.raises(Compacted):
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await anext(watch)
        for replica in (store, other):
            assert await fresh_patiently(replica) > lost
            assert (await replica.identity()).id == identity.id
            assert (await replica.identity()).epoch > identity.epoch
            entry = await replica.get(KEY)
            assert entry is not None and entry.value == b"kept" and entry.revision != kept
            with pytest.raises(RevisionConflict):
                await put(replica, KEY, b"", lost)
            with pytest.raises(Compacted):
                async with replica.watch("apps/", after=kept):
                    pass
        entry = await store.get(KEY)
        assert entry is not None
        assert await put(store, KEY, b"new", entry.revision) > lost
        for guarded in fenced:
            # The fence stands where it stood, only its revision is another: who asks again may write.
            with pytest.raises(GuardFailed):
                await put(guarded, f"{KEY}-fenced", b"")
            assert await put(guarded, f"{KEY}-fenced", b"") > lost
        await stack.aclose()


async def test_a_write_that_a_backup_has_undone_before_its_answer_came_is_not_said_to_be_refused(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Others have seen it."""
    with had(tmp_path / "etcd") as server:
        [member] = server.members
        proxy = await stack.enter_async_context(proxied(member.endpoint))
        store = await stack.enter_async_context(etcd.open(f"etcd://127.0.0.1:{proxy.port}/undone"))
        direct = await stack.enter_async_context(etcd.open(server.url("undone")))
        for number in range(5):
            await put(store, KEY, b"%d" % number)
        await saved(member, tmp_path / "backup")
        kept = await put_patiently(store, KEY, b"last")
        proxy.answering = False
        writing = asyncio.create_task(put(store, KEY, b"undone", kept))
        await there(direct, KEY, b"undone")
        await put_back(member, tmp_path / "backup")
        proxy.answering = True
        proxy.cut()
        with pytest.raises(UnknownOutcome):
            await patiently(writing)
        await fresh_patiently(store)
        entry = await store.get(KEY)
        assert entry is not None and entry.value == b"4"
        await stack.aclose()


async def test_a_step_back_is_one_epoch_however_many_see_it(tmp_path: Path, stack: AsyncExitStack) -> None:
    with had(tmp_path / "etcd") as server:
        [member] = server.members
        stores = [await stack.enter_async_context(etcd.open(server.url("busy"))) for _ in range(3)]
        await put(stores[0], KEY, b"kept")
        before = await stores[0].identity()
        await saved(member, tmp_path / "backup")
        for number in range(20):
            await put_patiently(stores[0], KEY, b"lost %d" % number)
        for store in stores:
            await fresh_patiently(store)
        await asyncio.to_thread(member.kill)
        shutil.rmtree(member.directory / "data")
        shutil.copytree(tmp_path / "backup", member.directory / "data")
        askers = [asyncio.create_task(fresh_patiently(store)) for store in stores for _ in range(20)]
        await asyncio.to_thread(member.restart)
        await asyncio.gather(*askers)
        await asyncio.gather(*(fresh_patiently(store) for store in stores for _ in range(5)))
        for store in stores:
            assert (await store.identity()).epoch == before.epoch + 1
        await stack.aclose()


async def test_history_begins_where_the_store_is_even_if_it_was_put_back_while_it_was_looked_at(
    tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with had(tmp_path / "etcd") as server:
        [member] = server.members
        store = await stack.enter_async_context(etcd.open(server.url("looked")))
        await put(store, KEY, b"kept")
        await saved(member, tmp_path / "backup")
        for number in range(20):
            lost = await put_patiently(store, KEY, b"lost %d" % number)
        look = Reads.has_seen_batch
        looks: list[Reads] = []

        async def late(reads: Reads) -> bool:
            """The second look at what answers, the first time when it has been put back since the first look."""
            if not looks:
                await put_back(member, tmp_path / "backup")
            looks.append(reads)
            return await look(reads)

        monkeypatch.setattr(Reads, "has_seen_batch", late)
        await asyncio.to_thread(member.restart)  # Whoever followed it looks whether it is what it was.
        async with asyncio.timeout(PATIENCE_S * 2):
            while (head := await fresh_patiently(store)) <= lost:
                await asyncio.sleep(0.02)
        assert looks
        assert [entry.value for entry in (await store.list("apps/", revision=head)).entries] == [b"kept"]
        async with store.watch("apps/", after=head) as watch:
            newest = await put_patiently(store, KEY, b"new")
            assert (await anext(watch)).revision == newest
        await stack.aclose()


async def test_every_replica_counts_alike_after_a_restore_however_new_the_record_was_that_is_no_more(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    with had(tmp_path / "etcd") as server:
        [member] = server.members
        stores = [await stack.enter_async_context(etcd.open(server.url("twice"))) for _ in range(3)]
        await put(stores[0], KEY, b"kept")
        await saved(member, tmp_path / "backup")
        epoch = (await stores[0].identity()).epoch
        for _ in range(2):  # The second time, the epoch of the first is lost too.
            for number in range(20):
                lost = await put_patiently(stores[0], KEY, b"lost %d" % number)
            # A drop is noted in the store's own record: its newest version is of the time that will be no more.
            await put(stores[0], "gone/things/ns/a", b"")
            await stores[0].drop("gone/")
            for store in stores:
                await fresh_patiently(store)
            await put_back(member, tmp_path / "backup")
            for store in stores:
                assert await fresh_patiently(store) > lost
            entries = [await store.get(KEY) for store in stores]
            assert entries[0] is not None and entries[0].revision > lost
            assert entries == entries[:1] * 3
            before, epochs = epoch, {(await store.identity()).epoch for store in stores}
            epoch = max(epochs)
            assert epochs == {epoch} and epoch > before
            for store in stores:
                page = await store.list("apps/")
                async with store.watch("apps/", after=page.revision) as watch:
                    newest = await put(store, KEY, b"new")
                    assert (await anext(watch)).revision == newest
        await stack.aclose()


async def test_a_full_etcd_refuses_writes_and_goes_on_reading(tmp_path: Path, stack: AsyncExitStack) -> None:
    with had(tmp_path / "etcd", 1, f"--quota-backend-bytes={16 << 20}") as server:
        store = await stack.enter_async_context(etcd.open(server.url("full")))
        first = await put(store, f"{KEY}-first", b"kept")
        written = 0
        with pytest.raises(Unavailable, match="out of space"):
            # It looks at what its file was when it was last written, which is every 100 ms.
            while written < 256:
                await put(store, f"{KEY}-{written}", b"x" * (1 << 20))
                written += 1
        for _ in range(3):
            with pytest.raises(Unavailable, match="out of space"):
                await put(store, f"{KEY}-more", b"")
        entry = await store.get(f"{KEY}-first")
        assert entry is not None and entry.revision == first
        assert await store.count("apps/") == written + 1
        assert await store.fresh() >= first
        async with etcd.open(server.url("full")) as another:
            assert await another.count("apps/") == written + 1
        await stack.aclose()


async def test_three_members_lose_one_after_the_other_and_no_acknowledged_write(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    with had(tmp_path / "etcd", 3) as server:
        replicas = [await stack.enter_async_context(etcd.open(server.url("three"))) for _ in range(3)]
        start = replicas[0].head()
        acknowledged: dict[int, str] = {}
        unknown: set[str] = set()
        stop = asyncio.Event()

        async def write(store: Store, writer: int) -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                key = f"apps/things/{writer}/{number}"
                try:
                    acknowledged[await patiently(put(store, key, b"", ABSENT))] = key
                except UnknownOutcome:
                    unknown.add(key)
                except Unavailable:
                    await asyncio.sleep(0.05)

        async with replicas[2].watch("apps/", after=start) as watch:
            following = asyncio.create_task(followed_to(watch, "apps/things/end"))
            writers = [asyncio.create_task(write(store, n)) for n, store in enumerate(replicas)]
            for member in server.members:
                await asyncio.sleep(0.5)
                await asyncio.to_thread(member.restart)
            server.members[0].pause()
            await asyncio.sleep(3.0)
            server.members[0].resume()
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*writers)
            await put_patiently(replicas[0], "apps/things/end", b"")
            async with asyncio.timeout(2 * PATIENCE_S):
                seen = {event.revision: event.key for event in await following}
        assert len(acknowledged) > 30
        assert acknowledged.items() <= seen.items()
        assert {key for at, key in seen.items() if at not in acknowledged} <= {*unknown, "apps/things/end"}
        await stack.aclose()


async def test_what_cannot_be_opened_says_so_in_one_line(server: Etcd) -> None:
    for url, told in [
        ("etcd://127.0.0.1:1/x", "cannot be opened"),
        ("etcd://", "names no host"),
        ("etcd://127.0.0.1:1/x?colour=red", "no option 'colour'"),
        ("etcds://127.0.0.1:1/x?ca=/none", "cannot be read"),
        (server.url("x").replace("etcd://", "etcd://who:secret@"), "cannot be opened"),
    ]:
        with pytest.raises(StoreOpenError) as caught:
            async with asyncio.timeout(PATIENCE_S), etcd.open(url):
                pass
        message = str(caught.value)
        assert told in message and "\n" not in message and "secret" not in message


# Who is let in.


async def test_over_tls_with_a_client_certificate_and_not_without(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    made = certificates(tmp_path / "pki")
    options = [
        f"--cert-file={made['etcd.test']}",
        f"--key-file={made['etcd.test-key']}",
        f"--trusted-ca-file={made['ca']}",
        "--client-cert-auth",
    ]
    with had(tmp_path / "etcd", 1, *options) as server:
        url = server.url("tls").replace("etcd://", "etcds://")
        whole = f"{url}?ca={made['ca']}&server_name=etcd.test&cert={made['client']}&key={made['client-key']}"
        async with etcd.open(whole) as store:
            revision = await put(store, KEY, b"")
            entry = await store.get(KEY)
            assert entry is not None and entry.revision == revision
        parts = f"{url}?ca={made['ca']}&server_name=etcd.test", whole.replace("etcd.test", "other.test")
        refused = await asyncio.gather(*(opened(part) for part in parts), return_exceptions=True)
        assert [type(error) for error in refused] == [StoreOpenError, StoreOpenError]


async def opened(url: str) -> None:
    async with etcd.open(url):
        pass


async def test_a_user_with_a_password_is_let_into_its_root_only_and_signs_in_again(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    # A token that lives for two seconds runs out again and again while the store is open.
    with had(tmp_path / "etcd", 1, "--auth-token-ttl=2") as server:
        async with Etcd3Client([server.members[0].endpoint]) as client:
            auth = client.auth
            assert auth is not None
            await auth.user_add("root", "root-secret")
            await auth.role_add("root")
            await auth.user_grant_role("root", "root")
            await auth.user_add("tenant", "tenant-secret")
            await auth.role_add("tenant")
            await auth.role_grant_permission("tenant", "/mine/", "/mine0", perm_type=PermissionType.READWRITE)
            await auth.user_grant_role("tenant", "tenant")
            await auth.auth_enable()
        url = server.url("mine").replace("etcd://", "etcd://tenant@")
        store = await stack.enter_async_context(etcd.open(url, password="tenant-secret"))
        async with store.watch("apps/", after=store.head()) as watch:
            for number in range(4):
                revision = await put_patiently(store, KEY, b"%d" % number)
                assert [event.revision for event in await take(watch, 1)] == [revision]
                await asyncio.sleep(1.0)
            await store.compact(revision)
        for wrong, password in ((url, "wrong"), (url.replace("/mine", "/other"), "tenant-secret")):
            with pytest.raises(StoreOpenError):
                async with etcd.open(wrong, password=password):
                    pass
        await stack.aclose()
