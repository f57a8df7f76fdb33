"""RFC 3339 times as Go reads them: what is accepted, and the words of a refusal.

Clients send times that Python's parser would refuse (nanoseconds) and some that it would take and Go not (weeks,
dates alone); both would differ from upstream (Go: time.Parse, apimachinery: meta/v1/time.go).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from clusterling.machinery.errors import go_quote

_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_ZERO: Final = "0001-01-01T00:00:00Z"
# The form that servers write: by far the most common, and canonical already.
_canonical = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z").fullmatch
# (pattern, its name in Go's layout, what is named where the number is too large, exclusive bound)
_ELEMENTS: Final = tuple(
    (re.compile(pattern).match, name, word, bound)
    for pattern, name, word, bound in (
        (r"[0-9]{4}", "2006", "", 0),
        (r"-", "-", "", 0),
        (r"[0-9]{2}", "01", "month", 13),
        (r"-", "-", "", 0),
        (r"[0-9]{2}", "02", "", 0),
        (r"T", "T", "", 0),
        (r"[0-9]{1,2}", "15", "hour", 24),
        (r":", ":", "", 0),
        (r"[0-9]{2}", "04", "minute", 60),
        (r":", ":", "", 0),
        (r"[0-9]{2}", "05", "second", 60),
        (r"(?:[.,][0-9]+)?", "05", "", 0),
        (r"Z|[+-][0-9]{2}:[0-9]{2}", "Z07:00", "", 0),
    )
)


def parse_rfc3339(text: str) -> datetime:
    """An aware datetime; fractions are cut to microseconds. Raises ValueError with Go's text."""
    if _canonical(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # Out of some range: the slow way says which.
    return _parse(text)


def normal_rfc3339(text: str) -> str:
    """The time as metav1.Time writes it: UTC, whole seconds; empty for Go's zero time. Raises ValueError."""
    moment = parse_rfc3339(text)
    normal = text
    if len(text) != 20 or text[-1] != "Z":
        # Not strftime: it does not pad years below 1000.
        normal = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    return "" if normal == _ZERO else normal


def _parse(text: str) -> datetime:
    parts: list[str] = []
    at = 0
    for match, name, word, bound in _ELEMENTS:
        found = match(text, at)
        if found is None:
            raise ValueError(
                f"parsing time {go_quote(text)} as {go_quote(_LAYOUT)}: "
                f"cannot parse {go_quote(text[at:])} as {go_quote(name)}"
            )
        part = found[0]
        if word and (int(part) >= bound or (word == "month" and int(part) == 0)):
            raise ValueError(f"parsing time {go_quote(text)}: {word} out of range")
        parts.append(part)
        at = found.end()
    if at < len(text):
        raise ValueError(f"parsing time {go_quote(text)}: extra text: {go_quote(text[at:])}")
    year, _, month, _, day, _, hour, _, minute, _, second, fraction, zone = parts
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second),
            int(fraction[1:7].ljust(6, "0") or 0),
            _zone(zone),
        )
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"parsing time {go_quote(text)}: day out of range") from None
    return moment


def _zone(text: str) -> timezone:
    if text == "Z":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-offset if text[0] == "-" else offset)
