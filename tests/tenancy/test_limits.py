from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.tenancy.limits import Bounds, Seats


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


def test_all_together_have_a_bound_too() -> None:
    seats = Seats(Bounds(of_all=2, of_one=0))
    seats.take("a")
    seats.take("b")
    with pytest.raises(ApiError):
        seats.take("c")
    assert seats.taken("c") == 0
