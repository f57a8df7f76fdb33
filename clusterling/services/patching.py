"""Patches as requests bring them: which kind it is, whether it can be read, and the pure change that it means.

Upstream: apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Final

from clusterling.machinery import codec, patch, strictjson
from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    go_quote,
    invalid,
    invalid_value,
    unsupported_patch_type,
)
from clusterling.machinery.gotext import go_text
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


_APPLY: Final = "application/apply-patch+yaml"
_CUSTOM: Final = (PatchType.JSON, PatchType.MERGE)
_BUILTIN: Final = (PatchType.JSON, PatchType.MERGE, PatchType.STRATEGIC)


def patch_type(content_type: str | None, served: Served, query: Query) -> PatchType:
    """The kind of patch. Raises ApiError 415 (422 first for an apply without a field manager)."""
    media_type = (content_type or "").partition(";")[0]
    accepted = _BUILTIN if served.resource.builtin else _CUSTOM
    if media_type in accepted:
        return PatchType(media_type)
    if media_type == _APPLY:
        # kubectl tells its user that the server does not apply when it sees this code (kubectl: apply.go).
        apply_problems(query)
        raise unsupported_patch_type(accepted)
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
