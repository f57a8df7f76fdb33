"""Server-side apply and field ownership as clients see them (KEP-555): codes and texts are those of kube-apiserver 1.37.2."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from clusterling.machinery.meta import Object
from tests.services.serving import CONFIGMAPS, WIDGETS, Serving, configmap, widget

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
CM = f"{CONFIGMAPS}/a"


async def applied(world: Serving, manager: str, body: Object, target: str = CM, **query: str) -> Object:
    """Applies, and gives the object, or the Status of a failure."""
    more = "".join(f"&{key}={value}" for key, value in query.items())
    _, document = await world.send("PATCH", f"{target}?fieldManager={manager}{more}", body)
    return document


def owners(obj: Object) -> dict[str, Any]:
    """Who owns what: manager and operation, and the fields as they travel."""
    return {
        f"{entry['manager']} {entry['operation']}": entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", ())
    }


def data(**values: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": values}


async def test_whoever_creates_an_object_owns_its_fields_by_the_name_of_its_user_agent(
    world: Serving,
) -> None:
    _, made = await world.send(
        "POST", CONFIGMAPS, configmap("a", x="1"), "application/json", "kubectl/v1.37 (x)"
    )
    [entry] = made["metadata"]["managedFields"]
    assert entry | {"time": ""} == {
        "manager": "kubectl",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {".": {}, "f:x": {}}},
    }


async def test_an_apply_makes_what_is_not_there(world: Serving) -> None:
    code, made = await world.send("PATCH", f"{CM}?fieldManager=m", data(x="1"))
    assert (code, made["data"], owners(made)) == (201, {"x": "1"}, {"m Apply": {"f:data": {"f:x": {}}}})
    code, again = await world.send("PATCH", f"{CM}?fieldManager=m", data(x="1"))
    assert (code, again) == (200, made)


async def test_what_is_applied_no_more_goes_unless_somebody_else_owns_it(world: Serving) -> None:
    await applied(world, "one", data(x="1", y="2"))
    await applied(world, "two", data(y="2"))
    left = await applied(world, "one", data())
    assert left["data"] == {"y": "2"}
    assert owners(left) == {"one Apply": {"f:data": {}}, "two Apply": {"f:data": {"f:y": {}}}}


async def test_a_change_of_what_others_own_is_a_conflict_that_names_them(world: Serving) -> None:
    await world.send("POST", CONFIGMAPS, configmap("a", x="1"), "application/json")
    refused = await applied(world, "two", data(x="2"))
    assert (refused["code"], refused["reason"]) == (409, "Conflict")
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "test" using v1: .data.x'
    assert refused["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "test" using v1', "field": ".data.x"}
    ]
    taken = await applied(world, "two", data(x="2"), force="true")
    assert taken["data"] == {"x": "2"}
    assert owners(taken)["two Apply"] == {"f:data": {"f:x": {}}}
    assert owners(taken)["test Update"] == {"f:data": {}}


async def test_the_same_value_is_shared(world: Serving) -> None:
    await applied(world, "one", data(x="1"))
    both = await applied(world, "two", data(x="1"))
    assert set(owners(both)) == {"one Apply", "two Apply"}


async def test_an_update_takes_what_it_changes_and_nothing_else(world: Serving) -> None:
    made = await applied(world, "one", data(x="1", y="2"))
    made["data"]["x"] = "9"
    _, updated = await world.send("PUT", CM, made, "application/json")
    assert owners(updated) == {
        "one Apply": {"f:data": {"f:y": {}}},
        "test Update": {"f:data": {"f:x": {}}},
    }


async def test_a_write_that_changes_nothing_changes_no_owner_and_no_revision(world: Serving) -> None:
    made = await applied(world, "one", data(x="1"))
    _, same = await world.send("PUT", CM, made, "application/json", "other/1")
    assert same == made


async def test_empty_managed_fields_start_anew(world: Serving) -> None:
    await applied(world, "one", data(x="1"))
    _, bare = await world.send("PATCH", CM, {"metadata": {"managedFields": []}}, MERGE)
    assert "managedFields" not in bare["metadata"]
    late = await applied(world, "late", data(y="1"))
    assert owners(late) == {
        "before-first-apply Update": {"f:data": {".": {}, "f:x": {}}},
        "late Apply": {"f:data": {"f:y": {}}},
    }


async def test_of_many_updates_the_oldest_become_one_entry(world: Serving) -> None:
    await world.send("POST", CONFIGMAPS, configmap("a", x="1"), "application/json")
    for number in range(14):
        change = {"data": {f"k{number}": "v"}}
        _, obj = await world.send("PATCH", f"{CM}?fieldManager=m{number}", change, MERGE)
    entries = obj["metadata"]["managedFields"]
    assert len(entries) == 10
    assert "ancient-changes" in {entry["manager"] for entry in entries}


async def test_what_kubectl_apply_had_set_is_taken_over_without_a_conflict(world: Serving) -> None:
    last = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"}}'
    made = configmap("a", x="1")
    made["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": last}
    await world.send("POST", CONFIGMAPS, made, "application/json", "kubectl-client-side-apply/1")
    taken = await applied(world, "kubectl", data(x="2"))
    assert taken["data"] == {"x": "2"}
    kept = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert orjson.loads(kept) == data(x="2")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            {**data(x="1"), "foo": 1},
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        (
            data(x=1),  # type: ignore[arg-type]
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): "
            ".data.x: expected string, got &value.valueUnstructured{Value:1}",
        ),
        ({**data(), "kind": "Secret"}, 400, "invalid object type: /v1, Kind=Secret"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": []}},
            400,
            "metadata.managedFields must be nil",
        ),
        (b"a: b: c", 400, "error encoding patch: yaml: mapping values are not allowed in this context"),
    ],
)
async def test_what_cannot_be_applied_is_refused_in_upstreams_words(
    world: Serving, body: object, code: int, message: str
) -> None:
    assert await world.send("PATCH", f"{CM}?fieldManager=m", body) == (
        code,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            **({"reason": "BadRequest"} if code == 400 else {}),
            "code": code,
        },
    )


async def test_lists_of_a_custom_kind_are_merged_by_their_keys_and_status_by_its_own_path(
    world: Serving,
) -> None:
    path = f"{WIDGETS}/w"
    config = {key: value for key, value in widget("w", replicas=2).items() if key != "metadata"}
    config["metadata"] = {"name": "w"}
    made = await applied(world, "one", config, path)
    assert made["spec"]["replicas"] == 2
    scaled = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "w"},
        "spec": {"replicas": 5},
    }
    refused = await applied(world, "two", scaled, f"{path}/scale")
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
    shown = await applied(world, "two", scaled, f"{path}/scale", force="true")
    assert shown["spec"] == {"replicas": 5}
    status = await applied(world, "ctl", {**config, "status": {"replicas": 1}}, f"{path}/status")
    [entry] = [one for one in status["metadata"]["managedFields"] if one["manager"] == "ctl"]
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


async def test_an_object_that_is_too_large_with_its_owners_is_kept_without_but_not_applied(
    world: Serving,
) -> None:
    big = data(**{f"a-key-of-forty-characters-of-which-{n:05}": "" for n in range(20_000)})
    code, made = await world.send("POST", CONFIGMAPS, big, "application/json")
    assert (code, owners(made)) == (201, {})
    code, patched = await world.send("PATCH", CM, {"metadata": {"labels": {"x": "1"}}}, MERGE)
    assert code == 200
    assert {name.split()[1] for name in owners(patched)} <= {"Update"}
    code, replaced = await world.send(
        "PUT", CM, big | {"data": big["data"] | {"more": ""}}, "application/json"
    )
    assert (code, "more" in replaced["data"]) == (200, True)
    code, refused = await world.send("PATCH", f"{CM}?fieldManager=m&force=true", big)
    assert (code, refused["reason"]) == (413, "RequestEntityTooLarge")
