"""Label and field selectors: parsed once, matched often, comparable by their canonical text.

Grammar and texts are upstream's (`apimachinery/pkg/labels/selector.go`, `apimachinery/pkg/fields/selector.go`).
A selector is a frozen value; two with an equal `canonical` select the same objects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, Self

from typing_extensions import override

from clusterling.machinery.errors import FieldError, go_quote, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_label_value, is_qualified_name

SELECTOR_BYTES_MAX: Final = 64 * 1024
REQUIREMENTS_MAX: Final = 1_000

LabelOp = Literal["in", "notin", "=", "!=", "exists", "!", "gt", "lt"]

_SYMBOLS: Final = frozenset("=!(),><")
_SPACES: Final = frozenset(" \t\r\n")
_TOKENS: Final = frozenset({")", ",", "!", "==", "=", ">", "in", "<", "!=", "notin", "("})
_BINARY: Final[Mapping[str, LabelOp]] = {
    "in": "in",
    "notin": "notin",
    "=": "=",
    "==": "=",
    "!=": "!=",
    ">": "gt",
    "<": "lt",
}
_BINARY_NAMES: Final = "in, notin, =, ==, !=, gt, lt"
_OBJECT_OPS: Final[Mapping[str, LabelOp]] = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "!",
}
# Parts of a label selector that stand for themselves even where a value is expected.
_END: Final = ""
_WORD: Final = "word"


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One condition on one key. `values` are sorted; one for `=`, `!=`, `gt`, `lt`; none for `exists` and `!`."""

    key: str
    op: LabelOp
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case "=" | "in":
                return value is not None and self._has(value)
            case "!=" | "notin":
                return value is None or not self._has(value)
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return value is not None and self._compares(value)

    def _has(self, value: str) -> bool:
        """Whether it is among the values, of which there may be ten thousand for each of as many objects."""
        at = bisect_left(self.values, value)
        return at < len(self.values) and self.values[at] == value

    def _compares(self, text: str) -> bool:
        value, bound = _int64(text), _int64(self.values[0])
        if value is None or bound is None:
            return False
        return value > bound if self.op == "gt" else value < bound

    @override
    def __str__(self) -> str:
        match self.op:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.op} ({','.join(self.values)})"
            case _:
                sign = {"gt": ">", "lt": "<"}.get(self.op, self.op)
                return f"{self.key}{sign}{self.values[0]}"


