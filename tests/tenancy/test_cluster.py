"""The kind LogicalCluster, through the verbs of a real ObjectStore over root's keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs import OFFER
from clusterling.registry.admission import AdmissionChain
from clusterling.registry.catalog import Catalog
from clusterling.registry.objects import ObjectStore
from clusterling.registry.options import DeleteOptions, WriteOptions
from clusterling.registry.ports import Ports
from clusterling.registry.resource import SubresourceCall
from clusterling.registry.strategy import Context, User
from clusterling.registry.views import finish
from clusterling.storage import memory
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store
from clusterling.tenancy.authentication.tokens import IssuedTokens, token_hash
from clusterling.tenancy.authorization import ADMIN
from clusterling.tenancy.cluster import (
    CONTROLLER,
    FINALIZER,
    GROUP,
    KIND,
    VERSION,
    ensure_root,
    refresh_urls,
    root_pack,
)
from clusterling.tenancy.directory import key_of
from clusterling.tenancy.kubeconfig import Endpoint
from clusterling.tenancy.names import ROOT_ID, cluster_id, fence_key
from tests.tenancy.clocks import Turned

URL = "https://127.0.0.1:6443"


class Root:
    """The logical cluster `root`, as far as its own kind goes."""

    def __init__(self, store: Store) -> None:
        self.everything = store
        self.keys = Keyspace(store, ROOT_ID)
        self.clock = Turned()
        self.endpoint = Endpoint(URL, b"PEM")
        self.tokens = IssuedTokens(store, self.clock)
        self.catalog = Catalog(root_pack(OFFER).resources)
        found = self.catalog.by_kind(GROUP, VERSION, KIND)
        assert found is not None
        self.served = found
        self.cache = CachedStore(self.keys, finish=finish)
        self.objects = ObjectStore(self.cache, self.keys, AdmissionChain(), self.clock)

    def context(self, user: User = ADMIN, *, dry_run: bool = False, subresource: str = "") -> Context:
        ports = Ports(self.clock, self.tokens, self.endpoint)
        return Context(user, "root", ROOT_ID, self.objects, self.catalog, ports, dry_run, [], subresource)

    async def create(self, name: str, spec: Object | None = None, **metadata: object) -> Object:
        obj: Object = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": name, **metadata},
        }
        if spec is not None:
            obj["spec"] = spec
        return _loads(await self.objects.create(self.context(), self.served, "", obj, WriteOptions()))

    async def get(self, name: str) -> Object:
        return _loads(await self.objects.get(self.served, "", name))

    async def update(self, obj: Object, user: User = ADMIN, subresource: str = "") -> Object:
        ctx = self.context(user, subresource=subresource)
        name = obj["metadata"]["name"]
        return _loads((await self.objects.update(ctx, self.served, "", name, obj, WriteOptions()))[0])

    async def delete(self, name: str) -> tuple[Object, bool]:
        value, gone = await self.objects.delete(self.context(), self.served, "", name, DeleteOptions())
        return _loads(value), gone

    async def kubeconfig(self, name: str, *, dry_run: bool = False) -> Object:
        parent = await self.objects.read(self.served, "", name)
        function = self.served.resource.subresources["kubeconfig"].function
        return await function(
            self.context(dry_run=dry_run), SubresourceCall("create", name, "", None, parent)
        )

    async def has_fence(self, obj: Object) -> bool:
        return await self.keys.get(fence_key(obj["status"]["id"])) is not None


def _loads(value: bytes) -> Object:
    obj: Object = orjson.loads(value)
    return obj


async def _refused(work: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


@pytest.fixture
async def root() -> AsyncIterator[Root]:
    async with memory.open() as store:
        made = Root(store)
        await ensure_root(made.keys, made.clock, made.endpoint.url("root"))
        async with made.cache:
            yield made


async def test_a_cluster_is_ready_when_its_post_returns(root: Root) -> None:
    made = await root.create("team-a", {"displayName": "Team A"})
    status = made["status"]
    assert status["id"] == cluster_id(made["metadata"]["uid"])
    assert status["phase"] == "Ready"
    assert status["url"] == f"{URL}/clusters/team-a"
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Ready", "True")
    assert made["metadata"]["finalizers"] == [FINALIZER]
    assert await root.has_fence(made)


async def test_what_a_client_says_of_status_is_not_believed(root: Root) -> None:
    obj = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": "a"},
        "status": {"id": ROOT_ID},
    }
    made = _loads(await root.objects.create(root.context(), root.served, "", obj, WriteOptions()))
    assert made["status"]["id"] == cluster_id(made["metadata"]["uid"])
    for subresource in ("", "status"):
        changed = await root.get("a")
        changed["status"].update(id=ROOT_ID, phase="Gone")
        after = await root.update(changed, subresource=subresource)
        assert (after["status"]["id"], after["status"]["phase"]) == (made["status"]["id"], "Ready")


@pytest.mark.parametrize("name", ["system", "all", "A", "a.b", "a" * 64])
async def test_a_name_that_cannot_be_served_is_refused(root: Root, name: str) -> None:
    refused = await _refused(root.create(name))
    assert (refused.code, refused.reason) == (422, "Invalid")
    assert "metadata.name: Invalid value" in refused.message


@pytest.mark.parametrize(
    "spec",
    [
        {"template": "base"},
        {"controllers": {"garbage": False}},
    ],
)
async def test_what_is_not_kept_yet_is_not_promised(root: Root, spec: Object) -> None:
    refused = await _refused(root.create("team-a", spec))
    (field,) = spec
    assert refused.code == 422
    assert f"spec.{field}: Forbidden: " in refused.message
    made = await root.create("team-a", {"suspended": False})
    made["spec"] = spec
    assert (await _refused(root.update(made))).code == 422


async def test_packs_that_are_not_on_offer_are_refused_with_what_is(root: Root) -> None:
    refused = await _refused(root.create("team-a", {"packs": ["core", "nope"]}))
    assert (refused.code, refused.reason) == (422, "Invalid")
    assert (
        'spec.packs: Invalid value: "core,nope": there is no "nope"; there are none, default, all, core ('
        in refused.message
    )
    for packs in ([], ["core,events"], ["core/"], ["a" * 600]):
        assert (await _refused(root.create("team-a", {"packs": packs}))).code == 422


async def test_kinds_are_added_to_a_living_cluster_and_never_taken_away(root: Root) -> None:
    made = await root.create("team-a", {"packs": ["none", "core/secrets"]})
    made["spec"]["packs"] = ["none", "core/secrets", "coordination"]
    made = await root.update(made)
    made["spec"]["packs"] = ["coordination", "core/configmaps"]
    refused = await _refused(root.update(made))
    assert refused.message.endswith(
        "spec.packs: Forbidden: kinds can be added to a living cluster, not taken away: "
        "customresourcedefinitions.apiextensions.k8s.io, secrets"
    )
    del made["spec"]["packs"]
    assert "packs" not in (await root.update(made))["spec"]


async def test_deleting_ends_the_cluster_and_keeps_its_object_until_its_data_are_gone(root: Root) -> None:
    made = await root.create("team-a")
    left, gone = await root.delete("team-a")
    assert not gone
    assert left["metadata"]["deletionTimestamp"]
    assert left["status"]["phase"] == "Terminating"
    assert [one["status"] for one in left["status"]["conditions"]] == ["False"]
    assert not await root.has_fence(made)
    again, gone = await root.delete("team-a")
    assert not gone
    assert again["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert (await _refused(root.create("team-a"))).reason == "AlreadyExists"


async def test_only_the_controller_takes_the_finalizer_off(root: Root) -> None:
    made = await root.create("team-a", finalizers=["example.com/mine"])
    made["metadata"]["finalizers"] = []
    assert (await root.update(made))["metadata"]["finalizers"] == [FINALIZER]
    left, _ = await root.delete("team-a")
    left["metadata"]["finalizers"] = []
    kept = await root.update(left)
    assert kept["metadata"]["finalizers"] == [FINALIZER]
    kept["metadata"]["finalizers"] = []
    await root.update(kept, CONTROLLER)
    assert (await _refused(root.get("team-a"))).code == 404


async def test_a_namesake_has_another_id(root: Root) -> None:
    first = await root.create("team-a")
    left, _ = await root.delete("team-a")
    left["metadata"]["finalizers"] = []
    await root.update(left, CONTROLLER)
    second = await root.create("team-a")
    assert second["status"]["id"] != first["status"]["id"]
    assert await root.has_fence(second)
    assert not await root.has_fence(first)


async def test_root_is_shown_and_stays(root: Root) -> None:
    shown = await root.get("root")
    assert (shown["status"]["id"], shown["status"]["phase"]) == (ROOT_ID, "Ready")
    refused = await _refused(root.delete("root"))
    assert (refused.code, refused.message) == (
        403,
        'logicalclusters.tenancy.clusterling.io "root" is forbidden: this logical cluster may not be deleted',
    )
    assert (await _refused(root.create("root"))).reason == "AlreadyExists"
    shown["spec"]["displayName"] = "Ours"
    changed = await root.update(shown)
    assert changed["spec"]["displayName"] == "Ours"
    assert changed["status"]["id"] == ROOT_ID
    await ensure_root(root.keys, root.clock, "https://elsewhere")
    assert (await root.get("root"))["metadata"]["uid"] == shown["metadata"]["uid"]


async def test_a_kubeconfig_carries_a_token_of_that_cluster_alone(root: Root) -> None:
    made = await root.create("team-a")
    document, other = await root.kubeconfig("team-a"), await root.kubeconfig("team-a")
    assert document["clusters"][0]["cluster"]["server"] == f"{URL}/clusters/team-a"
    token = document["users"][0]["user"]["token"]
    assert token != other["users"][0]["user"]["token"]
    user = await root.tokens.find(token_hash(token), (made["status"]["id"],))
    assert user is not None
    assert (user.realm, user.groups) == (made["status"]["id"], ("system:masters", "system:authenticated"))
    assert await root.tokens.find(token_hash(token), (ROOT_ID,)) is None


async def test_a_kubeconfig_is_refused_where_it_would_lead_nowhere(root: Root) -> None:
    assert (await _refused(root.kubeconfig("absent"))).code == 404
    await root.create("team-a")
    assert (await _refused(root.kubeconfig("team-a", dry_run=True))).code == 400
    root.endpoint.base_url = ""
    assert (await _refused(root.kubeconfig("team-a"))).code == 503
    root.endpoint.base_url = URL
    assert await root.everything.count("~tokens/") == 0
    await root.delete("team-a")
    assert (await _refused(root.kubeconfig("team-a"))).code == 409


async def test_addresses_follow_the_server(root: Root) -> None:
    made = await root.create("team-a")
    root.clock.turn(timedelta(days=1))
    before = root.everything.head()
    await refresh_urls(root.keys, root.endpoint.url)
    assert root.everything.head() == before
    await refresh_urls(root.keys, Endpoint("https://api.example.com").url)
    moved = await root.get("team-a")
    assert moved["status"] == {**made["status"], "url": "https://api.example.com/clusters/team-a"}
    assert (await root.get("root"))["status"]["url"] == "https://api.example.com/clusters/root"
    await refresh_urls(root.keys, Endpoint().url)
    assert (await root.get("team-a"))["status"]["url"] == "https://api.example.com/clusters/team-a"


async def test_an_object_that_is_changed_keeps_what_makes_it_a_cluster(root: Root) -> None:
    made = await root.create("team-a", {"displayName": "A"})
    changed = {"apiVersion": made["apiVersion"], "kind": KIND, "metadata": {"name": "team-a"}}
    after = await root.update(changed)
    assert after["spec"] == {}
    assert after["status"] == made["status"]
    assert after["metadata"]["finalizers"] == [FINALIZER]


def test_keys_are_where_the_object_store_puts_them() -> None:
    (resource,) = root_pack(OFFER).resources
    assert key_of("team-a") == resource.key("", "team-a")
