"""Deletions, told to a real kube-apiserver with kube-controller-manager beside it, and to this checkout.

A deletion is an answer and then what controllers make of it. So a story has requests and *rests*: places where nothing
moves any more, at which the objects that are left must be the same, with their owners, finalizers and conditions. Of
each object its watch tells the states between, and those must be the same too, in the same order.

Stories at random are graphs of owners, deleted piece by piece; which follows from a number alone. `deletions.json` is
what the real server was recorded to do (tests/conformance/test_deletions.py tells it to this checkout).

    python -m tests.conformance.deletions [--random N] [--first N] [--record] [STORY …]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from tests.conformance import beside, deletion_stories, exchange
from tests.conformance.deletion_stories import LABEL, Item, Rest
from tests.conformance.exchange import Json, Peer, Step, Teller
from tests.e2e.clusters import Cluster

RECORDED: Final = Path(__file__).parent / "deletions.json"

TOGETHER: Final = 40
AS_WANTED_S: Final = 0.3
RESTLESS_S: Final = 120.0
KINDS_KNOWN_S: Final = 45.0  # The real garbage collector looks for new kinds every 30 s.
CUSTOM: Final = ("parts", "wholes")

_INVALID_NAMESPACE: Final = "fieldSelector=reason%3DOwnerRefInvalidNamespace"

# Of an answer to a deletion: the rest is told by the objects themselves.
_TOLD: Final = ("reason", "message", "details")


@dataclass
class Seen:
    """What watches told of all objects that stories made, and when the last of it came."""

    states: dict[str, list[Json]] = field(default_factory=dict)
    now: dict[str, Json] = field(default_factory=dict)
    last: float = 0.0

    def note(self, event: Json) -> None:
        obj = event["object"]
        key = address(obj)
        state = state_of(obj)
        self.last = time.monotonic()
        if event["type"] == "DELETED":
            self.now.pop(key, None)
            state = "gone"
        else:
            self.now[key] = state
        history = self.states.setdefault(key, [])
        if not history or history[-1] != state:
            history.append(state)


def address(obj: Json) -> str:
    metadata = obj["metadata"]
    return f"{obj['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"


def state_of(obj: Json) -> Json:
    """What of an object deletions are about."""
    metadata = obj["metadata"]
    state: dict[str, Json] = {}
    owners = metadata.get("ownerReferences")
    if owners:
        state["owners"] = [one["name"] + ("!" if one.get("blockOwnerDeletion") else "") for one in owners]
    if metadata.get("finalizers"):
        state["finalizers"] = metadata["finalizers"]
    if "deletionTimestamp" in metadata:
        state["deleting"] = metadata.get("deletionGracePeriodSeconds", "no grace")
    if obj["kind"] in ("Namespace", "CustomResourceDefinition"):
        spec_finalizers = obj["spec"].get("finalizers")
        if spec_finalizers and spec_finalizers != ["kubernetes"]:
            state["spec.finalizers"] = spec_finalizers
        conditions = obj["status"].get("conditions") or ()
        state["conditions"] = {
            one["type"]: [one["status"], one.get("reason", ""), one.get("message", "")]
            for one in conditions
            if one["type"].startswith("Namespace") or one["type"] == "Terminating"
        }
        if not state["conditions"]:
            del state["conditions"]
        if obj["kind"] == "Namespace" and "deletionTimestamp" in metadata:
            state["phase"] = obj["status"]["phase"]
    return state


class Watcher:
    """Follows every kind that stories use; each in a thread of its own."""

    def __init__(self, peer: Peer, group: str) -> None:
        self.seen = Seen()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connections: list[Any] = []
        paths = [
            "/api/v1/configmaps",
            "/api/v1/secrets",
            "/api/v1/pods",
            "/api/v1/namespaces",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            *(f"/apis/{group}/v1/{plural}" for plural in CUSTOM),
        ]
        self._threads = [threading.Thread(target=self._follow, args=(peer, path)) for path in paths]
        for thread in self._threads:
            thread.start()

    def _follow(self, peer: Peer, path: str) -> None:
        connection = peer.connect()
        self._connections.append(connection)
        connection.timeout = None
        query = f"?watch=true&labelSelector={LABEL}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        try:
            connection.request(
                "GET", peer.prefix + path + query, headers={"Authorization": f"Bearer {peer.token}"}
            )
            response = connection.getresponse()
            assert response.status == 200, (path, response.status, response.read())
            while not self._stop.is_set():
                line = response.readline()
                if not line:
                    return
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    with self._lock:
                        self.seen.note(event)
        except (OSError, ValueError, AttributeError):
            if not self._stop.is_set():
                raise
        finally:
            connection.close()

    def close(self) -> None:
        import socket

        self._stop.set()
        for connection in self._connections:
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def of(self, namespace: str) -> tuple[dict[str, Json], dict[str, list[Json]]]:
        """(the objects of one story as they are now, their states since the beginning)."""
        with self._lock:
            now = {key: state for key, state in self.seen.now.items() if namespace in key}
            states = {key: list(found) for key, found in self.seen.states.items() if namespace in key}
        return now, states


@dataclass(frozen=True)
class Tempo:
    """How long nothing must have moved before it is said to rest, in seconds; `slow` where a server waits by itself."""

    quick: float
    slow: float


THEIRS: Final = Tempo(3.0, 14.0)
OURS: Final = Tempo(3.0, 6.0)
PATIENT: Final = Tempo(20.0, 20.0)


class _Teller(Teller):
    def saved(self, name: str) -> Json:
        return self._saved[name]

    def normal(self, value: Json) -> Json:
        """The same without what no two servers share."""
        return self._normal(value)


class Told:
    """One story being told to one server."""

    def __init__(
        self, peer: Peer, group: str, watcher: Watcher, tempo: Tempo, idle: Callable[[], bool]
    ) -> None:
        self._idle = idle
        self.teller = _Teller(peer, group)
        self._watcher = watcher
        self._tempo = tempo

    def tell(self, items: Sequence[Item], wanted: Sequence[Json] = ()) -> list[Json]:
        """What becomes of each item, and at the end all states and events. `wanted`: what it should be, where that is known."""
        namespace = self.teller.namespace
        made = {"metadata": {"name": namespace, "labels": {LABEL: namespace}}}
        answer = self.teller.do(Step("POST", "/api/v1/namespaces", made))
        assert answer["status"] == 201, answer
        self._provide(Step("POST", "/api/v1/namespaces", made))
        rows: list[Json] = []
        with closing(self.teller):
            for at, item in enumerate(items):
                if isinstance(item, Rest):
                    rows.append({"rest": self.rest(item, wanted[at]["rest"] if wanted else None)})
                else:
                    rows.append(_answered(self.teller.do(item)))
                    self._provide(item)
            _, states = self._watcher.of(namespace)
            rows.append({"states": self._normal(states)})
            rows.append({"events": self._events()})
        return rows

    def _provide(self, item: Step) -> None:
        """Pods need an account, which a controller gives a namespace where it runs."""
        if item.path == "/api/v1/namespaces" and item.body["metadata"]["name"]:
            place = f"/api/v1/namespaces/{item.body['metadata']['name']}/serviceaccounts"
            answer = self.teller.do(Step("POST", place, {"metadata": {"name": "default"}}))
            assert answer["status"] in (201, 409), answer

    def rest(self, item: Rest, wanted: Json) -> Json:
        """What is there once nothing moves any more: sooner where it is what is wanted."""
        patience = self._tempo.slow if item.slow else self._tempo.quick
        before, since = None, time.monotonic()
        restless = since + RESTLESS_S
        while True:
            now = self._normal(self._watcher.of(self.teller.namespace)[0])
            if now != before or not self._idle():
                before, since = now, time.monotonic()
            calm_s = time.monotonic() - since
            if calm_s > (AS_WANTED_S if now == wanted else patience) or time.monotonic() > restless:
                return now
            time.sleep(0.05)

    def _events(self) -> Json:
        """What controllers said, to all who listen."""
        found = [
            {
                "namespace": event["metadata"]["namespace"],
                "type": event["type"],
                "message": event["message"],
                "source": event.get("source"),
                "reporting": event.get("reportingComponent"),
                "of": event["involvedObject"],
            }
            for namespace in ("${ns}", "${ns}-b", "default")
            for event in self._saved(f"/api/v1/namespaces/{namespace}/events?{_INVALID_NAMESPACE}")
            if self.teller.namespace in json.dumps(event)
        ]
        shown: list[Json] = self._normal(found)
        return sorted(shown, key=json.dumps)

    def _saved(self, path: str) -> list[Json]:
        """The items of a list, as they are."""
        self.teller.do(Step("GET", path, save="list"))
        items: list[Json] = self.teller.saved("list").get("items", [])
        return items

    def _normal(self, value: Json) -> Json:
        return self.teller.normal(value)


def _answered(answer: Json) -> Json:
    document = answer["answer"]
    shown: Json = {"status": answer["status"]}
    if isinstance(document, dict):
        if document.get("kind") == "Status":
            shown["answer"] = {key: document[key] for key in _TOLD if key in document}
        elif "metadata" in document and "items" not in document:
            shown["answer"] = state_of({"kind": "", **document})
    return shown


# ---------------------------------------------------------------------- servers


@contextmanager
def prepared(peer: Peer, *, wait_s: float = 0.0) -> Iterator[tuple[str, Watcher]]:
    """A server with the custom kinds that stories use."""
    group = exchange.prepare(peer, deletion_stories.DEFINITIONS)
    time.sleep(wait_s)
    watcher = Watcher(peer, group)
    try:
        yield group, watcher
    finally:
        watcher.close()


def tell_all(
    peer: Peer,
    stories: Mapping[str, Sequence[Item]],
    tempo: Tempo,
    *,
    wanted: Mapping[str, Sequence[Json]] | None = None,
    wait_s: float = 0.0,
    idle: Callable[[], bool] = lambda: True,
) -> dict[str, list[Json]]:
    """What becomes of every story. `wanted`: what should, where that is known; `idle`: the controllers have nothing to do."""
    with prepared(peer, wait_s=wait_s) as (group, watcher), ThreadPoolExecutor(TOGETHER) as pool:

        def tell(item: tuple[str, Sequence[Item]]) -> tuple[str, list[Json]]:
            rows = (wanted or {}).get(item[0], ())
            return item[0], Told(peer, group, watcher, tempo, idle).tell(item[1], rows)

        return dict(pool.map(tell, stories.items()))


def theirs(stories: Mapping[str, Sequence[Item]]) -> dict[str, list[Json]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        peers.kube_apiserver(Path(directory) / "peer") as running,
        peers.controllers(Path(directory), running, "garbage-collector-controller", "namespace-controller"),
    ):
        kubeconfig = running.kubeconfig(Path(directory) / "theirs.kubeconfig")
        peer = beside.as_peer(Cluster("theirs", kubeconfig, None))
        return tell_all(peer, stories, THEIRS, wait_s=KINDS_KNOWN_S)


def ours(stories: Mapping[str, Sequence[Item]]) -> dict[str, list[Json]]:
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory)) as server:
        return tell_all(beside.as_peer(server), stories, OURS)


# ---------------------------------------------------------------------- comparison


def titles(items: Sequence[Item]) -> list[str]:
    named = [
        "(at rest)" if isinstance(item, Rest) else f"{item.title} {json.dumps(item.body)[:160]}"
        for item in items
    ]
    return [*named, "(states)", "(events)"]


_RACING: Final = (
    "random",
    "circle",
    "diamond",
    "collection",
    "a namespace that owns",
    "a namespace with a finalizer in it",  # Two finalizers go, and a controller may look between.
)


def tells_states(name: str) -> bool:
    """What is between two rests is the same in every run: no two controllers or deletions are at the same object."""
    return not name.startswith(_RACING)


def wrong(
    items: Sequence[Item], theirs: Sequence[Json], ours: Sequence[Json], *, states: bool = True
) -> list[str]:
    """Where two tellings of a story differ."""
    found = []
    excused = {path for item in items if isinstance(item, Rest) for path in item.differs}
    for title, one, other in zip(titles(items), theirs, ours, strict=True):
        if "states" in one and not states:
            continue
        compared = (one, other) if states else map(_without_owners_of_the_dying, (one, other))
        for path, left, right in exchange.differences(*compared):
            if not any(path.startswith(known) for known in excused):
                found.append(
                    f"{title}\n    {path}\n      theirs: {json.dumps(left)[:700]}\n      ours:   {json.dumps(right)[:700]}"
                )
    return found


def _without_owners_of_the_dying(row: Json) -> Json:
    """Which references an object lost before it was deleted itself, is a matter of who came first."""

    def told(state: Json) -> Json:
        if not isinstance(state, dict) or "deleting" not in state:
            return state
        return {name: value for name, value in state.items() if name != "owners"}

    if "rest" in row:
        return {"rest": {key: told(state) for key, state in row["rest"].items()}}
    return {**row, "answer": told(row["answer"])} if "answer" in row else row


def write(told: Mapping[str, Sequence[Json]]) -> None:
    """The recording: a line for each thing that was told."""
    stories = []
    for name, rows in told.items():
        lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        stories.append(f"{json.dumps(name)}: [\n{lines}\n]")
    RECORDED.write_text("{\n" + ",\n".join(stories) + "\n}\n")


def recorded() -> dict[str, list[Json]]:
    """What the real server was recorded to do, story by story."""
    found: dict[str, list[Json]] = json.loads(RECORDED.read_text())
    return found


def story(name: str) -> Sequence[Item]:
    """The story of that name; those at random are named by their number."""
    kind, _, number = name.partition(" ")
    return deletion_stories.at_random(int(number)) if kind == "random" else deletion_stories.STORIES[name]


def chosen(names: Sequence[str], first: int, count: int) -> dict[str, Sequence[Item]]:
    told: dict[str, Sequence[Item]] = dict(deletion_stories.STORIES) if not count or names else {}
    if names:
        told = {name: deletion_stories.STORIES[name] for name in names}
    told |= {f"random {n}": deletion_stories.at_random(n) for n in range(first, first + count)}
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--random", type=int, default=0, metavar="N", help="so many graphs at random, and no stories"
    )
    parser.add_argument("--first", type=int, default=1, metavar="N")
    parser.add_argument("--record", action="store_true", help="write down what the real server does")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write what both did into a file")
    parser.add_argument(
        "--with", dest="kept", type=Path, metavar="FILE", help="what the real server did, from such a file"
    )
    parser.add_argument("stories", nargs="*", metavar="STORY")
    asked = parser.parse_args()
    stories = chosen(asked.stories, asked.first, asked.random)
    if asked.record:
        stories |= {f"random {n}": deletion_stories.at_random(n) for n in deletion_stories.RECORDED_AT_RANDOM}
    real = json.loads(asked.kept.read_text())["theirs"] if asked.kept else theirs(stories)
    if asked.record:
        write(real)
    mine = ours(stories)
    if asked.keep:
        asked.keep.write_text(json.dumps({"theirs": real, "ours": mine}, indent=1))
    count = 0
    for name, items in stories.items():
        found = wrong(items, real[name], mine[name], states=tells_states(name))
        count += bool(found)
        for text in found:
            print(f"[{name}] {text}")
    print(f"{len(stories)} stories, {count} of them differ", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
