"""The store, looked at as it is while servers use it: whether it answers, its format, its history, who leads, its clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import orjson

from clusterling.cli.doctor.finding import Finding, fail, ok, shown_age, shown_size, warn

if TYPE_CHECKING:
    from clusterling.storage.bulk import Snapshot

SLOW_S: Final = 0.5
SKEW_WARN_S: Final = 2.0
SKEW_FAIL_S: Final = 60.0
HISTORY_MAX_S: Final = 1800.0  # Servers keep five minutes of it.
SILENT_S: Final = 120.0
FREE_PART_MAX: Final = 0.5
FREE_MIN: Final = 256 << 20

_UNLED: Final = "nothing is finished while nobody leads: look for `election` in the replicas' logs"


async def checks(url: str, password: str | None, seen: dict[str, int]) -> AsyncIterator[Finding]:
    """`seen` is given the revision that the store had come to, as `head`."""
    from clusterling.storage import bulk
    from clusterling.storage.store import StorageError

    began = time.monotonic()
    try:
        async with bulk.snapshot(url, password=password) as snapshot:
            served = await snapshot.served()
            took_s = time.monotonic() - began
            seen["head"] = snapshot.head
            yield _answers(snapshot, served, took_s)
            for finding in await _members(snapshot):
                yield finding
            yield await _clock(snapshot)
            yield await _history(snapshot, served)
            yield await _size(snapshot)
            async for finding in _leader(snapshot, served):
                yield finding
    except StorageError as error:
        remedy = "is it up, and reachable from here; are name, password and TLS right? The message is the store's own"
        yield fail("store", str(error), remedy)


def _answers(snapshot: Snapshot, served: bool | None, took_s: float) -> Finding:
    users = {True: "a server is at work on it", False: "no server is at work on it", None: "it is read"}
    found = f"{snapshot.address} at revision {snapshot.head}; {users[served]}"
    if took_s > SLOW_S:
        remedy = "look at the way to it, and at its load: every write waits for it"
        return warn("store", f"{found}; it took {took_s:.1f} s to answer", remedy)
    return ok("store", found)


async def _members(snapshot: Snapshot) -> list[Finding]:
    ailing = await snapshot.ailing()
    if ailing is None:
        return []
    found = []
    for ailment in ailing:
        if ailment.stops_writes:
            remedy = "`clusterling store compact` gives space back; then `etcdctl alarm disarm`, and a larger --quota-backend-bytes"
            found.append(fail("store members", f"{ailment.what}: nothing can be written", remedy))
        else:
            remedy = "see to it while the others serve: etcd's log there, its disk, `etcdctl endpoint status`"
            found.append(warn("store members", ailment.what, remedy))
    return found or [ok("store members", "all are well")]


async def _record(snapshot: Snapshot, key: str) -> bytes | None:
    async for page in snapshot.by_key(key[: key.rindex("/") + 1]):
        for record in page:
            if record.key == key:
                return record.value
    return None


async def _clock(snapshot: Snapshot) -> Finding:
    from clusterling.controllers.history import TIMES_KEY

    before = time.time()
    told = await snapshot.clock()
    if told is not None:
        skew = told - (before + time.time()) / 2
        found = f"the store's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    else:
        value = await _record(snapshot, TIMES_KEY)
        if value is None:
            return ok("clock", "no server has noted a time in the store yet")
        # What was noted cannot lie in the future; how long ago it was says nothing.
        skew = max(0.0, orjson.loads(value)[-1][0] - time.time())
        found = (
            f"a server noted a time in the store that is {skew:.0f} s ahead of this machine's"
            if skew
            else "no server was ahead of this machine's"
        )
    remedy = "have all machines keep time by NTP: tokens, ttl and certificates go by it"
    if abs(skew) > SKEW_FAIL_S:
        return fail("clock", found, remedy)
    if abs(skew) > SKEW_WARN_S:
        return warn("clock", found, remedy)
    return ok("clock", found)


async def _history(snapshot: Snapshot, served: bool | None) -> Finding:
    """Whether history is forgotten, as far as servers have noted when the store was where."""
    from clusterling.controllers.history import TIMES_KEY

    figures = await snapshot.figures()
    value = await _record(snapshot, TIMES_KEY)
    times = orjson.loads(value) if value else []
    kept = [noted_s for noted_s, revision in times if revision >= figures.oldest]
    found = f"revisions {figures.oldest} to {snapshot.head}"
    if not kept:
        return ok("history", found)
    age_s = times[-1][0] - kept[0]
    found = f"{found}, {shown_age(age_s)}"
    if served is not False and age_s > HISTORY_MAX_S:
        remedy = (
            "the leader's log says `compaction-put-off` and why; `clusterling store compact` does it by hand"
        )
        return warn("history", f"{found}: it is not compacted", remedy)
    return ok("history", found)


async def _size(snapshot: Snapshot) -> Finding:
    figures = await snapshot.figures()
    if figures.disk_bytes is None:
        return ok("store size", "not known")
    found = shown_size(figures.disk_bytes)
    free = figures.free_bytes or 0
    if free > max(FREE_MIN, FREE_PART_MAX * figures.disk_bytes):
        remedy = "`clusterling store compact` gives it back to the disk"
        return warn("store size", f"{found}, of which {shown_size(free)} are not used", remedy)
    return ok("store size", found)


async def _leader(snapshot: Snapshot, served: bool | None) -> AsyncIterator[Finding]:
    """Who runs the controllers, where several may. Whoever does renews the lease, and so notes times as the store moves on."""
    from clusterling.controllers.history import TIMES_KEY
    from clusterling.storage.election import LEASES

    found = []
    value = await _record(snapshot, TIMES_KEY)
    silent_s = time.time() - orjson.loads(value)[-1][0] if value else 0.0
    async for page in snapshot.by_key(LEASES):
        found += [(record.key.removeprefix(LEASES), orjson.loads(record.value)) for record in page]
    for name, lease in found:
        if served is False:
            yield ok("leader", "no server runs, so nobody leads")
        elif not lease["holder"]:
            yield fail("leader", f"nobody leads {name}", _UNLED)
        elif silent_s > SILENT_S:
            why = f"{lease['holder']} has noted nothing for {shown_age(silent_s)}"
            yield fail("leader", why, _UNLED)
        else:
            yield ok("leader", f"{lease['holder']}, term {lease['term']}")
