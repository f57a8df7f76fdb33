"""Each limit of a request is answered as the reference says: docs/reference/limits.md is read here, row by row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from clusterling.machinery.meta import Object
from tests.security.world import CONFIGMAPS, CRDS, crd, world

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "limits.md"

# By the row's first column: the code, and what the message has.
TOLD = {
    name: (int(code), text or "")
    for name, code, text in re.findall(
        r"^\| ([^|]+) \| [^|]+ \| — \| (4\d\d)(?: `\w+`)?(?:: ([^|]+))? \| `", PAGE.read_text(), re.MULTILINE
    )
}
YAML = {"Content-Type": "application/yaml"}
PROTOBUF = {"Content-Type": "application/vnd.kubernetes.protobuf"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
THINGS = "/apis/x.io/v1/namespaces/default/things"


def configmap(data: Object | None = None, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **more}, "data": data or {}}


def levels(count: int) -> Object:
    schema: Object = {"type": "string"}
    for _ in range(count):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def versions(count: int) -> Object:
    made = crd("things", ANYTHING)
    [first] = made["spec"]["versions"]
    made["spec"]["versions"] = [{**first, "name": f"v{at}", "storage": at == 1} for at in range(1, count + 1)]
    return made


def selectable(count: int) -> Object:
    made = crd(
        "things", {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(count)}}
    )
    fields = [{"jsonPath": f".spec.p{at}"} for at in range(count)]
    made["spec"]["versions"][0]["selectableFields"] = fields
    return made


def patterns(count: int) -> Object:
    each = {f"p{at}": {"type": "string", "pattern": f"^[a-z]{{1,900}}x{at}$"} for at in range(count)}
    return crd("things", {"type": "object", "properties": each})


def owners(count: int) -> list[Object]:
    return [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": f"u{at}"} for at in range(count)]


# Method, target, body and header fields of what is just beyond the limit, or well beyond it.
BEYOND: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "a request's body": ("POST", CONFIGMAPS, b'"' + b"x" * 3_145_728, {}),
    "an object, stored": ("POST", THINGS, {**configmap(), "spec": "x" * 1_600_000}, {}),
    "a target's path": ("GET", "/api/v1/" + "x" * 2_048, None, {}),
    "a target's query": ("GET", f"{CONFIGMAPS}?labelSelector={'x' * 32_768}", None, {}),
    "parameters in a query": ("GET", f"{CONFIGMAPS}?{'&'.join(['a=1'] * 65)}", None, {}),
    "a body's values, brackets and names": ("POST", CONFIGMAPS, b'{"a":[' + b"1," * 500_000 + b"1]}", {}),
    "nesting of a body": ("POST", CONFIGMAPS, b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", {}),
    "values in a YAML body": ("POST", CONFIGMAPS, b"a:\n" + b"- 1\n" * 100_000, YAML),
    "tag directives of a YAML body": (
        "POST",
        CONFIGMAPS,
        b"%TAG !a! a,2000:\n" * 1_001 + b"---\na: 1\n",
        YAML,
    ),
    "requirements in a selector": (
        "GET",
        f"{CONFIGMAPS}?labelSelector={','.join(f'!x{at}' for at in range(1_001))}",
        None,
        {},
    ),
    "operations in a JSON Patch": (
        "PATCH",
        f"{CONFIGMAPS}/a",
        [{"op": "test", "path": "/kind", "value": "ConfigMap"}] * 10_001,
        JSON_PATCH,
    ),
    "what a JSON Patch may copy": (
        "PATCH",
        f"{CONFIGMAPS}/a",
        [{"op": "copy", "from": "/data", "path": f"/data/x{at}"} for at in range(60)],
        JSON_PATCH,
    ),
    "items of lists that the operations of a JSON Patch move": (
        "PATCH",
        f"{CONFIGMAPS}/a",
        [
            {"op": "add", "path": "/list", "value": [1] * 20_000},
            *[{"op": "remove", "path": "/list/0"}] * 4_000,
        ],
        JSON_PATCH,
    ),
    "a `fieldManager`": ("POST", f"{CONFIGMAPS}?fieldManager={'x' * 129}", configmap(), {}),
    "annotations of an object": ("POST", CONFIGMAPS, configmap(annotations={"a": "x" * 262_144}), {}),
    "owner references of an object": ("POST", CONFIGMAPS, configmap(ownerReferences=owners(65)), {}),
    "data of a ConfigMap or a Secret": ("POST", CONFIGMAPS, configmap({"a": "x" * 1_048_577}), {}),
    "versions of a CustomResourceDefinition": ("POST", CRDS, versions(101), {}),
    "selectable fields of a version": ("POST", CRDS, selectable(9), {}),
    "levels of a definition's schema": ("POST", CRDS, crd("things", levels(64)), {}),
    "size of a schema's patterns": ("POST", CRDS, patterns(400), {}),
}
# By a socket, below; by a kind of its own, in test_the_loop.py; by thousands of anchors, in tests/machinery; by many
# writers, in tests/storage/test_batcher.py and tests/services/test_racing.py; of clusters, in tests/tenancy and tests/controllers.
ELSEWHERE = {
    "a request's head: its first line and its headers",
    "a selector",
    "a bearer token",
    "levels that an object within a protobuf object counts for, of 100",
    "fields in a protobuf body",
    "scalars that YAML aliases repeat",
    "schemas within a definition's schema",
    "validating an object in the branches of its schema (`allOf`, `anyOf`, …)",
    "history for watches and pages",
    "the pages of a list, after the first",
    "what a watch's client leaves unread",
    "such answers that are put off at once, of one address",
    "the same, of all",
    "wrong credentials of one address in a row",
    "the same beyond, a second",
    "large requests of one cluster that wait for a worker",
    "processor time of one large request",
    "writes of one cluster that wait for the store, where more wait than a batch holds",
    "their values, together",
    "other writes that a patch without a `resourceVersion` is tried past",
    "how long a token of a cluster may be good",
    "`spec.ttl` of a cluster",
}


def test_the_page_and_these_tests_tell_of_the_same_limits() -> None:
    assert BEYOND.keys() - TOLD.keys() == set()
    assert TOLD.keys() - BEYOND.keys() - ELSEWHERE == set()


@pytest.mark.parametrize("limit", BEYOND)
async def test_what_is_beyond_a_limit_is_answered_as_the_reference_says(limit: str) -> None:
    method, target, body, headers = BEYOND[limit]
    async with world() as it:
        if target == THINGS:
            made = crd("things", ANYTHING)
            assert (await it.ask("POST", CRDS, made))[0] == 201
            body = {**body, "apiVersion": "x.io/v1", "kind": "Things", "spec": {"a": body["spec"]}}
        if method == "PATCH":
            assert (await it.ask("POST", CONFIGMAPS, configmap({"k": "v" * 1_000})))[0] == 201
        status, told, _ = await it.ask(method, target, body, headers)
    code, text = TOLD[limit]
    assert (status, told["code"]) == (code, code), told["message"][:300]
    assert text in json.dumps(told)
