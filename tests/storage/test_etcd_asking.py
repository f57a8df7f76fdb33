"""The connection that asks etcd one question: what counts as an answer, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clusterling.storage.etcd.asking import Asker
from clusterling.storage.etcd.wire import RANGE, rpc
from tests.storage import etcd_server

QUESTION = rpc.RangeRequest(key=b"k").SerializeToString()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("etcd-asking") / "etcd"
    try:
        with etcd_server.running(Path(directory)) as etcd:
            yield etcd.members[0].endpoint
    except etcd_server.NoEtcd as missing:
        pytest.skip(str(missing))


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


async def test_etcds_answer_is_told_time_after_time(endpoint: str) -> None:
    asker = Asker(endpoint, RANGE, None, "")
    try:
        for _ in range(2000):  # More than etcd's first window holds.
            answer = await asker.ask(QUESTION, "")
            assert answer is not None
            assert rpc.RangeResponse.FromString(answer).header.revision >= 1
    finally:
        asker.close()


@pytest.mark.parametrize("piece", [1, 7, 10])
async def test_an_answer_counts_however_it_is_cut_into_pieces(endpoint: str, piece: int) -> None:
    async with between(endpoint, piece=piece) as slow:
        asker = Asker(slow, RANGE, None, "")
        try:
            for _ in range(3):
                answer = await asker.ask(QUESTION, "")
                assert answer is not None
                assert rpc.RangeResponse.FromString(answer).header.member_id
        finally:
            asker.close()


async def test_an_answer_that_ends_early_does_not_count_wherever_it_ends(endpoint: str) -> None:
    whole = 0
    for cut_after in range(0, 240, 3):
        async with between(endpoint, cut_after=cut_after) as cut:
            asker = Asker(cut, RANGE, None, "")
            answer = await asker.ask(QUESTION, "")
            asker.close()
        if answer is not None:
            whole += 1
            assert rpc.RangeResponse.FromString(answer).header.member_id
        else:
            assert not whole, "what is longer than a whole answer has it"


async def test_an_error_of_etcds_is_no_answer(endpoint: str) -> None:
    for path, question in (
        ("/etcdserverpb.KV/Nothing", QUESTION),
        (RANGE, rpc.RangeRequest().SerializeToString()),
        (RANGE, rpc.RangeRequest(key=b"k", revision=1 << 40).SerializeToString()),
    ):
        asker = Asker(endpoint, path, None, "")
        assert await asker.ask(question, "") is None
        asker.close()


async def test_nobody_there_is_no_answer() -> None:
    asker = Asker(f"127.0.0.1:{etcd_server.free_ports(1)[0]}", RANGE, None, "")
    assert await asker.ask(QUESTION, "") is None
    asker.close()


async def test_a_question_given_up_leaves_no_answer_to_the_next(endpoint: str) -> None:
    asker = Asker(endpoint, RANGE, None, "")
    assert await asker.ask(QUESTION, "") is not None
    given_up = asyncio.ensure_future(asker.ask(QUESTION, ""))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    other = rpc.RangeRequest(key=b"a", range_end=b"b", count_only=True).SerializeToString()
    answer = await asker.ask(other, "")
    assert answer is not None
    assert rpc.RangeResponse.FromString(answer).count == 0
    asker.close()