def _int64(text: str) -> int | None:
    """What Go's ParseInt(text, 10, 64) takes, or None."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    significant = digits.lstrip("0")
    if not (digits.isascii() and digits.isdigit()) or len(significant) > 19:
        return None
    value = int(significant or "0") * (-1 if text[0] == "-" else 1)
    return value if -(1 << 63) <= value < 1 << 63 else None


def _requirement(key: str, op: LabelOp, values: Sequence[str]) -> LabelRequirement:
    """A checked requirement (upstream: NewRequirement). Raises ValueError with every problem."""
    errors: list[FieldError] = []
    if problems := is_qualified_name(key):
        errors.append(invalid_value("key", key, "; ".join(problems)))
    if op in {"in", "notin"} and not values:
        errors.append(
            invalid_value("values", list(values), "for 'in', 'notin' operators, values set can't be empty")
        )
    if op in {"exists", "!"} and values:
        errors.append(
            invalid_value("values", list(values), "values set must be empty for exists and does not exist")
        )
    if op in {"gt", "lt"}:
        errors += [
            invalid_value(f"values[{i}]", value, "for 'Gt', 'Lt' operators, the value must be an integer")
            for i, value in enumerate(values)
            if _int64(value) is None
        ]
    for i, value in enumerate(values):
        if problems := is_label_value(value):
            errors.append(invalid_value(f"values[{i}][{key}]", value, "; ".join(problems)))
    if errors:
        texts = list(dict.fromkeys(map(str, errors)))
        raise ValueError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    return LabelRequirement(key, op, tuple(sorted(set(values))))


def _scan(text: str) -> list[tuple[str, str]]:
    """Tokens as (kind, literal). A kind is the token itself, `word`, or empty at the end."""
    tokens: list[tuple[str, str]] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in _SPACES:
            at += 1
        # Upstream's lexer reads a NUL as the end of the text.
        if at >= end or text[at] == "\0":
            tokens.append((_END, ""))
            return tokens
        start = at
        if text[at] in _SYMBOLS:
            at += 2 if text[at : at + 2] in _TOKENS else 1
            tokens.append((text[start:at], text[start:at]))
        else:
            while at < end and text[at] not in _SYMBOLS and text[at] not in _SPACES and text[at] != "\0":
                at += 1
            word = text[start:at]
            tokens.append((word if word in _TOKENS else _WORD, word))
        if at < end and text[at] == "\0":
            at += 1


class _LabelParser:
    def __init__(self, text: str) -> None:
        self._tokens = _scan(text)
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        """The next token where `in` and `notin` are ordinary words."""
        kind, literal = self._tokens[self._at]
        return (_WORD if kind in {"in", "notin"} else kind), literal

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def parse(self) -> list[LabelRequirement]:
        found: list[LabelRequirement] = []
        while True:
            kind, literal = self._peek()
            if kind == _END:
                return found
            if kind not in {_WORD, "!"}:
                raise ValueError(f"found '{literal}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            if len(found) > REQUIREMENTS_MAX:
                raise ValueError(f"a selector may have at most {REQUIREMENTS_MAX} requirements")
            kind, literal = self._next()
            if kind == _END:
                return found
            if kind != ",":
                raise ValueError(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self._peek()
            if kind not in {_WORD, "!"}:
                raise ValueError(f"found '{literal}', expected: identifier after ','")

    def _requirement(self) -> LabelRequirement:
        kind, key = self._next()
        absent = kind == "!"
        if absent:
            kind, key = self._next()
        if kind != _WORD:
            raise ValueError(f"found '{key}', expected: identifier")
        if problems := is_qualified_name(key):
            # Upstream has no path here and prints the nil pointer.
            raise ValueError(str(invalid_value("<nil>", key, "; ".join(problems))))
        if absent or self._peek()[0] in {_END, ","}:
            return _requirement(key, "!" if absent else "exists", ())
        kind, literal = self._tokens[self._at]
        self._at += 1
        op = _BINARY.get(kind)
        if op is None:
            raise ValueError(f"found '{literal}', expected: {_BINARY_NAMES}")
        values = self._values() if op in {"in", "notin"} else self._exact_value()
        return _requirement(key, op, sorted(set(values)))

    def _values(self) -> list[str]:
        kind, literal = self._next()
        if kind != "(":
            raise ValueError(f"found '{literal}' expected: '('")
        kind, literal = self._peek()
        if kind == ")":
            self._next()
            return [""]
        if kind not in {_WORD, ","}:
            raise ValueError(f"found '{literal}', expected: ',', ')' or identifier")
        values = self._words()
        if self._next()[0] != ")":
            raise ValueError(f"found '{literal}', expected: ')'")
        return values

    def _words(self) -> list[str]:
        values: list[str] = []
        while True:
            kind, literal = self._next()
            if kind == _WORD:
                values.append(literal)
                kind, literal = self._peek()
                if kind == ")":
                    return values
                if kind != ",":
                    raise ValueError(f"found '{literal}', expected: ',' or ')'")
            elif kind == ",":
                # An empty value stands before a first comma, between two, and after a last one.
                following = self._peek()[0]
                if not values or following in {")", ","}:
                    values.append("")
                if following == ")":
                    return values
            else:
                raise ValueError(f"found '{literal}', expected: ',', or identifier")

    def _exact_value(self) -> list[str]:
        if self._peek()[0] in {_END, ","}:
            return [""]
        kind, literal = self._next()
        if kind != _WORD:
            raise ValueError(f"found '{literal}', expected: identifier")
        return [literal]


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements hold. `nothing`: matches no object at all (a null selector in an object)."""

    requirements: tuple[LabelRequirement, ...] = ()
    nothing: bool = False
    canonical: str = field(init=False, default="", compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.requirements, key=lambda one: (one.key, one.op, one.values)))
        object.__setattr__(self, "requirements", ordered)
        # No text of a selector is a lone `!`, so it can stand for "nothing".
        object.__setattr__(self, "canonical", "!" if self.nothing else ",".join(map(str, ordered)))

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """The selector of a `labelSelector` parameter. Raises ValueError with upstream's text."""
        return _parse_labels(text) if text else EVERYTHING

    @classmethod
    def from_object(cls, selector: Object | None) -> LabelSelector:
        """The selector of a metav1.LabelSelector. None selects nothing, an empty one everything. Raises ValueError."""
        if selector is None:
            return NOTHING
        labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
        _must(
            isinstance(labels, dict) and isinstance(expressions, list),
            "matchLabels is a map, matchExpressions a list",
        )
        found = [_requirement(_text(key), "=", [_text(value)]) for key, value in labels.items()]
        for expression in expressions:
            _must(isinstance(expression, dict), "matchExpressions has objects")
            operator, values = _text(expression.get("operator", "")), expression.get("values") or []
            op = _OBJECT_OPS.get(operator)
            if op is None:
                raise ValueError(f"{go_quote(operator)} is not a valid label selector operator")
            _must(isinstance(values, list), "values is a list")
            found.append(_requirement(_text(expression.get("key", "")), op, [_text(one) for one in values]))
        if len(found) > REQUIREMENTS_MAX:
            raise ValueError(f"a selector may have at most {REQUIREMENTS_MAX} requirements")
        return cls(tuple(found))

    @property
    def is_everything(self) -> bool:
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        for requirement in self.requirements:  # noqa: SIM110 - a generator costs more than the match
            if not requirement.matches(labels):
                return False
        return True

    def exact(self, key: str) -> str | None:
        """The one value that `key` must have, or None (upstream: RequiresExactMatch)."""
        for one in self.requirements:
            if one.key == key:
                return one.values[0] if one.op in {"=", "in"} and len(one.values) == 1 else None
        return None

    @override
    def __str__(self) -> str:
        return self.canonical

    @override
    def __hash__(self) -> int:
        return hash(self.canonical)


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"in a label selector {rule}")


