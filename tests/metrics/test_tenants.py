"""Which logical clusters have series of their own, and that nothing that was counted is lost or counted twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.services.metrics.tenants import (
    COUNTS,
    OTHER,
    RANKED_EVERY_S,
    READS,
    SERIES_EACH,
    STALE_S,
    THROTTLED,
    WRITES,
    Tenants,
)


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def use(tenants: Tenants, name: str, times: int = 1) -> None:
    for _ in range(times):
        tenants.of(name, f"id-{name}").answered(200, 0.01, 10, writes=False)


def reads(tenants: Tenants) -> dict[str, float]:
    shown = [*tenants.named.values(), tenants.other()]
    return {tenant.name: tenant.tally[READS] for tenant in shown}


def test_those_beyond_the_places_are_one(clock: Clock) -> None:
    tenants = Tenants(clock, named_max=2)
    for name in ("a", "b", "c", "d"):
        use(tenants, name, 3)
    assert reads(tenants) == {"a": 3, "b": 3, OTHER: 6}


def test_who_is_used_much_more_takes_the_place_of_who_is_used_least(clock: Clock) -> None:
    tenants = Tenants(clock, named_max=2)
    use(tenants, "a", 10)
    use(tenants, "b", 1)
    use(tenants, "c", 50)
    tenants.rank()
    assert reads(tenants) == {"a": 10, "c": 50, OTHER: 1 + 50 - 50 + 50 - 1}


def test_names_do_not_come_and_go_for_a_little_more_use(clock: Clock) -> None:
    tenants = Tenants(clock, named_max=1)
    use(tenants, "a", 10)
    use(tenants, "b", 15)
    tenants.rank()
    assert set(tenants.named) == {"a"}


def test_a_cluster_that_is_gone_has_no_series_and_begins_anew(clock: Clock) -> None:
    tenants = Tenants(clock)
    use(tenants, "a", 5)
    tenants.forget("a")
    assert reads(tenants) == {OTHER: 0}
    use(tenants, "a")
    assert reads(tenants) == {"a": 1, OTHER: 0}


def test_who_is_not_used_for_long_is_forgotten_but_not_while_it_watches(clock: Clock) -> None:
    tenants = Tenants(clock)
    use(tenants, "a")
    use(tenants, "b")
    tenants.known["b"].watches = 1
    for _ in range(int(STALE_S / RANKED_EVERY_S) + 3):
        tenants.rank()
        clock.now += RANKED_EVERY_S
    assert set(tenants.named) == set(tenants.known) == {"b"}


def test_more_than_can_be_known_are_counted_without_a_name(clock: Clock) -> None:
    tenants = Tenants(clock, named_max=1, known_max=2)
    for name in ("a", "b", "c", "d"):
        use(tenants, name)
    assert reads(tenants) == {"a": 1, OTHER: 3}


def test_series_stay_below_two_thousand_at_three_thousand_tenants(clock: Clock) -> None:
    tenants = Tenants(clock)
    for number in range(3_000):
        use(tenants, f"team-{number}")
    tenants.rank()
    assert (len(tenants.named) + 1) * SERIES_EACH <= 2_000


def test_what_is_refused_is_told_by_its_class(clock: Clock) -> None:
    tenants = Tenants(clock)
    tenant = tenants.of("a", "id")
    tenant.answered(429, 0.0, 0, writes=True)
    tenant.answered(503, 9.0, 0, writes=True)
    assert (tenant.tally[WRITES], tenant.tally[THROTTLED]) == (2, 1)
    assert tenant.tally[COUNTS] == tenant.tally[-1] == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 40), st.sampled_from(["use", "rank", "forget"])),
        max_size=40,
    )
)
def test_the_others_counter_never_falls_whoever_changes_sides(steps: list[tuple[str, int, str]]) -> None:
    clock = Clock()
    tenants = Tenants(clock, named_max=2)
    before = 0.0
    for name, times, what in steps:
        if what == "use":
            use(tenants, name, times)
        elif what == "forget":
            tenants.forget(name)
        else:
            clock.now += RANKED_EVERY_S
            tenants.rank()
        now = tenants.other().tally[READS]
        assert now >= before
        before = now
