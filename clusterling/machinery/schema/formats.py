"""String formats that a schema may ask for, as upstream checks them.

The list is that of apiextensions-apiserver (`pkg/apiserver/validation/formats.go`), the meaning of each that of
kube-openapi (`pkg/validation/strfmt`) and of the Go functions it calls. A format outside the list is ignored, as
there. Patterns run on RE2 only: every text here comes from a tenant. It is loaded with the first pattern: it takes 3 MB.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

Format = Callable[[str], bool]

# What a pattern's automata may grow to. Nearly all fit the first; few need more (large repetitions of Unicode
# classes), which Go takes too.
_PATTERN_BYTES: Final = (1 << 18, 8 << 20)
_TOO_LARGE: Final = "pattern too large"

# What RE2 in C++ calls a mistake, and what Go's regexp/syntax calls the same mistake.
_GO_WORDS: Final = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
    "pattern too large - compile failed": "expression too large",
}


class PatternError(ValueError):
    """A pattern that is not RE2, in the words of Go's `regexp.Compile`."""


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Any:
    """A compiled RE2 pattern; `.search(text)` finds it anywhere. Raises PatternError."""
    import re2

    for budget in _PATTERN_BYTES:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = budget
        try:
            return re2.compile(pattern, options)
        except re2.error as error:
            raw = error.args[0]
            text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
            if budget == _PATTERN_BYTES[-1] or not text.startswith(_TOO_LARGE):
                raise PatternError(_in_go_words(text)) from error
    raise AssertionError("the last budget returns or raises")


@lru_cache(maxsize=4096)
def quick_matcher(pattern: str) -> Callable[[str], list[int]]:
    """Truthy where the pattern is certainly found; otherwise ask `compile_pattern`. Raises PatternError.

    A set of one pattern answers in a tenth of the time that a match object takes, but its automaton may run out
    of memory, and then says no.
    """
    import re2

    compile_pattern(pattern)
    for budget in _PATTERN_BYTES:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = budget
        alone = re2.Set.SearchSet(options)
        alone.Add(pattern)
        try:
            alone.Compile()
        except re2.error:
            continue
        match: Callable[[str], list[int]] = alone.Match
        return match
    # A set may be too large where the pattern alone is not.
    return lambda _: []


def _in_go_words(text: str) -> str:
    words, colon, where = text.partition(": ")
    said = f"error parsing regexp: {_GO_WORDS.get(words, words)}"
    return f"{said}: `{where}`" if colon or text.startswith("trailing") else said


def _matches(pattern: str) -> Format:
    """Compiled at first use: a server that starts needs few of these."""
    return lambda text: (
        bool(quick_matcher(pattern)(text)) or compile_pattern(pattern).search(text) is not None
    )


_DIGITS: Final = frozenset("0123456789")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_HOST_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!$&'()*+,;=:[]<>\""
)
_USER_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:~!$&'()*+,;=%@"
)


def _escapes_are_whole(text: str) -> bool:
    at = text.find("%")
    while at >= 0:
        if len(text) < at + 3 or text[at + 1] not in _HEX or text[at + 2] not in _HEX:
            return False
        at = text.find("%", at + 3)
    return True


def _is_authority(authority: str) -> bool:
    user, at, host = authority.rpartition("@")
    if at and not (set(user) <= _USER_CHARACTERS and _escapes_are_whole(user)):
        return False
    if host.startswith("["):
        _, closed, port = host.rpartition("]")
        if not closed:
            return False
    else:
        _, colon, digits = host.rpartition(":")
        port = ":" + digits if colon else ""
    if port and (port[0] != ":" or not set(port[1:]) <= _DIGITS):
        return False
    plain = host.replace("%25", "")
    return "%" not in plain and all(c in _HOST_CHARACTERS or c >= "\x80" for c in plain)


def _split_scheme(text: str) -> tuple[str, str] | None:
    """(scheme, rest); None where a scheme is missing before a colon (net/url: getScheme)."""
    for at, char in enumerate(text):
        if char.isascii() and char.isalpha():
            continue
        if char in "0123456789+-.":
            if at == 0:
                return "", text
        elif char == ":":
            return (text[:at], text[at + 1 :]) if at else None
        else:
            return "", text
    return "", text


