"""Receiving: a decoded body becomes an object of its kind, as decoding into a Go type makes it upstream.

Unknown fields go, nulls go, defaults come; what does not fit the type is a 400. Pure but for the warnings.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from heapq import merge
from operator import itemgetter
from typing import Any, Final

import orjson

from clusterling.machinery.errors import ApiError, go_quote
from clusterling.machinery.fieldorder import PLACED_MAX, Order, is_within, order_of, place_of, quoted_path
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context

# Fields unknown or given twice that are told of one body (upstream: sigs.k8s.io/json, saveStrictError).
STRICT_PROBLEMS_MAX: Final = 100

_DUPLICATE: Final = "duplicate field "
_AFTER: Final = (sys.maxsize,)
_LINES: Final = "yaml: unmarshal errors:\n"
_LINES_CONVERTED: Final = f"error converting YAML to JSON: {_LINES}"


class Undecodable(ApiError):
    """400 for an object that does not fit its kind. `why`: in Go's words; `patched`: what a patch made, if it did.

    A patch is told what it made and why that is none of the kind (422), where a body is told only the latter.
    """

    def __init__(self, kind: str, api_version: str, why: str, expected: str = "") -> None:
        version = GroupVersion.parse(api_version).version
        super().__init__(
            400,
            "BadRequest",
            f'{kind} in version "{version}" cannot be handled as a {expected or kind}: {why}',
        )
        self.why = why
        self.patched: Object | None = None


def receive(
    ctx: Context, served: Served, obj: Object, options: WriteOptions, *, reads_metadata: bool = True
) -> None:
    """What decoding into a type does upstream: types of values, unknown fields, nulls, defaults.

    Unknown and duplicate fields are refused, told or ignored, as `fieldValidation` says (KEP-2885). `reads_metadata` False:
    the metadata have been read already. Of a custom resource that says it is of another kind or version nothing else is.
    Raises ApiError 400.
    """
    schema = served.version.schema
    builtin = served.resource.builtin
    kind, version = obj.get("kind", served.kind), obj.get("apiVersion", served.api_version)
    other = not builtin and (kind, version) != (served.kind, served.api_version)
    if not other:
        kind, version = served.kind, served.version.name
    as_it_is = builtin and schema.fits(obj)
    # What goes is told in the order of what came, so that is kept; where nothing can go but metadata, they alone tell it.
    written = orjson.dumps(obj) if builtin and (options.duplicates or not as_it_is) else b""
    given = obj.get("metadata")
    unknown: list[str] = []
    try:
        if reads_metadata:
            obj["metadata"], unknown = coerce_object_meta(given, kind=served.kind if builtin else "")
    except ValueError as error:
        why = _read_first(served, obj, options) or str(error)
        raise Undecodable(kind, version, why, served.kind) from error
    pruned = [] if as_it_is or other else _reshaped(served, obj, options)
    if unknown or pruned or options.duplicates:
        if builtin:
            came = orjson.loads(written) if written else {"metadata": given}
            order = order_of(came, by_keys=options.told_by == "keys")
            strict = _strict_typed([*pruned, *unknown], options, order)
        else:
            order = order_of({"metadata": given}, by_keys=True)
            unknown.sort(key=lambda path: place_of(path, order))
            strict = [*options.duplicates, *(f'unknown field "{path}"' for path in [*unknown, *pruned])]
        _tell(ctx, kind, version, options, strict)
    if not other:
        schema.default(obj)


def _read_first(served: Served, obj: Object, options: WriteOptions) -> str | None:
    """What is told where metadata cannot be read: of a field that is read before it, or of the first in it."""
    if not served.resource.builtin:
        return None
    if options.told_by == "keys":
        obj = _sorted(obj)
    keys = list(obj)
    before = {key: obj[key] for key in keys[: keys.index("metadata")]}
    wrong = served.version.schema.mismatch(before, served.kind)
    if wrong is None:
        try:
            coerce_object_meta(obj["metadata"], kind=served.kind)
        except ValueError as error:
            return str(error)
    return wrong


def _sorted(value: Any) -> Any:
    """The same with the keys of all maps sorted."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _reshaped(served: Served, obj: Object, options: WriteOptions) -> list[str]:
    """Reads nulls and drops unknown fields, in place; the paths of these. Raises Undecodable for wrong types."""
    schema = served.version.schema
    # Before nulls go: a field that is unknown is told of whatever it has.
    pruned = schema.prune(obj)
    if served.resource.builtin:
        schema.settle_nulls(obj)
        wrong = schema.mismatch(obj, served.kind)
        if wrong is not None:
            # The first that is read is told of.
            in_order = schema.mismatch(_sorted(obj), served.kind) if options.told_by == "keys" else None
            raise Undecodable(served.kind, served.version.name, in_order or wrong)
    else:
        wrong = schema.embedded_mismatch(obj)
        if wrong is not None:
            raise Undecodable(served.kind, served.version.name, wrong)
    return pruned


def _strict_typed(unknown: Sequence[str], options: WriteOptions, order: Order) -> Sequence[str]:
    """What strict decoding into a Go type says, in upstream's order."""
    duplicates = options.duplicates
    if options.told_by == "text":
        # A strategic patch is no JSON any more when it becomes an object, and its converter does not quote.
        return [*duplicates, *sorted(f'unknown field "{path}"' for path in unknown)]
    unknown = unknown[:PLACED_MAX]
    placed = sorted(
        ((place_of(path, order), f"unknown field {go_quote(path)}") for path in unknown), key=itemgetter(0)
    )
    first: Sequence[str] = duplicates
    if options.told_by == "place":
        # What a JSON patch says of its own operations comes first.
        first = [text for text in duplicates if not text.startswith(_DUPLICATE)]
        twice = [(quoted_path(text), text) for text in duplicates if text.startswith(_DUPLICATE)]
        fields = frozenset(unknown)
        # Nobody looks into a field that is unknown, nor whether it is there again.
        # What is in a field is read before that is found to be there again.
        known = [
            (place_of(path, order) + _AFTER, text) for path, text in twice if not is_within(path, fields)
        ]
        placed = list(merge(placed, known, key=itemgetter(0)))
    return [*first, *(text for _, text in placed[:STRICT_PROBLEMS_MAX])]


def _tell(ctx: Context, kind: str, version: str, options: WriteOptions, strict: Sequence[str]) -> None:
    if options.field_validation == "Strict":
        why = f"strict decoding error: {', '.join(strict)}"
        raise Undecodable(kind, version, why)
    if options.field_validation == "Warn":
        for text in strict:
            for line in yaml_lines(text):
                ctx.warn(line)


def yaml_lines(text: str) -> list[str]:
    """What YAML's reader says of several lines, a Warning each (upstream: handlers/rest.go, parseYAMLWarnings)."""
    bare = text.removeprefix(_LINES_CONVERTED).removeprefix(_LINES)
    return [text] if bare == text else [line.strip() for line in bare.split("\n")]