def _text(value: object) -> str:
    _must(isinstance(value, str), "keys, operators and values are strings")
    return str(value)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


@lru_cache(maxsize=1024)
def _parse_short(text: str) -> LabelSelector:
    return LabelSelector(tuple(_LabelParser(text).parse()))


def _parse_labels(text: str) -> LabelSelector:
    if len(text) > SELECTOR_BYTES_MAX:
        raise ValueError(f"a selector may have at most {SELECTOR_BYTES_MAX} bytes")
    # Watchers repeat a few short selectors; long ones must not fill the cache.
    return _parse_short(text) if len(text) <= 256 else _parse_short.__wrapped__(text)


FieldOp = Literal["=", "!="]


def _split_terms(text: str) -> Iterable[str]:
    """Terms between commas; a backslash keeps the next character as it is."""
    start, escaped = 0, False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            yield text[start:at]
            start = at + 1
    if text:
        yield text[start:]


def _unescape(text: str) -> str:
    if not any(character in text for character in "\\,="):
        return text
    found: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if not escaped or escaped not in "\\,=":
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            found.append(escaped)
        elif character in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(character)}")
        else:
            found.append(character)
    return "".join(found)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements hold: (field, `=` or `!=`, value). A field that an object does not have is the empty string."""

    requirements: tuple[tuple[str, FieldOp, str], ...] = ()
    canonical: str = field(init=False, default="", compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.requirements))
        object.__setattr__(self, "requirements", ordered)
        object.__setattr__(
            self, "canonical", ",".join(f"{name}{op}{_escape(value)}" for name, op, value in ordered)
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The selector of a `fieldSelector` parameter. Raises ValueError with upstream's text.

        Which fields a kind knows is not asked here: compare `requirements` with those it has.
        """
        if len(text) > SELECTOR_BYTES_MAX:
            raise ValueError(f"a selector may have at most {SELECTOR_BYTES_MAX} bytes")
        found: list[tuple[str, FieldOp, str]] = []
        for term in sorted(_split_terms(text)):
            if not term:
                continue
            at = min((place for place in (term.find("!="), term.find("=")) if place >= 0), default=-1)
            if at < 0:
                raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
            op: FieldOp = "!=" if term[at] == "!" else "="
            width = 2 if term[at : at + 2] in {"!=", "=="} else 1
            name, value = term[:at], _unescape(term[at + width :])
            if name or value:
                found.append((name, op, value))
        if len(found) > REQUIREMENTS_MAX:
            raise ValueError(f"a selector may have at most {REQUIREMENTS_MAX} requirements")
        return cls(tuple(found))

    @property
    def is_everything(self) -> bool:
        return not self.requirements

    def matches(self, values: Mapping[str, str]) -> bool:
        for name, op, value in self.requirements:  # noqa: SIM110 - a generator costs more than the match
            if (values.get(name, "") == value) is not (op == "="):
                return False
        return True

    def exact(self, name: str) -> str | None:
        """The value that the field must have, or None (upstream: RequiresExactMatch)."""
        for field_name, op, value in self.requirements:
            if field_name == name and op == "=":
                return value
        return None

    @override
    def __str__(self) -> str:
        return self.canonical

    @override
    def __hash__(self) -> int:
        return hash(self.canonical)
