"""What is found wrong with watches, from what they were told."""

from __future__ import annotations

import json
from typing import Any

from tests.clients.day.streams import Stream, Streams

GARDENS = "/apis/day.example.com/v1/gardens"


def event(revision: int, told: str = "MODIFIED", **annotations: str) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision), "annotations": annotations}
    return json.dumps({"type": told, "object": {"metadata": metadata}}).encode() + b"\n"


def told(stream: Stream, *events: bytes) -> None:
    whole = b"".join(events)
    for piece in (whole[:7], whole[7:]):  # Frames and pieces of a response are not the same.
        list(stream.read(piece))


def test_an_event_that_one_watch_was_told_is_missed_where_another_went_past_it() -> None:
    streams = Streams()
    told(streams.begin("ann", GARDENS, {"resourceVersion": "10"}), event(11), event(12), event(14))
    told(streams.begin("bob", GARDENS, {"resourceVersion": "11"}), event(14), event(15))
    told(streams.begin("cay", GARDENS, {"resourceVersion": "9"}), event(11))

    assert list(streams.wrong()) == ["bob watched gardens from 11 to 15, and was not told 12"]


def test_a_watch_that_lists_first_is_held_to_what_comes_after_its_list() -> None:
    streams = Streams()
    told(streams.begin("ann", GARDENS, {"resourceVersion": "10"}), event(11), event(12), event(13))
    end = event(12, "BOOKMARK", **{"k8s.io/initial-events-end": "true"})
    told(streams.begin("bob", GARDENS, {"sendInitialEvents": "true"}), event(12), event(4), end, event(14))
    told(streams.begin("cay", GARDENS, {"sendInitialEvents": "true"}), event(12), event(4))

    assert list(streams.wrong()) == ["bob watched gardens from 12 to 14, and was not told 13"]


def test_a_bookmark_says_that_all_up_to_it_was_told() -> None:
    streams = Streams()
    told(streams.begin("ann", GARDENS, {"resourceVersion": "10"}), event(11))
    told(streams.begin("bob", GARDENS, {"resourceVersion": "10"}), event(12, "BOOKMARK"))

    assert list(streams.wrong()) == ["bob watched gardens from 10 to 12, and was not told 11"]


def test_revisions_of_a_watch_rise() -> None:
    streams = Streams()
    told(streams.begin("ann", GARDENS, {"resourceVersion": "10"}), event(12), event(11))

    assert list(streams.wrong()) == ["ann was told 11 of gardens after 12"]


def test_an_error_ends_what_a_watch_says() -> None:
    stream = Streams().begin("ann", GARDENS, {"resourceVersion": "10"})
    told(stream, event(11), b'{"type":"ERROR","object":{"code":410}}\n', event(12))

    assert (stream.error, stream.ended) == ({"code": 410}, 11)
