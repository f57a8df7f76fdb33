"""Receiving: a decoded body becomes an object of its kind, as decoding into a Go type makes it upstream.

Unknown fields go, nulls go, defaults come; what does not fit the type is a 400. Pure but for the warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context

# Fields unknown or given twice that are told of one body (upstream: sigs.k8s.io/json, saveStrictError).
STRICT_PROBLEMS_MAX: Final = 100

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
# Field or index → its place among its siblings, and the order below it.
_Order = dict[str | int, tuple[int, "_Order"]]


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
    as_it_is = builtin and schema.fits(obj)
    # Where nothing goes but unknown metadata, that is all in one place.
    tells_order = builtin and (options.duplicates or not as_it_is)
    order = _reading_order(obj) if tells_order else {}
    try:
        metadata, unknown = coerce_object_meta(obj.get("metadata"), kind=served.kind if builtin else "")
    except ValueError as error:
        raise Undecodable(served.kind, served.version.name, str(error)) from error
    obj["metadata"] = metadata
    pruned = [] if as_it_is else _reshaped(served, obj)
    if unknown or pruned or options.duplicates:
        _tell(ctx, served, options, _strict(unknown, pruned, options, order, builtin=builtin))
    schema.default(obj)


def _reshaped(served: Served, obj: Object) -> list[str]:
    """Reads nulls and drops unknown fields, in place; the paths of these. Raises Undecodable for wrong types."""
    schema = served.version.schema
    # Before nulls go: a field that is unknown is told of whatever it has.
    pruned = schema.prune(obj)
    if served.resource.builtin:
        schema.settle_nulls(obj)
        wrong = schema.mismatch(obj, served.kind)
        if wrong is not None:
            raise Undecodable(served.kind, served.version.name, wrong)
    return pruned


def _strict(
    unknown: Sequence[str], pruned: Sequence[str], options: WriteOptions, order: _Order, *, builtin: bool
) -> Sequence[str]:
    """What strict decoding says of the body, in upstream's order."""
    # Go's typed decoder tells in the order it reads; for custom resources unknown fields are sorted at the end.
    found = [*pruned, *unknown] if builtin else [*unknown, *sorted(pruned)]
    strict = [*options.duplicates, *(f'unknown field "{path}"' for path in found)]
    if builtin and found:
        strict.sort(key=lambda text: _place_of(text, order))
    return strict[:STRICT_PROBLEMS_MAX]


def _tell(ctx: Context, served: Served, options: WriteOptions, strict: Sequence[str]) -> None:
    if options.field_validation == "Strict":
        why = f"strict decoding error: {', '.join(strict)}"
        raise Undecodable(served.kind, served.version.name, why)
    if options.field_validation == "Warn":
        for text in strict:
            ctx.warn(text)


def _reading_order(value: Object | list[object]) -> _Order:
    """Where each field of the body stands."""
    items: Iterable[tuple[str | int, object]] = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        key: (at, _reading_order(item) if isinstance(item, dict | list) else {})
        for at, (key, item) in enumerate(items)
    }


def _place_of(text: str, order: _Order) -> tuple[int, ...]:
    """Where the field that `unknown field "a.b[0]"` tells of stands in the body, level by level."""
    place = []
    for step in _STEP.finditer(text.partition('"')[2].removesuffix('"')):
        at, order = order.get(step[1] or int(step[2]), (len(order), {}))
        place.append(at)
        if not order:
            break
    return tuple(place)
