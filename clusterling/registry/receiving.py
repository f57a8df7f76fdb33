"""Receiving: a decoded body becomes an object of its kind, as decoding into a Go type makes it upstream.

Unknown fields go, nulls go, defaults come; what does not fit the type is a 400. Pure but for the warnings.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError, FieldError
from clusterling.machinery.meta import Object
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context


def receive(ctx: Context, served: Served, obj: Object, options: WriteOptions) -> None:
    """What decoding into a type does upstream: shape of metadata, unknown fields, nulls, defaults.

    Unknown and duplicate fields are refused, told or ignored, as `fieldValidation` says (KEP-2885).
    """
    schema = served.version.schema
    if served.resource.builtin:
        _drop_nulls(obj)
    metadata, unknown = _coerced_meta(served, obj)
    obj["metadata"] = metadata
    unknown = [*schema.prune(obj), *unknown]
    strict = [*(f'unknown field "{path}"' for path in unknown), *options.duplicates]
    if strict and options.field_validation == "Strict":
        raise errors.bad_request(
            f'{served.kind} in version "{served.version.name}" cannot be handled as a {served.kind}: '
            f"strict decoding error: {', '.join(strict)}"
        )
    if options.field_validation == "Warn":
        for text in strict:
            ctx.warn(text)
    if served.resource.builtin:
        wrong = [error for error in schema.validate(obj) if error.type is errors.FieldErrorType.TYPE_INVALID]
        if wrong:
            raise _undecodable(served, wrong[0])
    schema.default(obj)


def _coerced_meta(served: Served, obj: Object) -> tuple[Object, list[str]]:
    try:
        return coerce_object_meta(obj.get("metadata"), kind=served.kind if served.resource.builtin else "")
    except ValueError as error:
        raise errors.bad_request(
            f'{served.kind} in version "{served.version.name}" cannot be handled as a {served.kind}: {error}'
        ) from error


def _drop_nulls(value: Object | list[object]) -> None:
    """A null field of a built-in kind is an absent one, as decoding into its Go type makes it."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            del value[key]
        for item in value.values():
            if isinstance(item, dict | list):
                _drop_nulls(item)
    else:
        for item in value:
            if isinstance(item, dict | list):
                _drop_nulls(item)


_GO_TYPES: Final = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool"}


def _undecodable(served: Served, error: FieldError) -> ApiError:
    """400 for a value that does not fit the kind's Go type, in the words of encoding/json."""
    value = error.value
    match value:
        case bool():
            got = "bool"
        case str():
            got = "string"
        case int() | float():
            got = "number"
        case list():
            got = "array"
        case _:
            got = "object"
    wanted = next(
        (go for name, go in _GO_TYPES.items() if f"must be of type {name}" in error.detail), "object"
    )
    return errors.bad_request(
        f'{served.kind} in version "{served.version.name}" cannot be handled as a {served.kind}: '
        f"json: cannot unmarshal {got} into Go struct field {served.kind}.{error.field} of type {wanted}"
    )
