"""What logical clusters are called: their names, which people choose, and their ids, which keys and realms go by."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from clusterling.machinery.names import ClusterName, is_dns1123_label

ROOT: Final = ClusterName.parse("root")

# The root's id. Shorter than any that `cluster_id` makes, so that it can never be another's.
ROOT_ID: Final = "root"

# Names that addresses and commands use for something else, or that would be mistaken for it.
RESERVED: Final = frozenset({ROOT, "all", "clusterling", "kubernetes", "system"})


def name_problems(text: str) -> tuple[str, ...]:
    """What is wrong with the name of a logical cluster. `root` is right here: it exists, so nobody can make it."""
    problems = tuple(is_dns1123_label(text))
    if not problems and text in RESERVED and text != ROOT:
        return (f"{text} is reserved",)
    return problems


def cluster_id(uid: str) -> str:
    """The id of the logical cluster with that uid: 12 characters of base32, lower case (60 bits).

    As a uid is random and made by the server, an id is never used twice, whatever the name (decision 1).
    """
    digest = hashlib.sha256(uid.encode()).digest()
    return base64.b32encode(digest).decode("ascii")[:12].lower()


def fence_key(cluster_id: str) -> str:
    """The fence that every write of a cluster depends on: it goes when the cluster is being deleted (decision 4).

    Relative to `root`'s keyspace, where the LogicalCluster object writes it in its own transaction.
    """
    return f"~fence/clusters/-/{cluster_id}"
