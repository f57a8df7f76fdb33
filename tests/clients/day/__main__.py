"""`make operator-day [SEED=n] [DAYS=n]`: an operator's days, one after the other, a line each.

python -m tests.clients.day --operator PATH [--seed N] [--days N] [--minutes N] [--minute-s S] [--logs DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.clients.day.faults import DAY_MINUTES
from tests.clients.day.story import MINUTE_S, Day, live


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--operator", type=Path, required=True, help="the program of tests/clients/cmd/operator"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--days", type=int, default=1, help="each with the seed after the last")
    parser.add_argument("--minutes", type=int, default=DAY_MINUTES, help="of a day")
    parser.add_argument("--minute-s", type=float, default=MINUTE_S)
    parser.add_argument("--logs", type=Path, help="where logs and data are left")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    logs = given.logs or Path(tempfile.mkdtemp(prefix="clusterling-day-"))
    bad = 0
    for number in range(seed, seed + given.days):
        directory = logs / str(number)
        directory.mkdir(parents=True)
        day = asyncio.run(
            live(Day(number, given.minutes, given.minute_s), directory, given.operator.resolve())
        )
        print(day.line, flush=True)
        if day.complaints:
            bad += 1
            print("\n".join(f"  {one}" for one in day.complaints), f"\n  logs are in {directory}", flush=True)
    print(f"{given.days - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
