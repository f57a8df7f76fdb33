"""JSONPath as Kubernetes speaks it: printer columns, scale paths, selectable fields.

The language is that of `client-go/util/jsonpath`, not RFC 9535's: a leading dot, `[?(@.type=="Ready")]`, wildcards,
slices, unions, `..`, keys with escaped dots. A path is parsed once into steps; a step maps a list of values to a
list of values.

Rules of this file: a tenant writes both the path and the object, so parsing is bounded by length and depth, and
evaluation by the number of values it touches (a path such as `..*..*..*` would otherwise multiply).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from clusterling.machinery.gotext import go_json, go_text, go_type

PATH_CHARACTERS_MAX: Final = 4096
NESTING_MAX: Final = 16
VALUES_MAX: Final = 200_000

_END: Final = ""
_TERMINATORS: Final = frozenset(" \t\r\n.,[]$@{}")
_KEY: Final = re.compile(r"'([^']*)'").fullmatch
_SLICE: Final = re.compile(r"(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?").fullmatch
_COMPARISON: Final = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL).fullmatch
_INTEGER: Final = re.compile(r"[+-]?[0-9]+").fullmatch
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_HEX_ESCAPES: Final = {"x": 2, "u": 4, "U": 8}


class Budget:
    """How many values evaluations may still produce: one alone, or all the columns of a row together."""

    __slots__ = ("left", "values")

    def __init__(self, values: int = VALUES_MAX) -> None:
        self.values = values
        self.left = values

    def spend(self, values: int) -> None:
        self.left -= values
        if self.left < 0:
            raise ValueError(f"the path visits more than {self.values} values")


class _Step(Protocol):
    """One node of a parsed path."""

    def walk(self, values: list[object], budget: Budget) -> list[object]: ...


def _walk(steps: Sequence[_Step], values: list[object], budget: Budget) -> list[object]:
    for step in steps:
        values = step.walk(values, budget)
        budget.spend(len(values) + 1)
    return values


@dataclass(frozen=True, slots=True)
class _Field:
    name: str

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        return [value[self.name] for value in values if isinstance(value, dict) and self.name in value]


@dataclass(frozen=True, slots=True)
class _Literal:
    """A number or bool: one for each value that comes in. A text: one, whatever comes in."""

    value: object

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        return [self.value] if isinstance(self.value, str) else [self.value] * len(values)


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return value
    # Go's reflection walks a string by its bytes.
    return list(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else []


@dataclass(frozen=True, slots=True)
class _Wildcard:
    def walk(self, values: list[object], budget: Budget) -> list[object]:
        found: list[object] = []
        for value in values:
            children = _children(value)
            budget.spend(len(children))
            found += children
        return found


@dataclass(frozen=True, slots=True)
class _Descend:
    """`..`: every value with something inside, outermost first."""

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        found: list[object] = []
        waiting = values[::-1]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                if value:
                    found.append(value)
            elif isinstance(value, dict | list) and value:
                budget.spend(len(value))
                found.append(value)
                waiting += _children(value)[::-1]
        return found


@dataclass(frozen=True, slots=True)
class _Slice:
    """`[start:end:step]`. `derived`: written as `[start]`, so that the end follows from it."""

    start: int | None
    end: int | None
    step: int | None
    derived: bool

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        found: list[object] = []
        for value in values:
            if value is None:
                continue
            if not isinstance(value, list):
                raise ValueError(f"{go_type(value)} is not array or slice")  # noqa: TRY004 - the tenant's object
            start, end = self._bounds(len(value))
            if start == end:
                # Upstream ends the whole step here, with what it has.
                return found
            if self.step is not None and self.step <= 0:
                raise ValueError("step must be > 0")
            budget.spend(end - start)
            found += value[start : end : self.step or 1]
        return found

    def _bounds(self, length: int) -> tuple[int, int]:
        start = 0 if self.start is None else self.start
        if start < 0:
            start += length
        end = length if self.end is None else self.end
        if end < 0 or (end == 0 and self.derived):
            end += length
        if start == end:
            return start, end
        if not 0 <= start < length:
            raise ValueError(f"array index out of bounds: index {start}, length {length}")
        if not 0 <= end <= length:
            raise ValueError(f"array index out of bounds: index {end - 1}, length {length}")
        if start > end:
            raise ValueError(f"starting index {start} is greater than ending index {end}")
        return start, end


@dataclass(frozen=True, slots=True)
class _Union:
    branches: tuple[tuple[_Step, ...], ...]

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        found: list[object] = []
        for branch in self.branches:
            found += _walk(branch, values, budget)
        return found


@dataclass(frozen=True, slots=True)
class _Keyword:
    """`range` and `end` make sense only in kubectl's templates."""

    name: str

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        if self.name == "end":
            raise ValueError("not in range, nothing to end")
        raise ValueError(f"unrecognized identifier {self.name}")


