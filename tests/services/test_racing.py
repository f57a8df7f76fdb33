"""Many who write one object at once: who names no resourceVersion loses nothing and meets no conflict, as upstream.

Upstream: apiserver pkg/storage/etcd3/store.go, GuaranteedUpdate, which computes an update anew until it fits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from clusterling.machinery.meta import Object
from tests.services.serving import CONFIGMAPS, WIDGETS, Serving, configmap, widget

WRITERS = 40
CM = f"{CONFIGMAPS}/a"


async def all_at_once(
    world: Serving, target: str, content_type: str, body: Callable[[int], Any]
) -> list[tuple[int, Object]]:
    return await asyncio.gather(
        *(
            world.send("PATCH", f"{target}?fieldManager=m{number}", body(number), content_type)
            for number in range(WRITERS)
        )
    )


def applied(number: int) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {f"k{number}": "v"}}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/merge-patch+json", lambda number: {"data": {f"k{number}": "v"}}),
        ("application/strategic-merge-patch+json", lambda number: {"data": {f"k{number}": "v"}}),
        (
            "application/json-patch+json",
            lambda number: [{"op": "add", "path": f"/data/k{number}", "value": "v"}],
        ),
        ("application/apply-patch+yaml", applied),
    ],
)
async def test_of_many_patches_at_once_none_is_lost_and_none_conflicts(
    world: Serving, content_type: str, body: Callable[[int], Any]
) -> None:
    await world.send("POST", CONFIGMAPS, configmap("a", first="v"), "application/json")
    answers = await all_at_once(world, CM, content_type, body)
    assert Counter(status for status, _ in answers) == {200: WRITERS}
    assert len({answer["metadata"]["resourceVersion"] for _, answer in answers}) == WRITERS
    _, left = await world.send("PATCH", CM, {}, "application/merge-patch+json")
    assert left["data"].keys() == {"first", *(f"k{number}" for number in range(WRITERS))}


async def test_of_many_who_apply_what_is_not_there_yet_one_makes_it_and_all_are_heard(
    world: Serving,
) -> None:
    answers = await all_at_once(world, CM, "application/apply-patch+yaml", applied)
    assert Counter(status for status, _ in answers) == {201: 1, 200: WRITERS - 1}
    _, left = await world.send("PATCH", CM, {}, "application/merge-patch+json")
    assert len(left["data"]) == WRITERS


async def test_patches_of_a_number_by_what_it_was_are_computed_anew_each_time(world: Serving) -> None:
    await world.send("POST", WIDGETS, widget("a", replicas=1), "application/json")

    async def count() -> None:
        """Adds one, as whoever reads and tests before it writes does."""
        while True:
            _, seen = await world.send("PATCH", f"{WIDGETS}/a", {}, "application/merge-patch+json")
            now = seen["spec"]["replicas"]
            operations = [
                {"op": "test", "path": "/spec/replicas", "value": now},
                {"op": "replace", "path": "/spec/replicas", "value": now + 1},
            ]
            status, _ = await world.send("PATCH", f"{WIDGETS}/a", operations, "application/json-patch+json")
            if status == 200:
                return
            assert status == 422

    await asyncio.gather(*(count() for _ in range(10)))
    _, left = await world.send("PATCH", f"{WIDGETS}/a", {}, "application/merge-patch+json")
    assert left["spec"]["replicas"] == 11


@pytest.mark.parametrize(
    "content_type", ["application/merge-patch+json", "application/strategic-merge-patch+json"]
)
async def test_of_many_patches_that_name_one_revision_one_is_made(world: Serving, content_type: str) -> None:
    _, made = await world.send("POST", CONFIGMAPS, configmap("a", first="v"), "application/json")
    revision = made["metadata"]["resourceVersion"]
    answers = await all_at_once(
        world,
        CM,
        content_type,
        lambda number: {"metadata": {"resourceVersion": revision}, "data": {f"k{number}": "v"}},
    )
    assert Counter(status for status, _ in answers) == {200: 1, 409: WRITERS - 1}
    assert {answer["reason"] for status, answer in answers if status == 409} == {"Conflict"}
    _, left = await world.send("PATCH", CM, {}, "application/merge-patch+json")
    assert len(left["data"]) == 2


async def test_a_patch_that_loses_to_others_again_and_again_conflicts_at_last(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterling.registry.committing.CONFLICTS_MAX", 1)
    await world.send("POST", CONFIGMAPS, configmap("a", first="v"), "application/json")
    answers = await all_at_once(
        world, CM, "application/merge-patch+json", lambda number: {"data": {f"k{number}": "v"}}
    )
    assert {status for status, _ in answers} == {200, 409}
    assert {answer["reason"] for status, answer in answers if status == 409} == {"Conflict"}


async def test_of_many_applies_that_name_one_revision_one_is_made(world: Serving) -> None:
    _, made = await world.send("POST", CONFIGMAPS, configmap("a", first="v"), "application/json")
    revision = made["metadata"]["resourceVersion"]

    def tied(number: int) -> Object:
        body = applied(number)
        body["metadata"]["resourceVersion"] = revision
        return body

    answers = await all_at_once(world, CM, "application/apply-patch+yaml", tied)
    assert Counter(status for status, _ in answers) == {200: 1, 409: WRITERS - 1}
