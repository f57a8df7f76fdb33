"""Which requests are begun in this round of the loop."""

from __future__ import annotations

import asyncio
from functools import partial

from clusterling.services.arrivals import ALONE_S, ROUND_S, Arrivals


class Door:
    """Arrivals on a clock that only requests move; and who was begun, in order."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.arrivals = Arrivals(clock=lambda: self.now_s)
        self.begun: list[str] = []

    def _begin(self, name: str) -> None:
        self.now_s += ROUND_S / 4
        self.begun.append(name)

    def come(self, tenant: str, name: str = "") -> bool:
        """Whether the request was begun where it arrived."""
        if self.arrivals.at_once(tenant):
            self._begin(name or tenant)
            return True
        self.arrivals.later(tenant, partial(self._begin, name or tenant))
        return False

    async def finish(self) -> None:
        while self.arrivals.waiting:
            await asyncio.sleep(0)


async def test_a_tenant_who_is_alone_is_never_asked_to_wait() -> None:
    door = Door()
    door.come("only")
    await door.finish()
    door.now_s += 2 * ALONE_S
    assert all(door.come("only") for _ in range(1_000))


async def test_a_round_begins_so_many_and_the_rest_takes_turns_by_tenant() -> None:
    door = Door()
    door.come("quiet")
    at_once = [door.come("loud") for _ in range(200)].count(True)
    assert at_once <= 4
    door.come("quiet", "mine")
    await door.finish()
    assert door.begun.index("mine") <= 10
    assert len(door.begun) == 202


async def test_nobody_overtakes_those_who_wait() -> None:
    door = Door()
    door.come("quiet")
    for number in range(50):
        door.come("loud", f"loud {number}")
    assert not door.come("loud", "loud 50")
    await door.finish()
    assert [name for name in door.begun if name.startswith("loud")] == [f"loud {n}" for n in range(51)]
    await asyncio.sleep(0)
    assert door.come("quiet")


async def test_a_new_round_begins_as_many_again() -> None:
    door = Door()
    for tenant in ("a", "b"):
        assert door.come(tenant)
    for _ in range(20):
        await asyncio.sleep(0)
        assert door.come("a")
        assert door.come("b")
