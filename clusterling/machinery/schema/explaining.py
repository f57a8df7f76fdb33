"""The thorough half of validation: every error of a value, in upstream's words, order and number.

This follows kube-openapi's `pkg/validation/validate` step by step, also where that is odd: which branch of an anyOf
is reported depends on how many checks of it passed, a null skips most validators, enums match through Go's
number conversions. `checking` spares valid objects this walk. The translation to field errors is that of
apiextensions-apiserver (`pkg/apiserver/validation/validation.go`: kubeOpenAPIResultToFieldErrors).

Ratcheting (`…/validation/ratcheting.go`): an error of a value that the update left as it was is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import orjson

from clusterling.machinery.errors import (
    SHOWN_CHARACTERS_MAX,
    FieldError,
    FieldErrorType,
    go_quote,
    invalid_value,
    not_supported,
    path_below,
    required,
    too_long,
    too_many,
    type_invalid,
)
from clusterling.machinery.gotext import go_float
from clusterling.machinery.schema.budget import spend, spend_match
from clusterling.machinery.schema.correlation import Correlated, json_equal
from clusterling.machinery.schema.formats import FORMATS, PatternError, compile_pattern, quick_matcher
from clusterling.machinery.schema.node import Node
from clusterling.machinery.schema.numbers import as_float, is_int64, is_json_integer

# Errors that name no field keep upstream's rendering of a missing path.
_NO_PATH: Final = "<nil>"
_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1
_FLOAT32_MAX: Final = 3.4028234663852886e38
# A hostile object can be wrong in very many places; nobody reads more than this.
ERRORS_MAX: Final = 1000


class Result:
    """The errors of one value, each once by its text, and how many checks it passed."""

    __slots__ = ("_texts", "errors", "matches")

    def __init__(self) -> None:
        self.errors: list[tuple[str, FieldError]] = []
        self._texts: set[str] = set()
        self.matches = 0

    def add(self, text: str, error: FieldError) -> None:
        if text not in self._texts and len(self.errors) < ERRORS_MAX:
            self._texts.add(text)
            self.errors.append((text, error))

    def merge(self, other: Result) -> None:
        for text, error in other.errors:
            self.add(text, error)
        self.matches += other.matches


def explain(node: Node, value: object, *, at: str = "", old: Correlated | None = None) -> list[FieldError]:
    """All errors. `at` is the path of the value itself, for a part validated by itself (`status`)."""
    prefix = f"{at}." if at else ""
    found = _validate(node, value, "", old).errors
    if not at:
        return [error for _, error in found]
    return [_below(at, prefix, error) for _, error in found]


def is_valid(node: Node, value: object) -> bool:
    return not _validate(node, value, "", None).errors


def _below(at: str, prefix: str, error: FieldError) -> FieldError:
    path = at if error.field in ("", _NO_PATH) else prefix + error.field
    return FieldError(error.type, path, error.value, error.detail)


def _name(path: str) -> str:
    """The error's field: a path without the dot that a root's children get; the root itself has none."""
    return path.removeprefix(".") or _NO_PATH


def _validate(node: Node, value: object, path: str, old: Correlated | None) -> Result:
    result = _judge(node, value, path, old)
    if result.errors and old is not None and old.unchanged():
        tolerated = Result()
        tolerated.matches = result.matches
        return tolerated
    return result


def _judge(node: Node, value: object, path: str, old: Correlated | None) -> Result:
    if node.in_branch:
        spend(value)
    result = Result()
    if value is None:
        _type(node, value, path, result)
        _enum(node, value, path, result)
        return result
    numeric = is_number(value)
    if node.types or node.format:
        _type(node, value, path, result)
        result.matches += 1
    result.merge(_combinations(node, value, path))
    result.matches += 1
    if type(value) is str:
        _text(node, value, path, result)
        result.matches += 1
        if node.format.replace("-", "") in FORMATS:
            _format(node, value, path, result)
            result.matches += 1
    elif numeric:
        _number(node, value, path, result)
        result.matches += 2
    elif type(value) is list:
        _list(node, value, path, old, result)
        result.matches += 2
    _enum(node, value, path, result)
    result.matches += 1
    if type(value) is dict:
        _map(node, value, path, old, result)
        result.matches += 1
    result.matches += 1
    return result


def is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _json_type(value: object) -> tuple[str, str]:
    """(type, format) that upstream infers from a Go value."""
    if value is True or value is False:
        return "boolean", ""
    if type(value) is str:
        return "string", ""
    if is_int64(value):
        return "integer", "int64"
    if is_number(value):
        return "number", "float64"
    return ("array", "") if type(value) is list else ("object", "")


def _type(node: Node, value: object, path: str, result: Result) -> None:
    """typeValidator. Counts one match where the type fits."""
    types = node.types
    if value is None:
        if types and "null" not in types and not node.nullable:
            _wrong_type(path, ",".join(types), "null", result)
        else:
            result.matches += 1
        return
    kind, form = _json_type(value)
    whole = kind == "number" and is_json_integer(as_float(value)) and "integer" in types
    fits = kind in types or whole or (kind == "integer" and "number" in types)
    textual = type(value) is str or type(value) is list
    if node.format and not textual and not (fits or form == node.format):
        _wrong_type(path, node.format, form, result)
    elif fits or (node.format and textual and "number" not in types and "integer" not in types):
        result.matches += 1
    else:
        _wrong_type(path, ",".join(types), kind, result)


def _wrong_type(path: str, wanted: str, got: str, result: Result) -> None:
    text = f"{path} in body must be of type {wanted}: {go_quote(got)}"
    result.add(text, type_invalid(_name(path), got, text))


def _enum(node: Node, value: object, path: str, result: Result) -> None:
    values = node.source.get("enum")
    if not values:
        return
    accepted = node.compiled.get("enum")
    if accepted is None:
        accepted = node.compiled["enum"] = _Accepted(values)
    if not accepted.has(value):
        error = FieldError(FieldErrorType.NOT_SUPPORTED, _name(path), value, accepted.detail)
        result.add(f"{path} in body should be one of {accepted.told}", error)


class _Accepted:
    """The values of an enumeration, to be looked up: there may be ten thousand, and as many items to be held against them."""

    __slots__ = ("_bools", "_compound", "_floats", "_integers", "_texts", "detail", "told")

    def __init__(self, values: list[object]) -> None:
        self._texts = {one for one in values if type(one) is str}
        self._bools = {one for one in values if type(one) is bool}
        self._integers = {one for one in values if is_int64(one)}
        self._floats = {as_float(one) for one in values if is_number(one) and not is_int64(one)}
        self._compound = [one for one in values if isinstance(one, dict | list)]
        shown = _shown(values)
        self.told = str(shown)
        self.detail = not_supported("", "", shown).detail

    def has(self, value: object) -> bool:
        """Whether the value, converted to an accepted value's Go type, equals it; null equals nothing."""
        match value:
            case None:
                return False
            case str():
                return value in self._texts
            case bool():
                return value in self._bools
            case dict() | list():
                if self._compound:
                    spend(self._compound)
                return any(type(value) is type(one) and json_equal(value, one) for one in self._compound)
        number = as_float(value)
        if not is_int64(value):
            return number in self._floats or (math.isfinite(number) and int(number) in self._integers)
        assert isinstance(value, int), "is_int64"
        character = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "�"
        return value in self._integers or character in self._texts or number in self._floats


