"""A sample of `make faults`: three replicas over a real store lose nothing and repeat nothing, whatever fails."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.faults.rounds import report, serving
from tests.faults.stores import STORES
from tests.storage.etcd_server import NoEtcd
from tests.storage.postgres_server import NoPostgres

SEEDS: Final = (
    3,
    5,
    6,
    31,
    33,
)  # Replicas and stores are killed, stand still, are full; 31 puts a backup back.


@pytest.mark.parametrize("store", STORES)
async def test_what_clients_saw_through_faults_can_be_explained(store: str, tmp_path: Path) -> None:
    try:
        with STORES[store]() as server:
            async with serving(server, tmp_path) as service:
                for seed in SEEDS:
                    result = await service.round(seed)
                    print(f"{store} SEED={seed}: {result.line} [{', '.join(result.faults)}]")
                    assert not result.violations, f"SEED={seed}\n{report(result)}"
                assert not await service.finish()
    except (NoPostgres, NoEtcd) as reason:
        pytest.skip(str(reason))
