"""`python -m tests.faults.replica serve …`: the command line with a wall clock that the harness sets wrong.

CLUSTERLING_FAULTS_CLOCK names a file with seconds to add to the time of day. Only what the program takes from its
injected clock is changed: nothing but the time of day.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from typing_extensions import override

import clusterling.server
from clusterling.cli import main

PR_SET_PDEATHSIG: Final = 1


class WrongClock(clusterling.server.SystemClock):
    """The machine's clock, as far off as the file says."""

    @override
    def now(self) -> datetime:
        try:
            off = float(Path(os.environ["CLUSTERLING_FAULTS_CLOCK"]).read_text())
        except (OSError, ValueError):
            off = 0.0
        return super().now() + timedelta(seconds=off)


def end_with_parent() -> None:
    """Where Linux can see to it, a replica does not outlive a harness that was killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    clusterling.server.SystemClock = WrongClock  # type: ignore[misc]
    main()
