"""Owners and dependents, through the API alone."""

from __future__ import annotations

import pytest
from typing_extensions import override

from clusterling.controllers import garbage
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.resource import Served as KindServed
from clusterling.registry.strategy import Context
from clusterling.server import ApiServer
from clusterling.storage import memory
from tests.controllers.conftest import Served, config_map, exists, owned_by, until

MAPS = "/api/v1/namespaces/default/configmaps"
BULKY = "/apis/x.io/v1/namespaces/default/bulky"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def crd(plural: str) -> Object:
    """A kind whose objects may have anything in their spec."""
    spec: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural.capitalize()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def test_dependents_of_a_deleted_owner_go_too(served: Served) -> None:
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    child = await api.post(MAPS, config_map("child", ownerReferences=owned_by(owner)))
    await api.post(MAPS, config_map("grandchild", ownerReferences=owned_by(child)))
    await api.post(MAPS, config_map("stranger"))
    await api.delete(f"{MAPS}/owner")

    async def gone() -> bool:
        return not await exists(api, f"{MAPS}/child") and not await exists(api, f"{MAPS}/grandchild")

    await until(gone)
    assert await exists(api, f"{MAPS}/stranger")


async def test_a_dependent_with_another_owner_stays_and_loses_the_dangling_reference(served: Served) -> None:
    api = served.cluster
    one, other = await api.post(MAPS, config_map("one")), await api.post(MAPS, config_map("other"))
    references = owned_by(one) + owned_by(other)
    await api.post(MAPS, config_map("child", ownerReferences=references))
    await api.delete(f"{MAPS}/one")

    async def let_go() -> bool:
        child = await api.get(f"{MAPS}/child")
        names = [reference["name"] for reference in child["metadata"]["ownerReferences"]]
        return names == ["other"]

    await until(let_go)


async def test_a_large_custom_resource_loses_a_reference_and_nothing_else(served: Served) -> None:
    """The server does not read what it does not change: it stays as it was written, and as it is owned."""
    api = served.cluster
    await api.post(CRDS, crd("bulky"))
    one, other = await api.post(MAPS, config_map("one")), await api.post(MAPS, config_map("other"))
    body = {
        "apiVersion": "x.io/v1",
        "kind": "Bulky",
        "metadata": {"name": "a", "ownerReferences": owned_by(one) + owned_by(other)},
        "spec": {f"k{at}": {"text": "v" * 20, "numbers": [at, 1.5, None]} for at in range(3_000)},
    }
    before = await api.post(BULKY, body)
    await api.delete(f"{MAPS}/one")

    async def let_go() -> bool:
        return len((await api.get(f"{BULKY}/a"))["metadata"]["ownerReferences"]) == 1

    await until(let_go)
    after = await api.get(f"{BULKY}/a")
    assert after["metadata"]["ownerReferences"] == owned_by(other)
    for metadata in (before["metadata"], after["metadata"]):
        del metadata["ownerReferences"], metadata["resourceVersion"]
    assert after == before
    await api.delete(f"{MAPS}/other")

    async def gone() -> bool:
        return not await exists(api, f"{BULKY}/a")

    await until(gone)


async def test_who_admits_is_shown_all_of_what_the_server_deletes() -> None:
    seen: list[Object] = []

    class Looking(Admission):
        @override
        async def validate(
            self,
            ctx: Context,
            served: KindServed,
            operation: Operation,
            new: Object | None,
            old: Object | None,
        ) -> None:
            if served.plural == "bulky" and operation != "CREATE" and old is not None:
                seen.append(old)

    async with (
        memory.open() as store,
        ApiServer(store, external_url="http://127.0.0.1", admission=[Looking()]).running() as server,
    ):
        await server.clusters.create("team")
        api = server.client("team")
        await api.post(CRDS, crd("bulky"))
        owner = await api.post(MAPS, config_map("owner"))
        spec = {f"k{at}": "v" * 20 for at in range(3_000)}
        metadata = {"name": "a", "ownerReferences": owned_by(owner)}
        await api.post(BULKY, {"apiVersion": "x.io/v1", "kind": "Bulky", "metadata": metadata, "spec": spec})
        await api.delete(f"{MAPS}/owner")

        async def gone() -> bool:
            return not await exists(api, f"{BULKY}/a")

        await until(gone)
    assert seen and all(one["spec"] == spec for one in seen)


async def test_an_object_that_names_an_owner_that_is_not_there_goes(served: Served) -> None:
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    impostor = owned_by(owner, uid="00000000-0000-0000-0000-000000000000")
    await api.post(MAPS, config_map("child", ownerReferences=impostor))

    async def gone() -> bool:
        return not await exists(api, f"{MAPS}/child")

    await until(gone)
    assert await exists(api, f"{MAPS}/owner")


async def test_orphaned_dependents_stay_without_the_owner(served: Served) -> None:
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    await api.post(MAPS, config_map("child", ownerReferences=owned_by(owner)))
    await api.delete(f"{MAPS}/owner", propagationPolicy="Orphan")

    async def owner_gone() -> bool:
        return not await exists(api, f"{MAPS}/owner")

    await until(owner_gone)
    child = await api.get(f"{MAPS}/child")
    assert "ownerReferences" not in child["metadata"]


