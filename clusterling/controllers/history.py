"""Bounds the store's history by time: what is older than a few minutes is compacted (decision 10).

A client that watches from further back gets 410 and lists again; nothing but history is ever lost.

While there is something to note, the store also keeps a record of when it had come how far, over the last hour: who
compacts it without a server can then say an age (`revision_at`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

import orjson

from clusterling.registry.ports import Clock
from clusterling.storage.store import Op, StorageError, Store

logger = logging.getLogger(__name__)

KEPT_S: Final = 300.0
EVERY_S: Final = 30.0
TIMES_KEY: Final = "~store/times/-/main"  # Pairs of seconds since the epoch and a revision, the oldest first.
TIMES_MAX: Final = 120  # An hour of half minutes.


async def run(store: Store, clock: Clock, *, every_s: float = EVERY_S) -> None:
    """Notes the head every half minute, and compacts to where it was five minutes ago, until cancelled."""
    marks: deque[tuple[float, int]] = deque()
    compacted = 0
    noted = 0
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
        await asyncio.sleep(every_s)
        if store.head() > noted:
            try:
                noted = await _note(store, round(clock.now().timestamp()))
            except StorageError as error:
                logger.info("time-not-noted error=%s", error)


async def _note(store: Store, now: int) -> int:
    """Writes down how far the store has come; returns the revision that this took."""
    entry = await store.get(TIMES_KEY)
    times = [*(orjson.loads(entry.value) if entry else ()), [now, store.head()]]
    [revision] = await store.write([Op(TIMES_KEY, orjson.dumps(times[-TIMES_MAX:]))])
    return revision


async def revision_before(store: Store, seconds: float) -> int:
    """Where the store had come to so long before it last changed, or a little earlier; 0 where that is not known any more."""
    entry = await store.get(TIMES_KEY)
    times: list[tuple[int, int]] = orjson.loads(entry.value) if entry else []
    return max((revision for noted_s, revision in times if noted_s <= times[-1][0] - seconds), default=0)


async def revision_at(store: Store, at_s: float) -> int:
    """The newest revision that is known to be no younger than that time; 0: none is."""
    entry = await store.get(TIMES_KEY)
    times = orjson.loads(entry.value) if entry else ()
    return max((revision for noted_s, revision in times if noted_s <= at_s), default=0)