def is_request_uri(text: str) -> bool:
    """net/url.ParseRequestURI accepts it: an absolute URI or an absolute path."""
    if not text or any(c < "\x20" or c == "\x7f" for c in text):
        return False
    if text == "*":
        return True
    split = _split_scheme(text)
    if split is None:
        return False
    scheme, rest = split
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        return bool(scheme)
    if scheme and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if not _is_authority(authority):
            return False
        rest = slash + path
    return _escapes_are_whole(rest)


_ATOM: Final = r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"
_ADDRESS: Final = (
    rf"(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[^\"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*\")"
    rf"@(?:{_ATOM}(?:\.{_ATOM})*|\[[0-9A-Fa-f.:]+\])"
)
_EMAIL: Final = rf"^[ \t]*(?:{_ADDRESS}|(?:[^\x00-\x1f\x7f()<>\[\]:;@\\,\"]*|[ \t]*\"(?:[^\"\\]|\\.)*\"[ \t]*)<{_ADDRESS}>)[ \t]*$"


def _is_ipv6_text(text: str) -> bool:
    if "%" in text:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_dotted_quad(text: str) -> bool:
    """Four decimal numbers; leading zeros are tolerated (k8s.io/utils/internal/third_party/forked/golang/net)."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part and set(part) <= _DIGITS and len(part) <= 12 and int(part) <= 255 for part in parts
    )


def is_ipv4(text: str) -> bool:
    return _is_dotted_quad(text) or (":" in text and "." in text and _is_ipv6_text(text))


def is_ipv6(text: str) -> bool:
    return ":" in text and _is_ipv6_text(text)


def is_cidr(text: str) -> bool:
    address, slash, length = text.partition("/")
    if not slash or not length or len(length) > 4 or not set(length) <= _DIGITS:
        return False
    if _is_dotted_quad(address):
        return int(length) <= 32
    return ":" in address and _is_ipv6_text(address) and int(length) <= 128


def is_mac(text: str) -> bool:
    """net.ParseMAC: 6, 8 or 20 octets, `01:23:…`, `01-23-…` or `0123.4567.…`."""
    if len(text) < 14:
        return False
    if text[2] in ":-":
        parts = text.split(text[2])
        return len(parts) in (6, 8, 20) and all(len(part) == 2 and set(part) <= _HEX for part in parts)
    if text[4] == ".":
        parts = text.split(".")
        return len(parts) in (3, 4, 10) and all(len(part) == 4 and set(part) <= _HEX for part in parts)
    return False


# Fixed, and without anything to go back to: Python's own engine answers these sooner than a call to RE2 takes.
_DATE: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
_TIME_OF_DAY: Final = re.compile(
    r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[^\n][0-9]+)?(?:z|[+-][0-9]{2}:[0-9]{2})"
)


def is_date(text: str) -> bool:
    """time.Parse("2006-01-02")."""
    found = _DATE.fullmatch(text)
    if found is None:
        return False
    day = int(found[3])
    if day <= 28:
        return True
    year, month = int(found[1]), int(found[2])
    if month == 2:
        return day == 29 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= 30 or month in (1, 3, 5, 7, 8, 10, 12)


_COMMON_DATETIME: Final = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
)


def is_datetime(text: str) -> bool:
    if _COMMON_DATETIME.fullmatch(text) is not None:
        return True
    parts = text.lower().split("t")
    if len(parts) < 2 or not is_date(parts[0]):
        return False
    found = _TIME_OF_DAY.fullmatch(parts[1])
    return found is not None and found[1] <= "23" and found[2] <= "59" and found[3] <= "59"


_DURATION_PARTS: Final = r"([0-9]+)\s*([A-Za-zµ]+)"
_GO_DURATION: Final = _matches(r"^[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+$")
_UNIT_VARIANTS: Final = (
    ("ns", "nano"),
    ("us", "µs", "micro"),
    ("ms", "milli"),
    ("s", "sec"),
    ("m", "min"),
    ("h", "hr", "hour"),
    ("d", "day"),
    ("w", "wk", "week"),
)


def is_duration(text: str) -> bool:
    """Go's durations, and Scala's: any number followed by a unit, anywhere in the text."""
    if text in ("0", "+0", "-0") or _GO_DURATION(text):
        return True
    known = False
    for found in compile_pattern(_DURATION_PARTS).finditer(text):
        if len(found[1]) > 18:
            return False
        unit = found[2].lower()
        known = known or any(unit in variants or unit.startswith(variants[-1]) for variants in _UNIT_VARIANTS)
    return known


_CREDIT_CARD: Final = _matches(
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11}|6[27][0-9]{14})$"
)


def _without_separators(text: str) -> str:
    return "".join(text.split()).replace("-", "")


def is_credit_card(text: str) -> bool:
    digits = _without_separators(text)
    if not _CREDIT_CARD(digits):
        return False
    total = 0
    for at, char in enumerate(reversed(digits)):
        value = int(char) * (2 if at % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_isbn10(text: str) -> bool:
    code = _without_separators(text)
    if len(code) != 10 or not set(code[:9]) <= _DIGITS or code[9] not in "0123456789X":
        return False
    total = sum((at + 1) * int(char) for at, char in enumerate(code[:9]))
    return (total + 10 * (10 if code[9] == "X" else int(code[9]))) % 11 == 0


def is_isbn13(text: str) -> bool:
    code = _without_separators(text)
    if len(code) != 13 or not set(code) <= _DIGITS:
        return False
    total = sum((3 if at % 2 else 1) * int(char) for at, char in enumerate(code[:12]))
    return (10 - total % 10) % 10 == int(code[12])


_HOSTNAME: Final = _matches(
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)"
    r"|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
)


def is_hostname(text: str) -> bool:
    if not _HOSTNAME(text) or len(text.encode()) > 255:
        return False
    return all(len(part.encode()) <= 63 for part in text.split("."))


_SHORT_NAME: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IS_SHORT_NAME: Final = _matches(f"^{_SHORT_NAME}$")
_IS_LONG_NAME: Final = _matches(rf"^{_SHORT_NAME}(\.{_SHORT_NAME})*$")
_SSN: Final = _matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$")
_HEX_TAIL: Final = "[0-9a-f]{12}$"
_COLOR: Final = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*"

# By normalized name: dashes do not count (strfmt.DefaultNameNormalizer).
FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "bsonobjectid": lambda text: len(text) == 24 and set(text) <= _HEX,
        "uri": is_request_uri,
        "email": _matches(_EMAIL),
        "hostname": is_hostname,
        "ipv4": is_ipv4,
        "ipv6": is_ipv6,
        "cidr": is_cidr,
        "mac": is_mac,
        "uuid": _matches(f"(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?[0-9a-f]{{4}}-?[0-9a-f]{{4}}-?{_HEX_TAIL}"),
        "uuid3": _matches(f"(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?3[0-9a-f]{{3}}-?[0-9a-f]{{4}}-?{_HEX_TAIL}"),
        "uuid4": _matches(
            f"(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?4[0-9a-f]{{3}}-?[89ab][0-9a-f]{{3}}-?{_HEX_TAIL}"
        ),
        "uuid5": _matches(
            f"(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?5[0-9a-f]{{3}}-?[89ab][0-9a-f]{{3}}-?{_HEX_TAIL}"
        ),
        "isbn": lambda text: is_isbn10(text) or is_isbn13(text),
        "isbn10": is_isbn10,
        "isbn13": is_isbn13,
        "creditcard": is_credit_card,
        "ssn": lambda text: len(text) == 11 and _SSN(text),
        "hexcolor": _matches("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "rgbcolor": _matches(rf"^rgb\({_COLOR},{_COLOR},{_COLOR}\)$"),
        "byte": _matches(
            r"^(?:[A-Za-z0-9+\/]{4})*(?:[A-Za-z0-9+\/]{2}==|[A-Za-z0-9+\/]{3}=|[A-Za-z0-9+\/]{4})$"
        ),
        "password": lambda _: True,
        "date": is_date,
        "duration": is_duration,
        "datetime": is_datetime,
        "k8sshortname": lambda text: len(text) <= 63 and _IS_SHORT_NAME(text),
        "k8slongname": lambda text: len(text) <= 253 and _IS_LONG_NAME(text),
    }
)


def format_is_known(schema_type: str, name: str) -> bool:
    """Whether upstream looks at this format for values of this type ("" for none or several types)."""
    match schema_type:
        case "" | "string":
            return name.replace("-", "") in FORMATS
        case "integer":
            return name in ("int32", "int64")
        case "number":
            return name in ("float", "double")
    return False
