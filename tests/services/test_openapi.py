"""OpenAPI documents, held against those upstream publishes; what is left out is listed, with the reason.

What is said of custom kinds was taken from a kube-apiserver 1.37 that served the same CRDs.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from clusterling import packs
from clusterling.machinery.meta import Object
from clusterling.packs import builtin
from clusterling.registry.catalog import Catalog
from clusterling.services.conditional import Conditions
from clusterling.services.kept import Kept
from clusterling.services.openapi import index, preparing, respond
from clusterling.services.openapi.schemas import Definitions, builtin_definitions, definition_v2
from clusterling.services.request import Headers, Response
from tests.services import kinds

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
PROTOBUF_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
WIDGET = "com.example.v1.Widget"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return kinds.whole_catalog()


def get(catalog: Catalog, path: str, **more: Any) -> Response:
    return respond(catalog, path, now=NOW, **more)


def having(tag: str) -> Conditions:
    return Conditions(Headers({"If-None-Match": tag}))


def document(catalog: Catalog, path: str) -> Object:
    response = get(catalog, path)
    assert response.status == 200
    found: Object = orjson.loads(response.body)
    return found


# --- against upstream's published documents -------------------------------------------------------------------

# Where ours say less or otherwise, and why. Each is matched against `path: what`.
DIFFERENCES = {
    r"/info/version: differs": "published files say `unversioned`, a server its version",
    r"/paths/.*/description: missing": "parameters' descriptions are prose of types that are in no published schema",
    r"/content/application/(cbor|cbor-seq|vnd\.kubernetes\.protobuf.*): missing": "answers are JSON or YAML",
    r"/requestBody/content/application/apply-patch\+cbor: missing": "no patch is CBOR",
    r"\{name\}/delete/responses/.*/\$ref: differs": "a deletion is told as a Status for every kind",
    r"/schemas/.*/enum: only ours": "the published files are made without enumerations, a server publishes them",
    r"/schemas/.*/properties/\w+/description: differs": "those of fields with enumerations tell the values",
}
# Published with kinds of other issues, and with what only those refer to.
NOT_SERVED = re.compile(r"/token$")


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours:
                yield f"{path}/{key}: missing"
            elif key not in theirs:
                yield f"{path}/{key}: only ours"
            else:
                yield from differences(ours[key], theirs[key], f"{path}/{key}")
    elif path.endswith("/parameters") and isinstance(ours, list) and isinstance(theirs, list):
        yield from differences({one["name"]: one for one in ours}, {one["name"]: one for one in theirs}, path)
    elif ours != theirs:
        yield f"{path}: differs"


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("api/v1", "api__v1_openapi.json"),
        ("apis/coordination.k8s.io/v1", "apis__coordination.k8s.io__v1_openapi.json"),
        ("apis/events.k8s.io/v1", "apis__events.k8s.io__v1_openapi.json"),
    ],
)
def test_documents_of_built_in_kinds_are_upstreams_but_for_listed_differences(
    catalog: Catalog, path: str, file: str
) -> None:
    theirs = orjson.loads(kinds.published("openapi-spec", "v3", file).read_bytes())
    ours = document(catalog, f"/openapi/v3/{path}")
    if not builtin.published("io.k8s.api.core.v1.ConfigMap").get("description"):
        _drop_descriptions(theirs["components"]["schemas"])
    plurals = {served.plural for served in catalog.served_in(*_group_version(path))}
    served = {
        name: item
        for name, item in theirs["paths"].items()
        if not NOT_SERVED.search(name) and (name.endswith(f"{path}/") or plurals & set(name.split("/")))
    }
    if path == "api/v1":
        # /namespaces/{namespace}/pods and the like name a served kind on their way to one that is not.
        served = {name: item for name, item in served.items() if name in ours["paths"]}
        assert len(served) == 31
    theirs["paths"] = served
    schemas = theirs["components"]["schemas"]
    theirs["components"]["schemas"] = {
        name: one for name, one in schemas.items() if name in ours["components"]["schemas"]
    }
    found = list(differences(ours, theirs))
    unexplained = [one for one in found if not any(re.search(f"{known}$", one) for known in DIFFERENCES)]
    assert unexplained == []
    assert set(ours["components"]["schemas"]) <= set(schemas)


def test_all_kinds_that_upstream_serves_would_be_told_as_upstream_tells_them() -> None:
    """So that a kind added to a pack needs no work here."""
    discovery = kinds.published("discovery")
    everything = [
        builtin.resource(group, version, plural, parts=parts)
        for group, version, plural, parts in _all_resources(discovery)
    ]
    catalog = Catalog(everything)
    described = bool(builtin.published("io.k8s.api.core.v1.ConfigMap").get("description"))
    found: list[str] = []
    for path in document(catalog, "/openapi/v3")["paths"]:
        file = kinds.published("openapi-spec", "v3") / f"{path.replace('/', '__')}_openapi.json"
        ours, theirs = document(catalog, f"/openapi/v3/{path}"), orjson.loads(file.read_bytes())
        schemas = theirs["components"]["schemas"]
        if not described:
            _drop_descriptions(schemas)
        theirs["components"]["schemas"] = {name: schemas[name] for name in ours["components"]["schemas"]}
        theirs["paths"] = {name: theirs["paths"][name] for name in ours["paths"]}
        found += differences(ours, theirs)
    assert len(everything) > 90
    assert [one for one in found if not any(re.search(f"{known}$", one) for known in DIFFERENCES)] == []


def test_a_cluster_with_all_packs_is_described_as_upstream_describes_its_own() -> None:
    """Every path, what connects and what is watched the old way included, and every schema."""
    catalog = everything()
    described = bool(builtin.published("io.k8s.api.core.v1.ConfigMap").get("description"))
    found: list[str] = []
    paths = document(catalog, "/openapi/v3")["paths"]
    for path in paths:
        file = kinds.published("openapi-spec", "v3") / f"{path.replace('/', '__')}_openapi.json"
        theirs = orjson.loads(file.read_bytes())
        if not described:
            _drop_descriptions(theirs["components"]["schemas"])
        found += differences(document(catalog, f"/openapi/v3/{path}"), theirs)
    assert len(paths) == 47
    assert [one for one in found if not any(re.search(f"{known}$", one) for known in DIFFERENCES)] == []


def everything() -> Catalog:
    return Catalog(resource for pack in packs.choose("all") for resource in pack.resources)


def _all_resources(discovery: Path) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    replaceable = {"finalize", "approval", "ephemeralcontainers", "resize"}
    for file in sorted(discovery.glob("*__v*.json")):
        told = orjson.loads(file.read_bytes())
        group, _, version = told["groupVersion"].rpartition("/")
        names = [one["name"].partition("/") for one in told["resources"]]
        for plural, slash, _ in names:
            if not slash:
                parts = tuple(below for of, _, below in names if of == plural and below in replaceable)
                yield group, version, plural, parts


def _group_version(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])


def _drop_descriptions(value: Any) -> None:
    """Upstream wraps a reference only for what stands beside it."""
    if isinstance(value, dict):
        if isinstance(value.get("description"), str):
            del value["description"]
            if set(value) == {"allOf"}:
                value.update(value.pop("allOf")[0])
        for one in value.values():
            _drop_descriptions(one)
    elif isinstance(value, list):
        for one in value:
            _drop_descriptions(one)


def test_every_reference_of_every_document_is_defined(catalog: Catalog) -> None:
    paths = document(catalog, "/openapi/v3")["paths"]
    # Upstream's groups have documents of their own, those of custom kinds have none.
    assert list(paths) == [
        "api",
        "api/v1",
        "apis",
        "apis/coordination.k8s.io",
        "apis/coordination.k8s.io/v1",
        "apis/events.k8s.io",
        "apis/events.k8s.io/v1",
        "apis/example.com/v1",
        "apis/example.com/v1beta1",
        "version",
    ]
    for path in paths:
        body = get(catalog, f"/openapi/v3/{path}").body
        defined = orjson.loads(body)["components"]["schemas"]
        referred = re.findall(rb'"\$ref":"#/components/schemas/([^"]+)"', body)
        assert referred
        assert {name.decode() for name in referred} <= defined.keys()
    body = get(catalog, "/openapi/v2").body
    referred = re.findall(rb'"\$ref":"#/definitions/([^"]+)"', body)
    assert {name.decode() for name in referred} <= orjson.loads(body)["definitions"].keys()
    assert b"#/components/" not in body


def test_kubectl_finds_what_it_validates_with(catalog: Catalog) -> None:
    """kubectl's QueryParamVerifierV3: the PATCH of the kind takes `fieldValidation` and `dryRun`."""
    for path, kind in (
        ("api/v1", {"group": "", "version": "v1", "kind": "ConfigMap"}),
        ("apis/example.com/v1", {"group": "example.com", "version": "v1", "kind": "Widget"}),
    ):
        patches = [
            item["patch"]
            for item in document(catalog, f"/openapi/v3/{path}")["paths"].values()
            if "patch" in item
        ]
        found = [one for one in patches if one["x-kubernetes-group-version-kind"] == kind]
        assert found
        for one in found:
            assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in one["parameters"]}


