"""Section A: what goes over the wire, and in what form."""

from __future__ import annotations

import gzip
import re
from typing import Final

from clusterling.conformity.protobuf import MAGIC, PROTOBUF, enveloped, fields, message
from clusterling.conformity.row import Failed, Section, need, need_ok
from clusterling.conformity.scene import Scene
from clusterling.conformity.wire import JSON, Answer

A: Final = Section("A", "Wire and negotiation")

TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
OPENAPI_V2: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"

_RBAC: Final = "rbac.authorization.k8s.io"
# RFC 9110, section 5.6.2; Go's mime.ParseMediaType takes nothing else for a type or a subtype.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  (a pattern)
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}(\s*;.*)?")


def _in_protobuf(scene: Scene) -> dict[str, tuple[str, bytes]]:
    """What kubectl 1.37 writes as protobuf: kind → where to, and the body. Fields: k8s.io/api/*/generated.proto."""
    named = (1, message((1, scene.name("proto"))))
    subject = message((1, "User"), (2, _RBAC), (3, "nobody"))
    role = message((1, _RBAC), (2, "ClusterRole"), (3, "view"))
    access = message((1, b""), (2, message((1, message((2, "get"), (5, "configmaps"))))))
    quota = message((1, message((1, "configmaps"), (2, message((1, "9"))))))
    core = {
        "Namespace": ("/api/v1/namespaces", message(named)),
        "Secret": (f"{scene.home}/secrets", message(named, (2, message((1, "k"), (2, b"v"))))),
        "ServiceAccount": (f"{scene.home}/serviceaccounts", message(named)),
        "ResourceQuota": (f"{scene.home}/resourcequotas", message(named, (2, quota))),
    }
    others = {
        "ClusterRoleBinding": (
            f"{_RBAC}/v1",
            "clusterrolebindings",
            message(named, (2, subject), (3, role)),
        ),
        "SelfSubjectAccessReview": ("authorization.k8s.io/v1", "selfsubjectaccessreviews", access),
        "SelfSubjectReview": ("authentication.k8s.io/v1", "selfsubjectreviews", message((1, b""))),
    }
    found = {kind: (path, enveloped("v1", kind, body)) for kind, (path, body) in core.items()}
    for kind, (group_version, plural, body) in others.items():
        found[kind] = (f"/apis/{group_version}/{plural}", enveloped(group_version, kind, body))
    return found


def _written(scene: Scene, path: str, body: bytes) -> Answer:
    headers = {"content-type": PROTOBUF, "accept": f"{PROTOBUF},{JSON}"}
    query = {} if path.endswith("reviews") else {"dryRun": "All"}
    return scene.wire.request("POST", path, body, headers=headers, query=query)


@A.row(
    1,
    "Built-in kinds may be written as protobuf, whatever else is spoken",
    "every Go program with typed clients since client-go 0.32; kubectl create namespace, secret, token; kubectl auth",
)
def built_in_kinds_are_read_as_protobuf(scene: Scene) -> str:
    read, absent = [], []
    for kind, (path, body) in _in_protobuf(scene).items():
        answer = _written(scene, path, body)
        if answer.code == 404 and not answer.document.get("details", {}).get("name"):
            absent.append(kind)
            continue
        need_ok(answer, kind)
        read.append(kind)
    account = scene.wire.post(
        f"{scene.home}/serviceaccounts",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": scene.name("proto")}},
    )
    if account.ok:
        path = f"{scene.home}/serviceaccounts/{account.document['metadata']['name']}/token"
        request = enveloped("authentication.k8s.io/v1", "TokenRequest", message((2, message((4, 3600)))))
        need_ok(_written(scene, path, request), "TokenRequest")
        read.append("TokenRequest")
    missing = f"; not served: {', '.join(absent)}" if absent else ""
    return f"read: {', '.join(read)}{missing}"


@A.row(
    2,
    "A 415 does not make a client fall back to JSON; an answer in JSON to a body in protobuf is fine",
    "client-go (`rest/client.go`): only CBOR degrades",
)
def protobuf_is_answered_in_a_form_that_was_accepted(scene: Scene) -> str:
    path, body = _in_protobuf(scene)["Namespace"]
    answer = _written(scene, path, body)
    need_ok(answer, "a Namespace in protobuf")
    if answer.media_type.startswith(PROTOBUF):
        need(answer.body.startswith(MAGIC), "says protobuf, but lacks the envelope's magic")
        return "answered in protobuf"
    need(answer.document.get("kind") == "Namespace", f"answered with {answer.media_type}")
    return "answered in JSON"


@A.row(
    3,
    "`/openapi/v2` is protobuf when only that is accepted, and is decoded as such whatever comes back",
    "kubectl apply and explain (to 1.30 always, later as the fallback); Argo CD",
)
def openapi_v2_is_protobuf(scene: Scene) -> str:
    answer = scene.wire.get("/openapi/v2", accept=OPENAPI_V2)
    need(answer.code == 200, answer.told)
    try:
        found = dict(fields(answer.body))
    except ValueError as error:
        raise Failed(f"not protobuf: {error}") from error
    need(found.get(1) == b"2.0", "the document's field 1 is not the version 2.0")
    return "a gnostic document of version 2.0"


