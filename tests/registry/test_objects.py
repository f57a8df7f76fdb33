"""The verbs, tried on a custom kind over the memory store."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import FieldSelector, LabelSelector
from clusterling.registry import listing as lists
from clusterling.registry.continuation import CONTINUE_TOO_OLD, PAGES_S
from clusterling.registry.options import DeleteOptions, ListOptions, WriteOptions
from tests.registry.conftest import World

PLAIN = WriteOptions()


def loads(value: bytes) -> Object:
    decoded: Object = orjson.loads(value)
    return decoded


async def test_create_stamps_defaults_and_answers_what_get_answers(world: World) -> None:
    created = await world.create("a", spec={"size": 1})
    assert created["spec"] == {"size": 1, "colour": "red"}
    metadata = created["metadata"]
    assert metadata["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert metadata["generation"] == 1
    assert len(metadata["uid"]) == 36
    assert loads(await world.objects.get(world.served, "default", "a")) == created


async def test_create_of_a_name_that_exists_is_refused(world: World) -> None:
    await world.create("a")
    with pytest.raises(ApiError) as refused:
        await world.create("a")
    assert (refused.value.code, refused.value.reason) == (409, "AlreadyExists")
    assert refused.value.message == 'widgets.example.com "a" already exists'


async def test_a_name_that_is_there_is_refused_with_what_the_client_can_do(world: World) -> None:
    """As kube-apiserver: whoever gave a generateName may try again, and an object that goes is said to be going."""
    await world.create("a", metadata={"finalizers": ["example.com/x"]})
    with pytest.raises(ApiError) as generated:
        await world.create("a", metadata={"generateName": "a"})
    assert generated.value.message == (
        'widgets.example.com "a" already exists, the server was not able to generate a unique name for the object'
    )
    assert generated.value.headers == {"Retry-After": "1"}
    assert generated.value.details is not None
    assert generated.value.details["retryAfterSeconds"] == 1
    await world.objects.delete(world.context(), world.served, "default", "a", DeleteOptions())
    with pytest.raises(ApiError) as going:
        await world.create("a")
    assert going.value.message == 'object is being deleted: widgets.example.com "a" already exists'


async def test_generate_name_makes_names_until_one_is_free(world: World) -> None:
    names = set()
    for _ in range(20):
        obj = world.widget("", metadata={"generateName": "w-"})
        value = await world.objects.create(world.context(), world.served, "default", obj, PLAIN)
        names.add(loads(value)["metadata"]["name"])
    assert len(names) == 20
    assert all(name.startswith("w-") and len(name) == 7 for name in names)


async def test_an_invalid_object_names_every_wrong_field(world: World) -> None:
    with pytest.raises(ApiError) as refused:
        await world.create("Not_A_Name", spec={"size": -1})
    assert refused.value.code == 422
    assert refused.value.details is not None
    fields = [cause["field"] for cause in refused.value.details["causes"]]
    assert fields == ["metadata.name", "spec.size"]


@pytest.mark.parametrize(
    ("validation", "code", "warnings"),
    [("Strict", 400, 0), ("Warn", 201, 1), ("Ignore", 201, 0)],
)
async def test_unknown_fields_are_judged_as_asked(
    world: World, validation: Any, code: int, warnings: int
) -> None:
    obj = world.widget("a", spec={"sise": 1})
    options = WriteOptions(field_validation=validation)
    try:
        value = await world.objects.create(world.context(), world.served, "default", obj, options)
    except ApiError as error:
        assert (error.code, code) == (400, 400)
        assert error.message == (
            'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.sise"'
        )
    else:
        assert code == 201
        assert "sise" not in loads(value)["spec"]
    assert len(world.warnings) == warnings


async def test_a_stale_update_conflicts_and_an_update_without_revision_follows_the_kind(world: World) -> None:
    created = await world.create("a", spec={"size": 1})
    newer = {**created, "spec": {"size": 2}}
    await world.objects.update(world.context(), world.served, "default", "a", newer, PLAIN)
    with pytest.raises(ApiError) as refused:
        await world.objects.update(
            world.context(), world.served, "default", "a", {**created, "spec": {"size": 3}}, PLAIN
        )
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")


async def test_generation_rises_with_the_spec_only(world: World) -> None:
    created = await world.create("a", spec={"size": 1})

    async def put(change: Object, subresource: str = "") -> Object:
        current = loads(await world.objects.get(world.served, "default", "a"))
        value, made = await world.objects.update(
            world.context(subresource=subresource),
            world.served,
            "default",
            "a",
            {**current, **change},
            PLAIN,
        )
        assert not made
        return loads(value)

    labelled = await put({"metadata": {**created["metadata"], "labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    assert (await put({"spec": {"size": 2}}))["metadata"]["generation"] == 2
    told = await put({"status": {"ready": True}}, "status")
    assert (told["metadata"]["generation"], told["status"]) == (2, {"ready": True})
    kept = await put({"status": {"ready": False}})
    assert kept["status"] == {"ready": True}


async def test_a_write_that_changes_nothing_writes_nothing(world: World) -> None:
    created = await world.create("a", spec={"size": 1})
    head = world.store.head()
    value, _ = await world.objects.update(world.context(), world.served, "default", "a", dict(created), PLAIN)
    assert loads(value) == created
    assert world.store.head() == head


async def test_patches_without_a_revision_never_lose_one_another(world: World) -> None:
    await world.create("a", spec={"size": 0})

    def more(current: Object) -> Object:
        current["spec"]["size"] += 1
        return current

    async def patch() -> bool:
        try:
            await world.objects.patch(world.context(), world.served, "default", "a", more, PLAIN)
        except ApiError as error:
            assert error.code == 409
            return False
        return True

    done = await asyncio.gather(*(patch() for _ in range(20)))
    final = loads(await world.objects.get(world.served, "default", "a"))
    assert final["spec"]["size"] == sum(done) > 0


async def test_a_dry_run_changes_nothing(world: World) -> None:
    obj = world.widget("a")
    value = await world.objects.create(world.context(dry_run=True), world.served, "default", obj, PLAIN)
    assert loads(value)["metadata"]["uid"]
    with pytest.raises(ApiError) as refused:
        await world.objects.get(world.served, "default", "a")
    assert refused.value.message == 'widgets.example.com "a" not found'


async def test_delete_without_finalizers_is_immediate(world: World) -> None:
    await world.create("a")
    value, gone = await world.objects.delete(world.context(), world.served, "default", "a", DeleteOptions())
    assert gone
    assert loads(value)["metadata"]["name"] == "a"
    with pytest.raises(ApiError):
        await world.objects.get(world.served, "default", "a")


async def test_finalizers_keep_an_object_until_the_last_is_taken(world: World) -> None:
    await world.create("a", metadata={"finalizers": ["example.com/hold"]})
    value, gone = await world.objects.delete(world.context(), world.served, "default", "a", DeleteOptions())
    kept = loads(value)
    assert not gone
    assert kept["metadata"]["deletionTimestamp"]
    assert kept["metadata"]["generation"] == 2
    kept["metadata"].pop("finalizers")
    await world.objects.update(world.context(), world.served, "default", "a", kept, PLAIN)
    with pytest.raises(ApiError):
        await world.objects.get(world.served, "default", "a")


@pytest.mark.parametrize(
    ("propagation", "finalizer"), [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")]
)
async def test_propagation_is_written_down_as_a_finalizer(
    world: World, propagation: Any, finalizer: str
) -> None:
    await world.create("a")
    value, gone = await world.objects.delete(
        world.context(), world.served, "default", "a", DeleteOptions(propagation=propagation)
    )
    assert not gone
    assert loads(value)["metadata"]["finalizers"] == [finalizer]


async def test_delete_preconditions_are_kept(world: World) -> None:
    await world.create("a")
    with pytest.raises(ApiError) as refused:
        await world.objects.delete(
            world.context(), world.served, "default", "a", DeleteOptions(uid="another")
        )
    assert refused.value.code == 409
    assert "the UID in the precondition (another) does not match the UID in record" in refused.value.message


async def test_pages_show_one_snapshot(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        await world.create(name)
    first = await world.objects.list(world.served, "default", ListOptions(limit=2))
    assert first.remaining == 2
    await world.objects.delete(world.context(), world.served, "default", "c", DeleteOptions())
    await world.create("bb")
    rest = await world.objects.list(
        world.served, "default", ListOptions(limit=2, continue_token=first.continue_token)
    )
    names = [loads(value)["metadata"]["name"] for value in (*first.values, *rest.values)]
    assert names == ["a", "b", "c", "d"]
    assert rest.resource_version == first.resource_version


async def test_pages_are_there_for_five_minutes_though_nothing_changes(world: World) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await world.create(name)
    first = await world.objects.list(world.served, "default", ListOptions(limit=2))
    world.clock.turn(PAGES_S)
    token = first.continue_token
    second = await world.objects.list(world.served, "default", ListOptions(limit=2, continue_token=token))
    assert second.resource_version == first.resource_version
    world.clock.turn(1)
    for late in (token, second.continue_token):
        with pytest.raises(ApiError) as refused:
            await world.objects.list(world.served, "default", ListOptions(limit=2, continue_token=late))
        assert (refused.value.code, refused.value.reason) == (410, "Expired")
        assert refused.value.message == CONTINUE_TOO_OLD


async def test_a_list_that_is_too_old_goes_on_with_what_there_is_now(world: World) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await world.create(name)
    first = await world.objects.list(world.served, "default", ListOptions(limit=2))
    await world.objects.delete(world.context(), world.served, "default", "c", DeleteOptions())
    await world.create("f")
    world.clock.turn(PAGES_S + 1)
    with pytest.raises(ApiError) as refused:
        await world.objects.list(
            world.served, "default", ListOptions(limit=2, continue_token=first.continue_token)
        )
    token = refused.value.status()["metadata"]["continue"]
    world.clock.turn(PAGES_S + 1)
    second = await world.objects.list(world.served, "default", ListOptions(limit=2, continue_token=token))
    await world.create("g")
    last = await world.objects.list(
        world.served, "default", ListOptions(limit=9, continue_token=second.continue_token)
    )
    names = [loads(value)["metadata"]["name"] for value in (*second.values, *last.values)]
    assert names == ["d", "e", "f"]
    assert int(second.resource_version) > int(first.resource_version)
    assert last.resource_version == second.resource_version


async def test_selectors_pick(world: World) -> None:
    for number in range(6):
        await world.create(f"w{number}", metadata={"labels": {"even": str(number % 2 == 0).lower()}})
    even = ListOptions(label_selector=LabelSelector.parse("even=true"), limit=2)
    first = await world.objects.list(world.served, "", even)
    assert [loads(v)["metadata"]["name"] for v in first.values] == ["w0", "w2"]
    assert first.remaining is None
    named = ListOptions(field_selector=FieldSelector.parse("metadata.name=w3"))
    found = await world.objects.list(world.served, "default", named)
    assert [loads(v)["metadata"]["name"] for v in found.values] == ["w3"]


async def test_what_is_selected_is_of_one_moment_though_others_have_the_loop_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "SCAN_SLICE_S", 0.0)
    monkeypatch.setattr(lists, "SCAN_PAGE", 10)
    for number in range(200):
        await world.create(f"w{number:03}", metadata={"labels": {"on": "yes"}})
    before = await world.objects.list(world.served, "", ListOptions())
    on = ListOptions(label_selector=LabelSelector.parse("on=yes"))
    listing = asyncio.create_task(world.objects.list(world.served, "", on))
    for _ in range(10):
        await asyncio.sleep(0)
    await world.objects.delete(world.context(), world.served, "default", "w199", DeleteOptions())
    await world.create("w0001", metadata={"labels": {"on": "yes"}})
    assert not listing.done()
    found = await listing
    assert list(found.values) == list(before.values)
    after = await world.objects.list(world.served, "", on)
    assert len(after.values) == 200
    assert list(after.values) != list(before.values)


async def test_a_future_revision_answers_504_with_its_cause(world: World) -> None:
    await world.create("a")
    with pytest.raises(ApiError) as refused:
        await world.objects.get(world.served, "default", "a", resource_version="1000000")
    assert refused.value.code == 504
    assert refused.value.details is not None
    assert refused.value.details["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_another_version_differs_in_api_version_alone(world: World) -> None:
    created = await world.create("a", spec={"size": 1})
    shown = loads(await world.objects.get(world.at("v2"), "default", "a"))
    assert shown == {**created, "apiVersion": "example.com/v2"}


async def test_delete_collection_deletes_what_it_lists(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.create(name, metadata={"labels": {"go": "yes" if name != "b" else "no"}})
    which = ListOptions(label_selector=LabelSelector.parse("go=yes"))
    listing = await world.objects.delete_collection(
        world.context(), world.served, "default", which, DeleteOptions()
    )
    assert len(listing.values) == 2
    left = await world.objects.list(world.served, "default", ListOptions())
    assert [loads(v)["metadata"]["name"] for v in left.values] == ["b"]


async def test_dependents_are_found_by_their_owners_uid(world: World) -> None:
    owner = await world.create("owner")
    reference = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    child = await world.create("child", metadata={"ownerReferences": [reference]})
    found = [d async for d in world.objects.dependents(owner["metadata"]["uid"])]
    assert [(d.group, d.plural, d.namespace, d.name) for d in found] == [
        ("example.com", "widgets", "default", "child")
    ]
    child["metadata"].pop("ownerReferences")
    await world.objects.update(world.context(), world.served, "default", "child", child, PLAIN)
    assert [d async for d in world.objects.dependents(owner["metadata"]["uid"])] == []
