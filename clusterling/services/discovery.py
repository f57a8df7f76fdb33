"""Discovery: what a logical cluster serves, told in the five forms that clients ask for. Pure.

Everything here is a view of a Catalog and is kept by it (`Catalog.view`), so clusters with the same catalog share
the bytes. A document is made once as JSON; the client's media type is a rendering of that.

Upstream: apiserver/pkg/endpoints/discovery (and …/aggregated), apiextensions-apiserver/pkg/apiserver/
customresource_discovery_controller.go, apiserver/pkg/server/routes/{version,index}.go.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import sys
from collections.abc import Iterator
from typing import Final, TypeVar

import orjson

from clusterling.machinery.errors import ApiError, no_such_resource, not_acceptable
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Resource, Served
from clusterling.services.negotiation import JSON, NO_FORMS, YAML, Clause, accept, parse_accept
from clusterling.services.request import Header, Response, page_not_found
from clusterling.version import KUBERNETES, __version__

AGGREGATED_GROUP: Final = "apidiscovery.k8s.io"
AGGREGATED_KIND: Final = "APIGroupDiscoveryList"
AGGREGATED_VERSIONS: Final = ("v2", "v2beta1")

# Groups as upstream orders them (controlplane/apiserver/aggregator.go, DefaultGenericAPIServicePriorities and
# cmd/kube-apiserver's additions); clients try them in this order when a name is ambiguous. Others follow by name.
_GROUP_ORDER: Final = {
    group: place
    for place, group in enumerate(
        (
            "",
            "apiregistration.k8s.io",
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "certificates.k8s.io",
            "networking.k8s.io",
            "policy",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "node.k8s.io",
            "discovery.k8s.io",
            "resource.k8s.io",
            "flowcontrol.apiserver.k8s.io",
            "internal.apiserver.k8s.io",
            "storagemigration.k8s.io",
        )
    )
}
# The order in which upstream tells the verbs of custom resources; those of built-in kinds are sorted.
_CUSTOM_VERBS: Final = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_PART_VERBS: Final = ("get", "patch", "update")
# The one replaceable part that can only be replaced.
_FINALIZE_VERBS: Final = ("update",)

_CACHED: Final[tuple[Header, ...]] = (("Vary", "Accept"), ("Cache-Control", "public"))

T = TypeVar("T")


def respond(
    catalog: Catalog,
    path: str,
    *,
    accept_header: str | None = None,
    if_none_match: str | None = None,
    server_address: str = "",
    pretty: bool = False,
) -> Response:
    """The answer to a GET of a discovery path (`/api…`, `/apis…`; the cluster's prefix is cut off).

    `server_address` is the host:port that `/api` tells. Raises ApiError: 406, or 404 below `/api`; and below a built-in group; an unknown
    group, or version of a custom one, answers 404 in plain text, as upstream's mux does.
    """
    # Upstream's aggregator, which has `/apis`, does not know it with a slash at its end.
    if path in ("/api", "/api/", "/apis"):
        answer = _aggregated_answer(catalog, path, accept_header, if_none_match, pretty)
        if answer is not None:
            return answer
    document = _document(catalog, path.rstrip("/"), server_address)
    if document is None:
        if path == "/api" or path.startswith("/api/") or _is_builtin(catalog, path):
            raise no_such_resource()
        return page_not_found()
    encoding = accept(accept_header, forms=NO_FORMS, pretty=pretty)
    return Response(200, encoding.document(document), encoding.content_type)


def has(catalog: Catalog, path: str) -> bool:
    """There is a document at a discovery path."""
    return _document(catalog, path.rstrip("/"), "") is not None


def _is_builtin(catalog: Catalog, path: str) -> bool:
    """The path is below an API group of upstream's own."""
    match path.split("/"):
        case ["", "apis", group, _, *_] if group:
            return any(resource.builtin and resource.group == group for resource in catalog.resources)
    return False


def _document(catalog: Catalog, path: str, server_address: str) -> bytes | None:
    match path.split("/"):
        case ["", "api"]:
            return _versions(catalog, server_address)
        case ["", "api", version]:
            return resource_list(catalog, "", version)
        case ["", "apis"]:
            return group_list(catalog)
        case ["", "apis", group] if group:
            return group_document(catalog, group)
        case ["", "apis", group, version] if group:
            return resource_list(catalog, group, version)
    return None


def group_order(group: str) -> tuple[int, str]:
    """Sorts groups as discovery tells them: the core group, upstream's in upstream's order, then others by name."""
    return (_GROUP_ORDER.get(group, len(_GROUP_ORDER)), group)


def ordered_groups(catalog: Catalog) -> list[tuple[str, tuple[str, ...]]]:
    """The catalog's groups in discovery's order, each with its versions, preferred first."""
    return sorted(catalog.group_versions, key=lambda one: group_order(one[0]))


def group_list(catalog: Catalog) -> bytes:
    """`/apis`: an APIGroupList of all but the core group."""

    def make() -> bytes:
        groups = [_group(group, versions) for group, versions in ordered_groups(catalog) if group]
        return orjson.dumps({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

    return catalog.view(
        (
            "discovery",
            "apis",
        ),
        make,
    )


def group_document(catalog: Catalog, group: str) -> bytes | None:
    """`/apis/<group>`: an APIGroup, None where nothing of it is served."""
    for name, versions in catalog.group_versions:
        if name == group:
            return orjson.dumps({"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)})
    return None


def resource_list(catalog: Catalog, group: str, version: str) -> bytes | None:
    """`/api/v1` and `/apis/<group>/<version>`: an APIResourceList, None where nothing of it is served."""

    def make() -> bytes | None:
        served = catalog.served_in(group, version)
        if not served:
            return None
        # The core group's documents carry no apiVersion: discovery/util.go, keepUnversioned.
        head: Object = (
            {"kind": "APIResourceList"} if not group else {"kind": "APIResourceList", "apiVersion": "v1"}
        )
        resources = [entry for one in served for entry in _entries(one)]
        return orjson.dumps(
            {**head, "groupVersion": str(GroupVersion(group, version)), "resources": resources}
        )

    # Only what is served is kept: a client may name any number of groups that are not.
    if not any(name == group and version in versions for name, versions in catalog.group_versions):
        return None
    return catalog.view(("discovery", "resources", group, version), make)


def _versions(catalog: Catalog, server_address: str) -> bytes | None:
    versions = [version for group, versions in catalog.group_versions if not group for version in versions]
    if not versions:
        return None
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]
    return orjson.dumps(
        {"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses}
    )


def _group(group: str, versions: tuple[str, ...]) -> Object:
    told = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": told, "preferredVersion": told[0]}


# What discovery no longer tells of a kind that is being deleted (apiextensions: customresource_discovery_controller.go).
_LOST_VERBS: Final = frozenset({"create", "patch", "update"})


def _verbs(resource: Resource) -> list[str]:
    if resource.builtin:
        return sorted(resource.verbs)
    lost = _LOST_VERBS if resource.terminating else frozenset()
    return [verb for verb in _CUSTOM_VERBS if verb in resource.verbs and verb not in lost]


# Upstream still stores these in versions that came before those it serves, for servers of the release before it
# (controlplane/instance.go, kubeapiserver/default_storage_factory_builder.go, apiextensions-apiserver/pkg/apiserver).
_STORED_AS: Final = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): "v1beta1",
    ("certificates.k8s.io", "clustertrustbundles"): "v1beta1",
    ("certificates.k8s.io", "podcertificaterequests"): "v1beta1",
    ("resource.k8s.io", "devicetaintrules"): "v1beta2",
    ("storagemigration.k8s.io", "storageversionmigrations"): "v1beta1",
}


def storage_version_hash(resource: Resource) -> str:
    """Tells clients when objects are stored in another version (upstream: discovery/storageversionhash.go)."""
    stored = resource.storage or resource
    version = _STORED_AS.get((stored.group, stored.names.plural), stored.storage_version)
    text = f"{stored.group}/{version}/{stored.names.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _tells_storage(resource: Resource) -> bool:
    # What cannot be watched is computed. For a custom kind upstream tells the hash only where the stored version is served too.
    return {"list", "watch"} <= set(resource.verbs) and (
        resource.builtin or resource.version(resource.storage_version).served
    )


def subresources(served: Served) -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
    """Name, group, version, kind and verbs of each subresource; group and version "" where they are the resource's."""
    resource = served.resource
    told: list[tuple[str, str, str, str, tuple[str, ...]]] = []
    if served.version.status:
        told.append(("status", "", "", served.kind, _PART_VERBS))
    if served.version.scale is not None:
        told.append(("scale", "autoscaling", "v1", "Scale", _PART_VERBS))
    told.extend(
        (part, "", "", served.kind, _FINALIZE_VERBS if part == "finalize" else _PART_VERBS)
        for part in resource.parts
    )
    for name, one in resource.subresources.items():
        own = (one.group, one.version) == (resource.group, served.version.name)
        group, version = ("", "") if own else (one.group, one.version)
        told.append((name, group, version, one.kind, one.verbs))
    return iter(sorted(told) if resource.builtin else told)


def _entries(served: Served) -> Iterator[Object]:
    resource, names = served.resource, served.resource.names
    entry: Object = {
        "name": names.plural,
        "singularName": names.singular,
        "namespaced": resource.namespaced,
        "kind": names.kind,
        "verbs": _verbs(resource),
    }
    if names.short_names:
        entry["shortNames"] = list(names.short_names)
    if names.categories:
        entry["categories"] = list(names.categories)
    if _tells_storage(resource):
        entry["storageVersionHash"] = storage_version_hash(resource)
    yield entry
    for name, group, version, kind, verbs in subresources(served):
        entry = {"name": f"{names.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
        if group or version:
            entry |= {"group": group, "version": version}
        yield entry | {"kind": kind, "verbs": list(verbs)}


def _aggregated_answer(
    catalog: Catalog, path: str, accept_header: str | None, if_none_match: str | None, pretty: bool
) -> Response | None:
    """None where the client would have the plain document. Raises ApiError 406 where it would have neither."""
    if not accept_header or "as" not in accept_header:
        return None
    for clause in parse_accept(accept_header):
        media_type = JSON if clause.accepts(JSON) else YAML if clause.accepts(YAML) else ""
        if not media_type:
            continue
        version = _aggregated_version(clause)
        if version:
            return _cached(
                aggregated(catalog, version, core=path != "/apis"), media_type, version, if_none_match, pretty
            )
        if not clause.params.keys() & {"as", "g", "v"}:
            return None
    raise not_acceptable((JSON, YAML))


def _aggregated_version(clause: Clause) -> str:
    params = clause.params
    version = params.get("v", "")
    if params.get("g") != AGGREGATED_GROUP or params.get("as") != AGGREGATED_KIND:
        return ""
    # "profile" asks for this server's own view among peers, which is the only one there is.
    return version if version in AGGREGATED_VERSIONS else ""


def _cached(
    found: tuple[bytes, str], media_type: str, version: str, if_none_match: str | None, pretty: bool
) -> Response:
    document, etag = found
    headers = (("ETag", etag), *_CACHED)
    # Compared whole, as upstream does: no lists, no weak tags (aggregated/etag.go).
    if if_none_match == etag:
        return Response(304, b"", "", headers)
    body = accept(media_type, forms=NO_FORMS, pretty=pretty).document(document)
    content_type = f"{media_type};g={AGGREGATED_GROUP};v={version};as={AGGREGATED_KIND}"
    return Response(200, body, content_type, headers)


def aggregated(catalog: Catalog, version: str, *, core: bool) -> tuple[bytes, str]:
    """Everything in one APIGroupDiscoveryList (KEP-3352), and its ETag: the core group's, or all others'."""

    def make() -> tuple[bytes, str]:
        items = [
            _aggregated_group(catalog, group, versions)
            for group, versions in ordered_groups(catalog)
            if (group == "") == core
        ]
        head = {"kind": AGGREGATED_KIND, "apiVersion": f"{AGGREGATED_GROUP}/{version}", "metadata": {}}
        document = orjson.dumps({**head, "items": items})
        return document, f'"{hashlib.sha512(document).hexdigest().upper()}"'

    return catalog.view(("discovery", "aggregated", version, core), make)


def _aggregated_group(catalog: Catalog, group: str, versions: tuple[str, ...]) -> Object:
    told = [
        {
            "version": version,
            "resources": [_aggregated_resource(one) for one in catalog.served_in(group, version)],
            "freshness": "Current",
        }
        for version in versions
    ]
    return {"metadata": {"name": group} if group else {}, "versions": told}


def _aggregated_resource(served: Served) -> Object:
    resource, names = served.resource, served.resource.names
    # Converted from the plain form, upstream's built-in kinds lose their group and version; custom ones have them.
    own = ("", "") if resource.builtin else (resource.group, served.version.name)
    told: Object = {
        "resource": names.plural,
        "responseKind": _kind(*own, names.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": names.singular,
        "verbs": _verbs(resource),
    }
    if names.short_names:
        told["shortNames"] = list(names.short_names)
    if names.categories:
        told["categories"] = list(names.categories)
    parts = [
        {
            "subresource": name,
            "responseKind": _kind(*((group, version) if group or version else own), kind),
            "verbs": list(verbs),
        }
        for name, group, version, kind, verbs in subresources(served)
    ]
    if parts:
        told["subresources"] = parts
    return told


def _kind(group: str, version: str, kind: str) -> Object:
    return {"group": group, "version": version, "kind": kind}


def version_document() -> Object:
    """`/version`: the Kubernetes API version served, and truthfully what serves it.

    Clients read gitVersion (as semver), major, minor and platform; where upstream tells its compiler, ours is told.
    """
    major, minor, _ = KUBERNETES.split(".")
    systems = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine()
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": f"v{KUBERNETES}",
        "gitCommit": f"clusterling-{__version__}",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"{platform.system().lower()}/{systems.get(machine, machine)}",
    }


_VERSION: Final = orjson.dumps(version_document(), option=orjson.OPT_INDENT_2)


def version(accept_header: str | None = None) -> Response:
    """`/version`: JSON only, and always indented. Raises ApiError 406."""
    if accept_header and not any(clause.accepts(JSON) for clause in parse_accept(accept_header)):
        raise ApiError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {JSON}", {})
    return Response(200, _VERSION)


def root(catalog: Catalog, others: tuple[str, ...] = ()) -> Response:
    """`/`: the paths there are. `others` are those besides discovery and OpenAPI (health, metrics)."""

    def make() -> bytes:
        paths = {"/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version", *others}
        for group, versions in catalog.group_versions:
            if group:
                paths |= {"/apis", "/apis/", f"/apis/{group}"}
                paths.update(f"/apis/{group}/{version}" for version in versions)
            else:
                paths |= {"/api", *(f"/api/{version}" for version in versions)}
        return orjson.dumps({"paths": sorted(paths)}, option=orjson.OPT_INDENT_2)

    return Response(200, catalog.view(("discovery", "root", others), make))
