"""Bounds the store's history by time: what is older than a few minutes is compacted (decision 10).

A client that watches from further back gets 410 and lists again; nothing but history is ever lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from clusterling.registry.ports import Clock
from clusterling.storage.store import StorageError, Store

logger = logging.getLogger(__name__)

KEPT_S: Final = 300.0
EVERY_S: Final = 30.0


async def run(store: Store, clock: Clock) -> None:
    """Notes the head every half minute, and compacts to where it was five minutes ago, until cancelled."""
    marks: deque[tuple[float, int]] = deque()
    compacted = 0
    while True:
        now = clock.monotonic()
        marks.append((now, store.head()))
        horizon = 0
        while marks and now - marks[0][0] >= KEPT_S:
            horizon = marks.popleft()[1]
        if horizon > compacted:
            try:
                await store.compact(horizon)
                compacted = horizon
            except StorageError as error:
                # A store out of reach comes back, or is closed and this cancelled; the next mark goes further.
                logger.info("compaction-put-off error=%s", error)
        await asyncio.sleep(EVERY_S)
