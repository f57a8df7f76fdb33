"""Lists, watches and deletions of collections with every combination of their options, asked of two servers.

Both are given the same history: objects that come, change, leave a selection and go, with a compaction in between. Then
each question is asked (deletions as dry runs), and the answers are told apart by what a client can act on: status,
headers, the whole of a failure; of a list its metadata and its names; of a watch its events. Revisions are told by the
names that the history gives them.

    python -m tests.conformance.lists             compares a real server (`benchmarks/peers.py`) with this checkout
    python -m tests.conformance.lists --record    writes down what the real one says to a sample, for the tests
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import itertools
import json
import random
import re
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from benchmarks import peers
from clusterling.registry.continuation import PAGES_S
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.services.request import StreamingResponse
from clusterling.storage import memory
from tests.conformance.exchange import Peer
from tests.peers import Taker

RECORDED: Final = Path(__file__).parent / "lists.json"
SAMPLE: Final = 420  # Questions that are recorded.
SEED: Final = 20
MORE: Final = 3000  # Questions with selectors and other forms of answer, beyond the combinations of the rest.

Json = Any

NAMESPACE: Final = "lists"
GROUP: Final = "lists.example.com"
SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
THINGS: Final = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/things"
KINDS: Final = {"secrets": SECRETS, "things": THINGS}
DEFINITION: Final[Json] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "selectableFields": [{"jsonPath": ".type"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "stringData": {"type": "object"}},
                    }
                },
            }
        ],
    },
}

# What each parameter may be; None: it is not given. Names in braces are of the history.
VERSIONS: Final = (None, "", "0", "1", "{old}", "{kept}", "{now}", "{future}", "abc", "-1")
MATCHES: Final = (None, "Exact", "NotOlderThan", "Nearly")
LIMITS: Final = (None, "0", "2", "-1")
TOKENS: Final = (None, "{next}", "{late}", "abc")
INITIAL: Final = (None, "true", "false")
BOOKMARKS: Final = (None, "true")
SELECTORS: Final[Sequence[Mapping[str, str]]] = (
    {},
    {"labelSelector": "app=x"},
    {"labelSelector": "app!=x"},
    {"fieldSelector": "metadata.name=d"},
    {"fieldSelector": "type=odd/one"},
    {"labelSelector": "app=x", "fieldSelector": "type!=odd/one"},
)
FORMS: Final = {
    "": "",
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
    "metadata": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "metadata list": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
}
ODD_VERSIONS: Final = (
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
)
ODD_TOKENS: Final = (
    "{inconsistent}",
    "{ancient}",
    "{ahead}",
    "e30",
    "bnVsbA",
    "W10",
    "eyJ2IjoidjIiLCJydiI6MSwic3RhcnQiOiJhIn0",
    "{token:0:a}",
    "{token:1:}",
    "{token:-1:..}",
    "{token:-1:a/../b}",
    "{token:-2:b\0}",
    "{token:-1:zzz\0}",
    "ab cd",
    "YQ==",
)


@dataclass(frozen=True)
class Question:
    """One request. `verb`: list, watch or deletecollection."""

    verb: str
    kind: str
    parameters: tuple[tuple[str, str], ...]
    form: str = ""

    @property
    def title(self) -> str:
        shown = "&".join(f"{name}={value}" for name, value in self.parameters)
        return f"{self.verb} {self.kind}{' as ' + self.form if self.form else ''}?{shown}"


@dataclass
class Answer:
    """What came: of a watch all that came until its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[[str, str, Json, Mapping[str, str]], Awaitable[Answer]]


@dataclass
class Server:
    """A server that is asked: how, and how its history is compacted below a revision, and its pages grow old."""

    ask: Ask
    compact: Callable[[int], Awaitable[None]]
    known: dict[str, str] = field(default_factory=dict)  # The history's names.

    async def document(self, method: str, path: str, body: Json = None) -> Json:
        answer = await self.ask(method, path, body, {})
        assert answer.status < 300, (method, path, answer)
        return json.loads(answer.body)


# ---------------------------------------------------------------------- questions


def _question(verb: str, kind: str, form: str, parameters: Mapping[str, str | None]) -> Question:
    given = tuple((name, value) for name, value in parameters.items() if value is not None)
    return Question(verb, kind, given, form)


