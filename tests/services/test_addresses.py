"""Budgets of addresses: whose they are, who shares them, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterling.machinery.errors import ApiError
from clusterling.services import addresses
from clusterling.services.addresses import ADDRESSES_MAX, Addresses, Origin, parse_networks
from clusterling.services.request import Headers, Peer, Request
from tests.tenancy.clocks import Turned

PROXIES = parse_networks("10.0.0.0/8, 2001:db8::7")


async def nothing(_limit: int) -> list[bytes]:
    return []


def request(address: str, credential: str = "wrong", **fields: str) -> Request:
    headers = {
        "Authorization": f"Bearer {credential}",
        **{name.replace("_", "-"): fields[name] for name in fields},
    }
    return Request("GET", "/api", "", Headers(headers), nothing, peer=Peer(address))


# ---------------------------------------------------------------------- who


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_customer_is_an_address_or_a_64(address: str, key: str) -> None:
    assert Addresses().origin(address) == Origin(key, exempt=False)


def test_who_has_no_address_or_is_a_proxy_has_no_budget() -> None:
    budgets = Addresses({"address.connections": 1}, PROXIES)
    for address in ("", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"):
        origin = budgets.origin(address)
        assert origin.exempt
        assert budgets.connect(origin) and budgets.connect(origin)
    assert not budgets.origin("11.0.0.1").exempt


# ---------------------------------------------------------------------- connections


def opened(budgets: Addresses, address: str) -> int:
    """Opens connections from there until one is refused."""
    origin, count = budgets.origin(address), 0
    while budgets.connect(origin):
        count += 1
    return count


def test_one_address_may_have_most_connections_and_never_all() -> None:
    budgets = Addresses({"connections": 800})
    assert opened(budgets, "192.0.2.1") == 600
    # What is scarce is shared: an eighth for each.
    assert opened(budgets, "192.0.2.2") == 100
    assert opened(budgets, "192.0.2.3") == 100
    assert (budgets.refused, budgets.connections) == ({"all": 1, "address": 2}, 800)
    for _ in range(10):
        budgets.disconnect(budgets.origin("192.0.2.1"))
    assert opened(budgets, "192.0.2.1") == 0
    assert opened(budgets, "192.0.2.4") == 10


def test_an_address_has_a_limit_of_its_own_where_it_is_given_one() -> None:
    budgets = Addresses({"address.connections": 5})
    assert opened(budgets, "192.0.2.1") == opened(budgets, "192.0.2.2") == 5
    assert (budgets.connected("192.0.2.1"), budgets.refused["address"]) == (5, 2)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "10.0.0.1", ""]), st.booleans())))
def test_what_is_counted_is_what_is_open(steps: list[tuple[str, bool]]) -> None:
    budgets = Addresses({"connections": 16, "address.connections": 3}, PROXIES)
    held: list[Origin] = []
    for address, comes in steps:
        origin = budgets.origin(address)
        if comes and budgets.connect(origin):
            held.append(origin)
        elif not comes and origin in held:
            held.remove(origin)
            budgets.disconnect(origin)
        assert budgets.connections == len(held) <= 16
        assert budgets.connected("a") == held.count(budgets.origin("a")) <= 3
    for origin in held:
        budgets.disconnect(origin)
    assert budgets.known == 0


def test_limits_that_there_are_none_of_are_refused() -> None:
    with pytest.raises(ValueError, match=r"adress.connections is none of requests,"):
        Addresses({"adress.connections": 1})


# ---------------------------------------------------------------------- logins


class Sleeper:
    """Stands for the time that answers are put off by; `wake` ends it."""

    def __init__(self) -> None:
        self.asleep = 0
        self._awake = asyncio.Event()

    async def sleep(self, _seconds: float) -> None:
        self.asleep += 1
        await self._awake.wait()
        self.asleep -= 1

    def wake(self) -> None:
        self._awake.set()
        self._awake = asyncio.Event()


async def fail(budgets: Addresses, sent: Request) -> None:
    budgets.bar(sent)
    await budgets.failed(sent)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def refused(work: Awaitable[None] | Callable[[], None]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        if callable(work):
            work()
        else:
            await work
    return caught.value


async def test_of_many_wrong_logins_some_wait_and_the_others_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sleeper = Sleeper()
    clock = Turned()
    budgets = Addresses({"address.failedLogins": 3}, now=clock.monotonic, sleep=sleeper.sleep)
    for _ in range(3):
        await fail(budgets, request("192.0.2.1"))
    async with asyncio.TaskGroup() as group:
        for _ in range(addresses.DELAYED_OF_ONE_MAX):
            group.create_task(fail(budgets, request("192.0.2.1")))
        await turns()
        assert sleeper.asleep == addresses.DELAYED_OF_ONE_MAX
        error = await refused(fail(budgets, request("192.0.2.1")))
        assert (error.code, error.headers["Retry-After"]) == (429, "5")
        assert error.details is not None
        assert error.details["causes"][0]["field"] == "address.failedLogins"
        assert "192.0.2.1: address.failedLogins, limited: 3" in error.message
        await refused(fail(budgets, request("192.0.2.1")))
        assert caplog.messages == ["logins-barred address=192.0.2.1 so-far=1"], "and not one for each"
        # Another address is asked for nothing of this.
        await fail(budgets, request("192.0.2.2"))
        sleeper.wake()
    assert (budgets.delayed, budgets.barred) == (addresses.DELAYED_OF_ONE_MAX, 2)
    clock.turn(timedelta(seconds=60))
    await fail(budgets, request("192.0.2.1"))
    assert sleeper.asleep == 0


async def test_who_was_let_in_from_there_before_is_not_refused() -> None:
    sleeper = Sleeper()
    budgets = Addresses({"address.failedLogins": 1}, sleep=sleeper.sleep)
    good = request("192.0.2.1", "good")
    budgets.bar(good)
    budgets.succeeded(good)
    assert good.peer.let_in
    await fail(budgets, request("192.0.2.1"))
    async with asyncio.TaskGroup() as group:
        for _ in range(addresses.DELAYED_OF_ONE_MAX):
            group.create_task(fail(budgets, request("192.0.2.1")))
        await turns()
        budgets.bar(good)
        budgets.bar(request("192.0.2.1", "good"))  # By another connection.
        await refused(lambda: budgets.bar(request("192.0.2.1", "other")))
        # A connection is as good as the last credential that came by it.
        good.headers = Headers({"Authorization": "Bearer guess"})
        await refused(budgets.failed(good))
        await refused(lambda: budgets.bar(good))
        sleeper.wake()


async def test_behind_a_proxy_it_is_the_client_who_guesses() -> None:
    sleeper = Sleeper()
    budgets = Addresses({"address.failedLogins": 1}, PROXIES, sleep=sleeper.sleep)

    def by_proxy(*forwarded: str) -> Request:
        return request("10.0.0.1", X_Forwarded_For=",".join(forwarded))

    await fail(budgets, by_proxy("192.0.2.1"))
    async with asyncio.TaskGroup() as group:
        for made_up in range(addresses.DELAYED_OF_ONE_MAX):
            # What is in front the client may have written itself.
            group.create_task(fail(budgets, by_proxy(f"192.0.2.{made_up + 2}", "192.0.2.1:4711", "10.0.0.9")))
        await turns()
        assert sleeper.asleep == addresses.DELAYED_OF_ONE_MAX
        await refused(fail(budgets, by_proxy("192.0.2.1")))
        for other in (
            "192.0.2.2",
            "",
            "unknown",
            "192.0.2.1, unknown",
            "10.0.0.2",
            ",,,",
            "[2001:db8::1]:80",
        ):
            await fail(budgets, by_proxy(other))
        sleeper.wake()


async def test_a_connection_of_a_proxy_stands_for_nobody() -> None:
    budgets = Addresses({}, PROXIES)
    sent = request("10.0.0.1", "good", X_Forwarded_For="192.0.2.1")
    budgets.succeeded(sent)
    assert not sent.peer.let_in


async def test_who_is_in_the_same_process_may_fail_as_often_as_he_likes() -> None:
    budgets = Addresses({"address.failedLogins": 1})
    for _ in range(100):
        await fail(budgets, request(""))
    assert (budgets.delayed, budgets.barred, budgets.known) == (0, 0, 0)


async def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = Addresses()
    monkeypatch.setattr(addresses, "CREDENTIALS_MAX", 100)
    for at in range(2 * ADDRESSES_MAX):
        sent = request(f"2001:db8:{at & 0xFFFF:x}:{at >> 16:x}::1", f"t{at}")
        await budgets.failed(sent)
        if at < 1000:
            budgets.succeeded(sent)
    assert budgets.known == ADDRESSES_MAX
    assert budgets.credentials == 100