@dataclass(frozen=True, slots=True)
class _Filter:
    """`[?(left op right)]`; `op` is `exists` where there is only a left side."""

    left: tuple[_Step, ...]
    op: str
    right: tuple[_Step, ...]

    def walk(self, values: list[object], budget: Budget) -> list[object]:
        found: list[object] = []
        for value in values:
            if not isinstance(value, list):
                raise ValueError(f"{printed(value)} is not array or slice and cannot be filtered")  # noqa: TRY004
            budget.spend(len(value))
            found += [item for item in value if self._passes(item, budget)]
        return found

    def _passes(self, item: object, budget: Budget) -> bool:
        if self.op == "exists":
            left_budget = budget.left
            try:
                return bool(_walk(self.left, [item], budget))
            except ValueError:
                # Upstream takes an error for "does not exist"; an exhausted budget is not forgiven.
                if budget.left < 0 <= left_budget:
                    raise
                return False
        sides = []
        for steps in (self.left, self.right):
            side = _walk(steps, [item], budget)
            if not side:
                return False
            if len(side) > 1:
                raise ValueError("can only compare one element at a time")
            sides.append(side[0])
        compare = _COMPARE.get(self.op)
        if compare is None:
            raise ValueError(f"unrecognized filter operator {self.op}")
        return compare(sides[0], sides[1])


def _comparable(left: object, right: object) -> None:
    """Two values of one basic type, or an error (upstream: third_party/forked/golang/template)."""
    for value in (left, right):
        if not isinstance(value, bool | int | float | str):
            raise ValueError("invalid type for comparison")  # noqa: TRY004 - the tenant's object
    if type(left) is not type(right):
        raise ValueError("incompatible types for comparison")


def _equal(left: object, right: object) -> bool:
    _comparable(left, right)
    return left == right


def _less(left: object, right: object) -> bool:
    _comparable(left, right)
    if isinstance(left, bool):
        raise ValueError("invalid type for comparison")  # noqa: TRY004 - the tenant's object
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    return left < right


_COMPARE: Final[dict[str, Callable[[object, object], bool]]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    "<=": lambda left, right: _less(left, right) or _equal(left, right),
    ">": lambda left, right: not (_less(left, right) or _equal(left, right)),
    ">=": lambda left, right: not _less(left, right),
}


def printed(value: object) -> str:
    """A value as a path prints it: maps and lists as JSON, the rest in Go's plain form (upstream: PrintResults)."""
    match value:
        case None:
            return "<no value>"
        case dict() | list():
            return go_json(value)
        case _:
            return go_text(value)


