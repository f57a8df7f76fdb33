"""Whatever a client sends, it gets an answer, and never one that the server did not foresee."""

from __future__ import annotations

import random

import orjson
import pytest

from clusterling.services.request import StreamingResponse
from tests.services.serving import Serving, serving

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW")
SEGMENTS = (
    *("clusters", "team-a", "team-b", "api", "apis", "v1", "v2", "example.com", "namespaces", "default"),
    *(
        "configmaps",
        "secrets",
        "widgets",
        "nodes",
        "status",
        "scale",
        "double",
        "finalize",
        "watch",
        "proxy",
        "w",
        "a",
    ),
    *(
        "",
        ".",
        "..",
        "%2e%2e",
        "%2F",
        "%",
        "%zz",
        "%ff",
        "é",
        "version",
        "openapi",
        "v3",
        "livez",
        "metrics",
        "x" * 300,
    ),
)
PARAMETERS = (
    *(
        "watch",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "labelSelector",
    ),
    *(
        "fieldSelector",
        "timeoutSeconds",
        "timeout",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "pretty",
    ),
    *(
        "propagationPolicy",
        "orphanDependents",
        "gracePeriodSeconds",
        "includeObject",
        "allowWatchBookmarks",
        "hash",
        "x",
    ),
)
VALUES = (
    *(
        "",
        "0",
        "1",
        "-1",
        "true",
        "All",
        "Exact",
        "NotOlderThan",
        "a=b",
        "a in (b)",
        "metadata.name=a",
        "%00",
        "%ff",
    ),
    *(
        "9" * 30,
        "1s",
        "Strict",
        "Foreground",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIifQ",
        "(",
        "+",
        ";",
    ),
)
TYPES = (
    *(
        "",
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "text/plain",
        ";",
        "a/b/c",
    ),
    *(
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ),
    "application/apply-patch+yaml",
)
ACCEPTS = (
    *(
        "",
        "*/*",
        "application/json",
        "application/yaml",
        "text/html",
        "application/json;as=Table;g=meta.k8s.io;v=v1",
    ),
    *(
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        ",,;q=;=,",
        "application/vnd.kubernetes.protobuf",
    ),
)
LEAVES = (
    None,
    True,
    0,
    -1,
    1.5,
    1 << 70,
    "",
    "a",
    "default",
    "v1",
    "Widget",
    "ConfigMap",
    "example.com/v1",
    "\x00",
    "é",
)
KEYS = (
    *(
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "spec",
        "replicas",
        "data",
        "finalizers",
        "labels",
        "op",
    ),
    *(
        "path",
        "value",
        "uid",
        "resourceVersion",
        "ownerReferences",
        "$patch",
        "status",
        "dryRun",
        "preconditions",
    ),
)


class Chaos:
    """Random requests, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _value(self, depth: int = 0) -> object:
        pick = self._random
        if depth > 4 or pick.random() < 0.4:
            return pick.choice(LEAVES)
        if pick.random() < 0.3:
            return [self._value(depth + 1) for _ in range(pick.randrange(4))]
        return {pick.choice(KEYS): self._value(depth + 1) for _ in range(pick.randrange(5))}

    def target(self) -> str:
        pick = self._random
        known = ["clusters", "team-a", "api", "v1", "namespaces", "default", "configmaps", "a"]
        if pick.random() < 0.5:
            known = [
                "clusters",
                "team-a",
                "apis",
                "example.com",
                "v1",
                "namespaces",
                "default",
                "widgets",
                "w",
                "scale",
            ]
        parts = known[: pick.randrange(2, len(known) + 1)]
        for _ in range(pick.choice((0, 0, 1, 3))):
            parts.insert(pick.randrange(len(parts) + 1), pick.choice(SEGMENTS))
        pairs = [
            f"{pick.choice(PARAMETERS)}={pick.choice(VALUES)}" for _ in range(pick.choice((0, 0, 1, 2, 5)))
        ]
        return f"/{'/'.join(parts)}{'?' if pairs else ''}{'&'.join(pairs)}"

    def body(self) -> bytes:
        pick = self._random
        if pick.random() < 0.2:
            return bytes(pick.randrange(256) for _ in range(pick.randrange(40)))
        if pick.random() < 0.1:
            return b""
        value = self._value()
        if isinstance(value, dict) and pick.random() < 0.6:
            value.setdefault("metadata", {"name": pick.choice("aw")})
            value.update(
                pick.choice(
                    (
                        {"apiVersion": "v1", "kind": "ConfigMap"},
                        {"apiVersion": "example.com/v1", "kind": "Widget"},
                    )
                )
            )
        try:
            return orjson.dumps(value)
        except TypeError:
            return b'{"big":%d}' % (1 << 70)

    def headers(self) -> dict[str, str]:
        pick = self._random
        fields = {"Authorization": "Bearer admin-token"}
        fields |= {"Content-Type": pick.choice(TYPES), "Accept": pick.choice(ACCEPTS)}
        if pick.random() < 0.05:
            fields |= {
                pick.choice(("Impersonate-User", "Impersonate-Group", "Audit-Id")): pick.choice(
                    ("", "x", "\udcff")
                )
            }
        return fields

    def method(self) -> str:
        return self._random.choice(METHODS)


async def _answer(world: Serving, chaos: Chaos) -> int:
    method, target = chaos.method(), chaos.target()
    response = await world.ask(method, target, chaos.body(), chaos.headers())
    if isinstance(response, StreamingResponse):
        await response.close()
    return response.status


@pytest.mark.parametrize("seed", range(12))
async def test_no_request_makes_the_server_fail(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    chaos = Chaos(seed)
    seen: set[int] = set()
    async with serving() as world:
        for _ in range(400):
            seen.add(await _answer(world, chaos))
        assert world.app.errors == 0, caplog.text
        assert world.app.recorder.busy == 0
        assert world.limits.in_flight == 0
    assert seen >= {200, 400, 404, 405, 415}
