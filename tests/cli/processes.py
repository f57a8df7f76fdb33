"""The program as a process, for what only processes show: signals, exit codes, what is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-m", "clusterling"]

# A process that takes longer than this for anything here hangs.
PATIENCE_S = 60

_READY = re.compile(r"clusterling ready: (\S+) data=(\S+)\n")


class Serving:
    """A `clusterling serve` that said it was ready."""

    def __init__(self, process: subprocess.Popen[str], url: str, data_dir: Path) -> None:
        self.process = process
        self.url = url
        self.data_dir = data_dir

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def serving(data_dir: Path, *arguments: str, stderr: Path | None = None) -> Iterator[Serving]:
    """A server on a free port, killed at the end unless it has ended. `stderr`: a file for what it logs."""
    command = [*PROGRAM, "serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", *arguments]
    with ExitStack() as files:
        log = files.enter_context(stderr.open("w")) if stderr else None
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        ready = _READY.fullmatch(process.stdout.readline())
        assert ready, f"no ready line; exit code {process.wait(PATIENCE_S)}"
        yield Serving(process, ready[1], Path(ready[2]))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def clusterling(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def eventually(claim: Callable[[], bool]) -> bool:
    """Whether the claim comes true at all; for what other processes do in their own time."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
