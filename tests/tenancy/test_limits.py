from __future__ import annotations

from datetime import timedelta

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.tenancy.limits import DEFAULTS, RETRY_AFTER_MAX_S, Bounds, Limits, Seats, parse_limits
from tests.tenancy.clocks import Turned


def test_a_tenant_that_fills_its_seats_leaves_others_theirs() -> None:
    seats = Seats(Bounds(of_all=0, of_one=2))
    seats.take("a")
    seats.take("a")
    with pytest.raises(ApiError) as refused:
        seats.take("a")
    assert (refused.value.code, refused.value.headers["Retry-After"]) == (429, "1")
    seats.take("b")
    seats.leave("a")
    seats.take("a")
    assert (seats.taken("a"), seats.taken("b"), seats.total) == (2, 1, 3)
    assert seats.refused == [0, 1]


def test_all_together_have_a_bound_too() -> None:
    seats = Seats(Bounds(of_all=2, of_one=0), "lists", "lists")
    seats.take("a")
    seats.take("b")
    with pytest.raises(ApiError, match="This server has too many lists in flight: lists, limited: 2"):
        seats.take("c")
    assert (seats.taken("c"), seats.refused) == (0, [1, 0])


def test_who_insists_is_to_stay_away_longer_and_who_does_not_is_not() -> None:
    clock = Turned()
    seats = Seats(Bounds(of_all=0, of_one=1), now=clock.monotonic)
    seats.take("a")
    seats.take("b")

    def refused(tenant: str) -> int:
        with pytest.raises(ApiError) as caught:
            seats.take(tenant)
        return int(caught.value.headers["Retry-After"])

    told = []
    for _ in range(400):
        told.append(refused("a"))
        clock.turn(timedelta(seconds=0.1))
    assert sorted(set(told)) == [1, 2, 4, RETRY_AFTER_MAX_S] and told == sorted(told)
    assert refused("b") == 1
    clock.turn(timedelta(seconds=100))
    assert refused("a") == 1


def test_limits_are_read_from_a_flag() -> None:
    assert parse_limits("tenant.lists=5, watches=0") == {"tenant.lists": 5, "watches": 0}
    assert parse_limits("") == {}
    for wrong in ("lists", "pods=1", "lists=x", "lists=-1", "lists=1e3", "lists=" + "9" * 100, "lists=٣"):
        with pytest.raises(ValueError, match=r"NAME=NUMBER|none of|no number"):
            parse_limits(wrong)


def test_what_is_not_given_is_as_by_default() -> None:
    limits = Limits({"tenant.lists": 5})
    assert limits.lists.bounds == Bounds(DEFAULTS["lists"], 5)
    assert limits.watches.bounds == Bounds(DEFAULTS["watches"], DEFAULTS["tenant.watches"])
