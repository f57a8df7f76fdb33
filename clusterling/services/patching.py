"""Patches as requests bring them: which kind it is, whether it can be read, and the pure change that it means.

Upstream: apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Final

from clusterling.machinery import codec, patch, strictjson, yaml
from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    go_quote,
    invalid,
    invalid_value,
    unsupported_patch_type,
)
from clusterling.machinery.gotext import go_text, json_type
from clusterling.machinery.meta import Object
from clusterling.registry.receiving import Undecodable
from clusterling.registry.resource import Served
from clusterling.services.parameters import apply_problems
from clusterling.services.requestinfo import Query


class PatchType(StrEnum):
    """Content types of patches that are served."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


_CUSTOM: Final = (PatchType.JSON, PatchType.MERGE, PatchType.APPLY)
_BUILTIN: Final = (PatchType.JSON, PatchType.MERGE, PatchType.STRATEGIC, PatchType.APPLY)


def patch_type(content_type: str | None, served: Served, query: Query) -> PatchType:
    """The kind of patch. Raises ApiError 415; 422 for an apply without a field manager."""
    media_type = (content_type or "").partition(";")[0]
    accepted = _BUILTIN if served.resource.builtin else _CUSTOM
    if media_type == PatchType.APPLY:
        apply_problems(query)
    if media_type in accepted:
        return PatchType(media_type)
    if served.resource.builtin:
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    raise unsupported_patch_type(accepted)


def read(kind: PatchType, body: bytes, served: Served) -> tuple[Callable[[Object], Object], list[str]]:
    """The change that the patch makes of an object, and what the patch says twice or for nothing.

    Raises ApiError 400 for what is not JSON. Whether it is a patch is found out when it is applied: upstream
    tells first that the object does not exist.
    """
    try:
        document, duplicates = codec.parse_json(body)
    except strictjson.JsonError as error:
        raise bad_request("invalid JSON patch") from error
    if kind is PatchType.JSON:
        problems = [f"json patch {text}" for text in duplicates]
        problems += patch.json_patch_unknown_fields(document)
        return lambda obj: _same_kind(served, obj, patch.json_patch(obj, document)), problems
    if kind is PatchType.MERGE:
        return lambda obj: _same_kind(served, obj, patch.merge_patch(obj, document)), duplicates
    rules = _rules(served.group, served.version.name, served.kind)
    return lambda obj: _typed(obj, patch.strategic_merge(obj, document, rules)), duplicates


def read_applied(body: bytes) -> tuple[Object, str]:
    """An applied configuration, YAML or JSON, and the complaint about keys given twice. Raises ApiError 400."""
    try:
        document, twice = yaml.parse_yaml(body)
    except yaml.YamlError as error:
        raise bad_request(f"error encoding patch: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        why = f"json: cannot unmarshal {json_type(document)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding patch: error unmarshaling JSON: while decoding JSON: {why}")
    metadata = document.get("metadata")
    if not isinstance(metadata, dict | None):
        raise bad_request(f"error decoding patch: metadata must be a map, not a JSON {json_type(metadata)}")
    return document, twice[0] if twice else ""


def refused(kind: PatchType, body: bytes, error: Undecodable) -> ApiError:
    """422 for a patch whose result is not an object of its kind, with that result, or with what a strategic patch says."""
    if error.patched is None:
        return error
    if kind is PatchType.STRATEGIC:
        return invalid("", "", "", [invalid_value("patch", go_text(codec.parse_json(body)[0]), error.why)])
    return patch.undecodable(error.patched, error.why)


def _same_kind(served: Served, before: Object, after: Object) -> Object:
    """The patched object, if it is still one of its kind. Raises ApiError 422.

    A Scale that is patched has its own kind, which is compared as well.
    """
    kind, version = after.get("kind"), after.get("apiVersion")
    if kind == before["kind"] and version == before["apiVersion"]:
        return after
    if served.resource.builtin:
        why = (
            f"no kind {go_quote(str(kind or ''))} is registered for version {go_quote(str(version or ''))} "
            'in scheme "pkg/runtime/scheme.go:111"'
        )
        raise patch.undecodable(after, why)
    if kind != before["kind"]:
        wrong = invalid_value("kind", kind, f"must be {before['kind']}")
        raise invalid(str(kind or ""), served.group, before["metadata"]["name"], [wrong])
    if isinstance(version, str):
        wrong = invalid_value("apiVersion", version, f"must be {before['apiVersion']}")
        raise invalid(kind, version.rpartition("/")[0], before["metadata"]["name"], [wrong])
    return after


def _typed(before: Object, after: Object) -> Object:
    """The result of a strategic patch is of the kind it was, whatever it says: upstream reads it into its Go type."""
    return {**after, "apiVersion": before["apiVersion"], "kind": before["kind"]}


@cache
def _rules(group: str, version: str, kind: str) -> patch.PatchMeta:
    """How the lists of a built-in kind are merged. A kind that upstream does not publish has no rules but the general."""
    from clusterling.packs import builtin

    try:
        schema = builtin.definitions[builtin.definition_of(group, version, kind)]
    except KeyError:
        schema = {}
    return patch.PatchMeta.from_openapi(schema, builtin.definitions)
