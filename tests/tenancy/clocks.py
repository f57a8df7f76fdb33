"""A clock that tests turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Turned:
    """Implements `registry.ports.Clock`; stands still unless `turn` moves it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    def turn(self, by: timedelta) -> None:
        self._now += by
