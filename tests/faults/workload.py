"""What clients do meanwhile: writers, readers and watchers over several clusters, through any replica.

Writers want few hot keys and many cold ones, and give every attempt a value of its own (an annotation, so that any kind
can carry it). Watchers do as client-go's reflector does: list, watch from there, resume where they were told to have come to
through whichever replica, and list again after 410. What must never be answered is noted on the spot.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import aiohttp

from tests.faults.history import NOTHING, History, Key, Listing, Outcome, Read, State, Stream, Told, Write
from tests.faults.replicas import Replica

VALUE: Final = "faults/value"
PREFIX: Final = "x"  # Of the names that are the suite's.
HOT_KEYS: Final = 3
COLD_KEYS: Final = 40
PAUSE_S: Final = 0.04
PATIENCE_S: Final = 20.0
CLUSTERS: Final = "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
GROUP: Final = "faults.example.com"


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: nothing came, and the server may have heard; -1: it was certainly not asked."""

    status: int
    body: Any

    @property
    def reason(self) -> str:
        if not isinstance(self.body, dict):
            return str(self.body)
        return f"{self.body.get('reason', '')}: {self.body.get('message', '')}"


@dataclass(frozen=True, slots=True)
class Collection:
    cluster: str
    path: str  # Below the cluster.
    api_version: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.cluster}/{self.path.rpartition('/')[2]}"

    @property
    def url(self) -> str:
        return f"/clusters/{self.cluster}{self.path}"

    def object(self, name: str, value: str, revision: int = 0) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "annotations": {VALUE: value}}
        if revision:
            metadata["resourceVersion"] = str(revision)
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}


def config_maps(cluster: str) -> Collection:
    return Collection(cluster, "/api/v1/namespaces/default/configmaps", "v1", "ConfigMap")


def widgets(cluster: str) -> Collection:
    return Collection(cluster, f"/apis/{GROUP}/v1/namespaces/default/widgets", f"{GROUP}/v1", "Widget")


CRD: Final[Mapping[str, Any]] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


def state_of(obj: Mapping[str, Any]) -> State:
    metadata = obj["metadata"]
    return State(int(metadata["resourceVersion"]), metadata["annotations"][VALUE], metadata["uid"])


