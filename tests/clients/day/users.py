"""Who asks for gardens, changes them, gives them up, and meddles with what the operator keeps; and what they last asked for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

Json = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

NAMESPACES: Final = ("default", "north", "south")
NAMES: Final = tuple(f"garden-{number}" for number in range(8))
CROPS: Final = ("beans", "leek", "chard", "peas", "kale")
BEDS_MAX: Final = 5
GIVE_UP_S: Final = 60.0
AGAIN_S: Final = 0.05
MERGE: Final = "application/merge-patch+json"
GROUP: Final = "day.example.com"
LABEL: Final = f"{GROUP}/garden"
FINALIZER: Final = f"{GROUP}/harvest"

_INTEGER: Final = {"type": "integer", "format": "int64"}
GARDENS: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"gardens.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Garden", "plural": "gardens", "singular": "garden"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "beds": _INTEGER | {"minimum": 0, "maximum": BEDS_MAX},
                                    "crop": {"type": "string", "default": "grass"},
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "observedGeneration": _INTEGER,
                                    "beds": _INTEGER,
                                    "written": {"type": "string"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


class Api:
    """The cluster, asked directly and as often as it takes."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, body: Json | None = None, content_type: str = "application/json"
    ) -> tuple[int, Json]:
        """Status and document. Asks again while there is no answer, or the server is not well."""
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                async with self._session.request(
                    method,
                    f"{self.url}{path}",
                    json=body,
                    headers=self.headers | ({"Content-Type": content_type} if body is not None else {}),
                    timeout=aiohttp.ClientTimeout(10),
                ) as answer:
                    busy = answer.status == 429 or (answer.status == 409 and method == "PATCH")
                    if answer.status < 500 and not busy:
                        return answer.status, await answer.json()
                    said = f"{answer.status} {await answer.text()}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                said = repr(error)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: {said}")
            await asyncio.sleep(AGAIN_S)

    def stream(self, path: str) -> Any:
        """A response that goes on, as a context."""
        return self._session.get(
            f"{self.url}{path}", headers=self.headers, timeout=aiohttp.ClientTimeout(total=None)
        )


def gardens_of(namespace: str, name: str = "") -> str:
    return f"/apis/{GROUP}/v1/namespaces/{namespace}/gardens{'/' if name else ''}{name}"


def beds_of(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps{'/' if name else ''}{name}"


@dataclass
class Garden:
    """As its users want it."""

    uid: str
    beds: int
    crop: str
    note: str = ""

    @property
    def spec(self) -> Json:
        return {"beds": self.beds, "crop": self.crop}


@dataclass
class Users:
    """One after the other they act; so what they want is known at any time."""

    api: Api
    chance: random.Random
    gardens: dict[Key, Garden] = field(default_factory=dict)
    leaving: dict[Key, str] = field(default_factory=dict)
    """Deleted, and perhaps not gone yet: uids."""
    harvested: dict[str, Key] = field(default_factory=dict)
    """The uids of all that were deleted when the operator had had its finalizer on them."""
    unseen: dict[str, Key] = field(default_factory=dict)
    """Of all others: it may have had."""
    acts: int = 0

    async def move_in(self) -> None:
        """Before the day: the kind, the namespaces, the ledger."""
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await self._sure(201, "POST", definitions, GARDENS)
        for name in NAMESPACES[1:]:
            await self._sure(201, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        await self._sure(201, "POST", beds_of("default"), {"metadata": {"name": "ledger"}})

    async def minute(self) -> None:
        """What happens within a minute: none to three acts."""
        for _ in range(self.chance.randint(0, 3)):
            act = self.chance.choices(list(ACTS), list(ACTS.values()))[0]
            await act(self)
            self.acts += 1

    async def plant(self) -> None:
        free = [
            (namespace, name)
            for namespace in NAMESPACES
            for name in NAMES
            if (namespace, name) not in self.gardens and (namespace, name) not in self.leaving
        ]
        if not free:
            await self.look()
            return
        key = self.chance.choice(free)
        wanted = Garden("", self.chance.randint(0, BEDS_MAX), self.chance.choice(CROPS))
        body = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Garden",
            "metadata": {"name": key[1]},
            "spec": wanted.spec,
        }
        code, made = await self.api.ask("POST", gardens_of(key[0]), body)
        if code == 409:  # It had been made when the answer was lost.
            code, made = await self.api.ask("GET", gardens_of(*key))
        assert code in (200, 201), made
        wanted.uid = made["metadata"]["uid"]
        self.gardens[key] = wanted

    async def replan(self) -> None:
        for key in self._one():
            garden = self.gardens[key]
            garden.beds, garden.crop = self.chance.randint(0, BEDS_MAX), self.chance.choice(CROPS)
            await self._sure(200, "PATCH", gardens_of(*key), {"spec": garden.spec}, MERGE)

    async def uproot(self) -> None:
        for key in self._one():
            policy = self.chance.choice(("Background", "Foreground"))
            code, said = await self.api.ask("DELETE", gardens_of(*key), {"propagationPolicy": policy})
            assert code in (200, 202, 404), said
            garden = self.gardens.pop(key)
            self.leaving[key] = garden.uid
            seen = FINALIZER in said["metadata"].get("finalizers", ())
            (self.harvested if seen else self.unseen)[garden.uid] = key

    async def look(self) -> None:
        """What is gone may be planted again."""
        for key, uid in list(self.leaving.items()):
            code, found = await self.api.ask("GET", gardens_of(*key))
            if code == 404 or found["metadata"]["uid"] != uid:
                del self.leaving[key]

    async def sow_weeds(self) -> None:
        for key in self._one():
            bed = f"{key[1]}-{self.chance.randrange(BEDS_MAX)}"
            weeds = {"data": {"crop": "weeds", "more": "weeds"}}
            await self._sure((200, 404), "PATCH", beds_of(key[0], bed), weeds, MERGE)

    async def trample(self) -> None:
        for key in self._one():
            bed = f"{key[1]}-{self.chance.randrange(BEDS_MAX)}"
            await self._sure((200, 202, 404), "DELETE", beds_of(key[0], bed))

    async def touch(self) -> None:
        """Other writers of the same object: the operator's next write of it conflicts."""
        for key in self._one():
            for _ in range(3):
                mark = {"metadata": {"annotations": {"seen": str(self.chance.random())}}}
                await self._sure(200, "PATCH", gardens_of(*key), mark, MERGE)

    async def leave_note(self) -> None:
        """On the sign, beside what the operator applies there."""
        for key in self._one():
            note = f"note {self.acts}"
            code, said = await self.api.ask(
                "PATCH", beds_of(key[0], f"{key[1]}-sign"), {"data": {"note": note}}, MERGE
            )
            assert code in (200, 404), said
            if code == 200:
                self.gardens[key].note = note

    def _one(self) -> list[Key]:
        return [self.chance.choice(sorted(self.gardens))] if self.gardens else []

    async def _sure(self, codes: int | tuple[int, ...], method: str, path: str, *more: Any) -> Json:
        code, said = await self.api.ask(method, path, *more)
        good = code in (codes if isinstance(codes, tuple) else (codes,))
        assert good, f"{method} {path}: {code} {said}"
        return said


ACTS: Final[dict[Callable[[Users], Awaitable[None]], int]] = {
    Users.plant: 5,
    Users.replan: 7,
    Users.uproot: 3,
    Users.look: 3,
    Users.sow_weeds: 4,
    Users.trample: 3,
    Users.touch: 3,
    Users.leave_note: 2,
}
"""How often they do what."""