def test_only_built_in_kinds_take_strategic_merge_patches(catalog: Catalog) -> None:
    def types(path: str, item: str) -> set[str]:
        return set(document(catalog, path)["paths"][item]["patch"]["requestBody"]["content"])

    custom = types("/openapi/v3/apis/example.com/v1", "/apis/example.com/v1/gadgets/{name}")
    ours = types("/openapi/v3/api/v1", "/api/v1/namespaces/{name}")
    assert custom == {
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    }
    assert ours == custom | {"application/strategic-merge-patch+json"}


# --- custom kinds ---------------------------------------------------------------------------------------------


def test_a_custom_kinds_operations_are_those_of_a_kube_apiserver(catalog: Catalog) -> None:
    paths = document(catalog, "/openapi/v3/apis/example.com/v1")["paths"]
    told = {
        (path.removeprefix("/apis/example.com/v1"), method): (one["operationId"], one["x-kubernetes-action"])
        for path, item in paths.items()
        for method, one in item.items()
        if method != "parameters"
    }
    everywhere, item = "/namespaces/{namespace}/widgets", "/namespaces/{namespace}/widgets/{name}"
    assert told == {
        ("/gadgets", "get"): ("listExampleComV1Gadget", "list"),
        ("/gadgets", "post"): ("createExampleComV1Gadget", "post"),
        ("/gadgets", "delete"): ("deleteExampleComV1CollectionGadget", "deletecollection"),
        ("/gadgets/{name}", "get"): ("readExampleComV1Gadget", "get"),
        ("/gadgets/{name}", "put"): ("replaceExampleComV1Gadget", "put"),
        ("/gadgets/{name}", "delete"): ("deleteExampleComV1Gadget", "delete"),
        ("/gadgets/{name}", "patch"): ("patchExampleComV1Gadget", "patch"),
        ("/widgets", "get"): ("listExampleComV1WidgetForAllNamespaces", "list"),
        (everywhere, "get"): ("listExampleComV1NamespacedWidget", "list"),
        (everywhere, "post"): ("createExampleComV1NamespacedWidget", "post"),
        (everywhere, "delete"): ("deleteExampleComV1CollectionNamespacedWidget", "deletecollection"),
        (item, "get"): ("readExampleComV1NamespacedWidget", "get"),
        (item, "put"): ("replaceExampleComV1NamespacedWidget", "put"),
        (item, "delete"): ("deleteExampleComV1NamespacedWidget", "delete"),
        (item, "patch"): ("patchExampleComV1NamespacedWidget", "patch"),
        (f"{item}/status", "get"): ("readExampleComV1NamespacedWidgetStatus", "get"),
        (f"{item}/status", "put"): ("replaceExampleComV1NamespacedWidgetStatus", "put"),
        (f"{item}/status", "patch"): ("patchExampleComV1NamespacedWidgetStatus", "patch"),
        (f"{item}/scale", "get"): ("readExampleComV1NamespacedWidgetScale", "get"),
        (f"{item}/scale", "put"): ("replaceExampleComV1NamespacedWidgetScale", "put"),
        (f"{item}/scale", "patch"): ("patchExampleComV1NamespacedWidgetScale", "patch"),
    }


INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


@pytest.mark.parametrize(
    ("field", "in_v3", "in_v2"),
    [
        (
            "color",
            {"type": "string", "enum": ["red", "blue"], "default": "red", "description": "Its color."},
            {"type": "string", "enum": ["red", "blue"], "description": "Its color."},
        ),
        (
            "replicas",
            {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100, "default": 1},
            {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100},
        ),
        (
            "port",
            {"x-kubernetes-int-or-string": True, "default": 80, "anyOf": INT_OR_STRING},
            {"x-kubernetes-int-or-string": True},
        ),
        (
            "port2",
            {"x-kubernetes-int-or-string": True, "anyOf": INT_OR_STRING, "pattern": "^x"},
            {"x-kubernetes-int-or-string": True, "pattern": "^x"},
        ),
        (
            "port3",
            {
                "x-kubernetes-int-or-string": True,
                "anyOf": [{"pattern": "^x"}],
                "allOf": [{"anyOf": INT_OR_STRING}],
            },
            {"x-kubernetes-int-or-string": True},
        ),
        (
            "any",
            {"x-kubernetes-preserve-unknown-fields": True},
            {"x-kubernetes-preserve-unknown-fields": True},
        ),
        (
            "blob",
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "nullable": True},
            {"x-kubernetes-preserve-unknown-fields": True},
        ),
        (
            "list",
            kinds.WIDGET_SCHEMA["properties"]["spec"]["properties"]["list"],
            kinds.WIDGET_SCHEMA["properties"]["spec"]["properties"]["list"],
        ),
        (
            "map",
            {"type": "object", "additionalProperties": {"type": "string", "nullable": True}},
            {"type": "object", "additionalProperties": {}},
        ),
        (
            "anymap",
            {"type": "object", "additionalProperties": True},
            {"type": "object", "additionalProperties": True},
        ),
        (
            "comb",
            {"type": "object", "oneOf": [{"required": ["a"]}], "not": {"required": ["z"]}},
            {"type": "object"},
        ),
    ],
)
def test_a_field_is_published_as_a_kube_apiserver_publishes_it(
    catalog: Catalog, field: str, in_v3: Object, in_v2: Object
) -> None:
    v3 = document(catalog, "/openapi/v3/apis/example.com/v1")["components"]["schemas"][WIDGET]
    v2 = document(catalog, "/openapi/v2")["definitions"][WIDGET]
    assert v3["properties"]["spec"]["properties"][field] == in_v3
    assert v2["properties"]["spec"]["properties"][field] == in_v2


