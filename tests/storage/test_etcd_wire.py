"""Calls to a real etcd: what it answers, however its bytes come, and what is known where they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clusterling.storage.etcd.calls import CallFailed, Channel, Code
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.etcd.wire import Address, Future, NotSent, Unsure, Wire
from clusterling.storage.store import Compacted, TooLarge
from clusterling.testing.store_contract import PATIENCE_S
from tests.ports import free_port
from tests.storage.etcd_server import Etcd, NoEtcd, running
from tests.storage.http2_peer import Session, serving, watched
from tests.storage.proxy import proxied

RANGE = "/etcdserverpb.KV/Range"
QUESTION = rpc.RangeRequest(key=b"k").SerializeToString()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    try:
        with running(tmp_path_factory.mktemp("etcd-wire") / "etcd") as server:
            yield server
    except NoEtcd as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def wire(server: Etcd) -> AsyncIterator[Wire]:
    async with wired(server.members[0].endpoint) as wire:
        yield wire


@asynccontextmanager
async def wired(*endpoints: str) -> AsyncIterator[Wire]:
    wire = Wire(Address(endpoints))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield wire
    finally:
        await wire.close()


def putting(key: bytes, value: bytes) -> Any:
    return rpc.TxnRequest(success=[rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))])


async def asked(channel: Channel, method: str = RANGE, question: bytes = QUESTION) -> Any:
    answer = await channel.call(method, question, token="", timeout_s=PATIENCE_S)
    return rpc.RangeResponse.FromString(answer)


@asynccontextmanager
async def between(endpoint: str, *, piece: int = 0, cut_after: int = -1) -> AsyncIterator[str]:
    """A proxy that gives etcd's answers in pieces of so many bytes, or ends them after so many."""
    host, _, port = endpoint.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        given = 0
        while data := await reader.read(piece or 65_536):
            if 0 <= cut_after < given + len(data):
                writer.write(data[: cut_after - given])
                break
            given += len(data)
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(host, int(port))
        writers.extend((here, writer))
        for work in (forward(reader, here), back(there, writer)):
            tasks.add(asyncio.create_task(work))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, *(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.mark.parametrize("piece", [1, 7, 10])
async def test_an_answer_counts_however_it_is_cut_into_pieces(server: Etcd, piece: int) -> None:
    async with between(server.members[0].endpoint, piece=piece) as slow:
        channel = Channel(slow, None, "")
        for _ in range(3):
            assert (await asked(channel)).header.member_id
        await channel.close()


async def test_an_answer_that_ends_early_does_not_count_wherever_it_ends(server: Etcd) -> None:
    whole = 0
    for cut_after in range(0, 240, 3):
        async with between(server.members[0].endpoint, cut_after=cut_after) as cut:
            channel = Channel(cut, None, "")
            try:
                assert (await asked(channel)).header.member_id
                whole += 1
            except CallFailed as failed:
                assert failed.code is Code.UNAVAILABLE
                assert not whole, "what is longer than a whole answer has it"
            await channel.close()
    assert whole


async def test_etcds_errors_are_told_as_it_says_them_and_the_connection_goes_on(server: Etcd) -> None:
    channel = Channel(server.members[0].endpoint, None, "")
    for method, question, code, text in (
        ("/etcdserverpb.KV/Nothing", QUESTION, Code.UNIMPLEMENTED, "unknown method Nothing"),
        (RANGE, rpc.RangeRequest().SerializeToString(), Code.INVALID_ARGUMENT, "key is not provided"),
        (
            RANGE,
            rpc.RangeRequest(key=b"k", revision=1 << 40).SerializeToString(),
            Code.OUT_OF_RANGE,
            "future",
        ),
        (RANGE, b"\xff\xff\xff", Code.INTERNAL, "unmarshal"),
    ):
        for _ in range(2):
            with pytest.raises(CallFailed, match=text) as caught:
                await asked(channel, method, question)
            assert caught.value.code is code
        assert (await asked(channel)).header.member_id
    await channel.close()


async def test_thousands_of_calls_and_many_at_once_are_each_answered_with_their_own(wire: Wire) -> None:
    async def one(number: int) -> None:
        key, value = b"own/%d" % number, b"v" * number
        await wire.write(putting(key, value))
        [kv] = (await wire.range(rpc.RangeRequest(key=key))).kvs
        assert kv.value == value

    for start in range(0, 2000, 100):
        await asyncio.gather(*(one(number) for number in range(start, start + 100)))


async def test_values_of_more_than_a_megabyte_go_there_and_dozens_come_back_at_once(wire: Wire) -> None:
    value = bytes(range(256)) * (5 << 10)
    await asyncio.gather(*(wire.write(putting(b"large/%02d" % number, value)) for number in range(24)))
    found = await wire.range(rpc.RangeRequest(key=b"large/", range_end=b"large0"))
    assert [kv.value for kv in found.kvs] == [value] * 24
    for size in (1_700_000, 3 << 20):  # Beyond what etcd takes, and beyond what its gRPC does.
        with pytest.raises(TooLarge):
            await wire.write(putting(b"huge", bytes(size)))
    assert not (await wire.range(rpc.RangeRequest(key=b"huge"))).kvs


async def test_reads_beyond_either_end_of_history_are_told_apart(wire: Wire) -> None:
    revision = 0
    for number in range(3):
        revision = (await wire.write(putting(b"history", b"%d" % number))).header.revision
    await wire.compact(revision)
    await wire.compact(revision)
    with pytest.raises(Compacted):
        await wire.range(rpc.RangeRequest(key=b"history", revision=revision - 1))
    with pytest.raises(Future):
        await wire.range(rpc.RangeRequest(key=b"history", revision=revision + 1000))


async def test_calls_and_watches_given_up_leave_the_connection_good(wire: Wire) -> None:
    await wire.write(putting(b"watched", b""))
    for turns in range(60):
        call = asyncio.create_task(wire.range(rpc.RangeRequest(key=b"watched")))
        made = asyncio.create_task(wire.watch(watching(b"watched")))
        for _ in range(turns % 6):
            await asyncio.sleep(0)
        call.cancel()
        watch = await made
        reading = asyncio.create_task(watch.read())
        for _ in range(turns % 5):
            await asyncio.sleep(0)
        watch.cancel()
        created = await reading
        assert created is None or created.created
    watch = await wire.watch(watching(b"watched"))
    assert (await watch.read()).created
    revision = (await wire.write(putting(b"watched", b"seen"))).header.revision
    [event] = (await watch.read()).events
    assert (event.kv.mod_revision, event.kv.value) == (revision, b"seen")
    watch.cancel()


def watching(key: bytes) -> Any:
    return rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key))


