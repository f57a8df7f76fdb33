"""What particular clients send: slashes behind paths (kr8s), empty parts of queries, methods that only look."""

from __future__ import annotations

from typing import Final

from tests.conformance.exchange import Step, Story
from tests.conformance.stories.telling import CM, WIDGETS, cm, delete, get, patch, post, put

_GROUP: Final = "/apis/apiextensions.k8s.io"

STORIES: Final[dict[str, Story]] = {
    "slashes behind paths": [
        post(f"{CM}/", cm("a", data={"k": "v"})),
        get(f"{CM}/"),
        get(f"{CM}/a/"),
        get(f"{CM}/a/?pretty=false"),
        put(f"{CM}/a/", cm("a", data={"k": "w"})),
        patch(f"{CM}/a/", {"data": {"k": "x"}}),
        delete(f"{CM}/a/"),
        delete(f"{CM}/"),
        get(f"{WIDGETS}/"),
        get("/api/v1/namespaces/${ns}/"),
        get(f"{_GROUP}/"),
        get("/apis/${group}/"),
        get("/apis/${group}/v1/"),
    ],
    "queries with empty parts": [
        post(CM, cm("a")),
        get(f"{CM}?"),
        get(f"{CM}?&limit=5"),
        get(f"{CM}?limit=5&"),
        get(f"{CM}?&&"),
        get(f"{CM}?=x"),
        get(f"{CM}?limit"),
        get(f"{CM}?limit=&labelSelector="),
        get(f"{CM}?fieldSelector=&resourceVersion="),
        get(f"{CM}/a?&pretty=false"),
        get(f"{WIDGETS}?&limit=5&"),
    ],
    "groups do not look at the method": [
        *(Step(method, path) for method in ("OPTIONS", "HEAD", "POST") for path in (_GROUP, f"{_GROUP}/")),
        Step("OPTIONS", f"{_GROUP}/v1"),
        Step("HEAD", f"{_GROUP}/v1"),
        Step("OPTIONS", "/api/v1"),
        Step("OPTIONS", f"{CM}/a"),
        Step("OPTIONS", f"{CM}/"),
    ],
}