def _shown(values: list[object]) -> list[str]:
    """The values as messages have them, as far as they fit."""
    shown: list[str] = []
    left = SHOWN_CHARACTERS_MAX
    for one in values:
        text = one if type(one) is str else orjson.dumps(one, option=orjson.OPT_SORT_KEYS).decode()
        left -= len(text)
        if left <= 0:
            return [*shown, "..."]
        shown.append(text)
    return shown


def _text(node: Node, value: str, path: str, result: Result) -> None:
    """stringValidator: the first of the three that fails."""
    longest = node.source.get("maxLength")
    if longest is not None and len(value) > longest:
        text = f"{path} in body should be at most {longest} chars long"
        result.add(text, too_long(_name(path), longest))
        return
    shortest = node.source.get("minLength")
    if shortest is not None and len(value) < shortest:
        text = f"{path} in body should be at least {shortest} chars long"
        result.add(text, invalid_value(_name(path), value, text))
        return
    pattern = node.source.get("pattern")
    if not pattern:
        return
    shown = pattern
    try:
        if quick_matcher(pattern)(value):
            return
        compiled = compile_pattern(pattern)
        spend_match(compiled.programsize, len(value))
        if compiled.search(value) is not None:
            return
    except PatternError as error:
        shown = f"{pattern}, but pattern is invalid: {error}"
    text = f"{path} in body should match '{shown}'"
    result.add(text, invalid_value(_name(path), value, text))


