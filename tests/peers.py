"""The other end of a stream: what a client at a socket would be."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from clusterling.services.request import Sink


class Taker(Sink):
    """Takes everything at once, and keeps it, a write as an entry."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    @override
    def write(self, data: bytes) -> None:
        self.writes.append(data)

    @property
    @override
    def buffered(self) -> int:
        return 0

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        """It is never full."""
