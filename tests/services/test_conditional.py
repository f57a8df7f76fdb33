"""Conditional requests: each outcome is the one that kube-apiserver's OpenAPI was seen to give."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clusterling.services.conditional import Conditions, Outcome
from clusterling.services.request import Headers

TAG = "AB"
MODIFIED = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
THEN = "Mon, 23 Nov 2026 04:30:00 GMT"
BEFORE = "Mon, 23 Nov 2020 00:00:00 GMT"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, 200),
        ({"If-None-Match": '"AB"'}, 304),
        ({"If-None-Match": 'W/"AB"'}, 304),
        ({"If-None-Match": '"a", "AB"'}, 304),
        ({"If-None-Match": '"a",W/"AB" , "c"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": "AB"}, 200),
        ({"If-None-Match": 'x, "AB"'}, 200),
        ({"If-None-Match": '"ab"'}, 200),
        ({"If-Modified-Since": THEN}, 304),
        ({"If-Modified-Since": "Mon, 23 Nov 2099 04:30:00 GMT"}, 304),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": THEN, "If-None-Match": '"zz"'}, 200),
        ({"If-Match": '"zz"'}, 412),
        ({"If-Match": 'W/"AB"'}, 412),
        ({"If-Match": '"AB"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"AB"', "If-Unmodified-Since": BEFORE}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Unmodified-Since": THEN}, 200),
        ({"If-Unmodified-Since": BEFORE, "If-None-Match": '"AB"'}, 412),
        ({"If-None-Match": '"x",' * 100_000 + '"AB"'}, 200),
    ],
)
def test_a_copy_that_is_still_good_is_not_sent_again(fields: dict[str, str], outcome: Outcome) -> None:
    assert Conditions(Headers(fields)).outcome(TAG, MODIFIED) == outcome


def test_what_does_not_read_is_refused_where_the_copy_is_the_same() -> None:
    assert Conditions(Headers({"If-None-Match": "*"}), "POST").outcome(TAG, MODIFIED) == 412
    assert Conditions(Headers({"If-Modified-Since": THEN}), "POST").outcome(TAG, MODIFIED) == 200
