"""Replicas as processes: restarted in turn under load, killed, and started with data directories of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from pathlib import Path

import aiohttp

from clusterling.machinery.meta import Object
from clusterling.storage.opening import open_store
from tests.controllers.conftest import config_map
from tests.replicas.processes import PATIENCE_S, Balancer, Replica, balanced, replicas
from tests.replicas.stores import SharedStore, store

__all__ = ["store"]

LEASE = "~controllers/lease/-/main"
CLUSTERS = "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
MAPS = "/clusters/team/api/v1/namespaces/default/configmaps"
NAMESPACES = "/clusters/team/api/v1/namespaces"
WRITERS = 4
WATCHERS = 6


def team() -> Object:
    return {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": "team"},
    }


async def write(balancer: Balancer, number: int, enough: asyncio.Event) -> list[str]:
    """Creates one object after the other; the names of those that were acknowledged."""
    kept: list[str] = []
    while not enough.is_set():
        name = f"w{number}-{len(kept)}"
        status, body = await balancer.request("POST", MAPS, config_map(name))
        assert status == 201, (status, body)
        kept.append(name)
    return kept


async def watch(balancer: Balancer, at: str, last: str) -> list[str]:
    """The names that a client is told of as added, which goes on elsewhere whenever its watch ends; to `last`."""
    told: list[str] = []
    while last not in told:
        async with balancer.stream(f"{MAPS}?watch=true&resourceVersion={at}") as lines:
            if lines is None:
                continue
            while line := await lines.readline():
                event = json.loads(line)
                assert event["type"] == "ADDED", event
                at = event["object"]["metadata"]["resourceVersion"]
                told.append(event["object"]["metadata"]["name"])
                if told[-1] == last:
                    break
    return told


async def test_replicas_restarted_in_turn_under_load_lose_no_write_and_skip_no_event(
    store: SharedStore, tmp_path: Path
) -> None:
    async with (
        # Long enough to be seen by who asks over TLS on a busy machine.
        replicas(tmp_path, store.url(), 2, "--shutdown-delay", "4", "--shutdown-spread", "1") as members,
        balanced(members) as balancer,
        asyncio.timeout(4 * PATIENCE_S),
    ):
        assert (await balancer.request("POST", CLUSTERS, team()))[0] == 201
        _, listed = await balancer.request("GET", MAPS)
        at = listed["metadata"]["resourceVersion"]
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watchers = [group.create_task(watch(balancer, at, "last")) for _ in range(WATCHERS)]
            writers = [group.create_task(write(balancer, number, enough)) for number in range(WRITERS)]
            for member in members:
                await member.restart()
            enough.set()
            kept = [name for writer in writers for name in await writer]
            assert (await balancer.request("POST", MAPS, config_map("last")))[0] == 201
        _, listed = await balancer.request("GET", MAPS)
        made = [item for item in listed["items"] if item["metadata"]["name"] != "kube-root-ca.crt"]
        assert sorted(item["metadata"]["name"] for item in made) == sorted([*kept, "last"])
        in_order = sorted(made, key=lambda item: int(item["metadata"]["resourceVersion"]))
        for watcher in watchers:
            assert watcher.result() == [item["metadata"]["name"] for item in in_order]
        assert balancer.cut_off == 0


async def leader(store: SharedStore) -> int:
    """The process that leads."""
    async with open_store(store.url()) as opened:
        entry = await opened.get(LEASE)
        assert entry is not None
        return int(json.loads(entry.value)["holder"].split("-")[-2])


async def gone(balancer: Balancer, name: str) -> None:
    """Returns when a namespace that was deleted is gone, which takes a leader."""
    async with asyncio.timeout(PATIENCE_S):
        while (await balancer.request("GET", f"{NAMESPACES}/{name}"))[0] != 404:
            await asyncio.sleep(0.1)


async def test_what_a_killed_leader_did_for_all_is_done_by_another(
    store: SharedStore, tmp_path: Path
) -> None:
    async with (
        replicas(tmp_path, store.url(), 2, "--shutdown-delay", "0") as members,
        balanced(members) as balancer,
    ):
        assert (await balancer.request("POST", CLUSTERS, team()))[0] == 201

        async def emptied(name: str) -> None:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            assert (await balancer.request("POST", NAMESPACES, made))[0] == 201
            assert (await balancer.request("DELETE", f"{NAMESPACES}/{name}"))[0] == 200
            await gone(balancer, name)

        await emptied("before")
        for number in (signal.SIGKILL, signal.SIGTERM):
            leading = await leader(store)
            [one] = [member for member in members if member.pid == leading]
            await one.end(number)
            await emptied(f"after-{number.name.lower()}")
            assert await leader(store) != leading
            await one.start()


async def _namespaces(replica: Replica, token: str, trust: ssl.SSLContext) -> int:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{replica.url}/clusters/root/api/v1/namespaces", ssl=trust) as answer,
    ):
        return answer.status


async def test_replicas_with_directories_of_their_own_take_each_others_credentials_and_are_trusted_alike(
    store: SharedStore, tmp_path: Path
) -> None:
    async with replicas(tmp_path, store.url(), 2, "--shutdown-delay", "0") as members:
        one, two = members
        assert one.token != two.token
        for asked in members:
            for of in members:
                assert await _namespaces(asked, of.token, of.trust()) == 200
            assert await _namespaces(asked, one.token + "x", one.trust()) == 401
        # A replica that was another service before takes over what this one has.
        await two.end()
        for file in (two.directory / "pki").iterdir():
            file.unlink()
        (two.directory / "admin.kubeconfig").unlink()
        await two.start()
        for of in members:
            assert await _namespaces(two, of.token, one.trust()) == 200
        secrets = [member.token for member in members]
        secrets.append((one.directory / "pki" / "ca.key").read_text().splitlines()[1])
        for member in members:
            assert not [secret for secret in secrets if secret in member.log()]
