"""Memory that nobody uses any more goes back to the system: after thousands of clusters were let go, nothing else would see to it.

Two things keep it. Clusters lie in cycles, which wait for a full collection, and a server that holds little else to collect makes
those rarely. The C library keeps what was freed for the next who asks.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from functools import cache


async def trim() -> None:
    """Collects on the loop, as Python does by itself, if rarely, and trims beside it."""
    gc.collect()
    await asyncio.to_thread(_trim)


def _trim() -> None:
    trimming = _malloc_trim()
    if trimming is not None:
        trimming(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None where another C library is at work, which has nothing like it."""
    import ctypes

    with suppress(AttributeError, OSError):
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    return None
