"""Names and keys: what upstream lets a thing be called, and how it words a refusal.

Each `is_*` function returns the problems it found, so an empty list means the value is right. The words are
upstream's (`apimachinery/pkg/util/validation/validation.go`, `apimachinery/pkg/api/validate/content`). The two
packages say "characters" and "bytes" for the same bound; so do we, each where upstream does.

Every pattern matches in linear time: no two adjacent repetitions can divide the same text in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Self

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = _LABEL + "(\\." + _LABEL + ")*"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD: Final = "\\*\\." + _SUBDOMAIN
_KEY: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = f"({_KEY})?"
_C_IDENTIFIER: Final = "[A-Za-z_][A-Za-z0-9_]*"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_PERCENT: Final = "[0-9]+%"

# The texts of messages have groups, which would cost more than the match.
_label = re.compile(_LABEL.replace("(", "(?:")).fullmatch
_subdomain = re.compile(_SUBDOMAIN.replace("(", "(?:")).fullmatch
_label_1035 = re.compile(_LABEL_1035).fullmatch
_wildcard = re.compile(_WILDCARD).fullmatch
_key = re.compile(_KEY).fullmatch
# The same language, with the bound inside: one match answers for the common, right value.
_short_key = re.compile("[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?").fullmatch
# `example.com/name` in one match.
_prefixed_key = re.compile(
    "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*/"
    "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
).fullmatch
_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_percent = re.compile(_PERCENT).fullmatch
_port_charset = re.compile("[-a-z0-9]+").fullmatch
_port_letter = re.compile("[a-z]").search
_cluster = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?").fullmatch

LABEL_BYTES_MAX: Final = 63
SUBDOMAIN_BYTES_MAX: Final = 253
PORT_NAME_BYTES_MAX: Final = 15

_LABEL_WORDS: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_WORDS: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_1035_WORDS: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_WORDS: Final = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_KEY_WORDS: Final = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
_LABEL_VALUE_WORDS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_C_IDENTIFIER_WORDS: Final = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)
_CONFIG_KEY_WORDS: Final = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_PERCENT_WORDS: Final = "a valid percent string must be a numeric string followed by an ending '%'"


def _bytes(text: str) -> int:
    """The length that Go's len() gives."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _characters_max(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _bytes_max(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _pattern(words: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def is_dns1123_label(value: str) -> list[str]:
    """`my-name`: at most 63 bytes. Namespaces and most names that become DNS labels."""
    matched = _label(value) is not None
    if matched and len(value) <= LABEL_BYTES_MAX:
        return []
    problems = [_characters_max(LABEL_BYTES_MAX)] if _bytes(value) > LABEL_BYTES_MAX else []
    if not matched:
        dotted = _subdomain(value) is not None
        problems.append(
            "must not contain dots" if dotted else _pattern(_LABEL_WORDS, _LABEL, "my-name", "123-abc")
        )
    return problems


def is_dns1123_subdomain(value: str) -> list[str]:
    """`example.com`: at most 253 bytes. The rule for names where a kind has no other."""
    return _subdomain_problems(value, _characters_max)


def _subdomain_problems(value: str, too_long: Callable[[int], str]) -> list[str]:
    matched = _subdomain(value) is not None
    if matched and len(value) <= SUBDOMAIN_BYTES_MAX:
        return []
    problems = [too_long(SUBDOMAIN_BYTES_MAX)] if _bytes(value) > SUBDOMAIN_BYTES_MAX else []
    if not matched:
        problems.append(_pattern(_SUBDOMAIN_WORDS, _SUBDOMAIN, "example.com"))
    return problems


def is_dns1123_subdomain_in_any_case(value: str) -> list[str]:
    """The same, capitals allowed."""
    if _subdomain(value.lower()) is not None and _bytes(value) <= SUBDOMAIN_BYTES_MAX:
        return []
    problems = [_characters_max(SUBDOMAIN_BYTES_MAX)] if _bytes(value) > SUBDOMAIN_BYTES_MAX else []
    if _subdomain(value.lower()) is None:
        words = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        problems.append(_pattern(words, _SUBDOMAIN, "Example.com"))
    return problems


def is_dns1035_label(value: str) -> list[str]:
    """`my-name`, beginning with a letter: at most 63 bytes. Services."""
    problems = [_characters_max(LABEL_BYTES_MAX)] if _bytes(value) > LABEL_BYTES_MAX else []
    if not _label_1035(value):
        problems.append(_pattern(_LABEL_1035_WORDS, _LABEL_1035, "my-name", "abc-123"))
    return problems