def test_a_custom_kind_has_the_head_of_every_object(catalog: Catalog) -> None:
    found = document(catalog, "/openapi/v3/apis/example.com/v1")["components"]["schemas"][WIDGET]
    properties = found["properties"]
    assert found["description"] == "A widget."
    assert found["required"] == ["spec"]
    assert found["x-kubernetes-group-version-kind"] == [
        {"group": "example.com", "kind": "Widget", "version": "v1"}
    ]
    assert found["x-kubernetes-selectable-fields"] == [{"fieldPath": "spec.color"}]
    assert found["x-kubernetes-validations"] == [{"rule": "has(self.spec)", "message": "no"}]
    assert properties["apiVersion"]["description"].startswith("APIVersion defines the versioned schema")
    assert properties["kind"]["type"] == "string"
    assert properties["metadata"]["allOf"] == [{"$ref": f"#/components/schemas/{OBJECT_META}"}]
    assert properties["spec"]["required"] == ["color", "blob"]
    in_v2 = document(catalog, "/openapi/v2")["definitions"][WIDGET]["properties"]
    assert in_v2["metadata"]["$ref"] == f"#/definitions/{OBJECT_META}"
    # A nullable field cannot be required in words that know no null.
    assert in_v2["spec"]["required"] == ["color"]


def test_an_embedded_resource_has_a_head_of_its_own(catalog: Catalog) -> None:
    found = document(catalog, "/openapi/v3/apis/example.com/v1")["components"]["schemas"][WIDGET]
    embedded = found["properties"]["spec"]["properties"]["emb"]
    assert embedded["required"] == ["kind", "apiVersion"]
    assert set(embedded["properties"]) == {"apiVersion", "kind", "metadata"}
    assert embedded["properties"]["apiVersion"]["description"].startswith("apiVersion defines")
    in_v2 = document(catalog, "/openapi/v2")["definitions"][WIDGET]["properties"]["spec"]["properties"]["emb"]
    assert in_v2 == {
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    }


