"""What a raw target means, and that no crafted one means another cluster."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clusterling.machinery.errors import ApiError
from clusterling.services.requestinfo import (
    PARAMETERS_MAX,
    QUERY_CHARACTERS_MAX,
    RequestInfo,
    first,
    parse,
    parse_query,
)

_SLOTS = RequestInfo.__slots__

Expected = tuple[str, str, str, str, str, str, str, str]

# method, target → cluster, verb, group, version, resource, subresource, namespace, name
RESOURCES: dict[str, tuple[str, str, Expected]] = {
    "get in a namespace": (
        "GET",
        "/clusters/a/api/v1/namespaces/ns/pods/p",
        ("a", "get", "", "v1", "pods", "", "ns", "p"),
    ),
    "list in a namespace": (
        "GET",
        "/api/v1/namespaces/ns/pods",
        ("", "list", "", "v1", "pods", "", "ns", ""),
    ),
    "list in all": (
        "GET",
        "/apis/apps/v1/deployments",
        ("", "list", "apps", "v1", "deployments", "", "", ""),
    ),
    "watch": ("GET", "/api/v1/pods?watch=1", ("", "watch", "", "v1", "pods", "", "", "")),
    "watch said without a value": ("GET", "/api/v1/pods?watch", ("", "watch", "", "v1", "pods", "", "", "")),
    "watch said no": ("GET", "/api/v1/pods?watch=False", ("", "list", "", "v1", "pods", "", "", "")),
    "watch is for collections": (
        "GET",
        "/api/v1/nodes/n?watch=1",
        ("", "get", "", "v1", "nodes", "", "", "n"),
    ),
    "watch by the old path": (
        "GET",
        "/api/v1/watch/namespaces/ns/pods/p",
        ("", "watch", "", "v1", "pods", "", "ns", "p"),
    ),
    "create": ("POST", "/api/v1/namespaces/ns/pods", ("", "create", "", "v1", "pods", "", "ns", "")),
    "update": ("PUT", "/api/v1/nodes/n", ("", "update", "", "v1", "nodes", "", "", "n")),
    "patch a part": ("PATCH", "/api/v1/nodes/n/status", ("", "patch", "", "v1", "nodes", "status", "", "n")),
    "delete": ("DELETE", "/api/v1/nodes/n", ("", "delete", "", "v1", "nodes", "", "", "n")),
    "delete a collection": (
        "DELETE",
        "/api/v1/nodes",
        ("", "deletecollection", "", "v1", "nodes", "", "", ""),
    ),
    "a namespace is in itself": (
        "GET",
        "/api/v1/namespaces/ns",
        ("", "get", "", "v1", "namespaces", "", "ns", "ns"),
    ),
    "a namespace's part": (
        "PUT",
        "/api/v1/namespaces/ns/finalize",
        ("", "update", "", "v1", "namespaces", "finalize", "ns", "ns"),
    ),
    "a trailing slash": ("GET", "/api/v1/namespaces/ns/pods/", ("", "list", "", "v1", "pods", "", "ns", "")),
    "one name by field selector": (
        "GET",
        "/api/v1/pods?fieldSelector=metadata.name%3Dp",
        ("", "list", "", "v1", "pods", "", "", "p"),
    ),
    "a CRD called clusters": (
        "GET",
        "/clusters/a/apis/example.com/v1/clusters/b/status",
        ("a", "get", "example.com", "v1", "clusters", "status", "", "b"),
    ),
    "a CRD called clusters at the root": (
        "GET",
        "/apis/example.com/v1/clusters",
        ("", "list", "example.com", "v1", "clusters", "", "", ""),
    ),
    "a name with a colon": (
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        ("", "get", "rbac.authorization.k8s.io", "v1", "clusterroles", "", "", "system:node"),
    ),
}


@pytest.mark.parametrize("case", RESOURCES.values(), ids=RESOURCES.keys())
def test_a_resource_path_says_cluster_verb_and_object(case: tuple[str, str, Expected]) -> None:
    method, target, expected = case
    path, _, query = target.partition("?")
    info = parse(method, path, query)
    assert info.is_resource
    assert (
        info.cluster,
        info.verb,
        info.group,
        info.version,
        info.resource,
        info.subresource,
        info.namespace,
        info.name,
    ) == expected


@pytest.mark.parametrize(
    ("target", "cluster", "path"),
    [
        ("/clusters/a", "a", "/"),
        ("/clusters/a/", "a", "/"),
        ("/clusters/a/api", "a", "/api"),
        ("/clusters/a/apis/", "a", "/apis/"),
        ("/clusters/a/version/", "a", "/version/"),
        ("/clusters/a/apis/apps/v1", "a", "/apis/apps/v1"),
        ("/clusters/a/openapi/v3/apis/apps/v1", "a", "/openapi/v3/apis/apps/v1"),
        ("/clusters/" + "a" * 63 + "/api", "a" * 63, "/api"),
        ("/version", "", "/version"),
        ("/", "", "/"),
    ],
)
def test_other_paths_keep_what_follows_the_cluster(target: str, cluster: str, path: str) -> None:
    info = parse("GET", target, "")
    assert (info.is_resource, info.cluster, info.path, info.verb) == (False, cluster, path, "get")


CRAFTED = [
    "/clusters/A/api",
    "/clusters/team_a/api",
    "/clusters/a%2e/api",
    "/clusters/%61/api",
    "/clusters/a%2Fapi",
    "/clusters/../api",
    "/clusters/./api",
    "/clusters//api",
    "/clusters/",
    "/clusters/-a/api",
    "/clusters/a-/api",
    "/clusters/a.b/api",
    "/clusters/a:b/api",
    "/clusters/" + "a" * 64 + "/api",
    "/clusters/" + "a" * 4096 + "/api",
    "/clusters/a/..",
    "/clusters/a/../b/api/v1/pods",
    "/clusters/a/./api/v1/pods",
    "/clusters/a//api/v1/pods",
    "/clusters/a/api//v1/pods",
    "/clusters/a/api/v1/namespaces/../pods",
    "/clusters/a/api/v1/namespaces/%2e%2e/pods",
    "/clusters/a/api/v1/namespaces/%2E/pods",
    "/clusters/a/api/v1/namespaces/n%2Fm/pods",
    "/clusters/a/api/v1/namespaces/n%252Fm/pods",
    "/clusters/a/api/v1/namespaces/n%00/pods",
    "/clusters/a/api/v1/namespaces/n/pods/p%ff",
    "/clusters/a/api/v1/namespaces/n/pods/p%zz",
    "/clusters/a/api/v1/namespaces/n/pods/p%0a",
    "/clusters/a/api/v1/namespaces/n/p%6fds",
    "/clusters/a/api/v%31/pods",
    "/clusters/a/%61pi/v1/pods",
    "/clusters/a/apis/apps%2Fv1/deployments/x",
    "/clusters/a/api/v1/pods\x00",
    "/clusters/a/api/v1/pods/é",
    "/clusters/a/api/v1/watch",
    "//clusters/a/api",
    "/%63lusters/a/api/v1/pods",
    "clusters/a/api",
    "http://other/clusters/a/api",
    "*",
]


@pytest.mark.parametrize("target", CRAFTED, ids=[repr(target[:50]) for target in CRAFTED])
def test_a_crafted_path_is_refused_and_told_nothing(target: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse("GET", target, "")
    assert caught.value.code in {400, 404}
    assert "cluster" not in caught.value.message


_SEGMENT = st.one_of(
    st.sampled_from(
        ["clusters", "a", "b", "api", "apis", "v1", "..", ".", "", "%2e", "%2f", "%2F..", "namespaces"]
    ),
    st.text(max_size=8).map(lambda text: quote(text, safe="")),
    st.text(max_size=8),
)


@given(st.lists(_SEGMENT, max_size=9), st.booleans())
@example(["clusters", "a", "..", "b", "api", "v1", "pods"], False)
def test_the_cluster_is_the_second_segment_byte_for_byte_or_none(segments: list[str], slash: bool) -> None:
    path = "/" + "/".join(segments) + ("/" if slash else "")
    try:
        info = parse("GET", path, "")
    except ApiError as error:
        assert error.code in {400, 404}
        return
    if path.startswith("/clusters/"):
        assert info.cluster == path.split("/")[2]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", info.cluster)
    else:
        assert info.cluster == ""
    for part in (info.namespace, info.name, info.resource, info.group):
        assert "/" not in part
        assert part not in {".", ".."}


def test_a_listener_bound_to_one_cluster_knows_no_prefix() -> None:
    info = parse("GET", "/clusters/b/api", "", prefixed=False, default="a")
    assert (info.cluster, info.path) == ("a", "/clusters/b/api")


def test_the_default_cluster_is_meant_where_none_is_named() -> None:
    assert parse("GET", "/api", "", default="a").cluster == "a"
    assert parse("GET", "/clusters/b/api", "", default="a").cluster == "b"


def test_parameters_are_read_as_go_reads_them() -> None:
    query = parse_query("a=1&a=2&&b&c=%41+x&d;e=1&f=%zz&=g")
    assert query == {"a": ["1", "2"], "b": [""], "c": ["A x"], "": ["g"]}
    assert first(query, "a") == "1"
    assert first(query, "nothing") == ""


@pytest.mark.parametrize("query", ["a" * (QUERY_CHARACTERS_MAX + 1), "&".join("a" * (PARAMETERS_MAX + 1))])
def test_an_endless_query_is_refused(query: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse("GET", "/api/v1/pods", query)
    assert caught.value.code == 400


_SEGMENTS = (
    *("api", "apis", "v1", "apps", "namespaces", "pods", "watch", "proxy", "status", "finalize"),
    *("explain", "deletion", "clusters", "a", "a.b", "~", "A", "x%20", ".", ""),
)


@given(
    st.sampled_from(("", "/clusters/a", "/clusters/a/explain/deletion", "/explain/deletion")),
    st.sampled_from(("", "/api/v1", "/apis/apps/v1")),
    st.lists(st.sampled_from(_SEGMENTS), min_size=1, max_size=6),
    st.sampled_from(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")),
    st.booleans(),
)
@example("/clusters/a", "/api/v1", ["namespaces", "a"], "GET", True)
@example("/clusters/a", "/api/v1", ["watch", "pods", "~", "v1", "a"], "GET", True)
@example("", "/api/v1", ["namespaces", "a", "finalize"], "PUT", False)
def test_what_is_remembered_of_other_targets_changes_nothing(
    cluster: str, group: str, segments: list[str], method: str, prefixed: bool
) -> None:
    path = f"{cluster}{group}/{'/'.join(segments)}"

    def read(query: str) -> object:
        try:
            info = parse(method, path, query, prefixed=prefixed, default="d")
        except ApiError as error:
            return error.code, error.message
        return {slot: getattr(info, slot) for slot in _SLOTS if slot != "query"}

    # Of long targets nothing is remembered.
    assert read("a=b") == read(f"a={'b' * 300}")
