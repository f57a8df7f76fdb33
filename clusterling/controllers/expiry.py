"""Deletes what has expired (events an hour old), by the store's index of expiries: no scan, nothing per cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from clusterling.registry.ports import Clock
from clusterling.storage.store import Op, RevisionConflict, StorageError, Store

logger = logging.getLogger(__name__)

EVERY_S: Final = 5.0
AT_ONCE: Final = 50


async def run(store: Store, clock: Clock) -> None:
    """Looks every few seconds until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            while await sweep(store, clock) == AT_ONCE:
                pass
        except StorageError as error:
            # A store out of reach comes back, or is closed and this cancelled.
            logger.info("expiry-put-off error=%s", error)


async def sweep(store: Store, clock: Clock) -> int:
    """Deletes one batch; returns how many were due. What was rewritten meanwhile has another time to go."""
    due = await store.expired(int(clock.now().timestamp()), AT_ONCE)
    for entry in due:
        try:
            await store.write([Op(entry.key, None, entry.revision)])
        except RevisionConflict:
            logger.debug("expiry-rewritten key=%s", entry.key)
    return len(due)