def test_a_kind_that_keeps_unknown_fields_says_so(catalog: Catalog) -> None:
    name = "com.example.v1beta1.Widget"
    gvk = [{"group": "example.com", "kind": "Widget", "version": "v1beta1"}]
    v3 = document(catalog, "/openapi/v3/apis/example.com/v1beta1")["components"]["schemas"][name]
    assert v3["x-kubernetes-preserve-unknown-fields"] is True
    assert set(v3["properties"]) == {"apiVersion", "kind", "metadata"}
    v2 = document(catalog, "/openapi/v2")["definitions"][name]
    assert v2 == {"type": "object", "x-kubernetes-group-version-kind": gvk}


def test_a_custom_list_refers_to_its_kind(catalog: Catalog) -> None:
    found = document(catalog, "/openapi/v3/apis/example.com/v1")["components"]["schemas"][f"{WIDGET}List"]
    assert found["description"] == "WidgetList is a list of Widget"
    assert found["required"] == ["items"]
    assert found["properties"]["items"]["items"] == {"$ref": f"#/components/schemas/{WIDGET}"}
    assert found["x-kubernetes-group-version-kind"][0]["kind"] == "WidgetList"


def test_a_crd_for_a_kind_that_upstream_has_is_published_as_it_is() -> None:
    mine = replace(kinds.gadgets(), group="apps", names=kinds.names("deployments", "Deployment"))
    found = document(Catalog([mine]), "/openapi/v3/apis/apps/v1")["components"]["schemas"]
    assert set(found["apps.v1.Deployment"]["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert "io.k8s.api.apps.v1.Deployment" not in found
    assert "apps.v1.Deployment" in document(Catalog([mine]), "/openapi/v2")["definitions"]


def test_publishing_leaves_the_crds_schema_as_it_was() -> None:
    fresh = Catalog([kinds.widgets()])
    before = orjson.dumps(fresh.resources[0].versions[0].schema.source)
    get(fresh, "/openapi/v3/apis/example.com/v1")
    get(fresh, "/openapi/v2")
    assert orjson.dumps(fresh.resources[0].versions[0].schema.source) == before


def test_a_document_of_custom_kinds_is_titled_as_such(catalog: Catalog) -> None:
    assert document(catalog, "/openapi/v3/apis/example.com/v1")["info"] == {
        "title": "Kubernetes CRD Swagger",
        "version": "v0.1.0",
    }
    assert document(catalog, "/openapi/v3/api/v1")["info"]["title"] == "Kubernetes"


# --- how documents are served ---------------------------------------------------------------------------------


def url_of(catalog: Catalog, path: str) -> str:
    url: str = document(catalog, "/openapi/v3")["paths"][path]["serverRelativeURL"]
    return url


def test_the_index_leads_to_documents_that_never_change(catalog: Catalog) -> None:
    url = url_of(catalog, "apis/example.com/v1")
    path, _, asked = url.partition("?hash=")
    assert path == "/openapi/v3/apis/example.com/v1"
    assert re.fullmatch("[0-9A-F]{128}", asked)
    response = get(catalog, path, asked_hash=asked)
    assert dict(response.headers) == {
        "Vary": "Accept",
        "Cache-Control": "public, immutable",
        "Expires": "Sat, 01 May 2027 12:00:00 GMT",
        "ETag": f'"{asked}"',
        "Last-Modified": format_datetime(NOW, usegmt=True),
    }
    assert response.content_type == "application/json"


def test_an_old_hash_leads_to_the_new_one_within_the_same_cluster(catalog: Catalog) -> None:
    for path, last in (("apis/example.com/v1", "v1"), ("api/v1", "v1")):
        asked = url_of(catalog, path).partition("?hash=")[2]
        response = get(catalog, f"/openapi/v3/{path}", asked_hash="OLD")
        assert response.status == 301
        # No cluster's prefix is known here, so the way there starts at the document itself.
        assert ("Location", f"{last}?hash={asked}") in response.headers


def test_a_document_without_a_hash_must_be_asked_for_again(catalog: Catalog) -> None:
    response = get(catalog, "/openapi/v3/api/v1")
    etag = dict(response.headers)["ETag"]
    assert "Cache-Control" not in dict(response.headers)
    for known in (etag, f'"x", W/{etag}', "*"):
        again = get(catalog, "/openapi/v3/api/v1", conditions=having(known))
        assert (again.status, again.body) == (304, b"")
    assert get(catalog, "/openapi/v3/api/v1", conditions=having('"x"')).status == 200
    for path in ("/openapi/v3", "/openapi/v2"):
        tag = dict(get(catalog, path).headers)["ETag"]
        assert get(catalog, path, conditions=having(tag)).status == 304
        assert dict(get(catalog, path).headers)["Last-Modified"] == format_datetime(NOW, usegmt=True)


def test_documents_of_v3_that_there_are_not_answer_without_a_body(catalog: Catalog) -> None:
    for path in ("/openapi/v3/apis/nope/v1", "/openapi/v3/", "/openapi/v3/version/"):
        response = get(catalog, path)
        assert (response.status, response.body) == (404, b"")
    for path in ("/openapi/v4", "/openapi", "/openapi/", "/openapi/v2/"):
        response = get(catalog, path)
        assert (response.status, response.body) == (404, b"404 page not found\n")
    # Protobuf of v3 is not made; those who can read it ask for JSON beside it, and JSON is what kubectl asks for.
    for path, varies in (("/openapi/v3/api/v1", ["Accept"]), ("/openapi/v2", ["Accept-Encoding", "Accept"])):
        only = get(catalog, path, accept_header="text/html")
        assert (only.status, only.body) == (406, b"")
        assert [*only.headers] == [("Vary", name) for name in varies]


def test_equal_crds_of_two_clusters_have_equal_hashes_and_share_their_document() -> None:
    one, other = (Catalog([kinds.widgets()], parent=Catalog(kinds.builtins())) for _ in range(2))
    path = "/openapi/v3/apis/example.com/v1"
    assert url_of(one, "apis/example.com/v1") == url_of(other, "apis/example.com/v1")
    assert get(one, path).body is get(other, path).body
    assert get(one, "/openapi/v3/api/v1").body is get(other, "/openapi/v3/api/v1").body


def test_a_crd_changes_the_hash_of_its_own_group_version_only() -> None:
    base = Catalog(kinds.builtins())
    without, with_gadgets = (
        Catalog([kinds.widgets()], parent=base),
        Catalog([kinds.widgets(), kinds.gadgets()], parent=base),
    )
    before, after = (document(one, "/openapi/v3")["paths"] for one in (without, with_gadgets))
    assert {path for path in before if before[path] != after[path]} == {"apis/example.com/v1"}


def test_the_index_makes_no_document() -> None:
    definitions = builtin_definitions()
    asked: list[str] = []

    def published(name: str) -> Object:
        asked.append(name)
        return builtin.published(name)

    watched = Definitions(definitions.source, "watched", name_of=builtin.definition_of, published=published)
    catalog = kinds.whole_catalog()
    index(catalog, watched)
    assert asked == []
    get(catalog, "/openapi/v3/api/v1", definitions=watched)
    assert "io.k8s.api.core.v1.ConfigMap" in asked


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3/apis/example.com/v1"])
def test_documents_can_be_prepared_a_piece_at_a_time(path: str) -> None:
    definitions = Definitions(
        builtin_definitions().source, f"prepared for {path}", name_of=builtin.definition_of
    )
    catalog = kinds.whole_catalog()
    steps = len(list(preparing(catalog, path, definitions=definitions)))
    if path == "/openapi/v2":
        # Ten resources, and each definition that is upstream's: that of custom kinds is their resource's.
        shared = document(catalog, path)["definitions"].keys() & definitions.source.keys()
        assert steps >= 10 + len(shared)
    else:
        assert steps >= 2
    assert list(preparing(catalog, path, definitions=definitions)) == []
    prepared = get(catalog, path, definitions=definitions).body
    at_once = Definitions(definitions.source, f"at once for {path}", name_of=builtin.definition_of)
    assert get(catalog, path, definitions=at_once).body == prepared
    assert list(preparing(catalog, "/openapi/v3/apis/nope/v1", definitions=definitions)) == []


def test_documents_are_kept_within_a_budget() -> None:
    kept = Kept(10)
    made: list[str] = []

    def make(name: str) -> bytes:
        def one() -> bytes:
            made.append(name)
            return name.encode() * 4

        return kept.get(name, one, len)

    for name in ("a", "b", "a", "c", "b", "a"):
        make(name)
    # Two fit: `c` drops `b`, the least recently used; `b` then drops `a`.
    assert made == ["a", "b", "c", "b", "a"]
    assert kept.get("big", lambda: b"x" * 100, len) == b"x" * 100


def test_a_kind_without_published_definitions_refers_to_nothing() -> None:
    names: dict[tuple[str, str, str], str] = {}
    nothing = Definitions({}, "none", name_of=lambda *kind: names[kind])
    catalog = Catalog([kinds.gadgets(), *kinds.builtins()[1:2]])
    for path in ("/openapi/v3/apis/example.com/v1", "/openapi/v3/api/v1"):
        body = get(catalog, path, definitions=nothing).body
        referred = {name.decode() for name in re.findall(rb'"\$ref":"#/components/schemas/([^"]+)"', body)}
        assert referred <= orjson.loads(body)["components"]["schemas"].keys() | {OBJECT_META, LIST_META}


# --- version 2 ------------------------------------------------------------------------------------------------


def test_v2_tells_built_in_definitions_as_upstream_publishes_them(catalog: Catalog) -> None:
    published = orjson.loads(kinds.published("openapi-spec", "swagger.json").read_bytes())["definitions"]
    described = bool(builtin.published("io.k8s.api.core.v1.ConfigMap").get("description"))
    if not described:
        _drop_descriptions(published)
    ours = document(catalog, "/openapi/v2")["definitions"]
    unexplained = [
        one
        for name, schema in ours.items()
        if name in published
        for one in differences(schema, published[name], f"/schemas/{name}")
        if not any(re.search(f"{known}$", one) for known in DIFFERENCES)
    ]
    assert len(ours.keys() & published.keys()) > 30
    assert unexplained == []


def test_v2_publishes_unions_of_scalars_as_strings() -> None:
    assert definition_v2({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}) == {
        "type": "string",
        "format": "int-or-string",
    }


@pytest.fixture(scope="module")
def gnostic_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """gnostic's own message definitions, compiled."""
    modules = kinds.published("discovery").parents[2] / ".." / "github.com" / "google"
    protos = sorted(modules.glob("gnostic-models@*/openapiv2/OpenAPIv2.proto"))
    if not protos:
        pytest.skip("the Go module gnostic-models is not on this machine")
    out = tmp_path_factory.mktemp("gnostic")
    source = out / "OpenAPIv2.proto"
    source.write_bytes(protos[-1].read_bytes())
    include = Path(importlib.import_module("grpc_tools").__file__ or "").parent / "_proto"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{out}",
            f"-I{include}",
            f"--python_out={out}",
            source,
        ],
        check=True,
    )
    sys.path.insert(0, str(out))
    try:
        yield importlib.import_module("OpenAPIv2_pb2")
    finally:
        sys.path.remove(str(out))


