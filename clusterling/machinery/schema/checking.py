"""The fast half of validation: closures that say "certainly valid" without building a single path.

`check(value)` True means that `explain` would find nothing. False means "ask explain": rare and odd cases
(a list where upstream's format check overlooks it, an enum matched through Go's number conversions) are left to it.
So a valid object, nearly every one, costs one walk, and only a wrong one pays for its report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from clusterling.machinery.schema.budget import metered
from clusterling.machinery.schema.explaining import is_valid
from clusterling.machinery.schema.formats import FORMATS, PatternError, quick_matcher
from clusterling.machinery.schema.node import Node
from clusterling.machinery.schema.numbers import INT64_MAX, INT64_MIN

Check = Callable[[object], bool]

_NUMERIC: Final = ("minimum", "maximum", "multipleOf")
_INT32: Final = (-(2**31), 2**31 - 1)
# Texts that fitted a pattern or a format are remembered, so many of so many characters a place.
KNOWN_TEXTS: Final = 128
KNOWN_TEXT_MAX: Final = 64


def compile_check(node: Node) -> Check | None:
    """None where any value is valid."""

    def later(value: object) -> bool:
        run: Check | None = node.compiled["check"]
        return run is None or run(value)

    def make() -> Check | None:
        made = _check_of(node)
        return metered(made) if made is not None and node.in_branch else made

    return node.derived("check", make, later)


def _check_of(node: Node) -> Check | None:
    source = node.source
    if source.get("enum"):
        own = _enum(node)
    elif node.types == ("string",):
        own = _string(node)
    elif node.types == ("integer",):
        own = _integer(node)
    elif node.types == ("boolean",):
        own = _boolean
    elif node.types == ("object",):
        own = _object(node)
    elif node.types == ("array",):
        own = _array(node)
    elif not node.types and not node.format:
        return _untyped(node)
    else:
        own = _other(node)
    # Null is never among an enum's values, not even where it is allowed (basicCommonValidator).
    takes_null = node.nullable and not source.get("enum")
    return _with_combinations(node, _or_null(own) if takes_null else own)


def _or_null(own: Check) -> Check:
    return lambda value: value is None or own(value)


def _boolean(value: object) -> bool:
    return value is True or value is False


def _enum(node: Node) -> Check:
    """Strings among the enum's strings; all else is for `explain`."""
    accepted = frozenset(one for one in node.source["enum"] if type(one) is str)
    plain = node.types == ("string",) and not node.format and _is_unbounded_text(node)
    return (lambda value: type(value) is str and value in accepted) if plain else lambda _: False


def _is_unbounded_text(node: Node) -> bool:
    return not any(node.source.get(key) for key in ("maxLength", "minLength", "pattern")) and (
        node.source.get("maxLength") is None
    )


def _text_check(node: Node) -> Callable[[str], bool] | None:
    longest = node.source.get("maxLength")
    shortest = node.source.get("minLength") or 0
    pattern = node.source.get("pattern")
    found_in: Callable[[str], object] | None = None  # The pattern's, from the first text on.
    format_ = FORMATS.get(node.format.replace("-", "")) if node.format else None
    if longest is None and not shortest and not pattern and format_ is None:
        return None
    top = INT64_MAX if longest is None else longest
    if not pattern and format_ is None:
        return lambda text: shortest <= len(text) <= top
    # Names, images, colours: what an object says once, the next says again.
    known: set[str] = set()

    def check(text: str) -> bool:
        nonlocal found_in
        if text in known:
            return True
        if not shortest <= len(text) <= top:
            return False
        if pattern:
            if found_in is None:
                found_in = _matcher(pattern)
            if not found_in(text):
                return False
        if format_ is not None and not format_(text):
            return False
        if len(text) <= KNOWN_TEXT_MAX and len(known) < KNOWN_TEXTS:
            known.add(text)
        return True

    return check


def _matcher(pattern: str) -> Callable[[str], object]:
    try:
        return quick_matcher(pattern)
    except PatternError:
        return lambda _: False


def _string(node: Node) -> Check:
    text_check = _text_check(node)
    if text_check is None:
        return lambda value: type(value) is str
    return lambda value: type(value) is str and text_check(value)


def _integer(node: Node) -> Check:
    source = node.source
    if any(source.get(key) is not None and type(source[key]) is not int for key in _NUMERIC):
        return lambda _: False
    low, high = _INT32 if node.format == "int32" else (INT64_MIN, INT64_MAX)
    bounds = (source.get("minimum"), source.get("maximum"), source.get("multipleOf"))
    if any(bound is not None and not low <= bound <= high for bound in bounds):
        return lambda _: False
    if bounds[0] is not None:
        low = max(low, bounds[0] + bool(source.get("exclusiveMinimum")))
    if bounds[1] is not None:
        high = min(high, bounds[1] - bool(source.get("exclusiveMaximum")))
    factor = bounds[2]
    if factor is None:
        return lambda value: type(value) is int and low <= value <= high
    if factor <= 0:
        return lambda _: False
    return lambda value: type(value) is int and low <= value <= high and value % factor == 0