def is_wildcard_dns1123_subdomain(value: str) -> list[str]:
    """`*.example.com`: hosts of an Ingress."""
    problems = [_characters_max(SUBDOMAIN_BYTES_MAX)] if _bytes(value) > SUBDOMAIN_BYTES_MAX else []
    if not _wildcard(value):
        problems.append(_pattern(_WILDCARD_WORDS, _WILDCARD, "*.example.com"))
    return problems


def is_qualified_name(value: str) -> list[str]:
    """`name` or `example.com/name`: keys of labels and annotations, finalizers."""
    if _short_key(value) or (len(value) <= SUBDOMAIN_BYTES_MAX and _prefixed_key(value)):
        return []
    prefix, slash, name = value.partition("/")
    if not slash:
        name = value
    elif "/" in name:
        words = _pattern(_KEY_WORDS, _KEY, "MyName", "my.name", "123-abc")
        return [
            f"a valid label key {words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    problems: list[str] = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems += [f"prefix part {problem}" for problem in _subdomain_problems(prefix, _bytes_max)]
    if not name:
        problems.append("name part must be non-empty")
    elif _bytes(name) > LABEL_BYTES_MAX:
        problems.append(f"name part {_bytes_max(LABEL_BYTES_MAX)}")
    if not _key(name):
        problems.append(f"name part {_pattern(_KEY_WORDS, _KEY, 'MyName', 'my.name', '123-abc')}")
    return problems


def is_label_value(value: str) -> list[str]:
    """Empty, or like the name part of a label's key: at most 63 bytes."""
    if not value or _short_key(value):
        return []
    problems = [_bytes_max(LABEL_BYTES_MAX)] if _bytes(value) > LABEL_BYTES_MAX else []
    if not _key(value):
        problems.append(_pattern(_LABEL_VALUE_WORDS, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return problems


def is_path_segment_name(value: str) -> list[str]:
    """Anything that survives as one segment of a URL's path: names of roles, bindings and events' kin."""
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    return is_path_segment_prefix(value)


def is_path_segment_prefix(value: str) -> list[str]:
    """The same, for a beginning that gets a suffix."""
    return [f"may not contain '{part}'" for part in "/%" if part in value]


def is_c_identifier(value: str) -> list[str]:
    if _c_identifier(value):
        return []
    return [_pattern(_C_IDENTIFIER_WORDS, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def is_config_map_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets: at most 253 bytes, usable as a file name."""
    matched = _config_key(value) is not None
    if matched and len(value) <= SUBDOMAIN_BYTES_MAX and value[0] != ".":
        return []
    problems = [_characters_max(SUBDOMAIN_BYTES_MAX)] if _bytes(value) > SUBDOMAIN_BYTES_MAX else []
    if not matched:
        problems.append(_pattern(_CONFIG_KEY_WORDS, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return problems + _directory_problems(value)


def _directory_problems(value: str) -> list[str]:
    if value in {".", ".."}:
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def is_port_name(value: str) -> list[str]:
    """`http`, `web-2`: at most 15 bytes with at least one letter (RFC 6335)."""
    problems = [_characters_max(PORT_NAME_BYTES_MAX)] if _bytes(value) > PORT_NAME_BYTES_MAX else []
    if not _port_charset(value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _port_letter(value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def is_port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def is_percent(value: str) -> list[str]:
    return [] if _percent(value) else [_pattern(_PERCENT_WORDS, _PERCENT, "1%", "93%")]


def mask_trailing_dash(name: str) -> str:
    """A generateName as upstream judges it: the last two characters become one letter where it ends in a dash."""
    return name[:-2] + "a" if len(name) > 1 and name.endswith("-") else name


# No vowels and no digits that look like them: suffixes spell no words (apimachinery: util/rand/rand.go).
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5
_BASE_BYTES_MAX: Final = 63 - _SUFFIX_LENGTH


def generate_name(base: str, random_below: Callable[[int], int]) -> str:
    """`base`, cut to 58 bytes, with five random characters (apiserver: storage/names/generate.go).

    `random_below(n)` gives an integer in [0, n): `random.Random.randrange` or `secrets.randbelow`.
    """
    if _bytes(base) > _BASE_BYTES_MAX:
        base = base.encode("utf-8", "surrogatepass")[:_BASE_BYTES_MAX].decode("utf-8", "replace")
    return base + "".join(_ALPHABET[random_below(len(_ALPHABET))] for _ in range(_SUFFIX_LENGTH))


class ClusterName(str):
    """The name of a logical cluster: a DNS label. Made by `parse` only, once, at the edge."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for anything but `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`: no case folding, no decoding."""
        if _cluster(text) is None:
            raise ValueError("; ".join(is_dns1123_label(text)))
        return cls(text)