def test_kubectl_gets_protobuf_under_a_name_that_go_can_parse(catalog: Catalog) -> None:
    for asked in (PROTOBUF_ASKED, PROTOBUF):
        response = get(catalog, "/openapi/v2", accept_header=asked)
        assert response.content_type == PROTOBUF
        assert ("Vary", "Accept") in response.headers
    assert get(catalog, "/openapi/v2").content_type == "application/json"
    assert (
        get(catalog, "/openapi/v2", accept_header=f"{PROTOBUF_ASKED};q=0.5,application/json").body[:1] == b"{"
    )


@pytest.mark.parametrize("made", [kinds.whole_catalog, everything])
def test_the_protobuf_says_what_the_json_says(made: Callable[[], Catalog], gnostic_module: Any) -> None:
    catalog = made()
    told = document(catalog, "/openapi/v2")
    found = gnostic_module.Document.FromString(get(catalog, "/openapi/v2", accept_header=PROTOBUF_ASKED).body)
    assert (found.swagger, found.info.title, found.info.version) == (
        "2.0",
        "Kubernetes",
        told["info"]["version"],
    )
    schemas = {one.name: _schema(one.value) for one in found.definitions.additional_properties}
    assert schemas == told["definitions"]
    paths = {one.name: _path_item(one.value) for one in found.paths.path}
    assert paths == told["paths"]
    (security,) = found.security_definitions.additional_properties
    assert security.value.api_key_security.name == "authorization"
    assert [one.additional_properties[0].name for one in found.security] == ["BearerToken"]


