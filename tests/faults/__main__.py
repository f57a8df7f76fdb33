"""`make faults ROUNDS=100 [STORE=postgres|etcd|both] [SEED=n]`: rounds of faults, a line each."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.rounds import keep, report, serving
from tests.faults.stores import STORES
from tests.storage.etcd_server import NoEtcd
from tests.storage.postgres_server import NoPostgres


async def run(store: str, rounds: int, seed: int, directory: Path, only: str) -> int:
    """How many rounds failed. Round n has the seed `seed + n`, so that a failed one can be had alone."""
    failed = 0
    task = asyncio.current_task()
    assert task is not None, "this runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # So that servers are ended.
    with STORES[store]() as server:
        print(f"{server.version()}, {rounds} rounds from SEED={seed}, logs in {directory}", flush=True)
        async with serving(server, directory) as service:
            for number in range(rounds):
                result = await service.round(seed + number, only)
                faults = ", ".join(result.faults)
                fate = f"{len(result.violations)} FAULTS" if result.violations else "ok"
                print(
                    f"{store} {number + 1}/{rounds} SEED={result.seed} {fate}: {result.line} [{faults}]",
                    flush=True,
                )
                if result.violations:
                    failed += 1
                    print(f"{report(result)}\n  kept in {keep(result, directory)}", flush=True)
            if complaints := await service.finish():
                failed += 1
                print("\n".join(complaints), flush=True)
    print(f"{store}: {rounds - failed} of {rounds} rounds without a fault", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", choices=(*STORES, "both"), default="both")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--logs", type=Path, default=None, help="where logs and failed histories are kept")
    parser.add_argument("--only", default="", help="a fault, as in the lines that are printed, to have alone")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    logs = given.logs or Path(tempfile.mkdtemp(prefix="clusterling-faults-logs-"))
    failed = 0
    for store in STORES if given.store == "both" else [given.store]:
        try:
            failed += asyncio.run(run(store, given.rounds, seed, logs / store, given.only))
        except (NoPostgres, NoEtcd) as reason:
            print(f"{store}: skipped, {reason}", flush=True)
            failed += given.store != "both"
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
