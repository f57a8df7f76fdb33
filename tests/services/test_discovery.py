"""Discovery of built-in and custom kinds, held against what upstream publishes and a kube-apiserver 1.37 answered."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.yaml import parse_yaml
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Resource, Subresource
from clusterling.registry.strategy import Context
from clusterling.services import discovery
from clusterling.services.discovery import respond
from clusterling.version import KUBERNETES
from tests.services import kinds

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2_BETA = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
CUSTOM_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return kinds.whole_catalog()


def get(catalog: Catalog, path: str, **more: Any) -> Object:
    response = respond(catalog, path, **more)
    assert response.status == 200
    found: Object = orjson.loads(response.body)
    return found


def told_by_upstream(*parts: str) -> Object:
    found: Object = orjson.loads(kinds.published("discovery", *parts).read_bytes())
    return found


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/api/v1", "api__v1.json"),
        ("/apis/coordination.k8s.io/v1", "apis__coordination.k8s.io__v1.json"),
        ("/apis/events.k8s.io/v1", "apis__events.k8s.io__v1.json"),
    ],
)
def test_built_in_kinds_are_told_as_upstream_tells_them(catalog: Catalog, path: str, file: str) -> None:
    """All fields are equal, but serviceaccounts/token: this catalog has no function for it."""
    ours, theirs = get(catalog, path), told_by_upstream(file)
    served = {resource["name"] for resource in ours["resources"]}
    theirs["resources"] = [resource for resource in theirs["resources"] if resource["name"] in served]
    if path == "/api/v1":
        # The published file is written through another serializer: the server's answer has no apiVersion.
        theirs.pop("apiVersion", None)
        assert served == {
            "configmaps",
            "events",
            "namespaces",
            "namespaces/finalize",
            "namespaces/status",
            "secrets",
            "serviceaccounts",
        }
    assert ours == theirs


@pytest.mark.parametrize("group", ["events.k8s.io"])
def test_a_built_in_group_is_told_as_upstream_tells_it(catalog: Catalog, group: str) -> None:
    assert get(catalog, f"/apis/{group}") == told_by_upstream(f"apis__{group}.json")


def test_aggregated_built_in_kinds_are_told_as_upstream_tells_them(catalog: Catalog) -> None:
    theirs = {group["metadata"]["name"]: group for group in told_by_upstream("aggregated_v2.json")["items"]}
    ours = {group["metadata"]["name"]: group for group in get(catalog, "/apis", accept_header=V2)["items"]}
    assert ours["events.k8s.io"] == theirs["events.k8s.io"]
    # Upstream has leasecandidates in two more versions.
    leases = [one for one in theirs["coordination.k8s.io"]["versions"] if one["version"] == "v1"]
    assert ours["coordination.k8s.io"]["versions"] == leases


def test_a_custom_group_and_its_kinds_are_told_as_a_kube_apiserver_tells_them(catalog: Catalog) -> None:
    assert respond(catalog, "/apis/example.com").body == (
        b'{"kind":"APIGroup","apiVersion":"v1","name":"example.com","versions":[{"groupVersion":"example.com/v1",'
        b'"version":"v1"},{"groupVersion":"example.com/v1beta1","version":"v1beta1"}],"preferredVersion":'
        b'{"groupVersion":"example.com/v1","version":"v1"}}'
    )
    part = {"singularName": "", "namespaced": True, "verbs": ["get", "patch", "update"]}
    assert get(catalog, "/apis/example.com/v1") == {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "example.com/v1",
        "resources": [
            {
                "name": "gadgets",
                "singularName": "gadget",
                "namespaced": False,
                "kind": "Gadget",
                "verbs": CUSTOM_VERBS,
                "storageVersionHash": "ggWp2HxsL0Q=",
            },
            {
                "name": "widgets",
                "singularName": "widget",
                "namespaced": True,
                "kind": "Widget",
                "verbs": CUSTOM_VERBS,
                "shortNames": ["wd"],
                "categories": ["all"],
                "storageVersionHash": "gIwvi5rymmg=",
            },
            part | {"name": "widgets/status", "kind": "Widget"},
            part | {"name": "widgets/scale", "kind": "Scale", "group": "autoscaling", "version": "v1"},
        ],
    }


def test_every_version_tells_the_hash_of_the_stored_one(catalog: Catalog) -> None:
    (beta,) = get(catalog, "/apis/example.com/v1beta1")["resources"]
    assert beta["storageVersionHash"] == "gIwvi5rymmg="


def test_a_stored_version_that_is_not_served_has_no_hash() -> None:
    widgets = kinds.widgets()
    v1, beta = widgets.versions
    catalog = Catalog([replace(widgets, versions=(replace(v1, served=False), beta))])
    (told,) = get(catalog, "/apis/example.com/v1beta1")["resources"]
    assert "storageVersionHash" not in told
    assert respond(catalog, "/apis/example.com/v1").status == 404


def test_aggregated_custom_kinds_name_their_group_and_version(catalog: Catalog) -> None:
    found = get(catalog, "/apis", accept_header=V2)["items"][-1]
    kind = {"group": "example.com", "version": "v1", "kind": "Widget"}
    verbs = ["get", "patch", "update"]
    assert found["metadata"] == {"name": "example.com"}
    assert [version["version"] for version in found["versions"]] == ["v1", "v1beta1"]
    assert found["versions"][0]["freshness"] == "Current"
    assert found["versions"][0]["resources"][1] == {
        "resource": "widgets",
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": "widget",
        "verbs": CUSTOM_VERBS,
        "shortNames": ["wd"],
        "categories": ["all"],
        "subresources": [
            {"subresource": "status", "responseKind": kind, "verbs": verbs},
            {
                "subresource": "scale",
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "verbs": verbs,
            },
        ],
    }


def test_groups_come_in_upstreams_order_then_by_name() -> None:
    one = kinds.gadgets()
    catalog = Catalog(
        [
            kinds.widgets(),
            *kinds.builtins(),
            _in_group(one, "zz.example.com"),
            _in_group(one, "aa.example.com"),
            _in_group(one, "apps"),
        ]
    )
    names = [group["name"] for group in get(catalog, "/apis")["groups"]]
    assert names == [
        "apps",
        "events.k8s.io",
        "coordination.k8s.io",
        "aa.example.com",
        "example.com",
        "zz.example.com",
    ]


def _in_group(resource: Resource, group: str) -> Resource:
    return replace(resource, group=group)


@pytest.mark.parametrize("path", ["/api", "/apis"])
@pytest.mark.parametrize(
    ("header", "version"),
    [
        (f"{V2},{V2_BETA},application/json", "v2"),
        (f"{V2_BETA},application/json", "v2beta1"),
        ("application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io", "v2"),
        (f"{V2};profile=nopeer,application/json", "v2"),
        ("application/json;as=APIGroupDiscoveryList;v=v9;g=apidiscovery.k8s.io,application/json", ""),
        ("application/json", ""),
        (None, ""),
        (f"application/json,{V2}", ""),
    ],
)
def test_the_accept_header_decides_between_aggregated_and_plain(
    catalog: Catalog, path: str, header: str | None, version: str
) -> None:
    response = respond(catalog, path, accept_header=header)
    found = orjson.loads(response.body)
    if not version:
        assert response.content_type == "application/json"
        assert found["kind"] == {"/api": "APIVersions", "/apis": "APIGroupList"}[path]
        return
    assert found["kind"] == "APIGroupDiscoveryList"
    assert found["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    assert (
        response.content_type
        == f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    )
    etag = f'"{hashlib.sha512(response.body).hexdigest().upper()}"'
    assert set(response.headers) == {("ETag", etag), ("Vary", "Accept"), ("Cache-Control", "public")}


def test_the_core_group_is_told_under_api_alone(catalog: Catalog) -> None:
    (core,) = get(catalog, "/api", accept_header=V2)["items"]
    assert core["metadata"] == {}
    assert "configmaps" in [one["resource"] for one in core["versions"][0]["resources"]]
    groups = get(catalog, "/apis", accept_header=V2)["items"]
    assert all("name" in group["metadata"] for group in groups)


def test_who_has_the_document_already_is_told_so(catalog: Catalog) -> None:
    etag = dict(respond(catalog, "/apis", accept_header=V2).headers)["ETag"]
    again = respond(catalog, "/apis", accept_header=V2, if_none_match=etag)
    assert (again.status, again.body) == (304, b"")
    assert ("ETag", etag) in again.headers
    assert respond(catalog, "/apis", accept_header=V2, if_none_match='"other"').status == 200
    # A change of what is served changes the tag.
    other = Catalog([kinds.widgets()], parent=Catalog(kinds.builtins()))
    assert respond(other, "/apis", accept_header=V2, if_none_match=etag).status == 200


def test_only_aggregated_that_there_is_not_is_not_acceptable(catalog: Catalog) -> None:
    for header in ("application/json;as=APIGroupDiscoveryList;v=v1;g=apidiscovery.k8s.io", "text/html"):
        with pytest.raises(ApiError) as caught:
            respond(catalog, "/apis", accept_header=header)
        assert caught.value.code == 406
    # With a slash at the end upstream's aggregator does not know its path; that of the core group has both.
    with pytest.raises(ApiError):
        respond(catalog, "/apis/", accept_header=V2)
    assert respond(catalog, "/api/", accept_header=V2).body == respond(catalog, "/api", accept_header=V2).body


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/apis", "/apis/example.com", "/apis/example.com/v1"])
def test_a_slash_at_the_end_changes_nothing(catalog: Catalog, path: str) -> None:
    assert respond(catalog, f"{path}/").body == respond(catalog, path).body


def test_other_media_types_say_the_same(catalog: Catalog) -> None:
    response = respond(catalog, "/apis/example.com/v1", accept_header="application/yaml")
    assert response.content_type == "application/yaml"
    assert parse_yaml(response.body)[0] == get(catalog, "/apis/example.com/v1")
    pretty = respond(catalog, "/apis/example.com/v1", pretty=True).body
    assert pretty.startswith(b'{\n  "kind": "APIResourceList",\n')


@pytest.mark.parametrize(
    "path", ["/apis/nope", "/apis/nope/v1", "/apis/example.com/v9", "/apis/example.com/v1/x/y"]
)
def test_groups_and_versions_that_are_not_served_are_not_found_in_plain_text(
    catalog: Catalog, path: str
) -> None:
    response = respond(catalog, path)
    assert (response.status, response.body, response.content_type) == (
        404,
        b"404 page not found\n",
        "text/plain; charset=utf-8",
    )


def test_below_api_what_is_not_served_is_a_status(catalog: Catalog) -> None:
    with pytest.raises(ApiError) as caught:
        respond(catalog, "/api/v2")
    assert caught.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the server could not find the requested resource",
        "reason": "NotFound",
        "details": {},
        "code": 404,
    }


def test_asking_for_what_is_not_served_leaves_nothing_behind() -> None:
    catalog = Catalog(kinds.builtins())
    for number in range(100):
        respond(catalog, f"/apis/g{number}.example.com/v1")
    assert not catalog.views


def test_api_tells_the_address_it_was_asked_at(catalog: Catalog) -> None:
    assert get(catalog, "/api", server_address="127.0.0.1:6443") == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
    }


def test_a_function_of_its_own_is_told_with_its_kind() -> None:
    async def issue(ctx: Context, call: object) -> Object:
        raise AssertionError("discovery calls nothing")

    token = Subresource("token", "authentication.k8s.io", "v1", "TokenRequest", ("create",), issue)
    accounts = kinds.builtins()[3]
    catalog = Catalog([replace(accounts, subresources={"token": token})])
    theirs = told_by_upstream("api__v1.json")["resources"]
    assert get(catalog, "/api/v1")["resources"] == [
        one for one in theirs if one["name"].startswith("serviceaccounts")
    ]


def test_clusters_with_the_same_catalog_share_the_bytes(catalog: Catalog) -> None:
    assert respond(catalog, "/apis/example.com/v1").body is respond(catalog, "/apis/example.com/v1").body
    assert (
        respond(catalog, "/apis", accept_header=V2).body is respond(catalog, "/apis", accept_header=V2).body
    )


def test_the_version_document_has_upstreams_fields() -> None:
    response = discovery.version("application/json, */*")
    found = orjson.loads(response.body)
    major, minor, _ = KUBERNETES.split(".")
    assert list(found) == [
        "major", "minor", "emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor",
        "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform",
    ]  # fmt: skip
    assert (found["gitVersion"], found["major"], found["minor"]) == (f"v{KUBERNETES}", major, minor)
    assert found["platform"].count("/") == 1
    assert response.body.startswith(b'{\n  "major": "1",\n')


def test_the_version_document_is_json_alone() -> None:
    with pytest.raises(ApiError) as caught:
        discovery.version("text/html")
    assert (caught.value.code, caught.value.message) == (
        406,
        "406: Not Acceptable\n\nAvailable representations: application/json",
    )


def test_the_root_lists_the_paths_there_are(catalog: Catalog) -> None:
    paths = orjson.loads(discovery.root(catalog, ("/healthz",)).body)["paths"]
    assert paths == sorted(paths)
    assert {
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/apis/example.com/v1",
        "/healthz",
        "/openapi/v3",
        "/version",
    } <= set(paths)