def lists() -> Iterator[Question]:
    """Every combination of what a list and the deletion of a collection look at."""
    for verb, kind in itertools.product(("list", "deletecollection"), KINDS):
        for version, match, limit, token in itertools.product(VERSIONS, MATCHES, LIMITS, TOKENS):
            yield _question(verb, kind, "", _read_at(version, match) | {"limit": limit, "continue": token})
        for version, match, initial in itertools.product(VERSIONS, MATCHES, INITIAL[1:]):
            yield _question(verb, kind, "", _read_at(version, match) | {"sendInitialEvents": initial})


def _read_at(version: str | None, match: str | None) -> dict[str, str | None]:
    return {"resourceVersion": version, "resourceVersionMatch": match}


def watches() -> Iterator[Question]:
    """Every combination of what a watch looks at."""
    # How old what a cache still has may be is not the same everywhere, and nobody's business.
    versions = [version for version in VERSIONS if version != "1"]
    for kind, version, match in itertools.product(KINDS, versions, MATCHES):
        at = _read_at(version, match)
        for initial, bookmarks in itertools.product(INITIAL, BOOKMARKS):
            more = {"sendInitialEvents": initial, "allowWatchBookmarks": bookmarks}
            yield _question("watch", kind, "", at | more)
        for limit, token in itertools.product((None, "2", "-1"), (None, "{next}", "abc")):
            if limit or token:
                yield _question("watch", kind, "", at | {"limit": limit, "continue": token})


def odd() -> Iterator[Question]:
    """Revisions at the ends of what is a number, and tokens that nobody was given."""
    for kind in KINDS:
        for version, match, limit in itertools.product(ODD_VERSIONS, MATCHES[:3], (None, "2")):
            yield _question("list", kind, "", _read_at(version, match) | {"limit": limit})
        for version in ODD_VERSIONS:
            yield _question("watch", kind, "", _read_at(version, None))
        for token, limit in itertools.product(ODD_TOKENS, (None, "2")):
            yield _question("list", kind, "", {"limit": limit, "continue": token})


def others(seed: int, count: int) -> Iterator[Question]:
    """Combinations at random of everything, selectors and forms of answer too."""
    chance = random.Random(seed)
    for _ in range(count):
        verb = chance.choice(("list", "list", "watch", "watch", "deletecollection"))
        parameters = {
            "resourceVersion": chance.choice((None, "", "0", "{old}", "{kept}", "{now}")),
            "resourceVersionMatch": chance.choice(MATCHES[:3]),
            "limit": chance.choice(LIMITS),
            "continue": chance.choice((None, None, None, *TOKENS)),
            "sendInitialEvents": chance.choice(INITIAL if verb == "watch" else (None,)),
            "allowWatchBookmarks": chance.choice(BOOKMARKS),
            **chance.choice(SELECTORS),
        }
        if parameters["continue"]:
            parameters["resourceVersion"] = parameters["resourceVersionMatch"] = None
        if verb == "watch" and parameters["sendInitialEvents"]:
            parameters["resourceVersionMatch"] = "NotOlderThan"
        # A watch in the form of a list breaks off at its first event there; here it is one of the items' form.
        forms = [form for form in FORMS if not (verb == "watch" and form == "metadata list")]
        yield _question(verb, chance.choice(tuple(KINDS)), chance.choice(forms), parameters)


def questions(seed: int = SEED) -> list[Question]:
    """All of them, each once."""
    return list(dict.fromkeys((*lists(), *watches(), *odd(), *others(seed, MORE))))


def sample() -> list[Question]:
    """Those that are recorded: some of each, the same each time; of what waits for the future only a few."""
    chance = random.Random(SEED)
    chosen = [*odd()]
    for each, count in ((lists(), 130), (watches(), 90), (others(SEED, MORE), 200)):
        now = [one for one in dict.fromkeys(each) if ("resourceVersion", "{future}") not in one.parameters]
        chosen += chance.sample(now, count)
    chosen += [one for one in lists() if dict(one.parameters) == {"resourceVersion": "{future}"}]
    chosen += [one for one in watches() if dict(one.parameters) == {"resourceVersion": "{future}"}]
    return list(dict.fromkeys(chosen))


# ---------------------------------------------------------------------- history


