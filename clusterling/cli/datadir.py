"""A server's data directory: what format it has, and the administrator's kubeconfig in it.

DIR/                  0700
├── FORMAT            the version of everything below
├── lock              held by the server that runs on DIR
├── admin.kubeconfig  of `root`
├── pki/              the CA and the leaf
└── state.db          the store
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from clusterling.cli.errors import CliError
from clusterling.cli.target import read_kubeconfig, write_private
from clusterling.machinery.meta import Object

# Rises when an older release could no longer read what this one writes.
FORMAT: Final = 1


class DataDirectory:
    """What is where in the directory. Raises CliError saying what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def database(self) -> Path:
        return self.path / "state.db"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.path / "admin.kubeconfig"

    def check_format(self) -> None:
        """Raises CliError where what is there was written by a newer release, or by something else."""
        file = self.path / "FORMAT"
        try:
            text = file.read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
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

    def write_format(self) -> None:
        """Says what format the directory has, once it is ours."""
        file = self.path / "FORMAT"
        if not file.exists():
            write_private(file, f"{FORMAT}\n")

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
