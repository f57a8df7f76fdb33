"""Three real server processes over one store, each behind ways of its own, started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp

from clusterling.cli.output import as_yaml
from clusterling.tenancy.kubeconfig import kubeconfig
from clusterling.tenancy.names import ROOT
from tests.faults.network import Way
from tests.ports import free_port

START_S: Final = 60.0
STOP_S: Final = 30.0  # It serves on for 5 s, ends watches within 10, and lets requests finish.
AGAIN_S: Final = 0.3
REPOSITORY: Final = Path(__file__).parents[2]
_WON: Final = re.compile(r"election-won holder=(\S+) term=(\d+)")


class Replica:
    """One process. `deaths` has what it died of, where that was not the harness."""

    def __init__(self, name: str, directory: Path, token: str, url: str, ways: Sequence[Way]) -> None:
        self.name = name
        self.directory = directory
        self.ways = ways
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self.deaths: list[str] = []
        self._store = url
        self._process: subprocess.Popen[bytes] | None = None
        self._up = False  # Whether it is meant to run.
        self._answered = False  # Whether it has since it was started.
        self._supervisor: asyncio.Task[None] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "admin.kubeconfig").write_text(as_yaml(kubeconfig(self.url, ROOT, token, b"")))
        self._clock = directory / "clock"
        self.lock = asyncio.Lock()  # One fault at a time,
        self.ways_lock = asyncio.Lock()  # and one of its ways.

    @property
    def incarnation(self) -> str:
        return f"{self.name}.{self.starts}"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        self._up = True
        self._launch()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    def stop(self) -> None:
        """Ends it in order."""
        self._up = False
        if self._supervisor is not None:
            self._supervisor.cancel()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.deaths.append("does not end when it is told to")
                self._process.kill()
                self._process.wait()

    async def restart(self) -> None:
        """As a rolling restart does: told to end, waited for, started again."""
        self._up = False
        self._signal(signal.SIGTERM)
        for _ in range(round(STOP_S / 0.1)):
            if self._process is None or self._process.poll() is not None:
                break
            await asyncio.sleep(0.1)
        else:
            self.deaths.append(f"{self.incarnation} does not end {STOP_S:.0f} s after it was told to")
            self.kill()
        self.revive()

    def kill(self) -> None:
        self._up = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def revive(self) -> None:
        self._up = True
        self._launch()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def set_clock(self, off_s: float) -> None:
        self._clock.write_text(str(off_s))

    def last_term(self) -> int:
        """The last term that this replica was elected for, 0 where there was none."""
        try:
            found = _WON.findall(self.log.read_text(errors="replace"))
        except OSError:
            return 0
        return int(found[-1][1]) if found else 0

    def terms(self) -> list[int]:
        try:
            return [int(term) for _, term in _WON.findall(self.log.read_text(errors="replace"))]
        except OSError:
            return []

    async def is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(3)) as answer:
                if answer.status == 200:
                    self._answered = True
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _launch(self) -> None:
        self.starts += 1
        self._answered = False
        arguments = [
            *("serve", "--store", self._store, "--data-dir", str(self.directory), "--insecure-http"),
            *("--listen", f"127.0.0.1:{self.port}", "--external-url", self.url),
            *("--default-cluster", "", "--log-level", "info"),
        ]
        environment = os.environ | {"CLUSTERLING_FAULTS_CLOCK": str(self._clock)}
        with self.log.open("ab") as log:
            log.write(f"---- start {self.starts}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.replica", *arguments],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _supervise(self) -> None:
        """As an init system does: a process that ended is started again. One that had served must not have ended."""
        while True:
            await asyncio.sleep(AGAIN_S)
            process = self._process
            if self._up and process is not None and (code := process.poll()) is not None:
                if self._answered:
                    self.deaths.append(f"{self.incarnation} ended with {code}: {self._last_words()}")
                self._launch()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])
        return ""