class _Parser:
    """One action, the text between `{` and `}`: upstream wraps every path in those."""

    def __init__(self, text: str, depth: int) -> None:
        if depth > NESTING_MAX:
            raise ValueError(f"the path is nested deeper than {NESTING_MAX}")
        self._text = text + "}"
        self._at = 0
        self._depth = depth
        self._steps: list[_Step] = []

    def parse(self) -> tuple[_Step, ...]:
        text = self._text
        while True:
            at = self._at
            character = text[at : at + 1]
            if character == "}":
                return tuple(self._steps)
            if text.startswith("[?(", at):
                self._filter()
            elif text.startswith("..", at):
                self._descend()
            elif character in {"", "\r", "\n"}:
                raise ValueError("unclosed action")
            elif character in {" ", "@", "$"}:
                self._at += 1
            elif character == "[":
                self._array()
            elif character in {'"', "'"}:
                self._quoted(character)
            elif character == ".":
                self._at += 1
                self._field()
            elif character in {"+", "-"} or character.isdecimal():
                self._number()
            elif character == "_" or character.isalpha():
                self._identifier()
            else:
                raise ValueError(f"unrecognized character in action: U+{ord(character):04X} '{character}'")

    @property
    def rest(self) -> str:
        """What follows the action that was parsed, up to the closing brace that stands for the end."""
        return self._text[self._at + 1 :]

    def _nested(self, text: str) -> tuple[_Step, ...]:
        return _Parser(text, self._depth + 1).parse()

    def _field(self) -> None:
        start = self._at
        text = self._text
        while (character := text[self._at : self._at + 1]) and character not in _TERMINATORS:
            self._at += 2 if character == "\\" else 1
        self._at = min(self._at, len(text))
        name = text[start : self._at]
        self._steps.append(_Wildcard() if name == "*" else _Field(name.replace("\\", "")))

    def _descend(self) -> None:
        if self._steps and isinstance(self._steps[-1], _Descend):
            raise ValueError("invalid multiple recursive descent")
        self._at += 2
        self._steps.append(_Descend())
        following = self._text[self._at : self._at + 1]
        if following == "_" or following.isalnum():
            self._field()

    def _identifier(self) -> None:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and character not in _TERMINATORS:
            self._at += 1
        word = self._text[start : self._at]
        self._steps.append(_Literal(word == "true") if word in {"true", "false"} else _Keyword(word))

    def _number(self) -> None:
        start = self._at
        if self._text[start] in "+-":
            self._at += 1
        while (character := self._text[self._at : self._at + 1]) == "." or character.isdecimal():
            self._at += 1
        word = self._text[start : self._at]
        if _INTEGER(word) and len(word) < 20:
            self._steps.append(_Literal(int(word)))
            return
        try:
            number = float(word)
        except ValueError:
            number = math.inf
        if math.isinf(number):
            raise ValueError(f"cannot parse number {word}")
        self._steps.append(_Literal(number))

    def _array(self) -> None:
        start = self._at + 1
        ends = [at for at in (self._text.find("]", start), self._text.find("\n", start)) if at >= 0]
        end = min(ends, default=-1)
        if end < 0 or self._text[end] == "\n":
            raise ValueError("unterminated array")
        self._at = end + 1
        text = self._text[start:end]
        parts = text.split(",")
        if len(parts) > 1:
            self._steps.append(_Union(tuple(self._nested(f"[{part.strip(' ')}]") for part in parts)))
        elif key := _KEY(text):
            self._steps += self._nested(f".{key[1]}")
        else:
            self._steps.append(_parse_slice(":" if text == "*" else text))

    def _filter(self) -> None:
        start = self._at + 3
        end = self._filter_end(start)
        if self._text[end + 1 : end + 2] != "]":
            raise ValueError("unclosed array expect ]")
        self._at = end + 2
        text = self._text[start:end]
        if found := _COMPARISON(text):
            left, op, right = found.groups()
            self._steps.append(_Filter(self._nested(left), op, self._nested(right)))
        else:
            self._steps.append(_Filter(self._nested(text), "exists", ()))

    def _filter_end(self, start: int) -> int:
        """Where the `)` is that stands outside the one quoted string a filter may have."""
        quote, closed = "", False
        for at in range(start, len(self._text)):
            character = self._text[at]
            if character == "\n":
                break
            if character in {'"', "'"}:
                if not quote:
                    quote = character
                elif character == quote and self._text[at - 1] != "\\":
                    closed = True
            elif character == ")" and bool(quote) == closed:
                return at
        raise ValueError("unterminated filter")

    def _quoted(self, quote: str) -> None:
        start = self._at
        at = start + 1
        while True:
            character = self._text[at : at + 1]
            if character in {"", "\n"}:
                raise ValueError("unterminated quoted string")
            at += 1
            if character == quote and self._text[at - 2] != "\\":
                break
        self._at = at
        word = self._text[start:at]
        try:
            self._steps.append(_Literal(_unquote(word[1:-1], quote)))
        except ValueError:
            raise ValueError(f"unquote string {word} error invalid syntax") from None


