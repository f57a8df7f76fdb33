"""What a server says of itself: version, discovery in all its forms, OpenAPI of both versions, made comparable.

Lists whose items have a name become objects by that name, so that one kind more does not shift all others; their order is
compared by itself. Upstream's prose is left out: it is not carried here (`make explain-data` makes it from its source).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from tests.conformance.differing import ABSENT, Difference, between
from tests.conformance.exchange import Json, Peer

CUSTOM: Final = Path(__file__).with_name("custom.yaml")
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_TOLD_S: Final = 60.0
_AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
# What names an item, by the list's own name.
_NAMED: Final = {
    "groups": ("name",),
    "versions": ("version",),
    "resources": ("name", "resource"),
    "subresources": ("subresource",),
    "parameters": ("name", "$ref"),
}
# Lists that are sets.
_SETS: Final = frozenset({"verbs", "shortNames", "categories", "required", "tags", "produces", "consumes"})


class Published:
    """The documents of one server."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._connection = peer.connect()

    def get(self, path: str, accept: str = "application/json") -> Json:
        """A document; what is no 200 is told as such."""
        headers = {"Authorization": f"Bearer {self._peer.token}", "Accept": accept}
        self._connection.request("GET", self._peer.prefix + path, headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 else {"status": response.status}

    def define(self) -> None:
        """Makes the kinds of `custom.yaml`, where they are not yet, and returns when all documents tell of them."""
        definitions = list(yaml.safe_load_all(CUSTOM.read_text()))
        for one in definitions:
            self._connection.request(
                "POST",
                self._peer.prefix + _DEFINITIONS,
                body=json.dumps(one),
                headers={"Authorization": f"Bearer {self._peer.token}", "Content-Type": "application/json"},
            )
            response = self._connection.getresponse()
            response.read()
            assert response.status in (201, 409), f"{one['metadata']['name']}: {response.status}"
        deadline = time.monotonic() + _TOLD_S
        while not all(self._tells(one["spec"]) for one in definitions):
            assert time.monotonic() < deadline, "custom kinds are not told of"
            time.sleep(0.2)

    def _tells(self, spec: Json) -> bool:
        """In OpenAPI of both versions, which is behind discovery."""
        wanted = {
            f"/apis/{spec['group']}/{one['name']}": f"/{spec['names']['plural']}" for one in spec["versions"]
        }
        whole = self.get("/openapi/v2")["paths"]
        return all(
            path + plural in whole and path + plural in self.get(f"/openapi/v3{path}").get("paths", ())
            for path, plural in wanted.items()
        )

    def close(self) -> None:
        self._connection.close()


def comparable(value: Json, key: str = "") -> Json:
    """The document without prose and without an order that means nothing."""
    if isinstance(value, dict):
        inner = {name: comparable(one, name) for name, one in value.items() if not _is_prose(name, one)}
        if len(inner.get("allOf", ())) == 1 and "$ref" in inner["allOf"][0]:
            # Says what the pointer by itself says, which OpenAPI 3.0 lets no default stand beside.
            inner |= inner.pop("allOf")[0]
        if "items" in inner and str(value.get("kind", "")).endswith("DiscoveryList"):
            inner["items"] = {one["metadata"].get("name", "core"): one for one in inner["items"]}
        return inner
    if isinstance(value, list):
        if key in _SETS and all(isinstance(one, str) for one in value):
            return dict.fromkeys(sorted(value), True)
        names = [_name(one, key) for one in value]
        if names and all(names):
            return {name: comparable(one) for name, one in zip(names, value, strict=True)}
        return [comparable(one) for one in value]
    return value


def _is_prose(name: str, value: Json) -> bool:
    return name == "description" and isinstance(value, str)


def _name(item: Json, key: str) -> str:
    if not isinstance(item, dict):
        return ""
    return next((str(item[field]) for field in _NAMED.get(key, ()) if field in item), "")


def discovery(theirs: Published, ours: Published) -> tuple[int, list[Difference]]:
    """How many documents were compared, and where they differ."""
    found: list[Difference] = []
    paths = ["/version", "/api", "/apis", "/api/v1"]
    groups = theirs.get("/apis")["groups"]
    for group in groups:
        paths.append(f"/apis/{group['name']}")
        paths += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    count = 0
    for path in paths:
        count += 1
        found += between(path, comparable(theirs.get(path)), comparable(ours.get(path)))
    found += _order("/apis", groups, ours.get("/apis")["groups"], "name")
    for version in ("v2", "v2beta1"):
        for path in ("/api", "/apis"):
            count += 1
            accept = _AGGREGATED.format(version)
            one, other = theirs.get(path, accept), ours.get(path, accept)
            found += between(f"{path} aggregated {version}", comparable(one), comparable(other))
    return count, [one for one in found if not one.path.startswith("serverAddressByClientCIDRs")]


def _order(subject: str, theirs: Json, ours: Json, field: str) -> Iterator[Difference]:
    """The order of what both have."""
    one, other = ([item[field] for item in many] for many in (theirs, ours))
    common = set(one) & set(other)
    yield from between(
        f"order of {subject}", [n for n in one if n in common], [n for n in other if n in common]
    )


def openapi_v3(theirs: Published, ours: Published) -> tuple[int, list[Difference]]:
    """The index, and every document in it."""
    one, other = theirs.get("/openapi/v3")["paths"], ours.get("/openapi/v3")["paths"]
    kinds, rest = "/openapi/v3", "/openapi/v3 of no kind"
    found = [
        replace(difference, subject=kinds if _is_of_kinds(difference.path) else rest)
        for difference in between(kinds, dict.fromkeys(one, True), dict.fromkeys(other, True))
    ]
    for path in sorted(one.keys() & other.keys()):
        document, mine = theirs.get(f"/openapi/v3/{path}"), ours.get(f"/openapi/v3/{path}")
        found += _of_document(f"v3 {path}", document, mine)
    return len(one), found


def _is_of_kinds(path: str) -> bool:
    """`api/v1` and `apis/GROUP/VERSION`, as opposed to `apis/GROUP`, `version` and the like."""
    return path == "api/v1" or (path.startswith("apis/") and path.count("/") == 2)


def openapi_v2(theirs: Published, ours: Published) -> tuple[int, list[Difference]]:
    """The one document. Which parameters are written once and pointed to is its own affair."""
    one, other = theirs.get("/openapi/v2"), ours.get("/openapi/v2")
    return 1, list(_of_document("v2", _inlined(one, one), _inlined(other, other)))


def _inlined(value: Json, document: Json) -> Json:
    """The same with what `#/parameters/…` points to in its place."""
    if isinstance(value, dict):
        pointer = str(value.get("$ref", ""))
        if pointer.startswith("#/parameters/"):
            return document["parameters"][pointer.removeprefix("#/parameters/")]
        return {
            key: _inlined(one, document)
            for key, one in value.items()
            if value is not document or key != "parameters"
        }
    return [_inlined(one, document) for one in value] if isinstance(value, list) else value


def _of_document(subject: str, theirs: Json, ours: Json) -> Iterator[Difference]:
    """A document is compared by its paths and its schemas: each is a subject of its own."""
    parts = (
        (theirs.pop("paths", {}), ours.pop("paths", {})),
        (theirs.pop("definitions", {}), ours.pop("definitions", {})),
        (theirs.get("components", {}).pop("schemas", {}), ours.get("components", {}).pop("schemas", {})),
    )
    for one, other in parts:
        for name in [*one, *(name for name in other if name not in one)]:
            yield from between(
                f"{subject} {name}",
                comparable(one.get(name, ABSENT)),
                comparable(other.get(name, ABSENT)),
            )
    yield from between(subject, comparable(theirs), comparable(ours))
