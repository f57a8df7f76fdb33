"""JSON read as Go reads it: slowly, exactly, with every duplicate key and Go's own words for what is wrong.

The fast decoder (`codec`) turns to this parser only when something is odd: a syntax error whose text the client
should recognise, a key given twice, a number that Go would refuse, text that is not UTF-8. It works on the
body as latin-1 text, one character a byte, because Go's messages name bytes.

Upstream: sigs.k8s.io/json (internal/golang/encoding/json: scanner.go, decode.go, kubernetes_patch.go).
"""

from __future__ import annotations

import codecs
import math
import re
from typing import Any, Final, NoReturn

from clusterling.machinery.errors import go_quote

DEPTH_MAX: Final = 200
DUPLICATES_MAX: Final = 100  # kubernetes_patch.go: "prevent excessive numbers of accumulated errors"
# Behind so many no further one is told of: a path is as long as the keys above it, and a hundred of them were 100 MB.
DUPLICATES_CHARACTERS_MAX: Final = 64 * 1024

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: Final = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}


class JsonError(ValueError):
    """Not JSON, in Go's words (`invalid character '}' looking for beginning of value`)."""


class DepthError(ValueError):
    """Nested deeper than `DEPTH_MAX`."""


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), "registered for decoding only"
    return "\ufffd", error.start + 1


# Go puts U+FFFD for every single byte that is not UTF-8; Python's "replace" does so for longest prefixes.
codecs.register_error("clusterling.go", _replace_each_byte)


def parse(body: bytes) -> tuple[Any, list[str]]:
    """The value, and `duplicate field "spec.x"` for each key given twice, in Go's order and at most 100.

    The last of duplicate keys counts. Integers beyond int64 and integral floats take the type Go gives them
    when it reads back what it wrote: 1.0 is 1, 2**63 a float. Raises JsonError, DepthError.
    """
    parser = _Parser(body)
    value = parser.document()
    if parser.number_error:
        raise JsonError(parser.number_error)
    return value, list(parser.duplicates)


def number(text: str) -> int | float:
    """A JSON number as Go's unstructured decoding keeps it. Raises JsonError beyond float64."""
    if "." not in text and len(text) < 25:
        try:
            whole = int(text)
        except ValueError:
            pass
        else:
            if INT64_MIN <= whole <= INT64_MAX:
                return whole
    return integral(float(text), text)


def integral(value: float, text: str) -> int | float:
    """The float, or the integer that Go's encoder would write for it."""
    if math.isinf(value):
        raise JsonError(f"json: cannot unmarshal number {text} into Go value of type float64")
    if value.is_integer() and INT64_MIN <= value < 2.0**63:
        return int(value)
    return value


def go_char(char: str) -> str:
    """The byte as Go's quoteChar prints it in messages."""
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    code = ord(char)
    named = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}.get(code)
    if named is None:
        if code < 0x20 or code == 0x7F:
            named = f"\\x{code:02x}"
        elif 0x80 <= code < 0xA1 or code == 0xAD:
            named = f"\\u{code:04x}"
        else:
            named = char
    return f"'{named}'"


