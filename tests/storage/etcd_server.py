"""A real etcd for tests: one member or three, on free ports, in a folder of the tests, killed at their end.

The binary is `CLUSTERLING_ETCD`, or what `make etcd` has built. Where there is none, NoEtcd says so, for the test to be skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.ports import free_port
from tests.storage.standing import stand_still

START_S: Final = 60.0
STOP_S: Final = 10.0
REPOSITORY: Final = Path(__file__).parents[2]


class NoEtcd(Exception):
    """There is no etcd to be had; why."""


def binary() -> Path:
    """Where etcd is. Raises NoEtcd."""
    named = os.environ.get("CLUSTERLING_ETCD")
    built = sorted(REPOSITORY.glob(".cache/etcd/*/etcd"))
    for path in (*([Path(named)] if named else ()), *reversed(built)):
        if path.is_file():
            return Path(path)
    raise NoEtcd("no etcd: `make etcd` builds it, where Go is installed")


class Member:
    """One etcd process, which may be killed, stopped, and started again on its data."""

    def __init__(
        self, directory: Path, name: str, client: int, peer: int, options: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.name = name
        self.endpoint = f"127.0.0.1:{client}"
        self.peer = f"http://127.0.0.1:{peer}"
        self.options = list(options)
        self.cluster = f"{name}={self.peer}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        tls = "--cert-file" in " ".join(self.options)
        url = f"{'https' if tls else 'http'}://{self.endpoint}"
        arguments = {
            "name": self.name,
            "data-dir": str(self.directory / "data"),
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "initial-cluster": self.cluster,
            "log-level": "warn",
        }
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary()), *(f"--{name}={value}" for name, value in arguments.items()), *self.options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Waits until the member answers clients, with a leader."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process is not None, "it has been started"
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(OSError):
                if self._healthy():
                    return
            time.sleep(0.05)
        raise AssertionError(f"etcd did not start within {START_S:.0f} s: {self.log()}")

    def _healthy(self) -> bool:
        if any("cert-file" in option for option in self.options):
            host, _, port = self.endpoint.rpartition(":")
            socket.create_connection((host, int(port)), timeout=1).close()
            return True
        with urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=2) as answer:
            return bool(json.load(answer)["health"] == "true")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)
            self._process = None

    def pause(self) -> None:
        assert self._process is not None, "it runs"
        stand_still([self._process.pid])

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()
        self.ready()

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class Etcd:
    """A cluster of members."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def url(self, root: str, **options: str) -> str:
        endpoints = ",".join(member.endpoint for member in self.members)
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"etcd://{endpoints}/{root}{'?' if query else ''}{query}"


@contextmanager
def running(directory: Path, members: int = 1, options: Sequence[str] = ()) -> Iterator[Etcd]:
    """An etcd that answers; killed at the end, its data removed."""
    binary()
    ports = [free_port() for _ in range(2 * members)]
    made = [
        Member(directory / f"m{number}", f"m{number}", ports[2 * number], ports[2 * number + 1], options)
        for number in range(members)
    ]
    cluster = ",".join(member.cluster for member in made)
    try:
        for member in made:
            member.cluster = cluster
            member.start()
        for member in made:
            member.ready()
        yield Etcd(made)
    finally:
        for member in made:
            member.kill()
        shutil.rmtree(directory, ignore_errors=True)
