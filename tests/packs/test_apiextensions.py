"""CustomResourceDefinitions through the ObjectStore: established in the write, names claimed, fences moved."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs.apiextensions import (
    CUSTOM_RESOURCE_DEFINITIONS,
    names_fence,
)
from clusterling.registry.crd import CLEANUP_FINALIZER, schema_fence
from tests.packs.conftest import Cluster, causes

CRDS = "apiextensions.k8s.io/customresourcedefinitions"


def crd(plural: str = "widgets", kind: str = "Widget", **more: Any) -> Object:
    names = {"plural": plural, "kind": kind, **more.pop("names", {})}
    versions = [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
        }
    ]
    return {
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": versions,
            **more,
        }
    }


async def create(cluster: Cluster, plural: str = "widgets", kind: str = "Widget", **more: Any) -> Object:
    return await cluster.create(CRDS, f"{plural}.example.com", **crd(plural, kind, **more))


def conditions(obj: Object) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in obj["status"]["conditions"]}


ACCEPTED = ("True", "NoConflicts", "no conflicts found")
ESTABLISHED = ("True", "InitialNamesAccepted", "the initial names have been accepted")
NOT_ESTABLISHED = ("False", "NotAccepted", "not all names are accepted")


async def test_a_crd_is_established_when_its_post_returns(cluster: Cluster) -> None:
    made = await create(cluster, names={"shortNames": ["wd"]})
    assert conditions(made) == {"NamesAccepted": ACCEPTED, "Established": ESTABLISHED}
    assert made["status"]["acceptedNames"] == {
        "plural": "widgets",
        "singular": "widget",
        "shortNames": ["wd"],
        "kind": "Widget",
        "listKind": "WidgetList",
    }
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["metadata"]["generation"] == 1


async def test_what_a_client_writes_into_the_status_is_not_believed(cluster: Cluster) -> None:
    made = await cluster.create(
        CRDS,
        "widgets.example.com",
        **crd(),
        status={"storedVersions": ["v7"], "acceptedNames": {"plural": "x", "kind": "Y"}, "conditions": []},
    )
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["status"]["acceptedNames"]["kind"] == "Widget"


async def test_names_that_another_crd_of_the_group_has_are_not_granted(cluster: Cluster) -> None:
    await create(cluster, names={"shortNames": ["w", "wd"]})
    late = await create(cluster, "gadgets", "Widget", names={"shortNames": ["w", "g", "wd"]})
    assert conditions(late) == {
        "NamesAccepted": ("False", "ListKindConflict", '"WidgetList" is already in use'),
        "Established": NOT_ESTABLISHED,
    }
    assert late["status"]["acceptedNames"] == {"plural": "gadgets", "kind": ""}


async def test_several_conflicting_short_names_are_told_together(cluster: Cluster) -> None:
    await create(cluster, names={"shortNames": ["a", "b"]})
    late = await create(cluster, "gadgets", "Gadget", names={"shortNames": ["a", "b", "c"]})
    assert conditions(late)["NamesAccepted"] == (
        "False",
        "ShortNamesConflict",
        '["a" is already in use, "b" is already in use]',
    )


async def test_the_same_names_in_another_group_are_free(cluster: Cluster) -> None:
    await create(cluster)
    other = await cluster.create(CRDS, "widgets.example.org", **crd(group="example.org"))
    assert conditions(other)["Established"] == ESTABLISHED


async def test_who_waited_for_names_gets_them_in_the_write_that_releases_them(cluster: Cluster) -> None:
    await create(cluster)
    await create(cluster, "gadgets", "Widget")
    _, gone = await cluster.delete(CRDS, "widgets.example.com")
    assert not gone
    deleting = await cluster.get(CRDS, "widgets.example.com")
    deleting["metadata"]["finalizers"] = []
    before = await cluster.store.get(schema_fence("gadgets.example.com"))
    await cluster.update(CRDS, "widgets.example.com", **without_name(deleting))
    heir = await cluster.get(CRDS, "gadgets.example.com")
    assert conditions(heir) == {"NamesAccepted": ACCEPTED, "Established": ESTABLISHED}
    assert heir["status"]["acceptedNames"]["kind"] == "Widget"
    assert heir["metadata"]["generation"] == 1
    after = await cluster.store.get(schema_fence("gadgets.example.com"))
    assert before is not None
    assert after is not None
    assert after.revision > before.revision


def without_name(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}


async def test_a_renamed_crd_leaves_its_old_names_to_others(cluster: Cluster) -> None:
    made = await create(cluster, names={"shortNames": ["w"]})
    await create(cluster, "gadgets", "Gadget", names={"shortNames": ["w"]})
    made["spec"]["names"]["shortNames"] = ["wid"]
    await cluster.update(CRDS, "widgets.example.com", **without_name(made))
    heir = await cluster.get(CRDS, "gadgets.example.com")
    assert heir["status"]["acceptedNames"]["shortNames"] == ["w"]
    assert conditions(heir)["Established"] == ESTABLISHED


async def test_of_two_crds_that_want_one_kind_at_once_exactly_one_gets_it(cluster: Cluster) -> None:
    plurals = [f"things{at}" for at in range(4)]
    made = await asyncio.gather(*(create(cluster, plural, "Thing") for plural in plurals))
    assert sorted(conditions(one)["Established"][0] for one in made) == ["False"] * 3 + ["True"]


async def test_the_schema_s_fence_moves_when_what_is_served_changes_and_only_then(cluster: Cluster) -> None:
    made = await create(cluster)
    fence = schema_fence("widgets.example.com")

    async def revision() -> int:
        entry = await cluster.store.get(fence)
        assert entry is not None
        return entry.revision

    at_first = await revision()
    assert at_first > int(made["metadata"]["resourceVersion"])
    made["metadata"]["labels"] = {"a": "b"}
    made = await cluster.update(CRDS, "widgets.example.com", **without_name(made))
    assert await revision() == at_first
    made["spec"]["versions"][0]["additionalPrinterColumns"] = [
        {"name": "A", "type": "string", "jsonPath": ".spec.a"}
    ]
    made = await cluster.update(CRDS, "widgets.example.com", **without_name(made))
    assert await revision() > at_first
    assert made["metadata"]["generation"] == 2


async def test_a_new_storage_version_is_added_to_those_that_may_hold_objects(cluster: Cluster) -> None:
    made = await create(cluster)
    second = copy.deepcopy(made["spec"]["versions"][0])
    second["name"] = "v2"
    made["spec"]["versions"][0]["storage"] = False
    made["spec"]["versions"].append(second)
    made = await cluster.update(CRDS, "widgets.example.com", **without_name(made))
    assert made["status"]["storedVersions"] == ["v1", "v2"]


async def test_a_deleted_crd_stays_until_its_objects_are_gone(cluster: Cluster) -> None:
    await create(cluster)
    left, gone = await cluster.delete(CRDS, "widgets.example.com")
    assert not gone
    assert left["metadata"]["finalizers"] == [CLEANUP_FINALIZER]
    assert conditions(left)["Terminating"] == (
        "True",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    )
    again, gone = await cluster.delete(CRDS, "widgets.example.com")
    assert (again, gone) == (left, False)
    left["metadata"]["finalizers"] = []
    await cluster.update(CRDS, "widgets.example.com", **without_name(left))
    with pytest.raises(ApiError, match="not found"):
        await cluster.get(CRDS, "widgets.example.com")
    assert await cluster.store.get(schema_fence("widgets.example.com")) is None
    assert await cluster.store.get(names_fence("example.com")) is not None


async def test_a_bad_crd_is_refused_with_its_causes(cluster: Cluster) -> None:
    bad = crd()
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"a": {}}}
    error = await cluster.refused(CRDS, "widgets.example.com", **bad)
    assert (error.code, error.reason) == (422, "Invalid")
    assert causes(error) == [
        (
            "spec.validation.openAPIV3Schema.properties[a].type",
            "Required value: must not be empty for specified object fields",
        )
    ]


async def test_a_wrong_type_anywhere_in_a_schema_is_a_400(cluster: Cluster) -> None:
    bad = crd()
    array = {"type": "array", "items": {"type": "string", "minLength": "x"}}
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["l"] = array
    error = await cluster.refused(CRDS, "widgets.example.com", **bad)
    assert (error.code, error.message) == (
        400,
        'CustomResourceDefinition in version "v1" cannot be handled as a CustomResourceDefinition: '
        "json: cannot unmarshal string into Go struct field "
        "JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.items.minLength of type int64",
    )


async def test_unknown_keywords_below_items_go_without_a_word(cluster: Cluster) -> None:
    """Upstream decodes these unions without strictness: tools put `const` and `$comment` there, and apply strictly."""
    made = crd()
    array = {"type": "array", "const": 1, "items": {"type": "string", "if": {}}}
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["l"] = array
    stored = await cluster.create(CRDS, "widgets.example.com", **made)
    schema = stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["properties"]["l"] == {"type": "array", "items": {"type": "string"}}
    path = "spec.versions[0].schema.openAPIV3Schema.properties.l.const"
    assert cluster.warnings == [f'unknown field "{path}"']


async def test_a_status_can_be_written_by_itself(cluster: Cluster) -> None:
    made = await create(cluster)
    made["spec"]["scope"] = "Cluster"
    made["status"]["storedVersions"] = ["v1", "v0"]
    written = await cluster.update(CRDS, "widgets.example.com", "status", **without_name(made))
    assert written["status"]["storedVersions"] == ["v1", "v0"]
    assert written["spec"]["scope"] == "Namespaced"


@pytest.mark.parametrize(
    "written",
    [
        {},
        None,
        {"conditions": None, "acceptedNames": None},
        {"conditions": [{"message": "patched"}], "acceptedNames": {"plural": "x", "kind": "Y"}},
        {"conditions": [None, {"type": "Established"}, {"type": "Established", "status": "False"}]},
    ],
)
async def test_no_write_of_the_status_takes_a_kind_s_names_or_its_service(
    cluster: Cluster, written: Object | None
) -> None:
    made = await create(cluster)
    made["status"], before = written, made["status"]
    after = (await cluster.update(CRDS, "widgets.example.com", "status", **without_name(made)))["status"]
    assert after["acceptedNames"] == before["acceptedNames"]
    decided = {c["type"]: c["status"] for c in after["conditions"] if c["type"]}
    assert decided == {"NamesAccepted": "True", "Established": "True"}
    assert after["storedVersions"] == ["v1"]


async def test_a_condition_of_which_a_client_gave_nearly_nothing_is_kept_as_go_writes_it(
    cluster: Cluster,
) -> None:
    made = await create(cluster)
    made["status"]["conditions"].append({"message": "mine"})
    await cluster.update(CRDS, "widgets.example.com", "status", **without_name(made))
    kept = (await cluster.get(CRDS, "widgets.example.com"))["status"]["conditions"]
    assert kept[-1] == {"lastTransitionTime": None, "message": "mine", "status": "", "type": ""}


async def test_kubectl_sees_where_and_in_which_versions_it_is_served(cluster: Cluster) -> None:
    made = await create(cluster)
    assert cluster.row(CRDS, made) == [
        "widgets.example.com",
        "Namespaced",
        "v1(storage)",
        "2026-01-02T03:04:05Z",
        "example.com",
        "Widget",
        "",
        True,
    ]
    bookmark = {"metadata": {"resourceVersion": "5"}}
    assert cluster.row(CRDS, bookmark) == ["", "", "", "", "", "", "", False]
    names = CUSTOM_RESOURCE_DEFINITIONS.names
    assert (names.short_names, names.categories) == (("crd", "crds"), ("api-extensions",))
