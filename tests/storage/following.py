"""Follows a watch while others write: one that is left alone falls behind what is kept for it."""

from __future__ import annotations

from clusterling.storage.store import Event, Watch


async def followed_to(watch: Watch, key: str, *, after: int = 0) -> list[Event]:
    """Everything that the watch says, in revisions that rise from `after`, to the batch that ends with the key; however long that is in coming."""
    events: list[Event] = []
    while not events or events[-1].key != key:
        for event in (await anext(watch)).events:
            assert event.revision > after
            after = event.revision
            events.append(event)
    return events
