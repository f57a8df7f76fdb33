"""Times as Go's typed kinds keep them: metav1.Time in whole seconds, metav1.MicroTime with six digits, both in UTC.

Both are published as `format: date-time`, so a schema cannot tell them apart; strategies name their fields.
Upstream: apimachinery/pkg/apis/meta/v1/{time,micro_time}.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from typing import Final

from clusterling.machinery.errors import go_quote
from clusterling.machinery.meta import Object
from clusterling.machinery.timestamps import normal_rfc3339, parse_rfc3339
from clusterling.registry.receiving import Undecodable

_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_MICRO_LAYOUT: Final = "2006-01-02T15:04:05.000000Z07:00"
_SECONDS: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{1,2}:[0-9]{2}:[0-9]{2}")
_SIX_DIGITS: Final = re.compile(r"[.,][0-9]{6}")
_ZONE: Final = re.compile(r"Z|[+-][0-9]{2}:[0-9]{2}")


def read_time(obj: Object, part: Object, field: str) -> None:
    """Rewrites `part[field]` as Go writes a metav1.Time. Raises ApiError 400 where it is no time."""
    _read(obj, part, field, normal_rfc3339)


def read_micro_time(obj: Object, part: Object, field: str) -> None:
    """Rewrites `part[field]` as Go writes a metav1.MicroTime. Raises ApiError 400 unless it has exactly six digits."""
    _read(obj, part, field, normal_micro)


def _read(obj: Object, part: Object, field: str, normal: Callable[[str], str]) -> None:
    text = part.get(field)
    if not isinstance(text, str):
        return
    try:
        part[field] = normal(text) or None
    except ValueError as error:
        raise Undecodable(obj["kind"], obj["apiVersion"], str(error)) from error


def normal_micro(text: str) -> str:
    """The time in UTC with six digits, empty for Go's zero time. Raises ValueError with Go's text."""
    seconds = _SECONDS.match(text)
    if seconds is not None:
        rest = text[seconds.end() :]
        if not _SIX_DIGITS.match(rest):
            raise ValueError(_cannot_parse(text, rest, ".000000"))
        if not _ZONE.match(rest, 7):
            raise ValueError(_cannot_parse(text, rest[7:], "Z07:00"))
    try:
        moment = parse_rfc3339(text)
    except ValueError as error:
        raise ValueError(str(error).replace(go_quote(_LAYOUT), go_quote(_MICRO_LAYOUT))) from error
    written = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return "" if written == "0001-01-01T00:00:00.000000Z" else written


def _cannot_parse(text: str, rest: str, wanted: str) -> str:
    return f"parsing time {go_quote(text)} as {go_quote(_MICRO_LAYOUT)}: cannot parse {go_quote(rest)} as {go_quote(wanted)}"