async def build(server: Server) -> None:
    """Gives the server its history, and learns the names of its revisions and tokens."""
    await server.document(
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    await server.document("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
    until, calm = monotonic() + 30, 0
    while calm < 3:
        assert monotonic() < until, "the custom kind is not served"
        calm = calm + 1 if (await server.ask("GET", THINGS, None, {})).status == 200 else 0
        if not calm:
            await asyncio.sleep(0.1)
    for path in KINDS.values():
        await _make(server, path, "a", "x")
        await _make(server, path, "b", "y")
        await _make(server, path, "c", "x")
    old = await _mark(server, "old")
    for kind, path in KINDS.items():
        page = await server.document("GET", f"{path}?limit=1")
        server.known[f"late {kind}"] = page["metadata"]["continue"]
        await _change(server, path, "b", {"metadata": {"annotations": {"changed": "1"}}})
        await server.document("DELETE", f"{path}/c")
    horizon = await _mark(server, "horizon")
    await server.compact(int(horizon))
    for path in KINDS.values():
        await _make(server, path, "d", "y")
    await _mark(server, "kept")
    for path in KINDS.values():
        await _change(server, path, "a", {"metadata": {"labels": {"app": "y"}}})  # It leaves the selection
        await _change(server, path, "d", {"metadata": {"labels": {"app": "x"}}})  # and this one enters it.
        await _make(server, path, "e", "x", type="odd/one")
        await _make(server, path, "f", "x")
        await server.document("DELETE", f"{path}/b")
        await server.document("DELETE", f"{path}/f")
        await _make(server, path, "g", "y")
    now = await _mark(server, "now")
    server.known["future"] = str(int(now) + 1_000_000_000)
    for kind, path in KINDS.items():
        page = await server.document("GET", f"{path}?limit=2")
        server.known[f"next {kind}"] = page["metadata"]["continue"]
        late = await server.ask("GET", f"{path}?limit=2&continue={server.known[f'late {kind}']}", None, {})
        assert late.status == 410, late
        server.known[f"inconsistent {kind}"] = json.loads(late.body)["metadata"]["continue"]
    begun = round(datetime.now(UTC).timestamp()) + 100_000
    server.known["ancient"] = _token(1, "a\0")
    server.known["ahead"] = _token(int(server.known["future"]), "a\0", begun=begun)
    assert int(old) < int(horizon) < int(now)


def _token(revision: int, start: str, **more: int) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start, **more})
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


async def _make(server: Server, path: str, name: str, app: str, **more: str) -> None:
    await server.document(
        "POST",
        path,
        {
            "apiVersion": "v1" if path == SECRETS else f"{GROUP}/v1",
            "kind": "Secret" if path == SECRETS else "Thing",
            "metadata": {"name": name, "labels": {"app": app}},
            **more,
        },
    )


async def _change(server: Server, path: str, name: str, change: Json) -> None:
    await server.document("PATCH", f"{path}/{name}", change)


async def _mark(server: Server, name: str) -> str:
    """Names the revision of now: the last that either kind has come to."""
    found = [
        int((await server.document("GET", path))["metadata"]["resourceVersion"]) for path in KINDS.values()
    ]
    server.known[name], server.known[f"about {name}"] = str(max(found)), str(min(found))
    return server.known[name]


# ---------------------------------------------------------------------- asking and telling


_PLACE: Final = re.compile(r"\{([^}]+)\}", re.DOTALL)


async def answer(server: Server, question: Question) -> Json:
    """What the server answers, as two servers can be compared by it."""
    known = server.known

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("token:"):
            _, revision, start = name.split(":", 2)
            return _token(int(revision), start)
        return known.get(name) or known[f"{name} {question.kind}"]

    parameters = [(name, _PLACE.sub(value, text)) for name, text in question.parameters]
    if question.verb == "watch":
        parameters += [("watch", "true"), ("timeoutSeconds", "1")]
    if question.verb == "deletecollection":
        parameters += [("dryRun", "All")]
    method = "DELETE" if question.verb == "deletecollection" else "GET"
    query = "&".join(f"{name}={quote(text)}" for name, text in parameters)
    headers = {"Accept": FORMS[question.form]} if question.form else {}
    given = await server.ask(method, f"{KINDS[question.kind]}?{query}", None, headers)
    told: dict[str, Json] = {"status": given.status}
    if given.headers.get("Content-Type", "") not in ("", "application/json"):
        told["type"] = given.headers["Content-Type"]
    for name in ("Warning", "Retry-After"):
        if given.headers.get(name):
            told[name] = given.headers[name]
    telling = _Telling(known, dict(parameters).get("resourceVersion", ""))
    if question.verb == "watch" and given.status == 200:
        lines = [json.loads(line) for line in given.body.splitlines()]
        told["events"] = telling.events(lines)
    else:
        told["answer"] = telling.document(json.loads(given.body))
    return told


