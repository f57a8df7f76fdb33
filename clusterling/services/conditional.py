"""Conditional requests: whether a document that the client may have already is sent once more. Pure.

As Go's http.ServeContent, which serves OpenAPI upstream, decides it (net/http/fs.go, checkPreconditions; RFC 9110, 13.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from clusterling.services.request import HeaderFields, Headers

CONDITION_CHARACTERS_MAX: Final = 4_096

_TAG: Final = re.compile(r'[ \t,]*(\*|(?:W/)?"[\x21\x23-\x7e\x80-\xff]*")')

Outcome = Literal[200, 304, 412]


class Conditions:
    """What a request says of the copy that it has; `NO_CONDITIONS` where it says nothing."""

    __slots__ = ("_fields", "_reads")

    def __init__(self, fields: HeaderFields, method: str = "GET") -> None:
        self._fields = fields
        self._reads = method in ("GET", "HEAD")

    def outcome(self, tag: str, modified: datetime) -> Outcome:
        """200 where the document is to be sent, 304 where the client has it, 412 where it wants another.

        `tag` is the entity tag without its quotes, `modified` when the document last changed, in whole seconds.
        """
        wanted, unchanged = self._tags("If-Match"), self._since("If-Unmodified-Since")
        if wanted is not None:
            if not any(one in ("*", f'"{tag}"') for one in wanted):
                return 412
        elif unchanged is not None and modified > unchanged:
            return 412
        had, changed = self._tags("If-None-Match"), self._since("If-Modified-Since")
        if had is not None:
            if any(one.removeprefix("W/") in ("*", f'"{tag}"') for one in had):
                return 304 if self._reads else 412
        elif changed is not None and self._reads and modified <= changed:
            return 304
        return 200

    def _tags(self, name: str) -> Iterator[str] | None:
        """The entity tags of a field, up to what is none; None where there is no such field."""
        text = self._fields.get(name)
        return _scanned(text[:CONDITION_CHARACTERS_MAX]) if text else None

    def _since(self, name: str) -> datetime | None:
        text = self._fields.get(name)
        if not text or len(text) > CONDITION_CHARACTERS_MAX:
            return None
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _scanned(text: str) -> Iterator[str]:
    at = 0
    while (match := _TAG.match(text, at)) is not None:
        yield match[1]
        at = match.end()


NO_CONDITIONS: Final = Conditions(Headers({}))
