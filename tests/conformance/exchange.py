"""Stories: requests in order, told to any server, and what it answered in a form that two servers can be compared by.

What no two servers share (uids, times, revisions, random names, continue tokens) is replaced by a word for it. What is
left must be the same: status, the headers that clients look at, and the whole body. A difference that stays is written
beside its request (`differs`), by the path at which it is seen, with the reason.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from clusterling.packs.core import provisions

RECORDED: Final = Path(__file__).parent / "recorded.json"

# Headers that a client could act on. Upstream's own of priority and fairness, audit and dates are none of them.
HEADERS: Final = (
    "Content-Type",
    "Warning",
    "Retry-After",
    "Cache-Control",
    "X-Content-Type-Options",
    "Allow",
    "Location",
)

WAIT_S: Final = 10.0  # For an event that must come.
QUIET_S: Final = 0.15  # How long a watch stays silent before it is said to have said all.
READY_S: Final = 30.0

# The one reason that need not show: what controllers finish they may finish after the next request was answered.
NO_CONTROLLERS: Final = (
    "no controller manager ran beside the recorded server; here controllers finish what was begun"
)
# What controllers give every namespace: told to a server that runs none, so that both have the same to list.
PROVISIONS: Final = {
    "serviceaccounts": provisions.account(""),
    "configmaps": provisions.certificates("", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
}
CALM_ROUNDS: Final = 3
TOGETHER: Final = 8

Json = Any


@dataclass(frozen=True)
class Step:
    """One request. `body`: a JSON value, or bytes as they are. `${ns}`, `${group}` and `${saved.path}` are filled in.

    `events`: how many a watch is to bring; `during`: steps that are done once it is open.
    """

    method: str
    path: str
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    save: str = ""
    events: int | None = None
    during: tuple[Step, ...] = ()
    differs: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def request(self) -> Json:
        """The request as the table shows it."""
        shown: dict[str, Json] = {"request": self.title}
        if self.headers:
            shown["sent"] = dict(self.headers)
        if self.body is not None:
            body = self.body.decode("latin-1") if isinstance(self.body, bytes) else self.body
            long = len(body) > 2000 if isinstance(body, str) else len(json.dumps(body)) > 4000
            shown["body"] = "(long)" if long else body
        if self.during:
            shown["meanwhile"] = [step.title for step in self.during]
        return shown


Story = Sequence[Step]


@dataclass(frozen=True)
class Peer:
    """A server to talk to: its address, a prefix of all paths, an administrator's token."""

    url: str
    token: str
    ca_pem: str

    def connect(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.url)
        context = ssl.create_default_context(cadata=self.ca_pem)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=WAIT_S, context=context)

    @property
    def prefix(self) -> str:
        return urlsplit(self.url).path


