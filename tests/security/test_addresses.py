"""What one address may do to a server before anybody there has said who he is, while others are served as ever.

The server is a process of its own, on the loop and with the limits that it has in production.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

from clusterling.services.addresses import (
    DELAYED_OF_ONE_MAX,
    SHARE,
    SHARED_FROM,
)
from clusterling.tenancy.limits import FAILED_LOGINS_OF_ONE_MAX, HANDSHAKES_OF_ONE_MAX
from tests.cli.processes import Serving, eventually, serving

STRANGER, NEIGHBOUR = "127.0.0.2", "127.0.0.3"
HALF_OPEN = 10_000


class Peer:
    """Somebody at an address, with the administrator's token or another."""

    def __init__(self, served: Serving, address: str) -> None:
        config = yaml.safe_load((served.data_dir / "admin.kubeconfig").read_text())
        self.token: str = config["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(cafile=str(served.data_dir / "pki" / "ca.crt"))
        self._url = served.url
        self._address = address

    def ask(
        self, path: str = "/api/v1/namespaces", token: str = "", client: httpx.Client | None = None
    ) -> httpx.Response:
        """By a connection of its own, unless one is given."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        if client is not None:
            return client.get(f"{self._url}{path}", headers=headers)
        with self.client() as own:
            return own.get(f"{self._url}{path}", headers=headers)

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self._tls, local_address=self._address)
        return httpx.Client(transport=transport, timeout=30)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        text = self.ask("/clusters/root/metrics").text
        found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found, name
        return sum(map(float, found))


@contextmanager
def served_without_error(tmp_path: Path, *arguments: str) -> Iterator[Serving]:
    """A server whose log is empty of errors at the end."""
    log = tmp_path / "log"
    with serving(tmp_path / "data", *arguments, stderr=log) as served:
        yield served
    assert [line for line in log.read_text().splitlines() if " ERROR " in line] == []


@contextmanager
def many_descriptors() -> Iterator[int]:
    """As many as there may be, and how many that is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_many(served: Serving, count: int, held: ExitStack, address: str = STRANGER) -> list[socket.socket]:
    """Connections that say nothing; each is closed with `held`."""
    where = urlsplit(served.url)
    assert where.hostname is not None and where.port is not None
    opened = []
    for _ in range(count):
        one = held.enter_context(socket.socket())
        one.settimeout(30)
        one.bind((address, 0))
        one.connect((where.hostname, where.port))
        opened.append(one)
    return opened


def is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_ten_thousand_half_open_handshakes_keep_nobody_elsewhere_waiting(tmp_path: Path) -> None:
    with many_descriptors() as most, served_without_error(tmp_path) as served, ExitStack() as held:
        count = min(HALF_OPEN, int(most * SHARED_FROM * 0.9))
        neighbour = Peer(served, NEIGHBOUR)
        assert neighbour.ask().status_code == 200
        open_many(served, count, held)
        for _ in range(20):
            assert neighbour.ask().status_code == 200
        assert neighbour.metric('clusterling_tls_handshakes{state="running"}') <= HANDSHAKES_OF_ONE_MAX + 1
        assert neighbour.metric("clusterling_addresses_known") <= 3


def test_who_opens_all_that_he_can_leaves_others_their_share(tmp_path: Path) -> None:
    most = 200
    with served_without_error(tmp_path, "--limits", f"connections={most}") as served, ExitStack() as held:
        opened = open_many(served, 2 * most, held)
        neighbour = Peer(served, NEIGHBOUR)
        assert neighbour.ask().status_code == 200
        assert sum(map(is_open, opened)) <= most * SHARED_FROM
        with ExitStack() as clients:
            for _ in range(int(most * SHARE) - 3):
                client = clients.enter_context(neighbour.client())
                assert neighbour.ask(client=client).status_code == 200
            assert neighbour.metric('clusterling_connections_refused_total{limit="address"}') >= most
            assert neighbour.metric("clusterling_connections_max") == most
            open_many(served, most, held, NEIGHBOUR)
            assert Peer(served, "127.0.0.4").ask().status_code == 200


def test_one_that_connects_and_leaves_at_once_leaves_nothing(tmp_path: Path) -> None:
    with served_without_error(tmp_path) as served:
        for _ in range(10):
            with ExitStack() as held:
                open_many(served, 200, held)
        neighbour = Peer(served, NEIGHBOUR)
        assert eventually(lambda: neighbour.metric("clusterling_connections") == 1)
        assert eventually(lambda: neighbour.metric('clusterling_tls_handshakes{state="waiting"}') == 0)
        assert neighbour.metric("clusterling_connections_accepted_total") >= 2_000


async def test_who_guesses_is_slowed_and_who_need_not_is_not(tmp_path: Path) -> None:
    with served_without_error(tmp_path) as served:
        guesser, neighbour = Peer(served, STRANGER), Peer(served, NEIGHBOUR)
        colleague = guesser.client()  # Behind the same address, and let in before.
        assert guesser.ask(client=colleague).status_code == 200

        def guess(at: int) -> int:
            with guesser.client() as client:
                return guesser.ask(token=f"guess-{at}", client=client).status_code

        with guesser.client() as client:
            told = [
                guesser.ask(token=f"guess-{at}", client=client).status_code
                for at in range(FAILED_LOGINS_OF_ONE_MAX)
            ]
        assert set(told) == {401}
        guesses = [
            asyncio.ensure_future(asyncio.to_thread(guess, at)) for at in range(3 * DELAYED_OF_ONE_MAX)
        ]
        assert (await asyncio.to_thread(guesser.ask, client=colleague)).status_code == 200
        assert (await asyncio.to_thread(guesser.ask)).status_code == 200
        assert (await asyncio.to_thread(neighbour.ask)).status_code == 200
        wrong = await asyncio.to_thread(neighbour.ask, token="wrong")
        assert wrong.status_code == 401
        codes = [await one for one in guesses]
        assert set(codes) <= {401, 429}
        delayed = neighbour.metric('clusterling_failed_logins_limited_total{answer="delayed"}')
        refused = neighbour.metric('clusterling_failed_logins_limited_total{answer="refused"}')
        assert delayed >= DELAYED_OF_ONE_MAX
        assert refused == codes.count(429)
        colleague.close()


async def test_a_proxy_is_no_guesser_whoever_guesses_through_it(tmp_path: Path) -> None:
    options = ("--trusted-proxies", f"{STRANGER}/32", "--limits", "address.failedLogins=1")
    with served_without_error(tmp_path, *options) as served:
        proxy = Peer(served, STRANGER)

        def through(client_address: str, token: str) -> int:
            fields = [
                ("Authorization", f"Bearer {token}"),
                ("X-Forwarded-For", "192.0.2.7"),
                ("X-Forwarded-For", client_address),
            ]
            with proxy.client() as client:
                return client.get(f"{served.url}/api", headers=fields).status_code

        guesses = [
            asyncio.ensure_future(asyncio.to_thread(through, "198.51.100.1", f"guess-{at}"))
            for at in range(40)
        ]
        assert await asyncio.to_thread(through, "198.51.100.2", proxy.token) == 200
        assert await asyncio.to_thread(through, "192.0.2.7", "wrong") == 401
        assert {await one for one in guesses} <= {401, 429}
        assert proxy.metric('clusterling_failed_logins_limited_total{answer="delayed"}') >= 1
