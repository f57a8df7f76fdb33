"""What a DELETE is held to, and what it writes down: preconditions, and how dependents shall go. Pure.

Upstream: apiserver pkg/registry/rest/delete.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from clusterling.machinery import errors
from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.registry.options import DeleteOptions
from clusterling.registry.resource import Served

ORPHAN: Final = "orphan"
FOREGROUND: Final = "foregroundDeletion"
GRACE_S_MAX: Final = 10 * 365 * 24 * 3600  # Longer ones would leave the calendar.


class Grace(Enum):
    """What becomes of the time that an object has to end: none is given, it is given now, or it is running."""

    NONE = 0
    GIVEN = 1
    RUNNING = 2


def check(served: Served, old: Object, options: DeleteOptions) -> None:
    """Preconditions, in the words of apiserver pkg/registry/rest/delete.go."""
    metadata = old["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        raise errors.conflict(
            served.kind,
            served.group,
            metadata["name"],
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated",
        )
    if options.resource_version and options.resource_version != metadata["resourceVersion"]:
        raise errors.conflict(
            served.kind,
            served.group,
            metadata["name"],
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified",
        )


def propagate(default: str, metadata: Object, options: DeleteOptions) -> None:
    """What shall happen to dependents, written down as a finalizer (upstream: deletionFinalizersForGarbageCollection)."""
    if default == "unsupported":
        return
    finalizers: list[str] = list(metadata.get("finalizers") or [])
    wanted = options.propagation
    if not wanted:
        if ORPHAN in finalizers:
            wanted = "Orphan"
        elif FOREGROUND in finalizers:
            wanted = "Foreground"
        else:
            wanted = "Orphan" if default == "orphan" else "Background"
    kept = [finalizer for finalizer in finalizers if finalizer not in (ORPHAN, FOREGROUND)]
    if wanted == "Orphan":
        kept.append(ORPHAN)
    elif wanted == "Foreground":
        kept.append(FOREGROUND)
    if set(kept) != set(finalizers):
        metadata["finalizers"] = kept
    if not kept:
        metadata.pop("finalizers", None)


def give_grace(metadata: Object, period_s: int, asked_s: int | None, now: datetime) -> Grace:
    """Writes down until when the object has time, or that it has less than it had (upstream: BeforeDelete).

    `period_s`: what its kind allows, `asked_s` what the DELETE says. NONE: its time was up already, it goes now.
    """
    if "deletionTimestamp" not in metadata:
        period_s = min(period_s, GRACE_S_MAX)
        metadata["deletionTimestamp"] = rfc3339(now + timedelta(seconds=period_s))
        metadata["deletionGracePeriodSeconds"] = period_s
        if metadata.get("generation"):
            metadata["generation"] += 1
        return Grace.GIVEN
    had_s = metadata.get("deletionGracePeriodSeconds") or 0
    if not had_s:
        return Grace.NONE
    if asked_s is None:
        return Grace.RUNNING
    asked_s = 1 if asked_s < 0 else asked_s
    if asked_s >= had_s:
        return Grace.RUNNING
    until = parse_rfc3339(metadata["deletionTimestamp"]) - timedelta(seconds=had_s - asked_s)
    metadata["deletionTimestamp"] = rfc3339(until)
    metadata["deletionGracePeriodSeconds"] = asked_s
    return Grace.GIVEN
