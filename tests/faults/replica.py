"""`python -m tests.faults.replica serve …`: the command line with a wall clock that the harness sets wrong.

CLUSTERLING_FAULTS_CLOCK names a file with seconds to add to the time of day. Only what the program takes from its
injected clock is changed: nothing but the time of day.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from typing_extensions import override

import clusterling.server
from clusterling.cli import main


class WrongClock(clusterling.server.SystemClock):
    """The machine's clock, as far off as the file says."""

    @override
    def now(self) -> datetime:
        try:
            off = float(Path(os.environ["CLUSTERLING_FAULTS_CLOCK"]).read_text())
        except (OSError, ValueError):
            off = 0.0
        return super().now() + timedelta(seconds=off)


if __name__ == "__main__":
    clusterling.server.SystemClock = WrongClock  # type: ignore[misc]
    main()
