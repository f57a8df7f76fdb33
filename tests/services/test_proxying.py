"""The PROXY protocol: who is believed, what is read of it, and that nothing behind it is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterling.registry.strategy import User
from clusterling.services import accepting
from clusterling.services.addresses import Addresses, parse_networks
from clusterling.services.http import Listener, serve
from clusterling.services.proxying import BINARY_BYTES_MAX, LINE_BYTES_MAX, SIGNATURE, read_header
from clusterling.services.request import Request
from clusterling.tenancy import pki
from tests.services.serving import ADMIN, serving


class Wire:
    """Bytes that arrive as they like."""

    def __init__(self, data: bytes, most: int = 1 << 20) -> None:
        self.data = data
        self._most = most

    async def receive(self, count: int) -> bytes:
        count = min(count, self._most)
        taken, self.data = self.data[:count], self.data[count:]
        return taken


def binary(source: str, *, command: int = 0x21, more: bytes = b"") -> bytes:
    ip = ip_address(source)
    family, addresses = 0x11 if ip.version == 4 else 0x21, ip.packed * 2 + b"\x10\x00\x19\x2b"
    rest = addresses + more
    return SIGNATURE + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 6443\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 6443\r\n", "2001:db8::1"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff:f...f:ffff 2001:db8::2 1 2\r\n", ""),
    (binary("192.0.2.1"), "192.0.2.1"),
    (binary("2001:db8::1", more=b"\x04\x00\x03abc"), "2001:db8::1"),
    (binary("192.0.2.1", command=0x20), ""),
    (SIGNATURE + b"\x21\x00\x00\x00", ""),
    (SIGNATURE + b"\x21\x31\x00\xd8" + b"x" * 216, ""),
]


@pytest.mark.parametrize(("header", "address"), HEADERS)
@pytest.mark.parametrize("most", [1, 7, 1 << 20])
async def test_a_header_tells_the_client_and_what_follows_stays(
    header: bytes, address: str, most: int
) -> None:
    wire = Wire(header + b"GET /PROXY\r\n", most)
    assert await read_header(wire.receive) == address
    assert wire.data == b"GET /PROXY\r\n"


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaa",
        b"PROXY TCP4 192.0.2 198.51.100.1 4711 6443\r\n",
        b"PROXY TCP4\r\n      ",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 6443\n\r\n",
        b"PROXY UNKNOWN" + b" " * LINE_BYTES_MAX + b"\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + b"x" * 12,
        SIGNATURE + b"\x22\x11\x00\x0c" + b"x" * 12,
        SIGNATURE + b"\x21\x11\x00\x0b" + b"x" * 11,
        SIGNATURE + b"\x21\x21\x00\x0c" + b"x" * 12,
        SIGNATURE + b"\x21\x11" + (BINARY_BYTES_MAX + 1).to_bytes(2, "big") + b"x" * 5_000,
    ],
)
async def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"PROXY|does not appear to be"):
        await read_header(Wire(header).receive)


@given(
    st.one_of(
        st.binary(),
        st.binary().map(lambda some: b"PROXY " + some),
        st.binary().map(lambda some: SIGNATURE + some),
    )
)
async def test_whatever_comes_is_an_address_or_refused(data: bytes) -> None:
    wire = Wire(data)
    try:
        address = await read_header(wire.receive)
    except (ValueError, OSError):
        return
    assert address == "" or str(ip_address(address)) == address
    assert len(data) - len(wire.data) <= BINARY_BYTES_MAX + 16


# ---------------------------------------------------------------------- over sockets

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
PROXY, STRANGER = "127.0.0.2", "127.0.0.3"
GET = b"GET /clusters/team-a/api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    made = pki.ephemeral(datetime.now(UTC))
    return pki.server_context(made), ssl.create_default_context(cadata=made.ca_pem.decode())


class Seen:
    """Lets everybody in, and keeps where they came from."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def authenticate(self, request: Request) -> User | None:
        self.addresses.append(request.peer.address)
        return ADMIN


@asynccontextmanager
async def proxied(budgets: Addresses, context: ssl.SSLContext | None) -> AsyncIterator[tuple[Listener, Seen]]:
    async with serving(addresses=budgets) as world:
        seen = world.app.authenticator = Seen()
        listener = await serve(world.app, "127.0.0.1", 0, context)
        try:
            yield listener, seen
        finally:
            await listener.close(0.1, 0.0)


async def ask(listener: Listener, context: ssl.SSLContext | None, of: str, header: bytes) -> bytes:
    """The head's first bytes; none where the connection was ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(of, 0))
    try:
        async with asyncio.timeout(20):
            writer.write(header)
            if context is not None:
                await writer.start_tls(context, server_hostname="localhost")
            writer.write(GET)
            return (await reader.read())[:12]
    except OSError:
        return b""
    finally:
        writer.transport.abort()


def budgets(**limits: int) -> Addresses:
    named = {name.replace("_", "."): most for name, most in limits.items()}
    return Addresses(named, parse_networks(PROXY), proxy_protocol=True)


@pytest.mark.parametrize("secure", [False, True])
async def test_the_client_is_who_the_proxy_says_and_nobody_else_may_say_so(
    contexts: Contexts, secure: bool
) -> None:
    server, client = contexts if secure else (None, None)
    async with proxied(budgets(), server) as (listener, seen):
        for header, address in (
            (binary("192.0.2.1"), "192.0.2.1"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 6443\r\n", "2001:db8::1"),
            (b"PROXY UNKNOWN\r\n", PROXY),
        ):
            assert await ask(listener, client, PROXY, header) == b"HTTP/1.1 200"
            assert seen.addresses.pop() == address
        assert await ask(listener, client, PROXY, b"") == b""
        assert await ask(listener, client, STRANGER, b"") == b"HTTP/1.1 200"
        assert seen.addresses == [STRANGER]
        assert await ask(listener, client, STRANGER, binary("192.0.2.1")) in (b"", b"HTTP/1.1 400")
        assert seen.addresses == [STRANGER]


async def test_limits_of_an_address_are_the_clients_whom_the_proxy_names(contexts: Contexts) -> None:
    found = budgets(address_connections=1)
    async with proxied(found, contexts[0]) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(PROXY, 0))
        writer.write(binary("192.0.2.1"))
        await writer.start_tls(contexts[1], server_hostname="localhost")
        assert found.connected("192.0.2.1") == 1
        assert await ask(listener, contexts[1], PROXY, binary("192.0.2.1")) == b""
        assert await ask(listener, contexts[1], PROXY, binary("192.0.2.2")) == b"HTTP/1.1 200"
        writer.transport.abort()
        async with asyncio.timeout(20):
            while found.connections:
                await asyncio.sleep(0.01)
        assert reader is not None
    assert found.refused["address"] == 1


async def test_a_proxy_that_says_nothing_is_not_waited_for(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_S", 0.05)
    found = budgets()
    async with proxied(found, contexts[0]) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(PROXY, 0))
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        assert found.connections == 0


async def test_closing_does_not_wait_for_a_proxy_to_speak(contexts: Contexts) -> None:
    found = budgets()
    async with proxied(found, contexts[0]) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(PROXY, 0))
        async with asyncio.timeout(20):
            while not found.connections:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await listener.close(0.1, 0.0)
        assert await reader.read() == b""
        assert found.connections == 0
        writer.close()
