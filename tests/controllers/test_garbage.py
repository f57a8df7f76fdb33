"""Owners and dependents, through the API alone."""

from __future__ import annotations

from tests.controllers.conftest import Served, config_map, exists, owned_by, until

MAPS = "/api/v1/namespaces/default/configmaps"


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