class Clients:
    """Sends requests and writes down what became of them."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        replicas: Sequence[Replica],
        token: str,
        history: History,
        chance: random.Random,
    ) -> None:
        self.session = session
        self.replicas = replicas
        self.history = history
        self.chance = chance
        self._headers = {"Authorization": f"Bearer {token}"}
        self._attempts = 0
        self.began = monotonic()

    def now(self) -> float:
        return monotonic() - self.began

    def value(self, writer: str) -> str:
        self._attempts += 1
        return f"{writer}-{self._attempts}"

    def complain(self, text: str) -> None:
        self.history.complaints.append(f"{self.now():9.3f} {text}")

    async def ask(
        self,
        replica: Replica,
        method: str,
        path: str,
        body: Any = None,
        *,
        merge: bool = False,
        timeout_s: float = PATIENCE_S,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = self._headers | (
            {"Content-Type": "application/merge-patch+json" if merge else "application/json"} if body else {}
        )
        try:
            async with self.session.request(
                method,
                replica.url + path,
                params=query or {},
                data=json.dumps(body) if body else None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(timeout_s),
            ) as answer:
                return Answer(answer.status, await answer.json(content_type=None))
        except aiohttp.ClientConnectorError as error:
            return Answer(-1, repr(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(0, repr(error))

    async def write(
        self,
        replica: Replica,
        collection: Collection,
        write: Write,
        body: Any,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """Sends the write and notes what became of it, given up after so long, or after what chance says."""
        self.history.writes.append(write)
        url = f"{collection.url}/{write.key.name}"
        method = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}[write.verb]
        write.start = self.now()
        answer = await self.ask(
            replica,
            method,
            collection.url if write.verb == "create" else url,
            body,
            merge=write.verb == "patch",
            timeout_s=timeout_s or self.chance.choice((0.5, 3.0, PATIENCE_S)),
        )
        self._settle(write, answer)
        return answer

    def _settle(self, write: Write, answer: Answer) -> None:
        write.code = answer.status
        if answer.status not in (200, 201):
            write.reason = answer.reason
        if answer.status in (200, 201):
            write.outcome, write.end = Outcome.DONE, self.now()
            if write.verb == "delete":
                # A Status that names what is gone; an object would only have been marked.
                write.uid = answer.body.get("details", {}).get("uid", "")
                if not write.uid:
                    self.complain(f"a DELETE was answered without a uid: {answer.body}")
            else:
                state = state_of(answer.body)
                write.revision, write.uid = state.revision, state.uid
                if state.value != write.value:
                    self.complain(f"{write.verb} of {write.value} was answered with {state.value}")
        elif answer.status == -1 or 400 <= answer.status < 500 or answer.status == 503:
            write.outcome, write.end = Outcome.REFUSED, self.now()
            if answer.status in (400, 401, 403, 415, 422):
                self.complain(
                    f"{write.verb} of {write.key} via {write.replica} was told {answer.status} {answer.body}"
                )

    async def get(
        self, replica: Replica, collection: Collection, name: str, reader: str, *, weak: bool
    ) -> State | None:
        """The state, None where there was no telling."""
        start = self.now()
        incarnation = replica.incarnation
        query = {"resourceVersion": "0"} if weak else {}
        answer = await self.ask(replica, "GET", f"{collection.url}/{name}", query=query)
        if answer.status not in (200, 404):
            self._unexpected(answer, f"GET {collection.name}/{name} via {replica.name}")
            return None
        state = state_of(answer.body) if answer.status == 200 else NOTHING
        self.history.reads.append(
            Read(Key(collection.name, name), incarnation, reader, start, self.now(), state, weak)
        )
        return state

    async def list(self, replica: Replica, collection: Collection, *, weak: bool) -> Listing | None:
        start = self.now()
        incarnation = replica.incarnation
        query = {"resourceVersion": "0"} if weak else {}
        answer = await self.ask(replica, "GET", collection.url, query=query)
        if answer.status != 200:
            self._unexpected(answer, f"LIST {collection.name} via {replica.name}")
            return None
        items = {
            item["metadata"]["name"]: state_of(item)
            for item in answer.body["items"]
            if item["metadata"]["name"].startswith(PREFIX)
        }
        revision = int(answer.body["metadata"]["resourceVersion"])
        listing = Listing(collection.name, incarnation, start, self.now(), revision, items, weak)
        self.history.lists.append(listing)
        return listing

    async def pages(self, collection: Collection, size: int) -> Listing | None:
        """A LIST in pages, each from whichever replica; all are of the moment at which the first was answered."""
        start, end, revision, token = self.now(), 0.0, 0, ""
        items: dict[str, State] = {}
        while True:
            replica = self.chance.choice(self.replicas)
            query = {"limit": str(size)} | ({"continue": token} if token else {})
            answer = await self.ask(replica, "GET", collection.url, query=query)
            if answer.status == 410 and token:
                return None  # So much was compacted meanwhile; a client begins again.
            if answer.status != 200:
                self._unexpected(answer, f"a page of {collection.name} via {replica.name}")
                return None
            at = int(answer.body["metadata"]["resourceVersion"])
            if not token:
                end, revision = self.now(), at
            elif at != revision:
                self.complain(
                    f"pages of {collection.name} are at {revision} and, via {replica.name}, at {at}"
                )
            for item in answer.body["items"]:
                name = item["metadata"]["name"]
                if name in items:
                    self.complain(f"pages of {collection.name} at {revision} have {name} twice")
                if name.startswith(PREFIX):
                    items[name] = state_of(item)
            token = answer.body["metadata"].get("continue", "")
            if not token:
                break
        listing = Listing(collection.name, "pages", start, end, revision, items)
        self.history.lists.append(listing)
        return listing

    def _unexpected(self, answer: Answer, what: str) -> None:
        if 400 <= answer.status < 500 and answer.status != 429:
            self.complain(f"{what} was told {answer.status} {answer.body}")


class Writer:
    """Changes one collection until it is told to stop."""

    def __init__(self, name: str, clients: Clients, collection: Collection, chance: random.Random) -> None:
        self._name = name
        self._clients = clients
        self._collection = collection
        self._chance = chance
        self._known: dict[str, State] = {}

    async def run(self, going: Callable[[], bool]) -> None:
        while going():
            await self._act()
            await asyncio.sleep(self._chance.uniform(0.2, 1.8) * PAUSE_S)

    async def _act(self) -> None:
        chance, clients, collection = self._chance, self._clients, self._collection
        hot = chance.random() < 0.6
        name = f"{PREFIX}{'h' if hot else 'c'}{chance.randrange(HOT_KEYS if hot else COLD_KEYS)}"
        replica = chance.choice(clients.replicas)
        known = self._known.get(name)
        if known is None or chance.random() < 0.1:
            known = await clients.get(replica, collection, name, self._name, weak=chance.random() < 0.3)
            if known is None:
                return
            self._known[name] = known
        verb = "create"
        if known.revision:
            # Only built-in kinds may be replaced without saying what is replaced.
            unconditional = 2 if collection.kind == "ConfigMap" else 0
            verb = chance.choices(("update", "overwrite", "patch", "delete"), (5, unconditional, 3, 2))[0]
        value = "" if verb == "delete" else clients.value(self._name)
        expected = 0
        body: Any = None
        if verb in ("update", "overwrite"):
            expected = known.revision if verb == "update" else 0
            body = collection.object(name, value, expected)
        elif verb == "patch":
            body = {"metadata": {"annotations": {VALUE: value}}}
        elif verb == "create":
            body = collection.object(name, value)
        elif chance.random() < 0.5:
            expected = known.revision
            body = {"preconditions": {"resourceVersion": str(expected)}}
        write = Write(
            Key(collection.name, name),
            "update" if verb == "overwrite" else verb,
            replica.incarnation,
            0.0,
            value,
            expected,
        )
        answer = await clients.write(replica, collection, write, body)
        if write.outcome is Outcome.DONE and write.verb != "delete":
            self._known[name] = State(write.revision, value, write.uid)
        elif answer.status == 503:
            await asyncio.sleep(chance.uniform(0.1, 0.4))
        else:
            self._known.pop(name, None)


class Reader:
    """Gets and lists, consistently and not, through any replica."""

    def __init__(
        self, name: str, clients: Clients, collections: Sequence[Collection], chance: random.Random
    ) -> None:
        self._name = name
        self._clients = clients
        self._collections = collections
        self._chance = chance

    async def run(self, going: Callable[[], bool]) -> None:
        chance, clients = self._chance, self._clients
        while going():
            collection, replica = chance.choice(self._collections), chance.choice(clients.replicas)
            weak = chance.random() < 0.25
            kind = chance.random()
            if kind < 0.05:
                answered = await clients.pages(collection, chance.randint(3, 20)) is not None
            elif kind < 0.25:
                answered = await clients.list(replica, collection, weak=weak) is not None
            else:
                name = f"{PREFIX}h{chance.randrange(HOT_KEYS)}"
                answered = await clients.get(replica, collection, name, self._name, weak=weak) is not None
            await asyncio.sleep(chance.uniform(0.2, 1.8) * PAUSE_S * (1 if answered else 5))


class Watcher:
    """A reflector. `reached` is how far it has been told to have come; a lagging one sleeps between its connections."""

    def __init__(
        self, name: str, clients: Clients, collection: Collection, chance: random.Random, lag_s: float
    ) -> None:
        self.name = name
        self.collection = collection
        self.relists = 0
        self._clients = clients
        self._chance = chance
        self.lag_s = lag_s
        self._stream: Stream | None = None

    @property
    def reached(self) -> int:
        return self._stream.reached if self._stream is not None else 0

    async def run(self) -> None:
        while True:
            replica = self._chance.choice(self._clients.replicas)
            try:
                if self._stream is None:
                    await self._list(replica)
                else:
                    await self._watch(replica, self._stream)
                    if self.lag_s:
                        await asyncio.sleep(self._chance.uniform(0, self.lag_s))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                await asyncio.sleep(self._chance.uniform(0.02, 0.2))

    async def _list(self, replica: Replica) -> None:
        weak = self._chance.random() < 0.3 and self.relists == 0
        listing = await self._clients.list(replica, self.collection, weak=weak)
        if listing is None:
            await asyncio.sleep(0.1)
            return
        self._stream = Stream(self.name, self.collection.name, listing.revision, listing.revision)
        self._clients.history.streams.append(self._stream)

    async def _watch(self, replica: Replica, stream: Stream) -> None:
        clients = self._clients
        query = {
            "watch": "true",
            "resourceVersion": str(stream.reached),
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._chance.randint(1, 8)),
        }
        incarnation = replica.incarnation
        async with clients.session.get(
            replica.url + self.collection.url,
            params=query,
            headers=clients._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=4),
        ) as answer:
            if answer.status != 200:
                self._refused(answer.status, await answer.text(), incarnation)
                await asyncio.sleep(0.1)
                return
            async for line in answer.content:
                if not self._told(stream, json.loads(line), incarnation):
                    return

    def _refused(self, status: int, text: str, replica: str) -> None:
        if status == 410:
            self._begin_again()
        elif 400 <= status < 500 and status != 429:
            self._clients.complain(f"{self.name}'s watch via {replica} was told {status} {text.strip()}")

    def _begin_again(self) -> None:
        self.relists += 1
        self._stream = None

    def _told(self, stream: Stream, event: Any, incarnation: str) -> bool:
        """Takes one event; whether the watch goes on."""
        obj = event["object"]
        if event["type"] == "ERROR":
            self._refused(obj.get("code", 0), str(obj), incarnation)
            return False
        revision = int(obj["metadata"]["resourceVersion"])
        if event["type"] == "BOOKMARK":
            stream.reached = max(stream.reached, revision)
            return True
        name = obj["metadata"]["name"]
        if name.startswith(PREFIX):
            if revision <= stream.reached:
                self._clients.complain(
                    f"{self.name} was told of {revision} after {stream.reached} via {incarnation}"
                )
            stream.events.append(Told(event["type"], name, state_of(obj), self._clients.now(), incarnation))
        stream.reached = max(stream.reached, revision)
        return True


async def settle(clients: Clients, method: str, path: str, body: Any, done: Sequence[int]) -> Answer:
    """Asks one replica after the other until it is done, or found done (409 for a POST, 404 for a DELETE)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 2 * PATIENCE_S
    answer = Answer(0, "")
    while loop.time() < deadline:
        replica = clients.chance.choice(clients.replicas)
        answer = await clients.ask(replica, method, path, body)
        if answer.status in done:
            return answer
        if answer.status in (400, 401, 403, 422):
            clients.complain(f"{method} {path} via {replica.name} was told {answer.status} {answer.body}")
        await asyncio.sleep(0.05)
    clients.complain(f"{method} {path} was never answered: {answer}")
    return answer


