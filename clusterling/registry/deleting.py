"""What a DELETE is held to, and what it writes down: preconditions, and how dependents shall go. Pure.

Upstream: apiserver pkg/registry/rest/delete.go, pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery import errors
from clusterling.machinery.meta import Object
from clusterling.registry.options import DeleteOptions
from clusterling.registry.resource import Served

ORPHAN: Final = "orphan"
FOREGROUND: Final = "foregroundDeletion"


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