def _any(value: Any) -> Any:
    return orjson.loads(value.yaml)


def _extensions(value: Any) -> Object:
    return {one.name: _any(one.value) for one in value.vendor_extension}


def _scalars(value: Any, names: dict[str, str]) -> Object:
    return {key: found for key, field in names.items() if (found := getattr(value, field))}


SCHEMA_SCALARS = {
    "$ref": "_ref", "format": "format", "title": "title", "description": "description", "multipleOf": "multiple_of",
    "maximum": "maximum", "minimum": "minimum", "exclusiveMaximum": "exclusive_maximum",
    "exclusiveMinimum": "exclusive_minimum", "maxLength": "max_length", "minLength": "min_length", "pattern": "pattern",
    "maxItems": "max_items", "minItems": "min_items", "uniqueItems": "unique_items",
    "maxProperties": "max_properties", "minProperties": "min_properties",
}  # fmt: skip


def _schema(value: Any) -> Object:
    """A Schema message as the JSON it stands for. Zeroes are not told (proto3), and the only one is a minimum."""
    told = _scalars(value, SCHEMA_SCALARS) | _extensions(value)
    if value.required:
        told["required"] = list(value.required)
    if value.enum:
        told["enum"] = [_any(one) for one in value.enum]
    if value.HasField("type"):
        told["type"] = value.type.value[0]
    if value.HasField("items"):
        told["items"] = _schema(value.items.schema[0])
    if value.HasField("additional_properties"):
        of = value.additional_properties
        told["additionalProperties"] = (
            _schema(of.schema) if of.WhichOneof("oneof") == "schema" else of.boolean
        )
    if value.HasField("properties"):
        told["properties"] = {one.name: _schema(one.value) for one in value.properties.additional_properties}
    if value.all_of:
        told["allOf"] = [_schema(one) for one in value.all_of]
    if told.get("maximum") == 100:
        told["minimum"] = 0
    return told


