"""Cron schedules and time zones, as far as being right goes. Upstream: robfig/cron parser.go, batch validation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from clusterling.machinery.errors import go_quote

SCHEDULE_CHARACTERS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class _Bounds:
    least: int
    most: int
    names: tuple[str, ...] = ()  # The first is `least`.


_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS: Final = (
    _Bounds(0, 59),
    _Bounds(0, 23),
    _Bounds(1, 31),
    _Bounds(1, 12, _MONTHS),
    _Bounds(0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_DESCRIPTORS: Final = frozenset(
    ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
)
_EVERY: Final = "@every "
_is_number = re.compile(r"[+-]?[0-9]+").fullmatch
_is_duration = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)").fullmatch
_has_unit = re.compile(r"[a-zµμ]").search
_INT64_MAX: Final = (1 << 63) - 1
_is_zone_part = re.compile(r"[A-Za-z._0-9+-]{1,14}").fullmatch


def check_schedule(text: str) -> None:
    """Raises ValueError, in the parser's words, for a text that is no schedule."""
    if len(text) > SCHEDULE_CHARACTERS_MAX:
        raise ValueError(f"expected exactly 5 fields, found more than {SCHEDULE_CHARACTERS_MAX} characters")
    if text.startswith(("TZ=", "CRON_TZ=")):
        zone, space, rest = text.partition(" ")
        if not space:
            raise ValueError("invalid schedule format: runtime error: slice bounds out of range [:-1]")
        name = zone.partition("=")[2]
        if not _is_known(name):
            raise ValueError(f"provided bad location {name}: unknown time zone {name}")
        text = rest.strip()
    if text.startswith("@"):
        _check_descriptor(text)
        return
    fields = text.split()
    if len(fields) != len(_FIELDS):
        shown = f"[{' '.join(fields)}]"
        raise ValueError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: {shown}")
    for field, bounds in zip(fields, _FIELDS, strict=True):
        for expression in filter(None, field.split(",")):
            _check_range(expression, bounds)


def _check_descriptor(text: str) -> None:
    if text in _DESCRIPTORS:
        return
    if not text.startswith(_EVERY):
        raise ValueError(f"unrecognized descriptor: {text}")
    duration = text.removeprefix(_EVERY)
    if not _is_duration(duration):
        quoted = go_quote(duration)
        missing = _is_number(duration) is not None and not _has_unit(duration)
        why = f"time: missing unit in duration {quoted}" if missing else f"time: invalid duration {quoted}"
        raise ValueError(f"failed to parse duration {text}: {why}")


def _check_range(expression: str, bounds: _Bounds) -> None:
    span, *steps = expression.split("/")
    low, *highs = span.split("-")
    if low in ("*", "?"):
        start, end = bounds.least, bounds.most
    else:
        start = _number(low, bounds)
        if len(highs) > 1:
            raise ValueError(f"too many hyphens: {expression}")
        end = _number(highs[0], bounds) if highs else start
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {expression}")
    step = _integer(steps[0]) if steps else 1
    if steps and not highs:
        end = bounds.most
    if start < bounds.least:
        raise ValueError(f"beginning of range ({start}) below minimum ({bounds.least}): {expression}")
    if end > bounds.most:
        raise ValueError(f"end of range ({end}) above maximum ({bounds.most}): {expression}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if not step:
        raise ValueError(f"step of range should be a positive number: {expression}")


def _number(text: str, bounds: _Bounds) -> int:
    if text.lower() in bounds.names:
        return bounds.least + bounds.names.index(text.lower())
    return _integer(text)


def _integer(text: str) -> int:
    quoted = go_quote(text)
    if not _is_number(text):
        raise ValueError(f"failed to parse int from {text}: strconv.Atoi: parsing {quoted}: invalid syntax")
    if len(text) > 20 or abs(int(text)) > _INT64_MAX:
        why = "value out of range"
        raise ValueError(f"failed to parse int from {text}: strconv.Atoi: parsing {quoted}: {why}")
    if int(text) < 0:
        raise ValueError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


def zone_problems(name: str) -> list[str]:
    """What is wrong with the name of a time zone; the server's own data decides which there are."""
    if not name:
        return ["timeZone must be nil or non-empty string"]
    for part in name.split("/"):
        if part in (".", "..") or part.startswith("-") or not _is_zone_part(part):
            return [f"unknown time zone {name}"]
    found = []
    if name.lower() == "local":
        found.append("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    if name != "Local" and not _is_known(name):
        found.append(f"unknown time zone {name}")
    return found


def _is_known(name: str) -> bool:
    if name in ("", "UTC", "Local"):
        return True
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
