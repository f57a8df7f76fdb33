"""Words to tell stories with: steps by method, objects by kind, paths by resource."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.exchange import Json, Step

NS: Final = "/api/v1/namespaces/${ns}"
CM: Final = f"{NS}/configmaps"
SECRETS: Final = f"{NS}/secrets"
ACCOUNTS: Final = f"{NS}/serviceaccounts"
EVENTS: Final = f"{NS}/events"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/${ns}/leases"
WIDGETS: Final = "/apis/${group}/v1/namespaces/${ns}/widgets"
WIDGETS_V2: Final = "/apis/${group}/v2/namespaces/${ns}/widgets"
GADGETS: Final = "/apis/${group}/v1/gadgets"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL: Final = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def _step(method: str, path: str, body: Json, content_type: str, accept: str, more: dict[str, Any]) -> Step:
    headers = dict(more.pop("headers", {}))
    if content_type:
        headers["Content-Type"] = content_type
    if accept:
        headers["Accept"] = accept
    return Step(method, path, body, headers, **more)


def get(path: str, *, accept: str = "", **more: Any) -> Step:
    return _step("GET", path, None, "", accept, more)


def post(path: str, body: Json = None, content_type: str = "", *, accept: str = "", **more: Any) -> Step:
    return _step("POST", path, body, content_type, accept, more)


def put(path: str, body: Json = None, content_type: str = "", *, accept: str = "", **more: Any) -> Step:
    return _step("PUT", path, body, content_type, accept, more)


def patch(path: str, body: Json, content_type: str = MERGE, *, accept: str = "", **more: Any) -> Step:
    return _step("PATCH", path, body, content_type, accept, more)


def delete(path: str, body: Json = None, content_type: str = "", *, accept: str = "", **more: Any) -> Step:
    return _step("DELETE", path, body, content_type, accept, more)


def watch(path: str, events: int, *during: Step, accept: str = "", **more: Any) -> Step:
    return _step("GET", path, None, "", accept, {**more, "events": events, "during": during})


def obj(api_version: str, kind: str, name: str, **more: Any) -> Json:
    """An object; `meta` adds to its metadata, the rest to itself."""
    metadata = {**({"name": name} if name else {}), **more.pop("meta", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def cm(name: str, **more: Any) -> Json:
    return obj("v1", "ConfigMap", name, **more)


def widget(name: str, version: str = "v1", **more: Any) -> Json:
    return obj("${group}/" + version, "Widget", name, **more)


def gadget(name: str, **more: Any) -> Json:
    return obj("${group}/v1", "Gadget", name, **more)


def options(**fields: Json) -> Json:
    return {"apiVersion": "v1", "kind": "DeleteOptions", **fields}