def _object(node: Node) -> Check:
    children = node.properties
    # `str` stands for the check of plain text, by far the commonest: a comparison instead of a call.
    checks: dict[str, Check | type[str] | None] = {
        name: str if _is_plain_text(child) else compile_check(child) for name, child in children.items()
    }
    required = tuple(node.required)
    additional: Check | type[str] | None = None
    if node.additional is not None:
        additional = str if _is_plain_text(node.additional) else compile_check(node.additional)
    fewest = node.source.get("minProperties") or 0
    most = node.source.get("maxProperties")
    if node.source.get("patternProperties") or node.source.get("dependencies"):
        return lambda _: False
    closed = frozenset(children) if node.forbids_additional else None
    bounded = bool(fewest) or most is not None
    top = INT64_MAX if most is None else most
    get = checks.get

    def check(value: object) -> bool:
        if type(value) is not dict:
            return False
        for name in required:
            if name not in value:
                return False
        if bounded and not fewest <= len(value) <= top:
            return False
        if closed is not None and not closed.issuperset(value):
            return False
        for name, item in value.items():
            below = get(name, additional)
            if below is str:
                if type(item) is not str:
                    return False
            elif below is not None and not below(item):
                return False
        return True

    return check


def _is_plain_text(node: Node) -> bool:
    return node.source.keys() <= {"type", "description", "default", "title"} and node.types == ("string",)


def _array(node: Node) -> Check:
    item_check = None if node.items is None else compile_check(node.items)
    fewest = node.source.get("minItems") or 0
    most = node.source.get("maxItems")
    top = INT64_MAX if most is None else most
    if node.source.get("uniqueItems") or node.source.get("additionalItems") is not None:
        return lambda value: type(value) is list and not value and not fewest

    def check(value: object) -> bool:
        if type(value) is not list or not fewest <= len(value) <= top:
            return False
        if item_check is not None:
            for item in value:
                if not item_check(item):
                    return False
        return True

    return check


def _untyped(node: Node) -> Check | None:
    """No type: a value is held only to the keywords that suit it. Common: nothing but branches, or nothing at all."""
    limits = (
        "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "additionalItems",
        "maxProperties", "minProperties", "patternProperties", "dependencies", *_NUMERIC,
    )  # fmt: skip
    if any(_given(node, key) for key in limits) or node.items is not None or node.forbids_additional:
        return _with_combinations(node, lambda _: False)
    if not node.properties and node.additional is None and not node.required:
        return _combinations(node)
    as_object = _object(node)
    return _with_combinations(node, lambda value: type(value) is not dict or as_object(value))


def _given(node: Node, key: str) -> bool:
    value = node.source.get(key)
    return value is not None and value is not False and value != ""


def _other(node: Node) -> Check:
    """Numbers and int-or-string without limits; whatever else goes to `explain`."""
    limited = any(node.source.get(key) is not None for key in _NUMERIC) or not _is_unbounded_text(node)
    if limited or (node.format and node.format != "double"):
        return lambda _: False
    if node.types == ("number",):
        return lambda value: type(value) is float or (type(value) is int and INT64_MIN <= value <= INT64_MAX)
    if node.types == ("integer", "string"):
        return lambda value: type(value) is str or (type(value) is int and INT64_MIN <= value <= INT64_MAX)
    return lambda _: False


def _with_combinations(node: Node, own: Check) -> Check:
    rest = _combinations(node)
    return own if rest is None else lambda value: own(value) and (value is None or rest(value))


def _combinations(node: Node) -> Check | None:
    """allOf, anyOf, oneOf and not. They do not apply to null (SchemaValidator.Validate)."""
    tests: list[Check] = [check for check in map(compile_check, node.branches("allOf")) if check is not None]
    if node.branches("anyOf"):
        tests.append(_any_of(node.branches("anyOf")))
    if node.branches("oneOf"):
        tests.append(_one_of(node.branches("oneOf")))
    if node.negated is not None:
        tests.append(_not(node.negated))
    if not tests:
        return None
    if len(tests) == 1:
        only = tests[0]
        return lambda value: value is None or only(value)
    return lambda value: value is None or all(test(value) for test in tests)


def _any_of(nodes: list[Node]) -> Check:
    checks = [compile_check(node) for node in nodes]
    return lambda value: any(check is None or check(value) for check in checks)


def _one_of(nodes: list[Node]) -> Check:
    branches = [(compile_check(node), node, _is_exact(node)) for node in nodes]

    def check(value: object) -> bool:
        valid = 0
        for fast, node, exact in branches:
            if fast is None or fast(value) or (not exact and is_valid(node, value)):
                valid += 1
                if valid > 1:
                    return False
        return valid == 1

    return check


def _not(node: Node) -> Check:
    fast, exact = compile_check(node), _is_exact(node)
    if fast is None:
        return lambda _: False
    if exact:
        return lambda value: not fast(value)
    return lambda value: not (fast(value) or is_valid(node, value))


def _is_exact(node: Node) -> bool:
    """Whether the fast check's no is final. It is for branches that only require fields, the commonest."""
    return node.source.keys() <= {"required"}