class _Parser:
    def __init__(self, body: bytes) -> None:
        self.text = body.decode("latin-1")
        self.ascii = body.isascii()
        self.at = 0
        self.path: list[str] = []
        self.duplicates: dict[str, None] = {}
        self.told = 0  # Characters of their paths.
        self.number_error = ""

    def document(self) -> Any:
        value = self.value(0)
        self.space()
        if self.at < len(self.text):
            self.wrong("after top-level value")
        return value

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None, "the pattern matches nothing too"
        self.at = match.end()

    def peek(self) -> str:
        """The next character; raises at the end of the text."""
        if self.at >= len(self.text):
            raise JsonError("unexpected end of JSON input")
        return self.text[self.at]

    def peek_inside(self) -> str:
        """The next character within a token: Go's scanner sees a space where the text ends there."""
        return self.text[self.at] if self.at < len(self.text) else " "

    def wrong(self, context: str) -> NoReturn:
        raise JsonError(f"invalid character {go_char(self.peek_inside())} {context}")

    def value(self, depth: int) -> Any:
        self.space()
        char = self.peek()
        if char == "{":
            return self.object(depth + 1)
        if char == "[":
            return self.array(depth + 1)
        if char == '"':
            return self.string()
        if char in _LITERALS:
            return self.literal(*_LITERALS[char])
        if char == "-" or "0" <= char <= "9":
            return self.number()
        return self.wrong("looking for beginning of value")

    def literal(self, word: str, value: bool | None) -> bool | None:
        for expected in word:
            if self.peek_inside() != expected:
                self.wrong(f"in literal {word} (expecting {go_char(expected)})")
            self.at += 1
        return value

    def object(self, depth: int) -> dict[str, Any]:
        self.enter(depth)
        found: dict[str, Any] = {}
        self.space()
        if self.peek() == "}":
            self.at += 1
            return found
        while True:
            self.space()
            if self.peek() != '"':
                self.wrong("looking for beginning of object key string")
            key = self.string()
            self.space()
            if self.peek() != ":":
                self.wrong("after object key")
            self.at += 1
            if key in found:
                self.duplicate(key)
                # It stands where it was given last: there Go's decoder tells of it.
                del found[key]
            self.path.append(f".{key}" if self.path else key)
            found[key] = self.value(depth)
            self.path.pop()
            self.space()
            if self.peek() == "}":
                self.at += 1
                return found
            if self.peek() != ",":
                self.wrong("after object key:value pair")
            self.at += 1

    def array(self, depth: int) -> list[Any]:
        self.enter(depth)
        found: list[Any] = []
        self.space()
        if self.peek() == "]":
            self.at += 1
            return found
        while True:
            self.path.append(f"[{len(found)}]")
            found.append(self.value(depth))
            self.path.pop()
            self.space()
            if self.peek() == "]":
                self.at += 1
                return found
            if self.peek() != ",":
                self.wrong("after array element")
            self.at += 1

    def enter(self, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise DepthError(f"nested deeper than {DEPTH_MAX} levels")
        self.at += 1

    def duplicate(self, key: str) -> None:
        if len(self.duplicates) >= DUPLICATES_MAX or self.told > DUPLICATES_CHARACTERS_MAX:
            return
        path = "".join((*self.path, f".{key}" if self.path else key))
        self.told += len(path)
        self.duplicates[f"duplicate field {go_quote(path)}"] = None

    def string(self) -> str:
        self.at += 1
        parts: list[str] = []
        escaped = False
        while True:
            match = _PLAIN.match(self.text, self.at)
            assert match is not None, "the pattern matches nothing too"
            if match.end() > self.at:
                parts.append(self.decoded(match[0]))
                self.at = match.end()
            char = self.peek()
            if char == '"':
                self.at += 1
                text = "".join(parts)
                return _pair_surrogates(text) if escaped else text
            if char != "\\":
                self.wrong("in string literal")
            self.at += 1
            parts.append(self.escape())
            escaped = True

    def decoded(self, raw: str) -> str:
        return raw if self.ascii else raw.encode("latin-1").decode("utf-8", "clusterling.go")

    def escape(self) -> str:
        char = self.peek_inside()
        if char in _ESCAPES:
            self.at += 1
            return _ESCAPES[char]
        if char != "u":
            self.wrong("in string escape code")
        self.at += 1
        digits = ""
        for _ in range(4):
            if self.peek_inside() not in "0123456789abcdefABCDEF":
                self.wrong("in \\u hexadecimal character escape")
            digits += self.text[self.at]
            self.at += 1
        return chr(int(digits, 16))

    def number(self) -> int | float:
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self.at += 1
            self.wrong("in numeric literal")
        self.at = match.end()
        self.number_cut_short(match[0])
        try:
            return number(match[0])
        except JsonError as error:
            self.number_error = self.number_error or str(error)
            return 0

    def number_cut_short(self, text: str) -> None:
        """Raises where the number goes on as no number may: `1.x`, `1ex`."""
        following = self.text[self.at : self.at + 1]
        if following == "." and "." not in text and "e" not in text.lower():
            self.at += 1
            self.wrong("after decimal point in numeric literal")
        if following in ("e", "E") and "e" not in text.lower():
            self.at += 1
            if self.peek_inside() in "+-":
                self.at += 1
            self.wrong("in exponent of numeric literal")


def _pair_surrogates(text: str) -> str:
    """Escaped surrogate pairs joined; a lone one becomes U+FFFD, as in Go."""
    if not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
