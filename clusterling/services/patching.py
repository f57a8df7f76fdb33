"""Patches as requests bring them: which kind it is, whether it can be read, and the pure change that it means.

Upstream: apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from heapq import merge
from typing import Final

from clusterling.machinery import codec, patch, strategic, strictjson, yaml
from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    go_quote,
    invalid,
    invalid_value,
    unsupported_patch_type,
)
from clusterling.machinery.fieldorder import is_within, order_of, place_of, quoted_path
from clusterling.machinery.gotext import go_text, json_type
from clusterling.machinery.meta import Object
from clusterling.registry.options import FieldValidation
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


# A field given twice below the value of an operation.
_IN_VALUE: Final = re.compile(r"\[(\d+)\]\.value([.\[].*)", re.DOTALL)

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


Change = Callable[[Object], Object]


def read(
    kind: PatchType, body: bytes, served: Served, *, part: str = "", validation: FieldValidation = "Warn"
) -> tuple[Change, list[str]]:
    """The change that the patch makes of an object, or its `part`, and what the patch says twice or for nothing.

    Raises ApiError 400 for what is not JSON. Whether it is a patch is found out when it is applied: upstream
    tells first that the object does not exist. It looks less closely where `validation` ignores what is unknown.
    """
    try:
        document, duplicates = codec.parse_json(body)
    except strictjson.JsonError as error:
        raise bad_request("invalid JSON patch") from error
    typed = validation != "Ignore"
    if kind is PatchType.JSON:
        problems = _operation_problems(document, duplicates) + _value_problems(document, duplicates)
        return lambda obj: _of_kind(served, part, obj, patch.json_patch(obj, document, typed=typed)), problems
    if kind is PatchType.MERGE:
        return lambda obj: _of_kind(
            served, part, obj, patch.merge_patch(obj, document, typed=typed)
        ), duplicates
    return StrategicChange(served, document), duplicates


class StrategicChange:
    """What a strategic patch makes of an object. `left`: what was left of the patch when it had been applied."""

    def __init__(self, served: Served, document: object) -> None:
        self._served = served
        self._document = document
        self.left = document

    def __call__(self, obj: Object) -> Object:
        served = self._served
        group, version, kind = served.group, served.version.name, served.kind
        if obj["kind"] != kind:
            group, version, kind = "autoscaling", "v1", obj["kind"]
        made, self.left = strategic.strategic_merge_left(obj, self._document, _rules(group, version, kind))
        metadata_too = isinstance(self._document, dict) and "metadata" in self._document
        why = _unconvertible(group, version, kind, made, metadata_too=metadata_too)
        if why is not None:
            raise self.refused(why)
        # It is of the kind it was, whatever it says: upstream reads it into its Go type.
        return {**made, "apiVersion": obj["apiVersion"], "kind": obj["kind"]}

    def refused(self, why: str) -> ApiError:
        """422 for a result that is not of the kind, with what is left of the patch."""
        return invalid("", "", "", [invalid_value("patch", go_text(self.left), why)])


def _operation_problems(operations: object, duplicates: list[str]) -> list[str]:
    """What strict decoding says of the operations, in the order in which they are read."""
    found = patch.json_patch_unknown_fields(operations)
    if duplicates:
        order = order_of(operations)
        unknown = {quoted_path(text) for text in found}
        # Nobody looks into a field that is unknown.
        duplicates = [text for text in duplicates if not is_within(quoted_path(text), unknown)]
        found = list(merge(found, duplicates, key=lambda text: place_of(quoted_path(text), order)))
    return [f"json patch {text}" for text in found]


def _value_problems(operations: object, duplicates: list[str]) -> list[str]:
    """What strict decoding says of the patched object: values go into it as they were written, keys given twice and all,
    unless another operation looks into them."""
    found = []
    for text in duplicates:
        match = _IN_VALUE.match(quoted_path(text))
        if match is None or not isinstance(operations, list):
            continue
        operation = operations[int(match[1])]
        pointer = operation.get("path") if operation.get("op") in ("add", "replace") else None
        others = [one for at, one in enumerate(operations) if at != int(match[1]) and isinstance(one, dict)]
        if isinstance(pointer, str) and not any(
            str(other.get(field, "")).startswith(pointer) for other in others for field in ("path", "from")
        ):
            steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
            path = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps) + match[2]
            found.append(f"duplicate field {go_quote(path.removeprefix('.'))}")
    return found


def read_applied(body: bytes) -> tuple[Object, str]:
    """An applied configuration, YAML or JSON, and the complaint about keys given twice. Raises ApiError 400."""
    try:
        document, twice = yaml.parse_yaml(body)
    except yaml.YamlError as error:
        # What begins as JSON does is not looked at before it is read.
        as_json = body.lstrip().startswith(b"{")
        step = "decoding patch: error converting YAML to JSON" if as_json else "encoding patch"
        raise bad_request(f"error {step}: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        why = f"json: cannot unmarshal {json_type(document)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding patch: error unmarshaling JSON: while decoding JSON: {why}")
    return document, twice[0] if twice else ""


def refused(change: Change, error: Undecodable) -> ApiError:
    """422 for a patch whose result is not an object of its kind, with that result, or with what a strategic patch says."""
    if error.patched is None:
        return error
    if isinstance(change, StrategicChange):
        return change.refused(error.why)
    return patch.undecodable(error.patched, error.why)


def _of_kind(served: Served, part: str, before: Object, after: Object) -> Object:
    """The patched object, if it is still one of its kind, which is another for a Scale. Raises ApiError 400, 422, 500."""
    kind, version = after.get("kind"), after.get("apiVersion")
    if kind == before["kind"] and version == before["apiVersion"]:
        return after
    for name, given in (("apiVersion", version), ("kind", kind)):
        if not isinstance(given, str | None):
            why = f"couldn't get version/kind; json parse error: {_NO_TEXT.format(json_type(given), name)}"
            raise patch.undecodable(after, why)
    if version and version.count("/") > 1:
        raise patch.undecodable(after, f"unexpected GroupVersion string: {version}")
    if served.resource.builtin or before["kind"] != served.kind:
        _check_typed(served, before, after, kind or before["kind"], version or "")
    elif not kind:
        raise patch.undecodable(after, f"Object 'Kind' is missing in '{patch.text_of(after)}'")
    elif not version:
        why = "Internal error occurred: Object 'apiVersion' is missing in 'object has no apiVersion field'"
        raise ApiError(500, "InternalError", why)
    elif not part:
        _check_custom(served, before, after, kind, version)
    # Whatever else a status says it is, it is that of the object.
    return {**after, "apiVersion": before["apiVersion"], "kind": before["kind"]}


_NO_NAME: Final = "the name of the object ({} based on URL) was undeterminable: name must be provided"
_NO_TEXT: Final = "json: cannot unmarshal {} into Go struct field .{} of type string"


def _check_typed(served: Served, before: Object, after: Object, kind: str, version: str) -> None:
    """An object that does not say what it is is read as what is asked for: of no version, that is nothing at all."""
    if not version and before["kind"] == served.kind:
        raise bad_request(_NO_NAME.format(before["metadata"]["name"]))
    if kind != before["kind"] or version not in ("", before["apiVersion"]):
        why = (
            f"no kind {go_quote(kind)} is registered for version {go_quote(version)} "
            'in scheme "pkg/runtime/scheme.go:111"'
        )
        raise patch.undecodable(after, why)


def _check_custom(served: Served, before: Object, after: Object, kind: str, version: str) -> None:
    """Custom kinds find out late, among what is validated, that an object is of another."""
    metadata = after.get("metadata")
    if isinstance(metadata, dict) and metadata.get("name") and not metadata.get("resourceVersion"):
        wrong = [invalid_value("metadata.resourceVersion", 0, "must be specified for an update")]
        raise invalid(served.plural, served.group, before["metadata"]["name"], wrong)
    wrong = [
        invalid_value(name, given, f"must be {before[name]}")
        for name, given in (("kind", kind), ("apiVersion", version))
        if given != before[name]
    ]
    raise invalid(kind, version.rpartition("/")[0], before["metadata"]["name"], wrong)


@cache
def _rules(group: str, version: str, kind: str) -> strategic.PatchMeta:
    """How the lists of a built-in kind are merged. A kind that upstream does not publish has no rules but the general."""
    from clusterling.packs import builtin

    try:
        schema = builtin.definitions[builtin.definition_of(group, version, kind)]
    except KeyError:
        schema = {}
    return strategic.PatchMeta.from_openapi(schema, builtin.definitions)


def _unconvertible(group: str, version: str, kind: str, obj: Object, *, metadata_too: bool) -> str | None:
    """What reading a built-in kind's object says of it, where it is none. Makes its numbers fit."""
    from clusterling.packs import builtin

    try:
        schema = builtin.schema_of(group, version, kind)
    except KeyError:
        return None
    return None if not metadata_too and schema.fits(obj) else schema.unconvertible(obj)
