"""From one store to another, of whatever kind: one state of the source, verified before the target becomes a store.

Records go over in the order in which they were written, because that order means something (what was written before a
schema's fence is read by another schema than what came after). The target has the source's id, a higher epoch, and a
head beyond every revision the source can have given out; it has no history, so whoever resumes a watch lists again.

A copy that is cut short leaves nothing that could be served. Begun again, it clears what was left and starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from clusterling.storage.bulk import COPIED_KEY, HEAD_JUMP, SECOND_BITS, Digest, Record, Snapshot, Vessel
from clusterling.storage.store import Identity, StorageError

# Told what is being done, how many records of it are done, and of how many.
Progress = Callable[[str, int, int], None]

COPYING: Final = "copying"
VERIFYING: Final = "verifying"


class CopyFailed(StorageError):
    """What was read back is not what was sent. The target is no store; nothing was done to the source."""


@dataclass(frozen=True, slots=True)
class Copied:
    """`revision` is the source's, of the state that was copied; `head` is where the target goes on."""

    records: int
    bytes: int
    digest: str
    revision: int
    head: int
    identity: Identity


async def copy(source: Snapshot, target: Vessel, progress: Progress, *, now: datetime) -> Copied:
    """Copies everything. Raises StorageError.

    The target goes on above whatever the source can have given out, and above what another copy of the same source,
    made and used before `now`, can have: a backup may be restored twice.
    """
    sent = Digest(with_revisions=target.keeps_revisions)
    total = await source.count()
    floor = max(source.head + HEAD_JUMP, int(now.timestamp()) << SECOND_BITS)
    progress(COPYING, 0, total)
    begun = False
    async for page in source.by_revision():
        if not begun:
            # Not before: the first page may take long, and the target holds a transaction open.
            await target.begin(floor)
            begun = True
        records = _without_note(page)
        await target.put(records)
        sent.add(records)
        progress(COPYING, sent.records, total)
    if not begun:
        await target.begin(floor)
    await _verify(target, sent, progress)
    identity = Identity(source.identity.id, source.identity.epoch + 1)
    note = {
        "from": source.identity.id,
        "epoch": source.identity.epoch,
        "revision": source.head,
        "objects": sent.records,
        "digest": sent.hex,
        "at": now.isoformat(timespec="seconds"),
    }
    head = await target.finish(identity, orjson.dumps(note))
    return Copied(sent.records, sent.bytes, sent.hex, source.head, head, identity)


async def _verify(target: Vessel, sent: Digest, progress: Progress) -> None:
    found = Digest(with_revisions=target.keeps_revisions)
    progress(VERIFYING, 0, sent.records)
    async for page in target.contents():
        found.add(page)
        progress(VERIFYING, found.records, sent.records)
    if (found.records, found.bytes, found.hex) != (sent.records, sent.bytes, sent.hex):
        raise CopyFailed(
            f"{target.address} holds {found.records} records of {found.bytes} bytes (digest {found.hex}), not the"
            f" {sent.records} of {sent.bytes} (digest {sent.hex}) that were sent"
        )


def _without_note(page: Sequence[Record]) -> Sequence[Record]:
    """The note of an earlier copy stays behind: this one writes its own."""
    return [record for record in page if record.key != COPIED_KEY]