class _Telling:
    """Tells what an answer says, in the history's words."""

    def __init__(self, known: Mapping[str, str], asked: str) -> None:
        self._known = known
        self._asked = asked

    def revision(self, text: Json) -> Json:
        if not isinstance(text, str) or not text.isdigit() or text == "0":
            return text
        for name in ("old", "kept"):
            if text == self._known[name]:
                return name
        if int(self._known["about now"]) <= int(text) < int(self._known["future"]):
            return "now"
        return "asked" if text == self._asked else "another"

    def document(self, document: Json) -> Json:
        kind = document.get("kind")
        if kind == "Status":
            return self.status(document)
        metadata = dict(document["metadata"])
        metadata["resourceVersion"] = self.revision(metadata.get("resourceVersion"))
        if metadata.get("continue"):
            token = metadata["continue"]
            fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            metadata["continue"] = [self.revision(str(fields["rv"])), fields["start"].lstrip("/")]
        rows = document["rows"] if kind == "Table" else document["items"]
        objects = [row["object"] if kind == "Table" else row for row in rows or ()]
        told = {"kind": kind, "metadata": metadata, "names": "".join(_name(one) for one in objects)}
        if rows is None:
            told["names"] = None
        if objects and "kind" in objects[0]:
            told["each"] = f"{objects[0].get('apiVersion')} {objects[0]['kind']}"
        if kind == "Table":
            told["columns"] = bool(document["columnDefinitions"])
        return told

    def status(self, status: Json) -> Json:
        told = {key: value for key, value in status.items() if key not in ("kind", "apiVersion")}
        message = told.get("message", "")
        message = re.sub(r"(current: )\d+", r"\1<revision>", message)
        message = re.sub(r"(too old resource version: \S+ |in record )\(\d+\)", r"\1(<revision>)", message)
        for name in ("old", "kept", "now", "future"):
            message = re.sub(rf"\b{self._known[name]}\b", f"<{name}>", message)
        told["message"] = message
        if status.get("metadata", {}).get("continue"):
            token = status["metadata"]["continue"]
            fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            told["metadata"] = {"continue": [fields["rv"], fields["start"].lstrip("/")]}
        return told

    def events(self, events: Sequence[Json]) -> list[Json]:
        """But for bookmarks that come when it pleases the server."""
        told = [self._event(one) for one in events if not _is_passing(one)]
        # Revisions by their order: that of the history is the same for both.
        order = sorted({int(one["revision"]) for one in told if one.get("revision")})
        for one in told:
            if one.get("revision"):
                last = one["type"] == "BOOKMARK"
                rank = order.index(int(one["revision"]))
                one["revision"] = "the last" if last and rank == len(order) - 1 else rank
        return told

    def _event(self, event: Json) -> dict[str, Json]:
        kind, shown = event["type"], event["object"]
        if kind == "ERROR":
            return {"type": kind, "status": self.status(shown)}
        told = {"type": kind, "kind": f"{shown.get('apiVersion')} {shown.get('kind')}"}
        if shown.get("kind") == "Table":
            told["columns"] = bool(shown["columnDefinitions"])
            told["metadata"] = sorted(shown["metadata"])
            shown = shown["rows"][0]["object"]
        metadata = shown.get("metadata") or {}
        told["name"] = metadata.get("name")
        told["revision"] = metadata.get("resourceVersion")
        told["labels"] = metadata.get("labels")
        told["annotations"] = metadata.get("annotations")
        return told


def _is_passing(event: Json) -> bool:
    return event["type"] == "BOOKMARK" and "initial-events-end" not in json.dumps(event)


def _name(one: Json) -> str:
    return str((one or {}).get("metadata", {}).get("name", "-"))


# ---------------------------------------------------------------------- servers


