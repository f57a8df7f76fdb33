"""A server's data directory: who may use it, what format it has, and the administrator's kubeconfig in it.

DIR/                  0700
├── FORMAT            the version of everything below
├── lock              held by the server that runs on DIR
├── admin.kubeconfig  of `root`
├── pki/              the CA and the leaf
└── state.db          the store
"""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from clusterling.cli.errors import CliError, Exit
from clusterling.cli.remote import read_kubeconfig, write_private
from clusterling.machinery.meta import Object

# Rises when an older release could no longer read what this one writes.
FORMAT: Final = 1


class DataDirectory:
    """The directory while a server runs on it; entering takes its lock. Raises CliError saying what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = -1

    @property
    def database(self) -> Path:
        return self.path / "state.db"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.path / "admin.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise CliError(
                f"cannot use {self.path} as data directory: {error.strerror}", "name another with --data-dir"
            ) from error
        try:
            self._check_format()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def _take_lock(self) -> None:
        # The lock ends with the process, however it ends; the file stays, so that all servers lock the same one.
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            self._release()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise CliError(
                f"another server runs on {self.path}" + (f" (process {holder})" if holder else ""),
                "stop it, or name another directory with --data-dir",
                Exit.CONFLICT,
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_format(self) -> None:
        file = self.path / "FORMAT"
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            write_private(file, f"{FORMAT}\n")
            return
        if not text.isdigit():
            raise CliError(
                f"{file} says {text[:40]!r}, which is no format", "is this a data directory of Clusterling?"
            )
        if int(text) > FORMAT:
            raise CliError(
                f"{self.path} was written by a newer Clusterling (format {text}, this one knows {FORMAT})",
                "run a release at least as new, or name another directory with --data-dir",
            )

    def admin_token(self) -> str:
        """The token in the administrator's kubeconfig, "" where there is none yet: a new one is to be made."""
        try:
            return read_kubeconfig(self.admin_kubeconfig).token
        except CliError:
            if self.admin_kubeconfig.exists():
                kept = self.admin_kubeconfig.with_suffix(f".broken-{datetime.now(UTC):%Y%m%dT%H%M%S}")
                self.admin_kubeconfig.replace(kept)
            return ""

    def write_admin_kubeconfig(self, document: Object) -> None:
        """Writes the kubeconfig if it is not the same already, so that what watches the file is left in peace."""
        from clusterling.cli.output import as_yaml

        text = as_yaml(document)
        try:
            if self.admin_kubeconfig.read_text() == text:
                return
        except FileNotFoundError:
            pass
        write_private(self.admin_kubeconfig, text)
