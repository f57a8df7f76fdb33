"""LimitRanges: their own defaults and validation, and what they do to pods and claims."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory

HOME = "/api/v1/namespaces/default"


@pytest.fixture
async def team() -> AsyncIterator[Client]:
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("team-a", packs="all")
        yield server.client("team-a")


async def _limit(client: Client, *items: Object, name: str = "limits") -> Object:
    body = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": name},
        "spec": {"limits": list(items)},
    }
    return await client.post(f"{HOME}/limitranges", body)


async def _run(client: Client, *containers: Object, **spec: Any) -> Object:
    given = [{"name": f"c{at}", "image": "i", "resources": one} for at, one in enumerate(containers)]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": {"containers": given, "automountServiceAccountToken": False, **spec},
    }
    return await client.post(f"{HOME}/pods", body)


async def _refused(client: Client, *containers: Object, **spec: Any) -> str:
    with pytest.raises(ApiError) as caught:
        await _run(client, *containers, **spec)
    assert caught.value.code == 403
    return caught.value.message.removeprefix('pods "pod" is forbidden: ')


async def test_a_containers_bounds_are_its_defaults_where_nothing_else_is_said(team: Client) -> None:
    made = await _limit(team, {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1024Ki"}})
    assert made["spec"]["limits"] == [
        {
            "type": "Container",
            "max": {"cpu": "2"},
            "min": {"memory": "1Mi"},
            "default": {"cpu": "2"},
            "defaultRequest": {"cpu": "2", "memory": "1Mi"},
        }
    ]
    made = await _limit(team, {"type": "Pod", "max": {"cpu": "2"}}, name="pods")
    assert made["spec"]["limits"] == [{"type": "Pod", "max": {"cpu": "2"}}]


async def test_containers_get_what_they_do_not_say_and_an_annotation_tells(team: Client) -> None:
    await _limit(
        team,
        {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}},
    )
    made = await _run(team, {"requests": {"cpu": "50m"}}, initContainers=[{"name": "i", "image": "i"}])
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "50m", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: memory request for container c0; cpu, memory limit for container c0; "
        "cpu, memory request for init container i; cpu, memory limit for init container i"
    )


async def test_a_request_follows_from_its_limit_before_the_namespaces_default_comes(team: Client) -> None:
    await _limit(team, {"type": "Container", "default": {"cpu": "2"}})
    made = await _run(team, {"limits": {"cpu": "1"}})
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert "annotations" not in made["metadata"]


async def test_what_is_out_of_a_containers_bounds_is_refused_with_all_that_is_wrong(team: Client) -> None:
    ratio = {"cpu": "2"}
    await _limit(
        team,
        {"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}, "maxLimitRequestRatio": ratio},
    )
    asked = {"requests": {"cpu": "100m", "memory": "1Ki"}, "limits": {"cpu": "1500m"}}
    assert await _refused(team, asked) == (
        "[minimum memory usage per Container is 1Mi, but request is 1Ki, "
        "maximum cpu usage per Container is 1, but limit is 1500m, "
        "cpu max limit to request ratio per Container is 2, but provided ratio is 15.000000]"
    )


async def test_a_pods_bounds_hold_for_the_sum_of_its_containers(team: Client) -> None:
    await _limit(team, {"type": "Pod", "max": {"cpu": "1"}})
    half = {"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}}
    assert await _refused(team, half, half) == "maximum cpu usage per Pod is 1, but limit is 1200m"
    assert await _refused(team, {}) == "maximum cpu usage per Pod is 1.  No limit is specified"
    await _run(team, half)


@pytest.mark.parametrize(
    ("item", "wrong"),
    [
        ({"type": "Node"}, "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified"),
        (
            {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}},
            '[spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1, '
            'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1, '
            'spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1]',
        ),
        (
            {"type": "Pod", "default": {"cpu": "1"}},
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            {"type": "PersistentVolumeClaim", "min": {"cpu": "1"}},
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ),
        (
            {"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}},
            'spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1',
        ),
        (
            {"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}},
            'spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000',
        ),
    ],
)  # fmt: skip
async def test_bounds_that_leave_nothing_between_them_are_refused(
    team: Client, item: Object, wrong: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await _limit(team, item)
    assert caught.value.message == f'LimitRange "limits" is invalid: {wrong}'


async def test_two_items_of_one_type_are_a_duplicate(team: Client) -> None:
    item = {"type": "Pod", "max": {"cpu": "1"}}
    with pytest.raises(ApiError, match=r'spec\.limits\[1\]\.type: Duplicate value: "Pod"'):
        await _limit(team, item, item)


async def test_a_limit_range_without_a_name_gets_one(team: Client) -> None:
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {}, "spec": {"limits": []}}
    made = await team.post(f"{HOME}/limitranges", body)
    assert len(made["metadata"]["name"]) == 36