def _unquote(text: str, quote: str) -> str:
    """Go's escapes within a quoted string (upstream: UnquoteExtend). Raises ValueError."""
    if "\\" not in text:
        return text
    found: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character != "\\":
            found.append(character)
            at += 1
            continue
        kind = text[at + 1 : at + 2]
        at += 2
        if kind == quote or kind in _ESCAPES:
            found.append(_ESCAPES.get(kind, kind))
        elif kind in _HEX_ESCAPES:
            found.append(_rune(int(text[at : at + _HEX_ESCAPES[kind]], 16)))
            at += _HEX_ESCAPES[kind]
        elif kind and kind in "01234567":
            found.append(chr(int(text[at - 1 : at + 2], 8)))
            at += 2
        else:
            raise ValueError("invalid syntax")
    return "".join(found)


def _rune(code: int) -> str:
    """Raises ValueError for what is no character: beyond Unicode, and halves of surrogate pairs."""
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError("invalid syntax")
    return chr(code)


def _parse_slice(text: str) -> _Slice:
    found = _SLICE(text)
    if found is None:
        raise ValueError(f"invalid array index {text}")
    numbers: list[int | None] = []
    for place, part in enumerate(found.groups()):
        word = part[1:] if part and place else part
        if not word:
            numbers.append(None)
        elif not _INTEGER(word) or len(word) > 18:
            raise ValueError(f"array index {word} is not a number")
        else:
            numbers.append(int(word))
    start, end, step = numbers
    # `[n]` is `[n:n+1]`; `[n:]` goes to the end.
    derived = found[2] is None or found[2] == ""
    if derived:
        end = (start or 0) + 1
    return _Slice(start, end, step, derived)


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path. Values may be shared with the object: do not change them."""

    text: str
    steps: tuple[_Step, ...]
    # The names of a plain `.a.b.c`, which most paths are: those need no lists of values.
    names: tuple[str, ...] | None

    def find(self, obj: object, budget: Budget | None = None) -> list[object]:
        """All values at the path, in document order; none where something is missing. `budget` None: its own.

        Raises ValueError where the path does not suit the object: an index out of bounds, unlike types compared.
        """
        if self.names is None:
            return _walk(self.steps, [obj], Budget() if budget is None else budget)
        for name in self.names:
            if not isinstance(obj, dict) or name not in obj:
                return []
            obj = obj[name]
        return [obj]


def compile_path(text: str) -> Path:
    """Parses a path such as `.status.conditions[?(@.type=="Ready")].status`. Raises ValueError with upstream's text."""
    if len(text) > PATH_CHARACTERS_MAX:
        raise ValueError(f"a path may have at most {PATH_CHARACTERS_MAX} characters")
    parser = _Parser(text, 0)
    steps = parser.parse()
    # A path may close upstream's braces and open more; only the first action counts, but all must parse.
    while (opened := parser.rest.find("{")) >= 0:
        parser = _Parser(parser.rest[opened + 1 : -1], 0)
        parser.parse()
    names = tuple(step.name for step in steps if isinstance(step, _Field))
    return Path(text, steps, names if len(names) == len(steps) else None)
