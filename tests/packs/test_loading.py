"""Packs come when they are needed: what is imported, what is announced of it, and what clusters begin with then."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typing_extensions import override

from clusterling import packs
from clusterling.machinery.errors import ApiError, forbidden
from clusterling.machinery.meta import Object, name_of
from clusterling.packs import builtin
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.choice import Offer
from clusterling.registry.pack import GroupResource, Pack
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context
from clusterling.server import ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Store
from clusterling.tenancy.underlay import UNDERLAY_ID

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"

_SERVING = """
import asyncio, sys
from clusterling import ApiServer, memory

async def main():
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("team-a")
        team = server.client("team-a")
        await team.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "one"}})
        await team.get("/openapi/v3")
        await team.post("/api/v1/namespaces", {"metadata": {"name": "two"}})
        await team.delete("/api/v1/namespaces/two")

asyncio.run(main())
print(*sorted(name.removeprefix("clusterling.packs.") for name in sys.modules if name.startswith("clusterling.packs.")))
"""


def _priority_class(name: str) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": 1,
    }


def _classes(*names: str) -> Pack:
    """The pack of priority classes as one version of a server has it."""
    kind = builtin.resource("scheduling.k8s.io", "v1", "priorityclasses")
    return Pack("scheduling", (kind,), map(_priority_class, names))


def _offer(*more: Pack) -> Offer:
    return Offer((*packs.DEFAULT, *more), packs.DEFAULT, none=(packs.apiextensions,))


async def _begun_with(store: Store) -> dict[str, int]:
    """What is in the underlay, with the revision it was written at."""
    page = await store.list(f"{UNDERLAY_ID}/scheduling.k8s.io/")
    return {entry.key.rpartition("/")[2]: entry.revision for entry in page.entries}


@pytest.mark.parametrize("pack", packs.ALL, ids=lambda pack: pack.name)
def test_a_pack_is_what_was_announced_of_it(pack: Pack) -> None:
    there = [(one.group, one.names.plural, one.collection) for one in pack.resources]
    assert [(kind.group, kind.plural, kind.collection) for kind in pack.kinds] == there
    shown = [
        None if one.storage is None else (one.storage.group, one.storage.names.plural)
        for one in pack.resources
    ]
    assert [kind.shows and (kind.shows.group, kind.shows.plural) for kind in pack.kinds] == shown


def test_everything_that_upstream_serves_is_announced() -> None:
    kinds = [kind for pack in packs.ALL for kind in pack.kinds]
    assert len(kinds) == len(set(kinds))
    for kind in kinds:
        assert builtin.facts(kind.group, "v1", kind.plural)["name"] == kind.plural


def test_a_server_of_default_packs_imports_no_others() -> None:
    done = subprocess.run([sys.executable, "-c", _SERVING], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    served = {pack.name: pack.kinds for pack in packs.DEFAULT}
    others = {pack.name for pack in packs.ALL if pack.name not in served}
    others |= {f"core.{kind.plural}" for kind in packs.core.kinds if kind not in served["core"]}
    assert {f"core.{kind.plural}" for kind in served["core"]} <= loaded
    assert loaded & others == set()
    assert not [name for name in loaded if name.startswith("core.podspec")]


def test_what_a_pack_has_is_told_without_importing_it() -> None:
    def load() -> Pack:
        raise AssertionError("it is not needed")

    pack = Pack.later("mine", (GroupResource("example.com", "widgets"),), load)
    offer = Offer((pack, packs.apiextensions), (packs.apiextensions,)).with_default((packs.coordination,))
    assert [str(kind) for kind in offer.choose("mine,coordination")[1].kinds] == ["widgets.example.com"]
    assert offer.kinds(["all", "-mine"]) == offer.kinds(["apiextensions", "coordination"])
    with pytest.raises(ValueError, match="pack mine has no gadgets; it has widgets"):
        pack.only("gadgets")


def test_a_pack_that_is_not_what_was_announced_is_nothing_to_go_on_with() -> None:
    pack = Pack.later("mine", (GroupResource("example.com", "widgets"),), lambda: packs.coordination)
    with pytest.raises(AssertionError, match=r"Pack\(coordination: leases\) is not as it was announced"):
        _ = pack.resources


def test_attributes_stay_packs_when_modules_of_their_names_are_imported() -> None:
    for pack in packs.ALL:
        module = importlib.import_module(f"clusterling.packs.{pack.name}")
        assert getattr(packs, pack.name) is pack
        assert module.PACK.kinds == pack.kinds


async def test_what_a_kind_begins_with_comes_with_the_first_cluster_that_serves_it() -> None:
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("plain")
        plain = server.client("plain")
        listed = await plain.get("/api/v1/namespaces")
        async with plain.watching(
            "/api/v1/namespaces", resourceVersion=listed["metadata"]["resourceVersion"]
        ) as seen:
            assert await _begun_with(store) == {}
            await server.clusters.create("full", packs="all")
            full = server.client("full")
            found = await asyncio.gather(*(full.get(path) for path in (ROLES, CLASSES) * 5))
            assert {len(one["items"]) for one in found[::2]} == {
                len(packs.rbac.only("clusterroles").bootstrap)
            }
            assert {name_of(one) for one in found[1]["items"]} == set(await _begun_with(store))
            # Who does not serve them is not disturbed: the watch goes on.
            await plain.post("/api/v1/namespaces", {"metadata": {"name": "later"}})
            assert name_of((await anext(seen))["object"]) == "later"


async def test_another_replica_finds_a_cluster_whole_whose_packs_it_has_not_loaded_yet() -> None:
    async with (
        memory.open() as store,
        ApiServer(store).running() as one,
        ApiServer(store, run_controllers=False).running() as other,
    ):
        await one.clusters.create("full", packs="all")
        there = await other.client("full").get(ROLES)
        assert there["items"]
        assert (await one.client("full").get(ROLES))["items"] == there["items"]


async def test_a_server_started_again_keeps_what_packs_began_with_that_it_does_not_need_yet() -> None:
    async with memory.open() as store:
        async with ApiServer(store, offer=_offer(_classes("first"))).running() as server:
            await server.clusters.create("full", packs="all")
            before = (await server.client("full").get(CLASSES))["items"]
            written = await _begun_with(store)
        async with ApiServer(store, offer=_offer()).running() as server:
            await server.client("root").get("/api/v1/namespaces")
            with pytest.raises(ApiError):
                await server.client("full").get(CLASSES)
            assert await _begun_with(store) == written
        async with ApiServer(store, offer=_offer(_classes("first"))).running() as server:
            assert (await server.client("full").get(CLASSES))["items"] == before
            assert await _begun_with(store) == written


async def test_what_another_version_began_with_is_put_right_before_the_first_answer() -> None:
    async with memory.open() as store:
        async with ApiServer(store, offer=_offer(_classes("gone", "kept"))).running() as server:
            await server.clusters.create("full", packs="all")
            assert len((await server.client("full").get(CLASSES))["items"]) == 2
            kept = (await _begun_with(store))["kept"]
        async with ApiServer(store, offer=_offer(_classes("kept", "new"))).running() as server:
            await server.clusters.create("plain")
            await server.client("plain").get("/api/v1/namespaces")
            assert set(await _begun_with(store)) == {"gone", "kept"}
            found = (await server.client("full").get(CLASSES))["items"]
            assert [name_of(one) for one in found] == ["kept", "new"]
            assert (await _begun_with(store))["kept"] == kept


class _Refuses(Admission):
    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        raise forbidden(served.plural, served.group, ctx.cluster, "refused by the pack")


async def test_a_packs_admission_has_a_say_where_it_is_served_and_nowhere_else() -> None:
    kind = builtin.resource("scheduling.k8s.io", "v1", "priorityclasses")
    pack = Pack("scheduling", (kind,), admission=(_Refuses(),))
    one: dict[str, Any] = {"metadata": {"name": "one"}}
    async with memory.open() as store, ApiServer(store, offer=_offer(pack)).running() as server:
        await server.clusters.create("strict", packs="all")
        await server.clusters.create("plain")
        await server.client("plain").post("/api/v1/namespaces/default/configmaps", one)
        with pytest.raises(ApiError, match="refused by the pack"):
            await server.client("strict").post("/api/v1/namespaces/default/configmaps", one)


def _second_time(pack: Pack) -> Callable[[], Pack]:
    """Fails once, as the import of a module does that is just being replaced on the disk."""
    calls: list[None] = []

    def load() -> Pack:
        calls.append(None)
        if len(calls) == 1:
            raise ImportError("not now")
        return pack

    return load


async def test_a_cluster_whose_packs_could_not_be_loaded_is_served_once_they_can() -> None:
    pack = _classes("first")
    offer = _offer(Pack.later("scheduling", pack.kinds, _second_time(pack)))
    async with (
        memory.open() as store,
        ApiServer(store, offer=offer, run_controllers=False).running() as server,
    ):
        await server.clusters.create("full", packs="all")
        with pytest.raises(ApiError) as failed:
            await server.client("full").get(CLASSES)
        assert failed.value.code == 500
        assert len((await server.client("full").get(CLASSES))["items"]) == 1