class _Clock:
    """The machine's clocks, with the time of day turned ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return monotonic()


@asynccontextmanager
async def ours() -> AsyncIterator[Server]:
    """A cluster of this checkout, in this process."""
    clock = _Clock()
    async with memory.open() as store:
        running = ApiServer(store, clock=clock, external_url="http://127.0.0.1")
        async with running.running() as server:
            await server.clusters.create("lists")
            client = server.client("lists")

            async def compact(horizon: int) -> None:
                await store.compact(horizon)
                clock.ahead += timedelta(seconds=PAGES_S + 1)

            yield Server(_asking(client), compact)


def _asking(client: Client) -> Ask:
    async def ask(method: str, path: str, body: Json, headers: Mapping[str, str]) -> Answer:
        data, sent = _encoded(method, body, headers)
        response = await client.request(method, path, None, data, sent)
        if not isinstance(response, StreamingResponse):
            return Answer(response.status, _headers(response.headers, response.content_type), response.body)
        kept = Taker()
        try:
            await response.stream.run(kept)
        finally:
            await response.close()
        return Answer(200, _headers(response.headers, response.content_type), b"".join(kept.writes))

    return ask


def _encoded(method: str, body: Json, headers: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    if body is None:
        return b"", dict(headers)
    content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
    return json.dumps(body).encode(), {"Content-Type": content_type, **headers}


def _headers(fields: Sequence[tuple[str, str]], content_type: str = "") -> dict[str, str]:
    found = {name.title(): value for name, value in fields}
    return {"Content-Type": content_type, **found} if content_type else found


TOGETHER: Final = 48


@asynccontextmanager
async def theirs(directory: Path) -> AsyncIterator[Server]:
    """A real server over an etcd of its own, which compacts when it is told to."""
    with (
        peers.etcd(directory / "etcd") as etcd,
        peers.kube_apiserver(directory / "peer", etcd) as running,
        ThreadPoolExecutor(TOGETHER) as pool,
    ):
        peer = Peer(running.url, peers.ADMIN_TOKEN, running.ca.read_text())

        def send(method: str, path: str, body: Json, headers: Mapping[str, str]) -> Answer:
            data, sent = _encoded(method, body, headers)
            with closing(peer.connect()) as connection:
                connection.request(method, path, data, {"Authorization": f"Bearer {peer.token}", **sent})
                return _read(connection.getresponse())

        async def ask(method: str, path: str, body: Json, headers: Mapping[str, str]) -> Answer:
            return await asyncio.get_running_loop().run_in_executor(pool, send, method, path, body, headers)

        async def compact(horizon: int) -> None:
            await asyncio.to_thread(_compact, etcd.port, horizon)
            await asyncio.sleep(COMPACTED_S)

        yield Server(ask, compact)


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    return Answer(response.status, _headers(response.getheaders()), body)


# Upstream's cache asks so often whether history was compacted, and forgets its own then (cacher/compactor.go).
COMPACTED_S: Final = 17.0


def _compact(port: int, horizon: int) -> None:
    """As kube-apiserver's own compactor does: it writes down how far, and then compacts (etcd3/compact.go)."""
    key, value = (base64.b64encode(text.encode()).decode() for text in ("compact_rev_key", str(horizon)))
    for path, body in (
        ("kv/put", {"key": key, "value": value}),
        ("kv/compaction", {"revision": str(horizon), "physical": True}),
    ):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answered:
            answered.read()


async def tell(server: Server, asked: Sequence[Question]) -> list[Json]:
    """The answers, in the order of the questions."""
    await build(server)
    places = asyncio.Semaphore(TOGETHER)

    async def one(question: Question) -> Json:
        async with places:
            return await answer(server, question)

    return list(await asyncio.gather(*map(one, asked)))


async def ask_ours(asked: Sequence[Question]) -> list[Json]:
    async with ours() as server:
        return await tell(server, asked)


async def ask_theirs(asked: Sequence[Question]) -> list[Json]:
    with tempfile.TemporaryDirectory() as directory:
        async with theirs(Path(directory)) as server:
            return await tell(server, asked)


# ---------------------------------------------------------------------- recorded


def record() -> None:
    """Writes down what the real server says to the sample."""
    asked = sample()
    rows = [
        {"verb": one.verb, "kind": one.kind, "parameters": one.parameters, "form": one.form, "told": told}
        for one, told in zip(asked, asyncio.run(ask_theirs(asked)), strict=True)
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    RECORDED.write_text(f"[\n{lines}\n]\n")


def recorded() -> list[tuple[Question, Json]]:
    """The sample, with what the real server said."""
    return [
        (
            Question(row["verb"], row["kind"], tuple((n, v) for n, v in row["parameters"]), row["form"]),
            row["told"],
        )
        for row in json.loads(RECORDED.read_text())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--save", type=Path, help="where the real server's answers are kept")
    options = parser.parse_args()
    if options.record:
        record()
        return
    asked = questions(options.seed)
    if options.save and options.save.exists():
        real = json.loads(options.save.read_text())
    else:
        real = asyncio.run(ask_theirs(asked))
        if options.save:
            options.save.write_text(json.dumps(real))
    mine = asyncio.run(ask_ours(asked))
    wrong = 0
    for question, one, other in zip(asked, real, mine, strict=True):
        if one != json.loads(json.dumps(other)):
            wrong += 1
            print(f"{question.title}\n    theirs: {json.dumps(one)}\n    ours:   {json.dumps(other)}")
    print(f"{len(asked)} asked, {wrong} answered differently")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