def _format(node: Node, value: str, path: str, result: Result) -> None:
    if not FORMATS[node.format.replace("-", "")](value):
        text = f"{path} in body must be of type {node.format}: {go_quote(value)}"
        result.add(text, type_invalid(_name(path), value, text))


def _number(node: Node, value: object, path: str, result: Result) -> None:
    """numberValidator: the value, then each limit, must be in the range of the type and its format."""
    _range(node, value, "Checked", path, result)
    factor = node.source.get("multipleOf")
    if factor is not None:
        _multiple(node, value, factor, path, result)
    for bound in _LIMITS:
        if node.source.get(bound[0]) is not None:
            _limit(node, value, bound, path, result)


_LIMITS: Final = (
    ("maximum", "exclusiveMaximum", "less", "Maximum boundary"),
    ("minimum", "exclusiveMinimum", "greater", "Minimum boundary"),
)


def _limit(node: Node, value: object, bound: tuple[str, str, str, str], path: str, result: Result) -> None:
    key, exclusive_key, word, prefix = bound
    limit, exclusive = as_float(node.source[key]), bool(node.source.get(exclusive_key))
    number: int | float
    edge: int | float
    if _range(node, limit, prefix, path, result) and is_int64(value):
        assert isinstance(value, int), "is_int64"
        number, edge = value, int(limit)
        shown = str(edge)
    else:
        number, edge, shown = as_float(value), limit, go_float(limit)
    beyond = number > edge if key == "maximum" else number < edge
    if beyond or (exclusive and number == edge):
        words = f"{word} than" if exclusive else f"{word} than or equal to"
        text = f"{path} in body should be {words} {shown}"
        result.add(text, invalid_value(_name(path), value, text))


def _multiple(node: Node, value: object, factor: float, path: str, result: Result) -> None:
    native = _range(node, as_float(factor), "MultipleOf", path, result) and is_int64(value)
    if native:
        assert isinstance(value, int), "is_int64"
        whole = int(factor)
        shown, positive = str(whole), whole > 0
        fits = positive and value % whole == 0
    else:
        scale, number = as_float(factor), as_float(value)
        shown, positive = go_float(scale), scale > 0
        fits = positive and is_json_integer(1 / scale * number if scale < 1 else number / scale)
    if not positive:
        text = f"factor MultipleOf declared for {path} must be positive: {shown}"
        result.add(text, invalid_value(_name(path), as_float(factor), text))
    elif not fits:
        text = f"{path} in body should be a multiple of {shown}"
        result.add(text, invalid_value(_name(path), value, text))


def _range(node: Node, value: object, prefix: str, path: str, result: Result) -> bool:
    """IsValueValidAgainstRange. Its error names no field."""
    kind = node.types[0] if len(node.types) == 1 else ""
    number = as_float(value)
    if kind == "integer":
        whole = is_int64(value) or (math.isfinite(number) and number.is_integer() and is_int64(int(number)))
        fits = whole and (node.format != "int32" or _INT32_MIN <= number <= _INT32_MAX)
    else:
        fits = node.format != "float" or kind != "number" or abs(number) <= _FLOAT32_MAX
    if not fits:
        form = f"with format {node.format}" if node.format else "(default format)"
        text = f"{prefix} value must be of type {kind} {form} in {path}"
        result.add(text, invalid_value(_NO_PATH, "", text))
    return fits


def _list(node: Node, value: list[object], path: str, old: Correlated | None, result: Result) -> None:
    items = node.items
    if items is not None:
        for at, item in enumerate(value):
            below = None if old is None else old.item(at)
            result.merge(_validate(items, item, path_below(path, f"[{at}]"), below))
    size = len(value)
    fewest, most = node.source.get("minItems"), node.source.get("maxItems")
    if fewest is not None and size < fewest:
        text = f"{path} in body should have at least {fewest} items"
        result.add(text, invalid_value(_name(path), size, text))
    if most is not None and size > most:
        text = f"{path} in body should have at most {most} items"
        result.add(text, too_many(_name(path), size, most))
    if node.source.get("uniqueItems") and _has_duplicates(value):
        text = f"{path} in body shouldn't contain duplicates"
        result.add(text, invalid_value(_name(path), "", text))


