"""Receiving: a decoded body becomes an object of its kind, as decoding into a Go type makes it upstream.

Unknown fields go, nulls go, defaults come; what does not fit the type is a 400. Pure but for the warnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context

# Fields unknown or given twice that are told of one body (upstream: sigs.k8s.io/json, saveStrictError).
STRICT_PROBLEMS_MAX: Final = 100


class Undecodable(ApiError):
    """400 for an object that does not fit its kind. `why`: in Go's words; `patched`: what a patch made, if it did.

    A patch is told what it made and why that is none of the kind (422), where a body is told only the latter.
    """

    def __init__(self, kind: str, api_version: str, why: str) -> None:
        version = GroupVersion.parse(api_version).version
        super().__init__(
            400, "BadRequest", f'{kind} in version "{version}" cannot be handled as a {kind}: {why}'
        )
        self.why = why
        self.patched: Object | None = None


def receive(ctx: Context, served: Served, obj: Object, options: WriteOptions) -> None:
    """What decoding into a type does upstream: types of values, unknown fields, nulls, defaults.

    Unknown and duplicate fields are refused, told or ignored, as `fieldValidation` says (KEP-2885). Raises ApiError 400.
    """
    schema = served.version.schema
    builtin = served.resource.builtin
    given = {field: at for at, field in enumerate(obj)}
    try:
        metadata, unknown = coerce_object_meta(obj.get("metadata"), kind=served.kind if builtin else "")
    except ValueError as error:
        raise Undecodable(served.kind, served.version.name, str(error)) from error
    obj["metadata"] = metadata
    if builtin:
        schema.settle_nulls(obj)
        wrong = schema.mismatch(obj, served.kind)
        if wrong is not None:
            raise Undecodable(served.kind, served.version.name, wrong)
    pruned = schema.prune(obj)
    strict: Sequence[str] = options.duplicates
    if unknown or pruned:
        # Go's typed decoder tells in the order it reads; for custom resources unknown fields are sorted at the end.
        found = [*unknown, *sorted(pruned)] if not builtin else [*pruned, *unknown]
        strict = [*strict, *(f'unknown field "{path}"' for path in found)]
        if builtin:
            strict = sorted(strict, key=lambda text: _place_of(text, given))
    strict = strict[:STRICT_PROBLEMS_MAX]
    if strict and options.field_validation == "Strict":
        why = f"strict decoding error: {', '.join(strict)}"
        raise Undecodable(served.kind, served.version.name, why)
    if options.field_validation == "Warn":
        for text in strict:
            ctx.warn(text)
    schema.default(obj)


def _place_of(text: str, given: Mapping[str, int]) -> int:
    """Where the top-level field that `unknown field "a.b[0]"` tells of stands in the body."""
    path = text.partition('"')[2]
    field = path.partition(".")[0].partition("[")[0].rstrip('"')
    return given.get(field, len(given))
