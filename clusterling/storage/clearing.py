"""Removing all that is under a prefix, by whichever way costs the store less.

A drop takes a commit of its own and leaves a mark that every later look has to heed until compaction, however little there
was to remove. What is little is deleted key by key instead: such writes share commits with everybody else's.
"""

from __future__ import annotations

from typing import Final

from clusterling.storage.store import Op, RevisionConflict, Store

KEYS_MAX: Final = 50  # More are dropped,
BYTES_MAX: Final = 1 << 20  # and so is what takes much memory to look at.
_PAGE: Final = 10


async def clear(store: Store, prefix: str) -> None:
    """Removes every key under `prefix`, where nobody writes any more. Safe to repeat.

    Watches see deletions or a drop. Raises Unavailable and UnknownOutcome.
    """
    found = await _little(store, prefix)
    if found is not None:
        try:
            if found:
                await store.write(found)
        except RevisionConflict:
            # Some of it expired meanwhile: a drop takes what is left as it is.
            pass
        else:
            return
    await store.drop(prefix)


async def _little(store: Store, prefix: str) -> list[Op] | None:
    """What deletes it all; None where that is too much."""
    found: list[Op] = []
    after, size = "", 0
    while len(found) <= KEYS_MAX and size <= BYTES_MAX:
        entries = (await store.list(prefix, after=after, limit=_PAGE)).entries
        found += [Op(entry.key, None, expected=entry.revision) for entry in entries]
        size += sum(len(entry.value) for entry in entries)
        if len(entries) < _PAGE:
            return found if len(found) <= KEYS_MAX and size <= BYTES_MAX else None
        after = entries[-1].key
    return None
