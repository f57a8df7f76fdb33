"""What is wrong in the evening, and what was wrong with the terms of leaders through the day."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.clients.day.users import FINALIZER, GROUP, LABEL, Api, Garden, Json, Key, Users, beds_of
from tests.clients.day.world import Operator, World

AGAIN_S: Final = 0.1
WRITTEN: Final = f"{GROUP}/written"
LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
CONFIGMAPS: Final = "/api/v1/configmaps"
ALL_GARDENS: Final = f"/apis/{GROUP}/v1/gardens"


@dataclass
class Terms:
    """Follows what leaders write, at the server. No object may be written in an earlier term after one of a later."""

    api: Api
    world: World
    written: dict[str, int] = field(default_factory=dict)
    """The last term in which an object was written, by uid."""
    holders: dict[int, str] = field(default_factory=dict)
    """Who had a term."""

    async def follow(self, path: str) -> None:
        """Lists and watches until cancelled."""
        while True:
            code, listed = await self.api.ask("GET", path)
            if code == 200:
                for item in listed["items"]:
                    self.judge(item)
                with suppress(aiohttp.ClientError, OSError):
                    await self._watch(path, int(listed["metadata"]["resourceVersion"]))
            await asyncio.sleep(AGAIN_S)

    async def _watch(self, path: str, revision: int) -> None:
        """Goes on where a watch was cut, until the revision is gone."""
        while True:
            async with self.api.stream(f"{path}?watch=1&resourceVersion={revision}") as answer:
                if answer.status != 200:
                    return
                stream = self.world.streams.begin("the judge", path, {"resourceVersion": str(revision)})
                async for chunk in answer.content.iter_any():
                    for item in stream.read(chunk):
                        self.judge(item)
                    if stream.error:
                        return
                    revision = stream.ended

    def judge(self, item: Json) -> None:
        metadata = item["metadata"]
        if item.get("kind") == "Lease" or "holderIdentity" in item.get("spec", ()):
            return self._judge_lease(item["spec"])
        stamp = metadata.get("annotations", {}).get(WRITTEN) or item.get("status", {}).get("written")
        if not stamp:
            return None
        term, last = int(stamp.partition("-")[0]), self.written.get(metadata["uid"], 0)
        if term < last:
            name = f"{metadata['namespace']}/{metadata['name']}"
            self.world.complaints.append(f"{name} was written in term {term} after it was in term {last}")
        self.written[metadata["uid"]] = max(term, last)
        return None

    def _judge_lease(self, spec: Json) -> None:
        term, holder = spec.get("leaseTransitions", 0), spec.get("holderIdentity", "")
        if holder and self.holders.setdefault(term, holder) != holder:
            self.world.complaints.append(f"term {term} had {self.holders[term]}, then {holder}")
        if term < max(self.holders, default=0):
            self.world.complaints.append(f"term {term} came after {max(self.holders)}")
        self.world.leader = holder


async def wrong(world: World, users: Users) -> list[str]:
    """All that is not as the users asked for; it may still be on its way."""
    await users.look()
    gardens = await _items(users.api, ALL_GARDENS)
    configmaps = await _items(users.api, f"{CONFIGMAPS}?labelSelector={LABEL}")
    _, ledger = await users.api.ask("GET", beds_of("default", "ledger"))
    found = [f"{key} is still there" for key in users.leaving]
    found += _wrong_gardens(users, gardens)
    found += _wrong_configmaps(users, configmaps)
    booked = ledger.get("data") or {}
    missing = sorted(users.harvested[uid] for uid in users.harvested.keys() - booked.keys())
    extra = [booked[uid] for uid in booked.keys() - users.harvested.keys() - users.unseen.keys()]
    if missing or extra:
        found.append(f"the ledger lacks {missing} and has {extra} besides")
    if found:
        return found
    held = {f"configmaps/{_where(one)}": _version(one) for one in configmaps}
    held |= {f"gardens/{_where(one)}": _version(one) for one in gardens}
    for operator in world.operators:
        found += await _wrong_informers(operator, held)
    return found


def _wrong_gardens(users: Users, gardens: list[Json]) -> Iterator[str]:
    there = {_key(one): one for one in gardens}
    if there.keys() != users.gardens.keys():
        yield f"gardens differ: {sorted(there.keys() ^ users.gardens.keys())}"
    for key in there.keys() & users.gardens.keys():
        wanted, found = users.gardens[key], there[key]
        metadata, status = found["metadata"], found.get("status", {})
        if metadata["uid"] != wanted.uid or metadata.get("deletionTimestamp"):
            yield f"{key} is another, or going"
        if metadata.get("finalizers") != [FINALIZER]:
            yield f"{key} has the finalizers {metadata.get('finalizers')}"
        if found["spec"] != wanted.spec:
            yield f"{key} has the spec {found['spec']}, not {wanted.spec}"
        if (status.get("observedGeneration"), status.get("beds")) != (metadata["generation"], wanted.beds):
            yield f"{key} says {status} at generation {metadata['generation']}, and is to have {wanted.spec}"


def _wrong_configmaps(users: Users, configmaps: list[Json]) -> Iterator[str]:
    wanted = {
        (key[0], name): (data, garden.uid)
        for key, garden in users.gardens.items()
        for name, data in _children(key[1], garden)
    }
    there = {
        _key(one): (one.get("data"), one["metadata"].get("ownerReferences", [{}])[0].get("uid"))
        for one in configmaps
    }
    for key in sorted(wanted.keys() | there.keys()):
        if wanted.get(key) != there.get(key):
            yield f"{key} is {there.get(key)}, not {wanted.get(key)}"


def _children(name: str, garden: Garden) -> Iterator[tuple[str, Json]]:
    for bed in range(garden.beds):
        yield f"{name}-{bed}", {"crop": garden.crop, "bed": str(bed)}
    note = {"note": garden.note} if garden.note else {}
    yield f"{name}-sign", {"text": f"{garden.beds} beds of {garden.crop}"} | note


async def _wrong_informers(operator: Operator, held: dict[str, str]) -> list[str]:
    """What an operator's informers hold that the server does not, and the other way round."""
    operator.held.unlink(missing_ok=True)
    operator.signal(signal.SIGUSR1)
    for _ in range(20):
        await asyncio.sleep(AGAIN_S)
        if operator.held.exists():
            theirs: dict[str, str] = json.loads(operator.held.read_text())
            differing = sorted(dict(theirs.items() ^ held.items()))
            return [
                f"{operator.name} holds {theirs.get(one)} as {one}, not {held.get(one)}" for one in differing
            ]
    return [f"{operator.name} does not say what it holds"]


async def _items(api: Api, path: str) -> list[Json]:
    code, listed = await api.ask("GET", path)
    assert code == 200, listed
    items: list[Json] = listed["items"]
    return items


def _key(item: Json) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _where(item: Json) -> str:
    return "/".join(_key(item))


def _version(item: Json) -> str:
    return f"{item['metadata']['uid']} {item['metadata']['resourceVersion']}"