class Teller:
    """Tells one story to a server, in a namespace of its own. `owners`: what it answers of managedFields counts, too."""

    def __init__(self, peer: Peer, group: str, *, owners: bool = False) -> None:
        self._peer = peer
        self._owners = owners
        self._connection = peer.connect()
        self.namespace = f"story-{secrets.token_hex(4)}"
        self.group = group
        self._saved: dict[str, Json] = {}

    def tell(self, story: Story) -> list[Json]:
        """The answers, normalised, one a step."""
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        answer = self.do(Step("POST", "/api/v1/namespaces", made))
        assert answer["status"] == 201, answer
        self._provide()
        try:
            return [self.do(step) for step in story]
        finally:
            self.close()

    def _provide(self) -> None:
        """Makes what the namespace has from its first moment here, and beside a controller manager elsewhere."""
        for plural, provision in PROVISIONS.items():
            answer = self.do(Step("POST", f"/api/v1/namespaces/{self.namespace}/{plural}", provision))
            assert answer["status"] in (201, 409), answer

    def close(self) -> None:
        self._connection.close()

    def do(self, step: Step) -> Json:
        """One request and its normalised answer."""
        if step.events is not None:
            return self._watch(step)
        try:
            response, payload = self._send(self._connection, step)
        except http.client.RemoteDisconnected:
            self._connection.close()
            return {"status": 0, "headers": {}, "answer": "(the connection is closed)"}
        document = _read(payload, response.getheader("Content-Type", ""))
        if step.save:
            self._saved[step.save] = document
        return self._answer(response, document)

    def _send(
        self, connection: http.client.HTTPSConnection, step: Step, *, whole: bool = True
    ) -> tuple[http.client.HTTPResponse, bytes]:
        path = self._filled(step.path)
        body = step.body
        if isinstance(body, bytes):
            body = self._filled(body.decode("latin-1")).encode("latin-1")
        elif body is not None:
            body = self._filled(json.dumps(body)).encode()
        headers = {"Authorization": f"Bearer {self._peer.token}", "User-Agent": "story/1", **step.headers}
        if body is not None and not isinstance(step.body, bytes):
            headers.setdefault("Content-Type", "application/json")
        connection.putrequest(step.method, self._peer.prefix + path, skip_accept_encoding=True)
        for name, value in headers.items():
            if value:
                connection.putheader(name, self._filled(value))
        connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body)
        response = connection.getresponse()
        if not whole and response.status == 200:
            return response, b""
        payload = response.read()
        if response.will_close:
            connection.close()
        return response, payload

    def _watch(self, step: Step) -> Json:
        connection = self._peer.connect()
        try:
            response, payload = self._send(connection, step, whole=False)
            if response.status != 200:
                return self._answer(response, _read(payload, response.getheader("Content-Type", "")))
            during = [self.do(one) for one in step.during]
            events = list(_events(connection, response, step.events or 0))
            answer = self._answer(response, events)
            response.close()
            if during:
                answer["during"] = during
            return answer
        finally:
            connection.close()

    def _answer(self, response: http.client.HTTPResponse, document: Json) -> Json:
        headers = {}
        for name in HEADERS:
            values = response.headers.get_all(name)
            if values:
                headers[name] = (
                    [self._plain(value) for value in values] if name == "Warning" else self._plain(values[0])
                )
        return {"status": response.status, "headers": headers, "answer": self._normal(document)}

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, more = match[1].partition("+")
            if name == "ns":
                return self.namespace
            if name == "group":
                return self.group
            first, *rest = name.split(".")
            found = self._saved[first]
            for part in rest:
                found = found.get(part, "absent")
            return str(int(found) + int(more)) if more else str(found)

        return _TEMPLATE.sub(value, text)

    def _plain(self, text: str) -> str:
        text = text.replace(self.namespace, "${ns}").replace(self.group, "${group}")
        for pattern, word in _WORDS:
            text = pattern.sub(word, text)
        return text

    def _normal(self, value: Json, key: str = "") -> Json:
        if isinstance(value, dict):
            kept = {name: inner for name, inner in value.items() if self._owners or name != "managedFields"}
            return {self._plain(name): self._normal(inner, name) for name, inner in _named(kept).items()}
        if isinstance(value, list):
            if key == "managedFields":
                value = sorted(value, key=_owner)
            if key == "columnDefinitions":
                # Upstream's prose on its own fields is not carried here, and nothing prints it.
                value = [{name: one[name] for name in one if name != "description"} for one in value]
            if key == "resources" and value and isinstance(value[0], dict) and "name" in value[0]:
                value = sorted(value, key=lambda one: str(one["name"]))
            return [self._normal(inner, "cell" if key == "cells" else "") for inner in value]
        if not isinstance(value, str):
            return value
        if key == "storageVersionHash":
            return "<hash>"
        if key == "resourceVersion":
            return "<revision>" if value.isdigit() and value != "0" else value
        if key == "continue":
            return "<continue>" if value else value
        if key == "cell" and _AGE.fullmatch(value):
            return "<age>"
        return self._plain(value)