@A.row(
    4,
    "The media type of that answer can be parsed: no `@`, although the one asked for has it",
    "Go's mime package in kubectl: `unexpected content after media subtype`",
)
def the_media_type_of_openapi_v2_can_be_parsed(scene: Scene) -> str:
    answer = scene.wire.get("/openapi/v2", accept=OPENAPI_V2)
    need(answer.code == 200, answer.told)
    need(_MEDIA_TYPE.fullmatch(answer.media_type), f"not a media type: {answer.media_type}")
    return answer.media_type


def _operation(scene: Scene, group_version: str, path: str, method: str) -> dict[str, object]:
    index = scene.wire.get("/openapi/v3").document.get("paths") or {}
    need(group_version in index, f"/openapi/v3 has no {group_version}")
    document = scene.wire.get(f"/openapi/v3/{group_version}").document
    found = (document.get("paths") or {}).get(path, {}).get(method)
    if not isinstance(found, dict):
        raise Failed(f"/openapi/v3/{group_version} has no {method.upper()} {path}")
    shared = document["paths"][path].get("parameters") or []
    return {**found, "parameters": [*shared, *(found.get("parameters") or [])]}


@A.row(
    5,
    "In `/openapi/v3`, a kind's PATCH has the parameters `fieldValidation` and `dryRun` if the server knows them",
    "kubectl apply since 1.27 (QueryParamVerifierV3): else it validates by itself, from v2",
)
def openapi_v3_names_the_parameters_of_patch(scene: Scene) -> str:
    assert scene.configmaps, "the kind that is looked at"
    path = "/api/v1/namespaces/{namespace}/configmaps/{name}"
    operation = _operation(scene, "api/v1", path, "patch")
    parameters = operation["parameters"]
    assert isinstance(parameters, list), "made above"
    names = {one.get("name") for one in parameters}
    missing = {"fieldValidation", "dryRun"} - names
    need(not missing, f"PATCH of configmaps lacks {', '.join(sorted(missing))}")
    return "both, for configmaps"


def _patch_types(operation: dict[str, object]) -> set[str]:
    body = operation.get("requestBody")
    if body is not None and not isinstance(body, dict):
        raise Failed("a requestBody that is no object")
    return {one.removeprefix("application/") for one in (body or {}).get("content") or {}}


@A.row(
    6,
    "The PATCH body's media types in `/openapi/v3` tell who takes a strategic merge: built-in kinds, never custom ones",
    "kubectl apply (`apply/patcher.go`): a wrong choice ends in 415",
)
def openapi_v3_tells_which_patches_a_kind_takes(scene: Scene) -> str:
    assert scene.configmaps, "the kind that is looked at"
    path = "/api/v1/namespaces/{namespace}/configmaps/{name}"
    built_in = _patch_types(_operation(scene, "api/v1", path, "patch"))
    need("strategic-merge-patch+json" in built_in, f"configmaps: {', '.join(sorted(built_in))}")
    name = scene.widget()["metadata"]["name"]
    group_version = f"apis/{scene.group}/v1"
    widgets = f"/{group_version}/namespaces/{{namespace}}/widgets/{{name}}"
    need(
        scene.comes(
            lambda: widgets in (scene.wire.get(f"/openapi/v3/{group_version}").document.get("paths") or {}),
            scene.patience_s,
        ),
        "a custom kind does not come into /openapi/v3",
    )
    custom = _patch_types(_operation(scene, group_version, widgets, "patch"))
    need("merge-patch+json" in custom, f"a custom kind: {', '.join(sorted(custom))}")
    need("strategic-merge-patch+json" not in custom, "a custom kind lists the strategic merge")
    media_type = "application/strategic-merge-patch+json"
    refused = scene.wire.patch(f"{scene.widgets}/{name}", {}, media_type=media_type)
    need(refused.code == 415, f"a strategic merge of a custom kind: {refused.told}")
    return "strategic merge for configmaps, not for a custom kind, which answers 415 to it"


@A.row(
    7,
    "Discovery is aggregated for who asks, as `v2` or as `v2beta1`, and plain for who takes JSON",
    "kubectl 1.27 asks for v2beta1, from 1.33 for v2; each also takes plain JSON",
    "v2beta1 is no longer served: 406, and plain JSON where that is accepted too.",
)
def discovery_is_negotiated(scene: Scene) -> str:
    told = []
    for version in ("v2", "v2beta1"):
        for root in ("/api", "/apis"):
            answer = scene.wire.get(root, accept=f"{AGGREGATED.format(version)},{JSON}")
            need(answer.code == 200, f"{version} or plain of {root}: {answer.told}")
            kind = answer.document.get("kind")
            aggregated = "as=APIGroupDiscoveryList" in answer.media_type
            need(
                aggregated == (kind == "APIGroupDiscoveryList"),
                f"{version} of {root}: {kind} called {answer.media_type}",
            )
            if aggregated:
                need(f"v={version}" in answer.media_type, f"{version} of {root}: {answer.media_type}")
        told.append(f"{version}: {'aggregated' if aggregated else 'plain'}")
    plain = scene.wire.get("/apis")
    need(plain.document.get("kind") == "APIGroupList", f"plain JSON: {plain.told}")
    return ", ".join(told)