async def make_cluster(clients: Clients, name: str) -> None:
    body = {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": name},
    }
    await settle(clients, "POST", CLUSTERS, body, (201, 409))


async def make_widgets(clients: Clients, cluster: str) -> None:
    await settle(
        clients,
        "POST",
        f"/clusters/{cluster}/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        CRD,
        (201, 409),
    )


async def delete_namespace(clients: Clients, cluster: str) -> str:
    """Has a namespace with something in it deleted, which a leader must see through. Its path."""
    namespaces = f"/clusters/{cluster}/api/v1/namespaces"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}}
    await settle(clients, "POST", namespaces, made, (201, 409))
    inside = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inside"}}
    await settle(clients, "POST", f"{namespaces}/gone/configmaps", inside, (201, 409))
    await settle(clients, "DELETE", f"{namespaces}/gone", None, (200, 202, 404, 409))
    return f"{namespaces}/gone"


async def come_and_go(clients: Clients, name: str, going: Callable[[], bool]) -> int:
    """Clusters that are made through one replica, used at once through another, and deleted. How many there were."""
    number = 0
    while going():
        cluster = f"{name}-{number}"
        number += 1
        await make_cluster(clients, cluster)
        replica = clients.chance.choice(clients.replicas)
        path = f"/clusters/{cluster}/api/v1/namespaces/default/configmaps"
        answer = await clients.ask(replica, "GET", path)
        if answer.status in (401, 403, 404):
            clients.complain(f"{cluster} was made, and {replica.name} says {answer.status} {answer.body}")
        await make_widgets(clients, cluster)
        replica = clients.chance.choice(clients.replicas)
        made = widgets(cluster)
        answer = await clients.ask(replica, "POST", made.url, made.object("a", "a"))
        if 400 <= answer.status < 500:
            clients.complain(f"{cluster} has widgets, and {replica.name} says {answer.status} {answer.body}")
        await settle(clients, "DELETE", f"{CLUSTERS}/{cluster}", None, (200, 404))
        replica = clients.chance.choice(clients.replicas)
        answer = await clients.ask(replica, "GET", path)
        if answer.status in (200, 404):
            clients.complain(f"{cluster} was deleted, and {replica.name} says {answer.status} {answer.body}")
    return number