def _path_item(item: Any) -> Object:
    told: Object = {
        method: _operation(getattr(item, method))
        for method in ("get", "put", "post", "delete", "options", "head", "patch")
        if item.HasField(method)
    }
    if item.parameters:
        told["parameters"] = [_parameter(one.parameter) for one in item.parameters]
    return told


def _operation(value: Any) -> Object:
    told = _scalars(value, {"description": "description", "operationId": "operation_id"}) | _extensions(value)
    for key in ("consumes", "produces", "schemes", "tags"):
        if getattr(value, key):
            told[key] = list(getattr(value, key))
    if value.parameters:
        told["parameters"] = [_parameter(one.parameter) for one in value.parameters]
    told["responses"] = {}
    for one in value.responses.response_code:
        response = one.value.response
        told["responses"][one.name] = {"description": response.description}
        if response.HasField("schema"):
            told["responses"][one.name]["schema"] = _schema(response.schema.schema)
    return told


def _parameter(value: Any) -> Object:
    names = {"name": "name", "in": "in", "required": "required", "description": "description"}
    if value.WhichOneof("oneof") == "body_parameter":
        return _scalars(value.body_parameter, names) | {"schema": _schema(value.body_parameter.schema)}
    other = value.non_body_parameter
    return _scalars(
        getattr(other, other.WhichOneof("oneof")), names | {"type": "type", "uniqueItems": "unique_items"}
    )
