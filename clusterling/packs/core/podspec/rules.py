"""The small rules that the rest of this folder is made of: paths, names, bounds, one of a few.

Each gives the problems it found. A field that is absent has Go's zero value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from clusterling.machinery.addresses import ip_problems, problems_at
from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label

Problems = Iterator[FieldError]

NEGATIVE: Final = "must be greater than or equal to 0"
FILE_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
ID_MAX: Final = 2**31 - 1

_ID_WRONG: Final = f"must be between 0 and {ID_MAX}, inclusive"


def items(part: Object, field: str, path: str) -> Iterator[tuple[str, Object]]:
    """(path, object) of each entry of a list."""
    for index, one in enumerate(part.get(field) or ()):
        yield f"{path}.{field}[{index}]", one or {}


def named(value: str, path: str, rule: Callable[[str], Sequence[str]]) -> Problems:
    """What a rule for names says of a value."""
    for problem in rule(value):
        yield invalid_value(path, value, problem)


def label(value: str, path: str) -> Problems:
    return named(value, path, is_dns1123_label)


def needs(part: Object, path: str, *fields: str) -> Problems:
    """Fields that must be there and not empty."""
    for field in fields:
        if not part.get(field):
            yield required(f"{path}.{field}")


def non_negative(part: Object, path: str, *fields: str) -> Problems:
    for field in fields:
        if (part.get(field) or 0) < 0:
            yield invalid_value(f"{path}.{field}", part[field], NEGATIVE)


def one_of(value: object, path: str, supported: Iterable[str]) -> Problems:
    """A closed set, told in the order given."""
    values = tuple(supported)
    if value not in values:
        yield not_supported(path, value, values)


def one_of_needed(value: object, path: str, supported: Iterable[str]) -> Problems:
    """The same where an empty value is told as missing."""
    if not value:
        yield required(path)
    else:
        yield from one_of(value, path, supported)


def file_mode(part: Object, path: str, field: str) -> Problems:
    mode = part.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        yield invalid_value(f"{path}.{field}", mode, FILE_MODE)


def unix_id(value: int | None, path: str) -> Problems:
    if value is not None and not 0 <= value <= ID_MAX:
        yield invalid_value(path, value, _ID_WRONG)


def no_backsteps(value: str, path: str) -> Problems:
    if ".." in value.split("/"):
        yield invalid_value(path, value, "must not contain '..'")


def descending_path(value: str, path: str) -> Problems:
    """Relative, and never upwards."""
    if value.startswith("/"):
        yield invalid_value(path, value, "must be a relative path")
    yield from no_backsteps(value, path)


def local_path(value: str, path: str) -> Problems:
    """A descending path that does not begin with two dots either."""
    yield from descending_path(value, path)
    if value.startswith("..") and not value.startswith("../"):
        yield invalid_value(path, value, "must not start with '..'")


def address(value: str, path: str) -> Problems:
    """An IP address, in any form that is not ambiguous."""
    yield from problems_at(path, value, ip_problems(value))


def only(given: Iterable[str], path: str, allowed: frozenset[str], why: str) -> Problems:
    """Of the fields that are set, others than these may not be."""
    for field in given:
        if field not in allowed:
            yield forbidden_field(f"{path}.{field}", why)
