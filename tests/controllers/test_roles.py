"""Aggregated cluster roles have the rules of those that they select, from the start and whatever changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from clusterling import packs
from clusterling.machinery.meta import Object
from clusterling.packs import rbac_aggregation
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from tests.controllers.conftest import Served, until

ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
TO = "rbac.authorization.k8s.io/aggregate-to-"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with (
        memory.open() as store,
        ApiServer(store, packs=packs.choose("default,rbac")).running() as server,
    ):
        await server.clusters.create("team")
        yield Served(server, store, server.client("team"))


def rule(resource: str) -> Object:
    return {"apiGroups": ["example.com"], "resources": [resource], "verbs": ["get"]}


def role(name: str, *rules: Object, selects: Object | None = None, labels: Object | None = None) -> Object:
    more: dict[str, Any] = (
        {"aggregationRule": {"clusterRoleSelectors": [selects]}} if selects is not None else {}
    )
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels or {}},
        "rules": list(rules),
        **more,
    }


def selecting(**labels: str) -> Object:
    return {"matchLabels": labels}


async def rules_of(api: Client, name: str) -> list[Object]:
    return (await api.get(f"{ROLES}/{name}"))["rules"] or []


async def comes_to(api: Client, name: str, *rules: Object) -> None:
    async def does() -> bool:
        return await rules_of(api, name) == list(rules)

    await until(does)


async def test_the_first_roles_have_their_rules_and_cost_a_cluster_nothing(served: Served) -> None:
    api = served.cluster
    edit, view, admin = [await rules_of(api, name) for name in ("edit", "view", "admin")]
    assert all(one in edit for one in await rules_of(api, "system:aggregate-to-edit"))
    assert all(one in edit for one in view)
    assert all(one in admin for one in edit)
    assert len(admin) > len(edit) > len(view) > 0
    team = await served.server.clusters.get("team")
    assert (await served.store.list(f"{team.id}/rbac")).entries == []


async def test_a_role_that_is_labelled_so_is_part_of_the_first_ones_of_its_cluster(served: Served) -> None:
    api = served.cluster
    await served.server.clusters.create("other")
    other = served.server.client("other")
    before = await rules_of(other, "admin")
    await api.post(ROLES, role("widgets-view", rule("widgets"), labels={f"{TO}view": "true"}))
    for name in ("view", "edit", "admin"):

        async def has_it(name: str = name) -> bool:
            return rule("widgets") in await rules_of(api, name)

        await until(has_it)
    assert await rules_of(other, "admin") == before
    await api.patch(f"{ROLES}/widgets-view", {"metadata": {"labels": None}})

    async def is_as_before() -> bool:
        return await rules_of(api, "admin") == before

    await until(is_as_before)


async def test_rules_follow_the_roles_that_are_selected(served: Served) -> None:
    api = served.cluster
    await api.post(ROLES, role("all", selects=selecting(part="x")))
    await api.post(ROLES, role("b", rule("b"), rule("same"), labels={"part": "x"}))
    await api.post(ROLES, role("a", rule("same"), rule("a"), labels={"part": "x"}))
    await api.post(ROLES, role("c", rule("c"), labels={"part": "y"}))
    await comes_to(api, "all", rule("same"), rule("a"), rule("b"))
    await api.delete(f"{ROLES}/a")
    await comes_to(api, "all", rule("b"), rule("same"))
    await api.patch(f"{ROLES}/all", {"rules": [rule("mine")]})
    await comes_to(api, "all", rule("b"), rule("same"))
    await api.patch(f"{ROLES}/b", {"metadata": {"labels": {"part": "y"}}})
    await comes_to(api, "all")
    assert (await api.get(f"{ROLES}/all"))["rules"] is None


async def test_an_empty_selector_means_all_other_roles(served: Served) -> None:
    api = served.cluster
    await api.post(ROLES, role("all", selects={}))
    await api.post(ROLES, role("plain", rule("plain")))

    async def has_it() -> bool:
        return rule("plain") in await rules_of(api, "all")

    await until(has_it)


async def test_roles_that_are_made_of_one_another_come_to_rest(served: Served) -> None:
    """Three in a circle, each with rules of its own at first, would hand them round for ever."""
    api = served.cluster
    for name, before in (("a", "c"), ("b", "a"), ("c", "b")):
        await api.post(
            ROLES, role(name, rule(name), selects=selecting(**{"from": before}), labels={"from": name})
        )
    await api.post(ROLES, role("all", selects=selecting(part="x")))
    await api.post(ROLES, role("part", rule("part"), labels={"part": "x"}))
    await comes_to(api, "all", rule("part"))

    async def at_rest() -> bool:
        return served.server._runtime.idle

    await until(at_rest)
    revision = (await api.get(ROLES))["metadata"]["resourceVersion"]
    await api.post(ROLES, role("one-more", rule("part")))
    await until(at_rest)
    changed = [
        item["metadata"]["name"]
        for item in (await api.get(ROLES))["items"]
        if int(item["metadata"]["resourceVersion"]) > int(revision)
    ]
    assert changed == ["one-more"]


async def test_what_would_take_too_long_is_left_alone() -> None:
    chain = [
        role(f"r{at:02}", selects=selecting(to=str(at)), labels={"to": str(at - 1)})
        for at in range(rbac_aggregation.ROUNDS_MAX + 2)
    ]
    chain.append(role("first", rule("first"), labels={"to": str(rbac_aggregation.ROUNDS_MAX + 1)}))
    assert [one["rules"] for one in rbac_aggregation.settled(chain)].count([]) > 0
    short = rbac_aggregation.settled(chain[-4:])
    assert [one["rules"] for one in short] == [[rule("first")]] * 4
    many = role("many", selects=selecting(a="b"))
    many["aggregationRule"]["clusterRoleSelectors"] *= rbac_aggregation.SELECTORS_MAX + 1
    with pytest.raises(rbac_aggregation.Unsettled):
        rbac_aggregation.settled([many])