@A.row(
    8,
    "`/api` and `/apis` are answered, or are a 404; a 403 there is not forgiven",
    "client-go discovery; tools that take 403 for `denied`",
)
def the_roots_of_discovery_are_not_forbidden(scene: Scene) -> str:
    codes = {root: scene.wire.get(root).code for root in ("/api", "/apis")}
    need(set(codes.values()) <= {200, 404}, ", ".join(f"{root} {code}" for root, code in codes.items()))
    return ", ".join(f"{root} {code}" for root, code in codes.items())


@A.row(
    9,
    "Where a Table is asked for, lists and every event of a watch are Tables",
    "kubectl get and get -w: else columns change without a word",
)
def tables_are_made_for_lists_and_watches(scene: Scene) -> str:
    name = scene.configmap()["metadata"]["name"]
    table = scene.wire.get(scene.configmaps, accept=f"{TABLE},{JSON}").document
    need(table.get("kind") == "Table", f"the list is a {table.get('kind')}")
    need(table.get("columnDefinitions") and table.get("rows"), "a Table without columns or rows")
    with scene.wire.watch(
        scene.configmaps, accept=f"{TABLE},{JSON}", fieldSelector=f"metadata.name={name}"
    ) as stream:
        first = stream.until(lambda _: True, 5)
    need(first, "the watch sent nothing")
    need(first[0]["object"].get("kind") == "Table", f"the watch sent a {first[0]['object'].get('kind')}")
    return "a Table for the list, Tables in the watch"


@A.row(
    10,
    "`/swagger-2.0.0.pb-v1` may be absent, with a 404",
    "kubectl to 1.27, as a fallback",
)
def the_old_address_of_the_schema_is_absent(scene: Scene) -> str:
    answer = scene.wire.get("/swagger-2.0.0.pb-v1", accept=OPENAPI_V2)
    need(answer.code in (200, 404), answer.told)
    return answer.told


@A.row(
    11,
    "A watch asked for as a WebSocket is upgraded, or refused with 200 or 503",
    "fabric8 and with it Java operators: they fall back to HTTP on no other code; browsers",
)
def watches_are_upgraded(scene: Scene) -> str:
    code, proved = scene.wire.upgrade(scene.configmaps, watch="true", timeoutSeconds=1)
    need(code in (101, 200, 503), f"{code}")
    need(proved or code != 101, "101 with a wrong Sec-WebSocket-Accept")
    return "upgraded" if code == 101 else f"{code}"


@A.row(
    12,
    'Warnings come as `Warning: 299 - "…"`',
    "kubectl, client-go and all that show warnings to people",
    "`Retry-After` with 429, the other half of this, cannot be asked for politely: no check provokes a 429.",
)
def warnings_are_headers(scene: Scene) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": scene.name()},
        "nonsense": True,
    }
    answer = scene.wire.post(scene.configmaps, body, fieldValidation="Warn", dryRun="All")
    need_ok(answer, "an unknown field with fieldValidation=Warn")
    found = answer.headers.get("warning", "")
    need(re.fullmatch(r'299 - ".+"', found), f"an unknown field brings {found!r}")
    return found


@A.row(
    13,
    "Discovery and OpenAPI carry an ETag and answer 304 to it; bodies may be compressed",
    "kubectl's cache on disk (`discovery/cached/disk`), helm, k9s",
)
def schemas_are_cached_by_their_etags(scene: Scene) -> str:
    assert scene.configmaps, "the kind that is looked at"
    accepts = {"/openapi/v2": OPENAPI_V2, "/openapi/v3/api/v1": JSON, "/apis": AGGREGATED.format("v2")}
    missing = []
    for path, accept in accepts.items():
        answer = scene.wire.get(path, accept=accept)
        need(answer.code == 200, f"{path}: {answer.told}")
        etag = answer.headers.get("etag")
        if not etag:
            missing.append(path)
            continue
        again = scene.wire.request("GET", path, headers={"accept": accept, "if-none-match": etag})
        need(again.code == 304, f"{path} with its own ETag: {again.told}")
    need(not missing, f"no ETag: {', '.join(missing)}")
    headers = {"accept": JSON, "accept-encoding": "gzip"}
    packed = scene.wire.request("GET", "/openapi/v3/api/v1", headers=headers)
    if packed.headers.get("content-encoding") != "gzip":
        return "304 to their ETags; not compressed"
    try:
        gzip.decompress(packed.body)
    except (OSError, EOFError) as error:
        raise Failed(f"says gzip, but is not: {error}") from error
    return "304 to their ETags; gzip"
