from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import FieldSelector
from clusterling.packs.core.events import TTL_S, from_core, to_core
from clusterling.registry.options import ListOptions
from tests.packs.conftest import Cluster, causes

_POD = {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u1", "apiVersion": "v1"}
_NEW = "events.k8s.io/events"


def _new_event(**changes: Any) -> Object:
    fields = {
        "eventTime": "2026-01-02T03:04:05.000001Z",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Bind",
        "reason": "Bound",
        "type": "Normal",
        "regarding": _POD,
        "note": " hello ",
    }
    return {**fields, **changes}


async def test_an_event_of_the_old_api_shows_in_the_new_one_under_its_names(cluster: Cluster) -> None:
    await cluster.create(
        "events",
        "e",
        involvedObject=_POD,
        message="hello",
        reason="R",
        count=2,
        type="Normal",
        source={"component": "c"},
        firstTimestamp="2026-01-02T03:00:00Z",
        lastTimestamp="2026-01-02T04:00:00+01:00",
    )
    shown = await cluster.get(_NEW, "e")
    assert shown["apiVersion"] == "events.k8s.io/v1"
    assert shown["regarding"] == _POD
    assert shown["note"] == "hello"
    assert shown["deprecatedCount"] == 2
    assert shown["deprecatedSource"] == {"component": "c"}
    assert shown["deprecatedLastTimestamp"] == "2026-01-02T03:00:00Z"
    assert not {"message", "involvedObject", "source", "count"} & shown.keys()


async def test_an_event_of_the_new_api_shows_in_the_old_one(cluster: Cluster) -> None:
    made = await cluster.create(_NEW, "e", **_new_event())
    assert made["regarding"] == _POD
    shown = await cluster.get("events", "e")
    assert shown["apiVersion"] == "v1"
    assert shown["involvedObject"] == _POD
    assert shown["message"] == " hello "
    assert shown["reportingComponent"] == "example.com/c"
    assert shown["metadata"] == made["metadata"]


def test_conversion_there_and_back_changes_nothing() -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {},
        **_new_event(),
        "deprecatedCount": 1,
    }
    assert from_core(to_core(event, "v1"), "v1") == event


async def test_fields_that_go_always_writes_are_there(cluster: Cluster) -> None:
    made = await cluster.create("events", "e", involvedObject=_POD)
    assert made["source"] == {}
    assert made["reportingComponent"] == made["reportingInstance"] == ""
    shown = await cluster.get(_NEW, "e")
    assert not {"reportingController", "reportingInstance"} & shown.keys()
    assert made["eventTime"] is made["firstTimestamp"] is made["lastTimestamp"] is None


async def test_an_event_goes_after_an_hour_counted_from_its_last_write(cluster: Cluster) -> None:
    await cluster.create("events", "e", involvedObject=_POD)
    cluster.clock.turn(1000)
    await cluster.update("events", "e", involvedObject=_POD, count=2)
    written = int(cluster.clock.now().timestamp())
    assert not await cluster.store.expired(written + TTL_S - 1, 10)
    assert [one.key for one in await cluster.store.expired(written + TTL_S, 10)] == ["core/events/default/e"]


async def test_a_put_creates_an_event(cluster: Cluster) -> None:
    made = await cluster.update("events", "e", involvedObject=_POD)
    assert made["metadata"]["name"] == "e"


@pytest.mark.parametrize("about", [{"kind": "Node", "name": "n"}, {"kind": "Pod", "namespace": "default"}])
async def test_the_old_api_takes_what_belongs_to_the_namespace(cluster: Cluster, about: Object) -> None:
    await cluster.create("events", "e", involvedObject=about)


async def test_an_event_about_another_namespace_is_invalid(cluster: Cluster) -> None:
    error = await cluster.refused("events", "e", involvedObject={**_POD, "namespace": "other"})
    assert causes(error) == [
        ("involvedObject.namespace", 'Invalid value: "other": does not match event.namespace')
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": "Odd"}, [("type", 'Invalid value: "": has invalid value: Odd')]),
        ({"action": ""}, [("action", "Required value")]),
        ({"action": "x" * 129}, [("action", 'Invalid value: "": can have at most 128 characters')]),
        ({"note": "x" * 1025}, [("message", 'Invalid value: "": can have at most 1024 characters')]),
        ({"deprecatedCount": 1}, [("count", 'Invalid value: "": needs to be unset')]),
        ({"deprecatedSource": {"host": "h"}}, [("source", 'Invalid value: "": needs to be unset')]),
        (
            {"series": {"count": 1}},
            [
                ("series.count", 'Invalid value: "": should be at least 2'),
                ("series.lastObservedTime", "Required value"),
            ],
        ),
        ({"eventTime": None}, [("eventTime", "Required value")]),
    ],
)
async def test_the_new_api_is_strict(
    cluster: Cluster, changes: Object, expected: list[tuple[str, str]]
) -> None:
    assert causes(await cluster.refused(_NEW, "e", **_new_event(**changes))) == expected


async def test_the_new_api_changes_only_the_series(cluster: Cluster) -> None:
    await cluster.create(_NEW, "e", **_new_event())
    series = {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000001Z"}
    changed = await cluster.update(_NEW, "e", **_new_event(series=series))
    assert changed["series"] == series
    with pytest.raises(ApiError) as caught:
        await cluster.update(_NEW, "e", **_new_event(series=series, note="x", action="y"))
    assert [field for field, _ in causes(caught.value)] == ["message", "action"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-01-02T03:04:05Z", 'cannot parse "Z" as ".000000"'),
        ("2026-01-02T03:04:05.123456789Z", 'cannot parse "789Z" as "Z07:00"'),
    ],
)
async def test_micro_times_have_exactly_six_digits(cluster: Cluster, text: str, why: str) -> None:
    error = await cluster.refused(_NEW, "e", **_new_event(eventTime=text))
    assert error.code == 400
    assert error.message == (
        f'Event in version "v1" cannot be handled as a Event: parsing time "{text}" as '
        f'"2006-01-02T15:04:05.000000Z07:00": {why}'
    )


@pytest.mark.parametrize(
    ("plural", "selector"),
    [
        ("events", "involvedObject.kind=Pod,involvedObject.uid=u1,reason=Bound"),
        ("events", "source=example.com/c,reportingComponent=example.com/c"),
        (_NEW, "regarding.name=p,reportingController=example.com/c,type=Normal"),
    ],
)
async def test_events_are_selected_by_what_they_are_about(
    cluster: Cluster, plural: str, selector: str
) -> None:
    await cluster.create(_NEW, "e", **_new_event())
    await cluster.create("events", "other", involvedObject={**_POD, "kind": "Node", "name": "n"})
    options = ListOptions(field_selector=FieldSelector.parse(selector))
    assert [one["metadata"]["name"] for one in await cluster.found(plural, options)] == ["e"]


async def test_both_apis_print_the_same_row(cluster: Cluster) -> None:
    series = {"count": 3, "lastObservedTime": "2026-01-02T03:04:00.000000Z"}
    made = await cluster.create(_NEW, "e", **_new_event(series=series))
    row = ["5s", "Normal", "Bound", "pod/p", "", "example.com/c, c-1", "hello", "0s", 3, "e"]
    assert cluster.row(_NEW, made) == row
    assert cluster.row("events", await cluster.get("events", "e")) == row


async def test_a_bare_event_prints_unknown_times(cluster: Cluster) -> None:
    made = await cluster.create("events", "e", involvedObject={"kind": "Pod", "namespace": "default"})
    row = ["<unknown>", "", "", "pod", "", "", "", "<unknown>", 1, "e"]
    assert cluster.row("events", made) == row
