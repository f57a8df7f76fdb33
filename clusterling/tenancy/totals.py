"""How much a logical cluster keeps, and which part of its limits that is: as the store counts in each transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store
from clusterling.tenancy.quota import BYTES, OBJECTS, WATCHES, Quotas, is_kept
from clusterling.tenancy.usage import used_of


def used_ratios(used: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, float]:
    """The part of each limit on what is held that is used, by the limit's name, the highest first; 1 is all.

    What there may be none of is used whole, by as little as one.
    """
    parts = {
        name: used.get(name, 0) / max(most, 1) if most or not used.get(name) else 1.0
        for name, most in limits.items()
        if name == WATCHES or is_kept(name)
    }
    return dict(sorted(parts.items(), key=lambda item: (-item[1], item[0])))


class Totals:
    """Figures by a cluster's id. `store` sees the whole server; `online`: what is not kept but held (watches)."""

    def __init__(self, store: Store, quotas: Quotas, online: Callable[[str], Mapping[str, int]]) -> None:
        self._store = store
        self._quotas = quotas
        self._online = online

    async def total(self, cluster_id: str) -> tuple[int, int, Mapping[str, float]]:
        """Objects, their bytes, and the parts of its hard limits that are used. Raises StorageError."""
        used = used_of(await Keyspace(self._store, cluster_id).usage(""))
        hard = self._quotas.of(cluster_id).hard
        ratios = used_ratios({**used, **self._online(cluster_id)}, hard) if hard else {}
        return used[OBJECTS], used[BYTES], ratios
