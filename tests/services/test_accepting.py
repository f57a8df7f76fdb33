"""Who comes in by an open socket: budgets of addresses over real sockets, with TLS and without."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest

from clusterling.services import accepting
from clusterling.services.addresses import Addresses, parse_networks
from clusterling.services.http import Listener, serve
from clusterling.tenancy import pki
from tests.services.serving import serving

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

_opened: list[socket.socket | asyncio.StreamWriter] = []  # By the clients of a test.

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """The server's and a client's."""
    made = pki.ephemeral(datetime.now(UTC))
    return pki.server_context(made), ssl.create_default_context(cadata=made.ca_pem.decode())


@asynccontextmanager
async def listening(
    addresses: Addresses, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Listener]:
    async with serving(addresses=addresses) as world:
        listener = await serve(world.app, host, 0, context)
        try:
            yield listener
        finally:
            for one in _opened:
                one.close()
            _opened.clear()
            await listener.close(0.1, 0.0)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def is_served(self) -> bool:
        try:
            self.writer.write(GET)
            async with asyncio.timeout(20):
                head = await self.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK"), head
                await self.reader.readexactly(2)
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        return True


async def connect(
    listener: Listener, context: ssl.SSLContext | None = None, of: str = "127.0.0.1", to: str = "127.0.0.1"
) -> Client:
    """Raises OSError."""
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection(
        to, listener.port, local_addr=(of, 0), ssl=context, server_hostname=name
    )
    _opened.append(writer)
    return Client(reader, writer)


async def half_open(listener: Listener, of: str = "127.0.0.1") -> socket.socket:
    """A connection that never says anything."""
    opened = socket.socket()
    _opened.append(opened)
    opened.setblocking(False)
    opened.bind((of, 0))
    await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", listener.port))
    return opened


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.005)


def turns_of(listener: Listener) -> accepting.Turns:
    assert listener.door is not None
    return listener.door.turns


@pytest.mark.parametrize("secure", [False, True])
async def test_a_connection_beyond_the_limit_is_closed_and_one_of_another_address_served(
    contexts: Contexts, secure: bool
) -> None:
    server, client = contexts if secure else (None, None)
    budgets = Addresses({"address.connections": 3})
    async with listening(budgets, server) as listener:
        held = [await connect(listener, client) for _ in range(3)]
        assert all([await one.is_served() for one in held])
        with suppress(OSError):  # Its handshake may fail, or else its request.
            assert not await (await connect(listener, client)).is_served()
        assert (budgets.refused["address"], budgets.connections) == (1, 3)
        assert await (await connect(listener, client, "127.0.0.2")).is_served()
        held[0].writer.transport.abort()
        await until(lambda: budgets.connected("127.0.0.1") == 2)
        assert await (await connect(listener, client)).is_served()
    assert budgets.connections == 0


async def test_a_trusted_proxy_may_have_more(contexts: Contexts) -> None:
    budgets = Addresses({"address.connections": 1, "address.handshakes": 1}, parse_networks("127.0.0.0/30"))
    async with listening(budgets, contexts[0]) as listener:
        clients = [await connect(listener, contexts[1]) for _ in range(5)]
        assert all([await one.is_served() for one in clients])


async def test_of_one_address_so_many_handshakes_run_and_no_other_address_waits_for_them(
    contexts: Contexts,
) -> None:
    budgets = Addresses({"address.handshakes": 3})
    async with listening(budgets, contexts[0]) as listener:
        turns = turns_of(listener)
        idle = [await half_open(listener) for _ in range(20)]
        await until(lambda: turns.waiting == 17)
        assert turns.under_way == 3
        assert await (await connect(listener, contexts[1], "127.0.0.2")).is_served()
        # Who goes makes room for the next, and last of all for who means it.
        coming = asyncio.ensure_future(connect(listener, contexts[1]))
        await until(lambda: turns.waiting == 18)
        for one in idle:
            one.close()
        assert await (await coming).is_served()
        await until(lambda: (turns.under_way, turns.waiting, budgets.connections) == (0, 0, 2))


async def test_handshakes_of_all_are_bounded_and_addresses_take_turns(contexts: Contexts) -> None:
    budgets = Addresses({"handshakes": 2, "address.handshakes": 2})
    async with listening(budgets, contexts[0]) as listener:
        turns = turns_of(listener)
        idle = [await half_open(listener) for _ in range(10)]
        await until(lambda: turns.waiting == 8)
        coming = asyncio.ensure_future(connect(listener, contexts[1], "127.0.0.2"))
        await until(lambda: turns.waiting == 9)
        idle[0].close()
        idle[1].close()
        assert await (await coming).is_served()
        assert turns.waiting >= 6
        for one in idle:
            one.close()


async def test_handshakes_that_come_too_fast_wait_and_are_made(contexts: Contexts) -> None:
    budgets = Addresses({"address.handshakesPerSecond": 5})
    async with listening(budgets, contexts[0]) as listener:
        for _ in range(12):
            # Nobody else is there who would have to wait for it.
            assert await (await connect(listener, contexts[1])).is_served()
        assert await (await connect(listener, contexts[1], "127.0.0.2")).is_served()
        clients = [asyncio.ensure_future(connect(listener, contexts[1])) for _ in range(14)]
        await until(lambda: turns_of(listener).waiting > 0)
        assert all([await (await one).is_served() for one in clients])


async def test_a_handshake_that_does_not_go_on_ends(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_S", 0.5)
    monkeypatch.setattr(accepting, "WAITING_S", 0.0)
    budgets = Addresses({"address.handshakes": 1})
    async with listening(budgets, contexts[0]) as listener:
        idle = [await half_open(listener) for _ in range(5)]
        for one in idle:
            async with asyncio.timeout(20):
                assert await asyncio.get_running_loop().sock_recv(one, 1) == b""
            one.close()
        assert (budgets.connections, listener.established) == (0, 0)
        assert listener.door is not None and listener.door.failed == 1


async def test_what_is_no_tls_leaves_nothing_behind(contexts: Contexts) -> None:
    budgets = Addresses()
    async with listening(budgets, contexts[0]) as listener:
        for _ in range(3):
            client = await connect(listener)
            client.writer.write(GET)
            with suppress(ConnectionError):
                assert not (await client.reader.read()).startswith(b"HTTP")
        await until(lambda: budgets.connections == 0)
        assert (turns_of(listener).under_way, listener.connections) == (0, 0)


async def test_closing_turns_away_who_is_on_the_threshold(contexts: Contexts) -> None:
    budgets = Addresses({"address.handshakes": 1})
    async with listening(budgets, contexts[0]) as listener:
        idle = [await half_open(listener) for _ in range(5)]
        await until(lambda: turns_of(listener).waiting == 4)
        await listener.close(0.1, 0.0)
        assert budgets.connections == 0
        for one in idle:
            with suppress(ConnectionError):
                async with asyncio.timeout(20):
                    assert await asyncio.get_running_loop().sock_recv(one, 1) == b""
    with pytest.raises(ConnectionRefusedError):
        await half_open(listener)


async def test_localhost_is_both_kinds_of_address_at_one_port() -> None:
    async with listening(Addresses(), host="localhost") as listener:
        assert await (await connect(listener)).is_served()
        try:
            client = await connect(listener, of="::1", to="::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        assert await client.is_served()


async def test_a_port_that_is_taken_is_told() -> None:
    async with listening(Addresses()) as listener, serving() as world:
        with pytest.raises(OSError, match="in use"):
            await serve(world.app, "127.0.0.1", listener.port)


async def test_where_nothing_more_can_be_opened_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    monkeypatch.setattr(accepting, "EXHAUSTED_S", 0.05)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with listening(Addresses()) as listener:
        first = await connect(listener)
        assert await first.is_served()
        opened = socket.socket()
        _opened.append(opened)
        opened.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened.fileno() + 1, before[1]))
        try:
            # The last descriptor is the client's.
            await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", listener.port))
            await until(lambda: "descriptors-exhausted" in caplog.text)
            assert await first.is_served()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await until(lambda: listener.connections == 2)
