"""Receiving: a decoded body becomes an object of its kind, as decoding into a Go type makes it upstream.

Unknown fields go, nulls go, defaults come; what does not fit the type is a 400. Pure but for the warnings.
"""

from __future__ import annotations

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context


def receive(ctx: Context, served: Served, obj: Object, options: WriteOptions) -> None:
    """What decoding into a type does upstream: types of values, unknown fields, nulls, defaults.

    Unknown and duplicate fields are refused, told or ignored, as `fieldValidation` says (KEP-2885). Raises ApiError 400.
    """
    schema = served.version.schema
    builtin = served.resource.builtin
    try:
        metadata, unknown = coerce_object_meta(obj.get("metadata"), kind=served.kind if builtin else "")
    except ValueError as error:
        raise _undecodable(served, str(error)) from error
    obj["metadata"] = metadata
    if builtin:
        schema.settle_nulls(obj)
        wrong = schema.mismatch(obj, served.kind)
        if wrong is not None:
            raise _undecodable(served, wrong)
    unknown = [*schema.prune(obj), *unknown]
    strict = [*(f'unknown field "{path}"' for path in unknown), *options.duplicates]
    if strict and options.field_validation == "Strict":
        raise _undecodable(served, f"strict decoding error: {', '.join(strict)}")
    if options.field_validation == "Warn":
        for text in strict:
            ctx.warn(text)
    schema.default(obj)


def _undecodable(served: Served, why: str) -> ApiError:
    return errors.bad_request(
        f'{served.kind} in version "{served.version.name}" cannot be handled as a {served.kind}: {why}'
    )
