"""Removing all that is under a prefix, by whichever way costs the store less.

A drop takes a commit of its own and leaves a mark that every later look has to heed until compaction, however little there
was to remove. What is little is deleted key by key instead: such writes share commits with everybody else's.
"""

from __future__ import annotations

from typing import Final

from clusterling.storage.store import Op, RevisionConflict, Store

KEYS_MAX: Final = 50  # More are dropped,
BYTES_MAX: Final = 1 << 20  # and so is what would take much memory to look at.


async def clear(store: Store, prefix: str) -> None:
    """Removes every key under `prefix`, of up to three parts, where nobody writes any more. Safe to repeat.

    Watches see deletions or a drop. Raises Unavailable and UnknownOutcome.
    """
    if sum(one.bytes for one in await store.usage(prefix)) <= BYTES_MAX:
        entries = (await store.list(prefix, limit=KEYS_MAX + 1)).entries
        if not entries:
            return
        if len(entries) <= KEYS_MAX:
            try:
                await store.write([Op(entry.key, None, expected=entry.revision) for entry in entries])
            except RevisionConflict:
                # Some of it expired meanwhile: a drop takes what is left as it is.
                pass
            else:
                return
    await store.drop(prefix)