async def test_a_foreground_deletion_waits_for_dependents_that_block_it(served: Served) -> None:
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    blocking = owned_by(owner, blockOwnerDeletion=True)
    await api.post(MAPS, config_map("child", ownerReferences=blocking, finalizers=["example.com/hold"]))
    await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")

    async def child_goes() -> bool:
        return "deletionTimestamp" in (await api.get(f"{MAPS}/child"))["metadata"]

    await until(child_goes)
    kept = await api.get(f"{MAPS}/owner")
    assert kept["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.patch(f"{MAPS}/child", {"metadata": {"finalizers": None}})

    async def both_gone() -> bool:
        return not await exists(api, f"{MAPS}/child") and not await exists(api, f"{MAPS}/owner")

    await until(both_gone)


async def test_owners_in_a_circle_all_go_when_one_is_deleted_in_the_foreground(served: Served) -> None:
    api = served.cluster
    names = ("hen", "egg", "chick")
    made = {name: await api.post(MAPS, config_map(name)) for name in names}
    for name, owner in zip(names, ("chick", "hen", "egg"), strict=True):
        references = owned_by(made[owner], blockOwnerDeletion=True)
        await api.patch(f"{MAPS}/{name}", {"metadata": {"ownerReferences": references}})
    await api.delete(f"{MAPS}/hen", propagationPolicy="Foreground")

    async def all_gone() -> bool:
        return not any([await exists(api, f"{MAPS}/{name}") for name in names])

    await until(all_gone)


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
async def test_an_owner_of_more_dependents_than_a_slice_is_worked_through_to_the_last(
    served: Served, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "SLICE", 10)
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    references = owned_by(owner, blockOwnerDeletion=True)
    for number in range(35):
        await api.post(MAPS, config_map(f"child-{number}", ownerReferences=references))
    await api.delete(f"{MAPS}/owner", propagationPolicy=policy)

    async def done() -> bool:
        names = {item["metadata"]["name"]: item for item in (await api.get(MAPS))["items"]}
        children = [item for name, item in names.items() if name.startswith("child-")]
        if "owner" in names:
            return False
        if policy != "Orphan":
            return not children
        return len(children) == 35 and not any("ownerReferences" in one["metadata"] for one in children)

    await until(done)


async def test_an_owner_waits_for_the_last_of_several_slices(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "SLICE", 4)
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    references = owned_by(owner, blockOwnerDeletion=True)
    names = [f"child-{number}" for number in range(10)]
    for name in names:
        held = config_map(name, ownerReferences=references, finalizers=["example.com/hold"])
        await api.post(MAPS, held)
    await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")
    for name in names:

        async def goes(name: str = name) -> bool:
            return "deletionTimestamp" in (await api.get(f"{MAPS}/{name}"))["metadata"]

        await until(goes)
        assert await exists(api, f"{MAPS}/owner")
        await api.patch(f"{MAPS}/{name}", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return not await exists(api, f"{MAPS}/owner")

    await until(gone)


def _definition() -> Object:
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "gadgets", "kind": "Gadget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "gadgets.example.com"}, "spec": spec}


async def test_an_object_whose_owner_is_of_a_kind_that_nobody_knows_is_judged_once_the_kind_is_served(
    served: Served,
) -> None:
    api = served.cluster
    gadget = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "a", "uid": "1"}}
    await api.post(MAPS, config_map("child", ownerReferences=owned_by(gadget)))
    # What came after it has been judged, and so has it.
    absent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "uid": "2"}}
    await api.post(MAPS, config_map("marker", ownerReferences=owned_by(absent)))

    async def judged() -> bool:
        return not await exists(api, f"{MAPS}/marker")

    await until(judged)
    assert await exists(api, f"{MAPS}/child")
    await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _definition())

    async def gone() -> bool:
        return not await exists(api, f"{MAPS}/child")

    await until(gone)


async def test_an_owner_that_waits_is_found_again_after_a_restart() -> None:
    async with memory.open() as store:
        async with ApiServer(store).running() as server:
            await server.clusters.create("team")
            api = server.client("team")
            owner = await api.post(MAPS, config_map("owner"))
            references = owned_by(owner, blockOwnerDeletion=True)
            held = config_map("child", ownerReferences=references, finalizers=["example.com/hold"])
            await api.post(MAPS, held)
            await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")

            async def child_goes() -> bool:
                return "deletionTimestamp" in (await api.get(f"{MAPS}/child"))["metadata"]

            await until(child_goes)
        async with ApiServer(store).running() as server:
            api = server.client("team")
            await api.patch(f"{MAPS}/child", {"metadata": {"finalizers": None}})

            async def gone() -> bool:
                return not await exists(api, f"{MAPS}/owner")

            await until(gone)


async def test_an_object_that_is_rewritten_while_it_is_judged_goes_all_the_same(served: Served) -> None:
    api = served.cluster
    owner = await api.post(MAPS, config_map("owner"))
    await api.post(MAPS, config_map("child", ownerReferences=owned_by(owner)))
    await api.delete(f"{MAPS}/owner", propagationPolicy="Background")
    count = 0

    async def rewritten_until_gone() -> bool:
        nonlocal count
        count += 1
        if not await exists(api, f"{MAPS}/child"):
            return True
        try:
            await api.patch(f"{MAPS}/child", {"data": {"count": str(count)}})
        except ApiError as error:
            assert error.code == 404, error
        return False

    await until(rewritten_until_gone)
