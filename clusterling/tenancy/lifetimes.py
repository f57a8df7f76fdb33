"""How long a logical cluster lives: `spec.ttl`, counted from its creation or its last renewal. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, NamedTuple

from clusterling.machinery.meta import Object

# Any other value of it than before renews the cluster.
RENEWED: Final = "tenancy.clusterling.io/renewed-at"

TTL_MIN_S: Final = 10
TTL_MAX_S: Final = 10 * 366 * 86_400
WARNED_MAX_S: Final = 86_400  # However long it lives, whoever uses it is warned in its last day.
WARNED_PART: Final = 5  # Of a life, the last fifth.

_PART: Final = re.compile(r"([0-9]{1,12})(h|m|s)")
_WHOLE: Final = re.compile(r"(?:[0-9]{1,12}(?:h|m|s)){1,3}")
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}


class Lifetime(NamedTuple):
    """Seconds since the epoch: from when on users are warned, and when the cluster is deleted."""

    warns_at: int
    expires_at: int


def ttl_s(text: object) -> int:
    """The seconds of a Go duration of hours, minutes and seconds, as in 1h30m. Raises ValueError that says what is wrong."""
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        raise ValueError("must be a duration of whole hours, minutes and seconds, as in 2h or 1h30m")
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
    if not TTL_MIN_S <= seconds <= TTL_MAX_S:
        raise ValueError(f"must be from {TTL_MIN_S}s to {TTL_MAX_S // 3600}h")
    return seconds


def lifetime_of(spec: Object, status: Object) -> Lifetime | None:
    """When a cluster ends; None: it does not by itself."""
    ttl, end = spec.get("ttl"), status.get("expiresAt")
    if not ttl or not end:
        return None
    expires_at = int(datetime.fromisoformat(end).timestamp())
    return Lifetime(expires_at - min(ttl_s(ttl) // WARNED_PART, WARNED_MAX_S), expires_at)
