"""The verbs as clients see them: codes and texts are those of kube-apiserver 1.37.2, asked the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.services.negotiation import PART_BYTES
from clusterling.services.request import BODY_BYTES_MAX, Response
from tests.services.serving import CONFIGMAPS, WIDGETS, Serving, configmap, status_of, widget

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
TEAM = "/clusters/team-a"


async def ask(
    world: Serving,
    method: str,
    target: str,
    body: object = b"",
    content_type: str = "application/json",
    **more: str,
) -> Response:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Authorization": "Bearer admin-token"} | {
        key.replace("_", "-"): text for key, text in more.items()
    }
    if data and content_type:
        headers["Content-Type"] = content_type
    return await world.ask(method, TEAM + target, data, headers)


async def refused(world: Serving, method: str, target: str, *args: Any, **more: Any) -> tuple[int, str, str]:
    status = status_of(await ask(world, method, target, *args, **more))
    return status["code"], status.get("reason", ""), status["message"]


def document(response: Response) -> Object:
    found: Object = orjson.loads(response.body)
    return found


# ---------------------------------------------------------------------- paths and methods

NOT_ALLOWED = (405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
NO_RESOURCE = (404, "NotFound", "the server could not find the requested resource")

ROUTES = [
    ("GET", "/api/v1/foos", NO_RESOURCE),
    ("GET", "/api/v2/configmaps", NO_RESOURCE),
    ("GET", "/api/v1/configmaps/foo", NO_RESOURCE),
    ("GET", f"{CONFIGMAPS}/a/status", NO_RESOURCE),
    ("PUT", f"{CONFIGMAPS}/a/status", NO_RESOURCE),
    ("GET", f"{CONFIGMAPS}/a/b/c", NO_RESOURCE),
    ("GET", "/api/v1/namespaces/default/nodes", NO_RESOURCE),
    ("GET", "/api/v1/watch/namespaces/default/configmaps/a/x", NO_RESOURCE),
    ("GET", "/api/v1/proxy/namespaces/default/configmaps/a", NO_RESOURCE),
    ("POST", "/api/v1/configmaps", NOT_ALLOWED),
    ("DELETE", "/api/v1/configmaps", NOT_ALLOWED),
    ("POST", f"{CONFIGMAPS}/foo", NOT_ALLOWED),
    ("PUT", CONFIGMAPS, NOT_ALLOWED),
    ("PATCH", CONFIGMAPS, NOT_ALLOWED),
    ("OPTIONS", f"{CONFIGMAPS}/a", NOT_ALLOWED),
    ("FOO", CONFIGMAPS, NOT_ALLOWED),
    ("HEAD", f"{CONFIGMAPS}/a", NOT_ALLOWED),
    ("POST", "/version", NOT_ALLOWED),
    ("POST", "/api/v2", NO_RESOURCE),
    ("HEAD", "/api/v2", NO_RESOURCE),
    ("DELETE", "/api/v1", NOT_ALLOWED),
    ("GET", f"{WIDGETS}/w/foo", (404, "NotFound", 'widgets.example.com "w" not found')),
    (
        "DELETE",
        f"{WIDGETS}/w/scale",
        (405, "MethodNotAllowed", 'delete is not supported on resources of kind "widgets.example.com"'),
    ),
    (
        "POST",
        f"{WIDGETS}/w/status",
        (405, "MethodNotAllowed", 'create is not supported on resources of kind "widgets.example.com"'),
    ),
]


@pytest.mark.parametrize(("method", "target", "expected"), ROUTES, ids=[f"{m} {t}" for m, t, _ in ROUTES])
async def test_a_path_that_leads_nowhere_says_so_as_upstream(
    world: Serving, method: str, target: str, expected: tuple[int, str, str]
) -> None:
    assert await refused(world, method, target) == expected


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/foo"),
        ("GET", "/apis/foo.io/v1/bars"),
        ("GET", "/apis/foo.io"),
        ("GET", "/apis/example.com/v9/namespaces/default/widgets"),
        ("GET", "/apis/example.com/v1/namespaces/default/nope"),
        ("GET", "/apis/example.com/v1/widgets/foo"),
        ("POST", "/apis/example.com/v1/widgets"),
        ("GET", "/apis/example.com/v1/namespaces/default/clusters"),
    ],
)
async def test_what_no_built_in_group_knows_is_a_plain_page(world: Serving, method: str, target: str) -> None:
    response = await ask(world, method, target)
    assert (response.status, response.body) == (404, b"404 page not found\n")
    assert response.content_type == "text/plain; charset=utf-8"


async def test_a_kind_called_clusters_is_served(world: Serving) -> None:
    client = world.client()
    body = {"apiVersion": "example.com/v1", "kind": "Cluster", "metadata": {"name": "x"}}
    await client.post("/apis/example.com/v1/clusters", body)
    found = await client.get("/apis/example.com/v1/clusters/x")
    assert found["metadata"]["name"] == "x"


# ---------------------------------------------------------------------- options

INVALID_LIST = 'ListOptions.meta.k8s.io "" is invalid: '
BAD_VERSION = 'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'
OPTIONS = [
    ("GET", f"{CONFIGMAPS}?limit=abc", 400, 'strconv.ParseInt: parsing "abc": invalid syntax'),
    (
        "GET",
        f"{CONFIGMAPS}?limit=99999999999999999999",
        400,
        'strconv.ParseInt: parsing "99999999999999999999": value out of range',
    ),
    (
        "GET",
        f"{CONFIGMAPS}?watch=1&timeoutSeconds=abc",
        400,
        'strconv.ParseInt: parsing "abc": invalid syntax',
    ),
    ("GET", f"{CONFIGMAPS}?fieldSelector=a", 400, "invalid selector: 'a'; can't understand 'a'"),
    (
        "GET",
        f"{CONFIGMAPS}?fieldSelector=spec.x=1",
        400,
        '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
    ),
    ("GET", f"{WIDGETS}?fieldSelector=spec.x=1", 400, "field label not supported: spec.x"),
    (
        "GET",
        "/apis/example.com/v1/clusters?fieldSelector=metadata.namespace=x",
        400,
        "field label not supported: metadata.namespace",
    ),
    (
        "GET",
        f"{CONFIGMAPS}?labelSelector=a%20b",
        400,
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    ),
    ("GET", f"{CONFIGMAPS}?resourceVersion=abc", 400, f"invalid resource version: {BAD_VERSION}"),
    ("GET", f"{CONFIGMAPS}?watch=1&resourceVersion=abc", 500, BAD_VERSION),
    ("GET", f"{CONFIGMAPS}/a?resourceVersion=abc", 500, BAD_VERSION),
    (
        "GET",
        f"{CONFIGMAPS}?resourceVersionMatch=Exact",
        422,
        f"{INVALID_LIST}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion "
        "is provided",
    ),
    (
        "GET",
        f"{CONFIGMAPS}?resourceVersion=5&resourceVersionMatch=Foo",
        422,
        f'{INVALID_LIST}resourceVersionMatch: Unsupported value: "Foo": supported values: "Exact", "NotOlderThan", ""',
    ),
    (
        "GET",
        f"{CONFIGMAPS}?sendInitialEvents=true",
        422,
        f"{INVALID_LIST}sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
    ),
    (
        "GET",
        f"{CONFIGMAPS}?watch=1&sendInitialEvents=true",
        422,
        f"{INVALID_LIST}resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to "
        "NotOlderThan",
    ),
    (
        "GET",
        f"{CONFIGMAPS}?watch=1&resourceVersionMatch=Exact",
        422,
        f"{INVALID_LIST}[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless "
        "sendInitialEvents is provided, resourceVersionMatch: Unsupported value: "
        '"Exact": supported values: "NotOlderThan"]',
    ),
    (
        "GET",
        "/api/v1/watch/namespaces/default/configmaps/a?fieldSelector=metadata.name=b",
        400,
        "fieldSelector metadata.name doesn't match requested name",
    ),
    (
        "POST",
        f"{CONFIGMAPS}?fieldValidation=Foo&dryRun=x&fieldManager=a%01",
        422,
        'CreateOptions.meta.k8s.io "" is invalid: [fieldManager: Invalid value: "a\\x01": invalid character U+0001 '
        '(at position 1), dryRun: Unsupported value: ["x"]: supported values: "All", fieldValidation: Unsupported '
        'value: "Foo": supported values: "", "Ignore", "Strict", "Warn"]',
    ),
    (
        "DELETE",
        f"{CONFIGMAPS}/a0?propagationPolicy=Foo",
        422,
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Foo": supported values: '
        '"Foreground", "Background", "Orphan", "nil"',
    ),
    (
        "DELETE",
        f"{CONFIGMAPS}/a0?orphanDependents=true&propagationPolicy=Orphan",
        422,
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and '
        "deletionPropagation cannot be both set",
    ),
    (
        "DELETE",
        f"{CONFIGMAPS}/a0?gracePeriodSeconds=abc",
        400,
        'strconv.ParseInt: parsing "abc": invalid syntax',
    ),
    ("GET", f"{CONFIGMAPS}?continue=abc&resourceVersion=5", 400, None),
]


@pytest.mark.parametrize(("method", "target", "code", "message"), OPTIONS, ids=[t for _, t, _, _ in OPTIONS])
async def test_options_that_make_no_sense_are_refused_in_upstreams_words(
    world: Serving, method: str, target: str, code: int, message: str | None
) -> None:
    body = configmap("b") if method == "POST" else b""
    found, _, text = await refused(world, method, target, body)
    assert found == code
    assert message is None or text == message


async def test_a_table_says_what_it_shall_include(world: Serving) -> None:
    table = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    code, _, message = await refused(world, "GET", f"{CONFIGMAPS}?includeObject=Foo", **table)
    assert (code, message) == (
        400,
        'Unable to convert to Table as requested: includeObject: Invalid value: "Foo": '
        "must be 'Metadata', 'Object', 'None', or empty",
    )
    await world.client().post(CONFIGMAPS, configmap("a", x="1"))
    found = document(await ask(world, "GET", f"{CONFIGMAPS}?includeObject=Object", **table))
    assert found["rows"][0]["object"]["data"] == {"x": "1"}
    found = document(await ask(world, "GET", f"{CONFIGMAPS}/a", **table))
    assert found["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


# ---------------------------------------------------------------------- bodies

HEAD = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)
UNRECOGNIZED = (
    "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: "
)
BODIES = [
    (CONFIGMAPS, b"", 400, UNRECOGNIZED.format("ConfigMap") + "unexpected end of JSON input (<empty>)"),
    (
        CONFIGMAPS,
        b"{bad",
        400,
        UNRECOGNIZED.format("ConfigMap")
        + "invalid character 'b' looking for beginning of object key string ({bad)",
    ),
    (
        CONFIGMAPS,
        b"[]",
        400,
        UNRECOGNIZED.format("ConfigMap")
        + f"json: cannot unmarshal array into Go value of type {HEAD} (5b5d)",
    ),
    (
        CONFIGMAPS,
        b'{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}',
        400,
        'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version '
        '"v2" in scheme "pkg/runtime/scheme.go:111"',
    ),
    (
        CONFIGMAPS,
        b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}',
        400,
        'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
        "unknown conversion",
    ),
    (
        CONFIGMAPS,
        b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"other"}}',
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
    (
        CONFIGMAPS,
        b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"5"}}',
        500,
        "resourceVersion should not be set on objects to be created",
    ),
    (
        WIDGETS,
        b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}',
        400,
        "the API version in the data (v1) does not match the expected API version (example.com/v1)",
    ),
    (
        WIDGETS,
        b'{"kind":"Foo","apiVersion":"example.com/v1","metadata":{"name":"a"}}',
        422,
        'Foo.example.com "a" is invalid: kind: Invalid value: "Foo": must be Widget',
    ),
    (
        WIDGETS,
        b"{}",
        400,
        "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in '{}' ({})",
    ),
]


@pytest.mark.parametrize(("target", "body", "code", "message"), BODIES)
async def test_a_body_that_is_no_such_object_is_refused_in_upstreams_words(
    world: Serving, target: str, body: bytes, code: int, message: str
) -> None:
    found, _, text = await refused(world, "POST", target, body)
    assert (found, text) == (code, message)


async def test_kind_and_version_of_a_built_in_may_be_left_out(world: Serving) -> None:
    response = await ask(world, "POST", CONFIGMAPS, {"metadata": {"name": "a"}})
    assert response.status == 201
    assert document(response)["kind"] == "ConfigMap"


@pytest.mark.parametrize("content_type", ["", "application/json; charset=utf-8", "application/yaml"])
async def test_a_body_is_json_unless_it_says_otherwise(world: Serving, content_type: str) -> None:
    assert (await ask(world, "POST", CONFIGMAPS, configmap("a"), content_type)).status == 201


async def test_a_body_in_an_unknown_format_is_refused(world: Serving) -> None:
    assert await refused(world, "POST", CONFIGMAPS, configmap("a"), "text/plain") == (
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )


async def test_a_body_that_is_too_large_is_refused(world: Serving) -> None:
    with pytest.raises(ApiError) as caught:
        await world.client().post(CONFIGMAPS, configmap("a", x="y" * BODY_BYTES_MAX))
    assert (caught.value.code, caught.value.message) == (
        413,
        "Request entity too large: limit is 3145728",
    )


async def test_unknown_and_double_fields_are_told_refused_or_ignored(world: Serving) -> None:
    body = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"%s"},"foo":1,"data":{"a":"1","a":"2"}}'
    warned = await ask(world, "POST", CONFIGMAPS, body % b"a")
    assert [value for name, value in warned.headers if name == "Warning"] == [
        '299 - "unknown field \\"foo\\""',
        '299 - "duplicate field \\"data.a\\""',
    ]
    ignored = await ask(world, "POST", f"{CONFIGMAPS}?fieldValidation=Ignore", body % b"b")
    assert (ignored.status, ignored.headers) == (201, ())
    code, _, message = await refused(world, "POST", f"{CONFIGMAPS}?fieldValidation=Strict", body % b"c")
    assert (code, message) == (
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "foo", duplicate field "data.a"',
    )


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (
            b'{"b":1,"name":"x","name":"y","a":2}',
            'unknown field "metadata.b", duplicate field "metadata.name", unknown field "metadata.a"',
        ),
        (
            b'{"name":"x","b":1,"name":"y"}',
            'unknown field "metadata.b", duplicate field "metadata.name"',
        ),
        (
            b'{"name":"x","name":"y","b":1}',
            'duplicate field "metadata.name", unknown field "metadata.b"',
        ),
    ],
)
async def test_wrong_fields_of_one_object_are_told_in_the_order_they_are_read(
    world: Serving, metadata: bytes, told: str
) -> None:
    body = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":%s}' % metadata
    _, _, message = await refused(world, "POST", f"{CONFIGMAPS}?fieldValidation=Strict", body)
    assert message.endswith(f"strict decoding error: {told}")


# ---------------------------------------------------------------------- update

UPDATES = [
    (
        CONFIGMAPS,
        {"metadata": {"name": "other"}},
        "the name of the object (other) does not match the name on the URL (a)",
    ),
    (
        CONFIGMAPS,
        {"metadata": {}},
        "the name of the object (a based on URL) was undeterminable: name must be provided",
    ),
    (
        CONFIGMAPS,
        {"metadata": {"name": "a", "namespace": "x"}},
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
]


@pytest.mark.parametrize(("target", "body", "message"), UPDATES)
async def test_an_update_names_the_object_of_its_path(
    world: Serving, target: str, body: Object, message: str
) -> None:
    assert await refused(world, "PUT", f"{target}/a", body) == (400, "BadRequest", message)


async def test_an_update_replaces_and_a_stale_one_conflicts(world: Serving) -> None:
    client = world.client()
    first = await client.post(CONFIGMAPS, configmap("a", x="1"))
    second = await client.put(f"{CONFIGMAPS}/a", first | {"data": {"x": "2"}})
    assert second["data"] == {"x": "2"}
    with pytest.raises(ApiError) as caught:
        await client.put(f"{CONFIGMAPS}/a", first | {"data": {"x": "3"}})
    assert caught.value.reason == "Conflict"


async def test_a_dry_run_keeps_nothing(world: Serving) -> None:
    client = world.client()
    answer = await client.post(CONFIGMAPS, configmap("a"), dryRun="All")
    assert "resourceVersion" not in answer["metadata"]
    assert (await client.get(CONFIGMAPS))["items"] == []


async def test_a_new_object_with_a_resource_version_is_first_told_what_else_is_wrong(world: Serving) -> None:
    def seen(name: str) -> Object:
        return {"metadata": {"name": name, "resourceVersion": "5"}}

    dry = await world.client().post(CONFIGMAPS, seen("a"), dryRun="All")
    wrong = await refused(world, "POST", CONFIGMAPS, orjson.dumps(seen("!")))
    assert (dry["metadata"]["resourceVersion"], wrong[:2]) == ("5", (422, "Invalid"))


async def test_status_and_the_rest_are_written_apart(world: Serving) -> None:
    client = world.client()
    made = await client.post(WIDGETS, widget("w", colour="red") | {"status": {"replicas": 9}})
    assert "status" not in made
    whole = made | {"spec": {"colour": "blue"}, "status": {"replicas": 3}}
    after = await client.put(f"{WIDGETS}/w/status", whole)
    assert (after["spec"], after["status"]) == ({"colour": "red"}, {"replicas": 3})
    assert (await client.get(f"{WIDGETS}/w/status"))["status"] == {"replicas": 3}
    after = await client.patch(
        f"{WIDGETS}/w/status", {"status": {"replicas": 4}, "spec": {"colour": "green"}}
    )
    assert (after["spec"], after["status"]) == ({"colour": "red"}, {"replicas": 4})


# ---------------------------------------------------------------------- patch

NO_MAP = "json: cannot unmarshal array into Go value of type map[string]interface {}"
PATCHES: list[tuple[str, bytes, int, str]] = [
    (MERGE, b"{bad", 400, "invalid JSON patch"),
    (JSON_PATCH, b"{bad", 400, "invalid JSON patch"),
    (STRATEGIC, b"{bad", 400, "invalid JSON patch"),
    (MERGE, b"[]", 400, f"error decoding patch: {NO_MAP}"),
    (STRATEGIC, b"[]", 400, NO_MAP),
    (
        JSON_PATCH,
        b"{}",
        400,
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
    ),
    (
        JSON_PATCH,
        b'[{"op":"remove","path":"/nope"}]',
        422,
        "the server rejected our request due to an error in our request",
    ),
    (
        JSON_PATCH,
        b'[{"op":"test","path":"/metadata/name","value":"x"}]',
        422,
        "the server rejected our request due to an error in our request",
    ),
    (
        MERGE,
        b'{"metadata":{"name":"z"}}',
        400,
        "the name of the object (z) does not match the name on the URL (a)",
    ),
    (
        MERGE,
        b'{"metadata":{"namespace":"z"}}',
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
    (
        MERGE,
        b'{"metadata":{"resourceVersion":"1"},"data":{"q":"1"}}',
        409,
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again",
    ),
    ("application/json", b"{}", 415, "415: Unsupported Media Type"),
]


@pytest.mark.parametrize(("content_type", "body", "code", "message"), PATCHES)
async def test_a_patch_that_is_none_is_refused_in_upstreams_words(
    world: Serving, content_type: str, body: bytes, code: int, message: str
) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    found, _, text = await refused(world, "PATCH", f"{CONFIGMAPS}/a", body, content_type)
    assert (found, text) == (code, message)


async def test_a_patch_makes_nothing_of_another_kind(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a"))
    await client.post(WIDGETS, widget("w"))
    code, reason, message = await refused(world, "PATCH", f"{CONFIGMAPS}/a", b'{"kind":"Foo"}', MERGE)
    assert (code, reason) == (422, "Invalid")
    assert message.startswith(' "" is invalid: patch: Invalid value: ')
    assert message.endswith(
        ': no kind "Foo" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"'
    )
    assert await refused(world, "PATCH", f"{WIDGETS}/w", b'{"kind":"Foo"}', MERGE) == (
        422,
        "Invalid",
        'Foo.example.com "w" is invalid: kind: Invalid value: "Foo": must be Widget',
    )


async def test_each_kind_of_patch_changes_what_it_says(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a", x="1", y="1"))
    operations = [{"op": "replace", "path": "/data/x", "value": "2"}]
    assert (await client.patch(f"{CONFIGMAPS}/a", operations, content_type=JSON_PATCH))["data"]["x"] == "2"
    assert (await client.patch(f"{CONFIGMAPS}/a", {"data": {"x": None}}))["data"] == {"y": "1"}
    strategic = {"data": {"z": "3"}, "metadata": {"finalizers": ["a/b"]}}
    found = await client.patch(f"{CONFIGMAPS}/a", strategic, content_type=STRATEGIC)
    assert found["data"] == {"y": "1", "z": "3"}
    more = {"metadata": {"finalizers": ["c/d"]}}
    found = await client.patch(f"{CONFIGMAPS}/a", more, content_type=STRATEGIC)
    assert sorted(found["metadata"]["finalizers"]) == ["a/b", "c/d"]


async def test_a_custom_kind_takes_no_strategic_patch(world: Serving) -> None:
    await world.client().post(WIDGETS, widget("w"))
    code, _, message = await refused(world, "PATCH", f"{WIDGETS}/w", b"{}", STRATEGIC)
    assert code == 415
    assert message.startswith(
        "the body of the request was in an unknown format - accepted media types include: "
    )
    assert "application/merge-patch+json" in message


async def test_an_apply_needs_a_field_manager(world: Serving) -> None:
    code, _, message = await refused(world, "PATCH", f"{CONFIGMAPS}/a", b"a: b", APPLY)
    assert (code, message) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    )


async def test_force_is_for_applies_alone(world: Serving) -> None:
    code, _, message = await refused(world, "PATCH", f"{CONFIGMAPS}/a?force=true", b"{}", MERGE)
    assert (code, message) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    )


# ---------------------------------------------------------------------- delete


async def test_a_delete_answers_with_what_is_gone(world: Serving) -> None:
    client = world.client()
    made = await client.post(WIDGETS, widget("w"))
    assert await client.delete(f"{WIDGETS}/w") == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "w", "group": "example.com", "kind": "widgets", "uid": made["metadata"]["uid"]},
    }


async def test_a_delete_answers_with_the_object_while_finalizers_keep_it(world: Serving) -> None:
    client = world.client()
    await client.post(WIDGETS, widget("w") | {"metadata": {"name": "w", "finalizers": ["x/y"]}})
    kept = await ask(world, "DELETE", f"{WIDGETS}/w")
    assert kept.status == 200
    assert document(kept)["metadata"]["deletionTimestamp"]
    assert (await ask(world, "DELETE", f"{WIDGETS}/w?orphanDependents=false")).status == 202
    assert (await ask(world, "DELETE", f"{WIDGETS}/w", {"orphanDependents": False})).status == 202
    last = await client.patch(f"{WIDGETS}/w", {"metadata": {"finalizers": None}})
    assert "finalizers" not in last["metadata"]
    assert (await ask(world, "GET", f"{WIDGETS}/w")).status == 404


DELETE_BODIES = [
    (
        b'{"kind":"Foo","apiVersion":"v1"}',
        400,
        'no kind "Foo" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"',
    ),
    (
        b'{"dryRun":["x"]}',
        422,
        'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["x"]: supported values: "All"',
    ),
    (
        b'{"gracePeriodSeconds":"x"}',
        400,
        "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
    ),
    (
        b"{bad",
        400,
        "couldn't get version/kind; json parse error: invalid character 'b' looking for beginning of object key string",
    ),
    (
        b"[]",
        400,
        f"couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type {HEAD}",
    ),
]


@pytest.mark.parametrize(("body", "code", "message"), DELETE_BODIES)
async def test_options_of_a_delete_are_read_from_its_body(
    world: Serving, body: bytes, code: int, message: str
) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    found, _, text = await refused(world, "DELETE", f"{CONFIGMAPS}/a", body)
    assert (found, text) == (code, message)


async def test_a_body_wins_over_the_query_of_a_delete(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a"))
    await client.delete(f"{CONFIGMAPS}/a", {"dryRun": ["All"]})
    assert (await client.get(CONFIGMAPS))["items"]
    with pytest.raises(ApiError) as caught:
        await client.delete(f"{CONFIGMAPS}/a", {"preconditions": {"uid": "another"}})
    assert caught.value.reason == "Conflict"
    options = {"kind": "DeleteOptions", "apiVersion": "foo/v1"}
    assert (await client.delete(f"{CONFIGMAPS}/a?dryRun=All", options))["status"] == "Success"
    assert (await client.get(CONFIGMAPS))["items"] == []


async def test_a_collection_is_deleted_by_what_is_selected(world: Serving) -> None:
    client = world.client()
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        body = configmap(name)
        body["metadata"]["labels"] = {"l": label}
        await client.post(CONFIGMAPS, body)
    found = await client.delete(CONFIGMAPS, labelSelector="l=x")
    assert found["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "b"]
    left = await client.get(CONFIGMAPS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


# ---------------------------------------------------------------------- list


async def test_a_list_is_paged_on_one_snapshot(world: Serving) -> None:
    client = world.client()
    for name in "abc":
        await client.post(CONFIGMAPS, configmap(name))
    page = await client.get(CONFIGMAPS, limit=2)
    assert page["metadata"]["remainingItemCount"] == 1
    await client.post(CONFIGMAPS, configmap("d"))
    rest = await client.get(CONFIGMAPS, limit=2, **{"continue": page["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in page["items"] + rest["items"]] == ["a", "b", "c"]
    assert "continue" not in rest["metadata"]


async def test_a_list_of_one_name_is_a_list(world: Serving) -> None:
    client = world.client()
    for name in "ab":
        await client.post(CONFIGMAPS, configmap(name))
    found = await client.get(CONFIGMAPS, fieldSelector="metadata.name=b")
    assert found["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]


async def test_a_big_table_is_as_right_as_a_small_one(world: Serving) -> None:
    client = world.client()
    for number in range(130):
        await client.post(CONFIGMAPS, configmap(f"c{number:03}"))
    table = document(
        await ask(world, "GET", CONFIGMAPS, Accept="application/json;as=Table;g=meta.k8s.io;v=v1")
    )
    assert [row["cells"][0] for row in table["rows"]] == [f"c{number:03}" for number in range(130)]


async def test_clusters_do_not_see_each_other(world: Serving) -> None:
    await world.client("team-a").post(CONFIGMAPS, configmap("a"))
    assert (await world.client("team-b").get(CONFIGMAPS))["items"] == []
    with pytest.raises(ApiError) as caught:
        await world.client("team-b").get(f"{CONFIGMAPS}/a")
    assert caught.value.code == 404


# ---------------------------------------------------------------------- scale, computed parts


def scale(replicas: object, **metadata: str) -> Object:
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "w", **metadata},
        "spec": {"replicas": replicas},
    }


async def test_a_scale_is_read_and_written_through_the_object(world: Serving) -> None:
    client = world.client()
    made = await client.post(WIDGETS, widget("w", replicas=2, colour="red"))
    found = await client.get(f"{WIDGETS}/w/scale")
    kept = {
        key: made["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    assert found == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": 2},
        "status": {"replicas": 0},
    }
    assert (await client.put(f"{WIDGETS}/w/scale", scale(3)))["spec"] == {"replicas": 3}
    assert (await client.patch(f"{WIDGETS}/w/scale", {"spec": {"replicas": 5}}))["spec"] == {"replicas": 5}
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 6}]
    patched = await client.patch(f"{WIDGETS}/w/scale", operations, content_type=JSON_PATCH)
    assert patched["spec"] == {"replicas": 6}
    assert (await client.get(f"{WIDGETS}/w"))["spec"] == {"replicas": 6, "colour": "red"}
    await client.patch(f"{WIDGETS}/w/status", {"status": {"replicas": 1, "selector": "a=b"}})
    assert (await client.get(f"{WIDGETS}/w/scale"))["status"] == {"replicas": 1, "selector": "a=b"}


async def test_a_scale_that_cannot_be_is_refused_in_upstreams_words(world: Serving) -> None:
    client = world.client()
    await client.post(WIDGETS, widget("w", replicas=2))
    target = f"{WIDGETS}/w/scale"
    assert await refused(world, "PUT", target, scale(3, name="x")) == (
        400,
        "BadRequest",
        "the name of the object (x) does not match the name on the URL (w)",
    )
    assert await refused(world, "PUT", target, widget("w")) == (
        400,
        "BadRequest",
        'no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"',
    )
    assert (await refused(world, "PUT", target, scale(3, resourceVersion="1")))[1] == "Conflict"
    assert (await refused(world, "PUT", target, scale("three")))[0] == 400
    assert (await refused(world, "PUT", target, scale(1 << 31)))[0] == 400
    assert (await refused(world, "PATCH", target, b"{}", STRATEGIC))[0] == 415
    assert (await client.get(target))["spec"] == {"replicas": 2}


async def test_what_has_no_replicas_has_no_scale_until_it_is_given_one(world: Serving) -> None:
    client = world.client()
    await client.post(WIDGETS, widget("w"))
    assert await refused(world, "GET", f"{WIDGETS}/w/scale") == (
        500,
        "InternalError",
        'Internal error occurred: the spec replicas field ".spec.replicas" does not exist',
    )
    assert await refused(world, "PATCH", f"{WIDGETS}/w/scale", b"{}", MERGE) == (
        400,
        "BadRequest",
        'the spec replicas field ".spec.replicas" cannot be empty',
    )
    assert (await client.patch(f"{WIDGETS}/w/scale", {"spec": {"replicas": 1}}))["spec"] == {"replicas": 1}


async def test_a_computed_part_gets_its_body_and_its_parent(world: Serving) -> None:
    client = world.client()
    await client.post(WIDGETS, widget("w"))
    body = {"apiVersion": "example.com/v1", "kind": "Double", "spec": {"count": 21}}
    answer = await ask(world, "POST", f"{WIDGETS}/w/double", body)
    assert answer.status == 201
    assert (document(answer)["count"], document(answer)["owner"], document(answer)["by"]) == (
        42,
        "w",
        "admin",
    )
    assert (await client.get(f"{WIDGETS}/none/double"))["owner"] == ""
    assert (await refused(world, "PUT", f"{WIDGETS}/w/double", body))[0] == 405
    assert (await refused(world, "POST", f"{WIDGETS}/w/double", {"apiVersion": "v1", "kind": "Pod"}))[
        0
    ] == 400


async def test_long_lists_are_made_in_parts_whatever_they_answer(world: Serving) -> None:
    client = world.client()
    names = [f"m{number:03}" for number in range(5 * PART_BYTES // 10_000)]
    for name in names:
        await client.post(CONFIGMAPS, configmap(name, text="x" * 10_000))

    async def told(method: str, **headers: str) -> list[str]:
        answer = await ask(world, method, CONFIGMAPS, **headers)
        assert answer.status == 200
        rest = list(answer.rest)
        assert len(rest) >= 3
        assert sum(map(len, rest)) == answer.rest_bytes
        items = orjson.loads(b"".join((answer.body, *rest)))["items"]
        return [item["metadata"]["name"] for item in items]

    assert await told("GET", Accept="application/yaml") == names
    assert await told("GET", User_Agent="curl/8") == names
    assert await told("DELETE", Accept="application/yaml") == names
    assert (await client.get(CONFIGMAPS))["items"] == []
