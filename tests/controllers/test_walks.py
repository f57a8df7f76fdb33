"""Where history no longer tells what happened, controllers look through everything, and find what was left undone."""

from __future__ import annotations

import logging

import orjson
import pytest

from clusterling.controllers.runtime import CURSOR_KEY
from clusterling.machinery.errors import ApiError
from clusterling.server import ApiServer
from clusterling.storage import memory
from tests.controllers.conftest import config_map, exists, owned_by, until

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
QUOTA = "/api/v1/namespaces/default/resourcequotas/few"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
BUDGET = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/few"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
RULE = {"apiGroups": ["example.com"], "resources": ["parts"], "verbs": ["get"]}
ENDING = "/api/v1/namespaces/ending"


async def test_what_was_left_undone_is_found_without_serving_the_clusters_that_are_idle() -> None:
    async with memory.open() as store:
        async with ApiServer(store, run_controllers=False).running() as server:
            for number in range(5):
                await server.clusters.create(f"idle-{number}", packs="all")
            await server.clusters.create("left", packs="all")
            left = server.client("left")
            owner = await left.post(CONFIG_MAPS, config_map("owner"))
            await left.post(CONFIG_MAPS, config_map("owned", ownerReferences=owned_by(owner)))
            await left.delete(f"{CONFIG_MAPS}/owner", propagationPolicy="Background")
            await left.post("/api/v1/namespaces", {"metadata": {"name": "ending"}})
            await left.delete(ENDING)
            quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/secrets": "2"}}}
            await left.post(QUOTA.rpartition("/")[0], quota)
            await left.delete(ACCOUNT)
            budget = {"metadata": {"name": "few"}, "spec": {"minAvailable": 1}}
            await left.post(BUDGET.rpartition("/")[0], budget)
            labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
            await left.post(ROLES, {"metadata": {"name": "part", "labels": labels}, "rules": [RULE]})
        await store.compact(store.head())
        async with ApiServer(store).running() as server:
            left = server.client("left")

            async def all_is_done() -> bool:
                counted = (await left.get(QUOTA)).get("status", {}).get("used") == {"count/secrets": "0"}
                return (
                    counted
                    and await exists(left, ACCOUNT)
                    and (await left.get(BUDGET))["status"].get("observedGeneration") == 1
                    and RULE in (await left.get(f"{ROLES}/view"))["rules"]
                    and not await exists(left, ENDING)
                    and not await exists(left, f"{CONFIG_MAPS}/owned")
                )

            await until(all_is_done)
            assert len(server.pool) <= len(["left", "root"])


async def test_a_cluster_with_more_garbage_than_may_wait_loses_all_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("clusterling.controllers.runtime.KEYS_MAX", 4)
    monkeypatch.setattr("clusterling.controllers.runtime.ROOM", 2)
    caplog.set_level(logging.INFO, "clusterling.controllers.runtime")
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("left")
        left = server.client("left")
        owner = await left.post(CONFIG_MAPS, config_map("owner"))
        for number in range(20):
            middle = await left.post(CONFIG_MAPS, config_map(f"m{number}", ownerReferences=owned_by(owner)))
            for leaf in range(3):
                await left.post(
                    CONFIG_MAPS, config_map(f"m{number}-{leaf}", ownerReferences=owned_by(middle))
                )
        await left.post(CONFIG_MAPS, config_map("stays"))
        await left.delete(f"{CONFIG_MAPS}/owner", propagationPolicy="Background")

        async def nothing_else_is_left() -> bool:
            names = {one["metadata"]["name"] for one in (await left.get(CONFIG_MAPS))["items"]}
            return names == {"kube-root-ca.crt", "stays"}

        await until(nothing_else_is_left)
        assert any("reason=keys-left-out controller=garbage" in line for line in caplog.messages)


async def test_a_cluster_that_was_left_half_deleted_is_removed() -> None:
    async with memory.open() as store:
        async with ApiServer(store, run_controllers=False).running() as server:
            await server.clusters.create("gone")
            await server.client("gone").post(CONFIG_MAPS, config_map("one"))
            await server.clusters.delete("gone")
        await store.compact(store.head())
        async with ApiServer(store).running() as server:

            async def is_gone() -> bool:
                try:
                    await server.clusters.get("gone")
                except ApiError as error:
                    return error.code == 404
                return False

            await until(is_gone)


async def test_what_is_stuck_for_ever_costs_a_restart_no_walk_and_goes_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "clusterling.controllers.runtime")
    hold = ["example.com/hold"]
    async with memory.open() as store:
        async with ApiServer(store).running() as server:
            await server.clusters.create("team")
            api = server.client("team")
            owner = await api.post(CONFIG_MAPS, config_map("owner"))
            references = owned_by(owner, blockOwnerDeletion=True)
            await api.post(CONFIG_MAPS, config_map("child", ownerReferences=references, finalizers=hold))
            await api.delete(f"{CONFIG_MAPS}/owner", propagationPolicy="Foreground")
            await api.post("/api/v1/namespaces", {"metadata": {"name": "ending"}})
            await api.post(f"{ENDING}/configmaps", config_map("held", finalizers=hold))
            await api.delete(ENDING)

            async def both_wait_and_it_is_written_down() -> bool:
                await server._runtime.save()
                entry = await store.get(CURSOR_KEY)
                parked = orjson.loads(entry.value).get("parked", []) if entry else []
                return [key.split("/", 1)[1] for key in parked] == [
                    "core/configmaps/default/owner",
                    "core/namespaces/-/ending",
                ]

            await until(both_wait_and_it_is_written_down)
        await store.compact(store.head())
        async with ApiServer(store).running() as server:
            api = server.client("team")
            for held in (f"{CONFIG_MAPS}/child", f"{ENDING}/configmaps/held"):
                await api.patch(held, {"metadata": {"finalizers": None}})

            async def both_are_gone() -> bool:
                return not await exists(api, f"{CONFIG_MAPS}/owner") and not await exists(api, ENDING)

            await until(both_are_gone)
    assert "controllers-walk" not in caplog.text


async def test_a_walk_passes_over_clusters_that_have_nothing_of_the_kind() -> None:
    async with memory.open() as store, ApiServer(store).running() as server:
        for name in ("idle", "some", "other"):
            await server.clusters.create(name)
        some = await server.clusters.get("some")
        await server.client("some").post(CONFIG_MAPS, config_map("one"))
        await server.client("other").post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "one"}})
        assert [one async for one in server.pool.ids("core/configmaps/")] == [some.id]
        assert len([one async for one in server.pool.ids()]) == len(["root", "idle", "some", "other"])