async def test_a_write_whose_answer_is_lost_is_unsure_and_one_that_reaches_nobody_was_not_sent(
    server: Etcd,
) -> None:
    async with proxied(server.members[0].endpoint) as proxy, wired(f"127.0.0.1:{proxy.port}") as wire:
        await wire.status()
        proxy.answering = False
        writing = asyncio.create_task(wire.write(putting(b"lost", b"")))
        async with wired(server.members[0].endpoint) as direct:
            while not (await direct.range(rpc.RangeRequest(key=b"lost"))).kvs:
                await asyncio.sleep(0.01)
        proxy.open = False
        proxy.cut()
        with pytest.raises(Unsure):
            await writing
        for _ in range(10):
            with pytest.raises(NotSent):
                await wire.write(putting(b"never", b""))
        proxy.open = proxy.answering = True
        assert not (await wire.range(rpc.RangeRequest(key=b"never"))).kvs


async def test_an_endpoint_where_nobody_is_is_left_for_the_next(server: Etcd) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with wired(nobody, server.members[0].endpoint) as wire:
        with pytest.raises(NotSent):
            await wire.write(putting(b"first", b""))
        assert (await wire.write(putting(b"first", b""))).succeeded
        assert len(await wire.statuses()) == 1
    async with wired(nobody, server.members[0].endpoint) as wire:
        with pytest.raises(NotSent):
            await wire.watch(watching(b"first"))
        watch = await wire.watch(watching(b"first"))
        assert (await watch.read()).created
        watch.cancel()


async def test_what_answers_but_is_no_etcd_is_found_out() -> None:
    async def serve(session: Session) -> None:
        while True:
            await session.answer(await session.request(), b"\xff\xff")

    async with serving(watched(serve)) as peer, wired(peer.endpoint) as wire:
        with pytest.raises(Unsure, match="is not etcd's"):
            await wire.write(putting(b"k", b""))