def _has_duplicates(value: list[object]) -> bool:
    return len({distinct(item) for item in value}) < len(value)


def distinct(value: object) -> tuple[str, object]:
    """A hashable stand-in: equal exactly where Go holds two decoded JSON values for equal."""
    if isinstance(value, dict | list):
        # A copy: what orjson returns keeps a kilobyte, and there are as many as items.
        return "compound", bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))
    return type(value).__name__, value


def _map(node: Node, value: dict[str, object], path: str, old: Correlated | None, result: Result) -> None:
    """objectValidator: the number of properties, unknown ones, known ones, missing ones."""
    source, size = node.source, len(value)
    fewest, most = source.get("minProperties"), source.get("maxProperties")
    if fewest is not None and size < fewest:
        text = f"{path} in body should have at least {fewest} properties"
        result.add(text, invalid_value(_name(path), size, text))
    if most is not None and size > most:
        text = f"{path} in body should have at most {most} properties"
        result.add(text, too_many(_name(path), size, most))
    children, additional = node.properties, node.additional
    strangers = [name for name in value if name not in children]
    if node.forbids_additional:
        for name in strangers:
            text = f"{path}.{name} in body is a forbidden property"
            result.add(text, invalid_value(_name(path), name, text))
    elif additional is not None:
        for name in strangers:
            below = _child(old, name, path)
            result.merge(_validate(additional, value[name], path_below(path, f".{name}"), below))
    for name, child in children.items():
        if name in value:
            below = _child(old, name, path)
            here = path_below(path, f".{name}") if path else name
            result.merge(_validate(child, value[name], here, below))
    for name in node.required:
        if name not in value:
            here = f"{path}.{name}"
            result.add(f"{here} in body is required", required(_name(here)))


def _child(old: Correlated | None, name: str, path: str) -> Correlated | None:
    """apiVersion and kind of the root are never tolerated: both sides were converted to one version."""
    if old is None or (not path and name in ("apiVersion", "kind")):
        return None
    return old.child(name)


def _combinations(node: Node, value: object, path: str) -> Result:
    """schemaPropsValidator: anyOf, oneOf, allOf, not."""
    result = Result()
    any_of, one_of, all_of = node.branches("anyOf"), node.branches("oneOf"), node.branches("allOf")
    quoted = go_quote(path)
    if any_of:
        best = _best_of_any(_validate(one, value, path, None) for one in any_of)
        if best.errors:
            _says(f"{quoted} must validate at least one schema (anyOf)", result)
        result.merge(best)
    if one_of:
        _exactly_one([_validate(one, value, path, None) for one in one_of], quoted, result)
    if all_of:
        found = [_validate(one, value, path, None) for one in all_of]
        for one in found:
            result.merge(one)
        if any(one.errors for one in found):
            none_fit = all(one.errors for one in found)
            _says(
                f"{quoted} must validate all the schemas (allOf){'. None validated' if none_fit else ''}",
                result,
            )
    if node.negated is not None and not _validate(node.negated, value, path, None).errors:
        _says(f"{quoted} must not validate the schema (not)", result)
    result.matches += 1
    return result


def _says(text: str, result: Result) -> None:
    result.add(text, invalid_value(_NO_PATH, "", text))


def _best_of_any(results: Iterable[Result]) -> Result:
    """The first valid one, else the first with the most matches."""
    best: Result | None = None
    for one in results:
        if not one.errors:
            return one
        if best is None or one.matches > best.matches:
            best = one
    assert best is not None, "there is at least one branch"
    return best


def _exactly_one(results: list[Result], quoted: str, result: Result) -> None:
    valid = [one for one in results if not one.errors]
    if len(valid) == 1:
        result.merge(valid[0])
        return
    found = f"Found {len(valid)} valid alternatives" if valid else "Found none valid"
    _says(f"{quoted} must validate one and only one schema (oneOf). {found}", result)
    # A failure after the first success is no longer kept, one before it is dropped by it.
    if not valid:
        result.merge(_best_of_any(results))