_TEMPLATE: Final = re.compile(r"\$\{([^}]+)\}")
_AGE: Final = re.compile(r"(\d+[smhd])+|<unknown>")
_RANDOM: Final = re.compile(r"[bcdfghjklmnpqrstvwxz2456789]{5}")
_WORDS: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"(?s)-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\n"), "<certificates>"),
    (re.compile(r"(?<=kube-api-access-)[bcdfghjklmnpqrstvwxz2456789]{5}"), "<random>"),
    (re.compile(r"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r'(resourceVersion":")\d+'), r"\1<revision>"),
    (re.compile(r"(?i)(resource ?version:? ?)\d{2,}"), r"\1<revision>"),
    (re.compile(r"(ResourceVersion in (?:precondition|record) )\(\d+\)"), r"\1(<revision>)"),
    (re.compile(r"(too old resource version: \S+ )\(\d+\)"), r"\1(<revision>)"),
    # A patched object, in messages: it carries uids, revisions and managed fields.
    (re.compile(r'Invalid value: "\{(?:[^"\\]|\\.)*"'), 'Invalid value: "<document>"'),
    (re.compile(r"(current: )\d+"), r"\1<revision>"),
    (re.compile(r"(Key: /registry/)[^,]*"), r"\1<key>"),
)


def _owner(entry: dict[str, str]) -> list[str]:
    """The order of entries but for their times, which are whole seconds: equal in one run and not in another."""
    return [entry.get(name, "") for name in ("operation", "manager", "apiVersion", "subresource")]


def _named(value: dict[str, Json]) -> dict[str, Json]:
    """The same with the random end of a generated name taken for what it is."""
    base, name = value.get("generateName"), value.get("name")
    if (
        isinstance(base, str)
        and base
        and isinstance(name, str)
        and _RANDOM.fullmatch(name.removeprefix(base))
    ):
        return {**value, "name": f"{base}<random>"}
    return value


def _read(payload: bytes, content_type: str) -> Json:
    if "json" in content_type and payload:
        return json.loads(payload)
    if "yaml" in content_type and payload:
        return {"yaml": yaml.load(payload, _TextLoader)}  # noqa: S506 - it is a SafeLoader
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return f"({len(payload)} bytes)"


class _TextLoader(yaml.SafeLoader):
    """Reads times as the text they are."""


def _as_text(_loader: yaml.SafeLoader, node: yaml.Node) -> str:
    return str(node.value)


_TextLoader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def _events(
    connection: http.client.HTTPSConnection, response: http.client.HTTPResponse, count: int
) -> Iterator[Json]:
    """The events that come, and after the last that must come those of a moment more; `"end"` where the stream ends."""
    socket = connection.sock
    seen = 0
    while True:
        if socket is not None:
            socket.settimeout(QUIET_S if seen >= count else WAIT_S)
        try:
            line = response.readline()
        except TimeoutError:
            if seen < count:
                yield f"(nothing more for {WAIT_S:.0f} s)"
            return
        if not line:
            yield "(end)"
            return
        event = json.loads(line)
        if event.get("type") == "BOOKMARK" and "initial-events-end" not in line.decode():
            continue  # They come when it pleases the server.
        seen += 1
        yield event


# ---------------------------------------------------------------------- whole tables


def prepare(peer: Peer, definitions: Sequence[Json]) -> str:
    """Creates the custom kinds that the stories use; their group, once they are served."""
    group = f"g{secrets.token_hex(4)}.example.com"
    with closing(Teller(peer, group)) as teller:
        _define(teller, definitions)
    return group


def _define(teller: Teller, definitions: Sequence[Json]) -> None:
    for definition in definitions:
        answer = teller.do(
            Step("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        )
        assert answer["status"] == 201, answer
    wanted = [
        f"/apis/${{group}}/{version['name']}/{one['spec']['names']['plural']}"
        for one in definitions
        for version in one["spec"]["versions"]
        if version["served"]
    ]
    until = time.monotonic() + READY_S
    calm = 0
    while calm < CALM_ROUNDS:
        assert time.monotonic() < until, "the custom kinds are not served"
        # Upstream's discovery and handlers lag each other for a moment after the first answer.
        if {teller.do(Step("GET", path))["status"] for path in wanted} == {200}:
            calm += 1
        else:
            calm = 0
            time.sleep(0.05)


def tell_all(peer: Peer, stories: Mapping[str, Story], definitions: Sequence[Json]) -> dict[str, list[Json]]:
    """The answers to every step of every story."""
    group = prepare(peer, definitions)

    def tell(item: tuple[str, Story]) -> tuple[str, list[Json]]:
        return item[0], Teller(peer, group).tell(item[1])

    with ThreadPoolExecutor(TOGETHER) as pool:
        return dict(pool.map(tell, stories.items()))


def rows(story: Story, answers: Sequence[Json]) -> list[Json]:
    """A story's rows of the table: what was asked, what was answered, what differs and why."""
    return [
        {
            **step.request,
            **({"save": step.save} if step.save else {}),
            **answer,
            **({"differs": dict(step.differs)} if step.differs else {}),
        }
        for step, answer in zip(story, answers, strict=True)
    ]


def differences(theirs: Json, ours: Json, path: str = "") -> Iterator[tuple[str, Json, Json]]:
    """(path, what the recorded server says, what the other says) wherever two answers are not the same."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            inner = f"{path}.{key}" if path else key
            yield from differences(theirs.get(key, "(absent)"), ours.get(key, "(absent)"), inner)
    elif isinstance(theirs, list) and isinstance(ours, list):
        for index in range(max(len(theirs), len(ours))):
            one = theirs[index] if index < len(theirs) else "(absent)"
            other = ours[index] if index < len(ours) else "(absent)"
            yield from differences(one, other, f"{path}[{index}]")
    elif theirs != ours or type(theirs) is not type(ours):
        yield path, theirs, ours


def judge(step: Step, theirs: Json, ours: Json) -> list[str]:
    """What is wrong: differences without a reason, and reasons without a difference."""
    asked = step.request
    compared = {
        key: value for key, value in theirs.items() if key not in asked and key not in ("save", "differs")
    }
    found = list(differences(compared, ours))
    wrong = []
    for path, one, other in found:
        if not any(_is_below(path, known) for known in step.differs):
            wrong.append(
                f"{step.title}\n    {path}\n      theirs: {_short(one)}\n      ours:   {_short(other)}"
            )
    wrong += [
        f"{step.title}\n    {known or 'it'} is said to differ and does not"
        for known, why in step.differs.items()
        if why != NO_CONTROLLERS and not any(_is_below(path, known) for path, _, _ in found)
    ]
    if {key: theirs.get(key) for key in asked} != asked:
        wrong.append(f"{step.title}\n    was recorded for another request: record again")
    return wrong


def _is_below(path: str, known: str) -> bool:
    """`answer[3].object.rows` is below `answer[*].object`."""
    return (re.sub(r"\[\d+\]", "[*]", path) if "[*]" in known else path).startswith(known)


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 700 else f"{text[:700]}…"
