"""Has processes stand still, as a machine does that hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def stand_still(pids: Iterable[int]) -> None:
    """Stops the processes, and returns when all their threads have: a signal alone only asks them to, and on a busy
    machine one may answer another request meanwhile."""
    pids = list(pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        while runs(pid):
            time.sleep(0.001)


def runs(pid: int) -> bool:
    """Whether a thread of the process is neither stopped nor ended."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = thread.read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # It has ended.
        if state not in {"T", "t", "Z", "X"}:
            return True
    return False
