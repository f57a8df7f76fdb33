"""Which server a verb speaks with, and with what credentials: what a kubeconfig says, found by flag or environment."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clusterling.cli.errors import CliError

# Where a server keeps its data unless it is told otherwise.
DATA_DIR: Final = ".clusterling"

_CLIENT: Final = ("client-certificate", "client-key")
_KUBECONFIG_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A server and how to be let in; what a kubeconfig's current context says. `source` is the file, for messages.

    `client_pem`: a client's certificate and key, where it has them.
    """

    server: str
    token: str
    ca_pem: str
    source: str
    server_name: str = ""
    verify: bool = True
    client_pem: str = ""


def read_kubeconfig(path: Path) -> Target:
    """The current context of a kubeconfig. Raises CliError where it cannot be read or says too little."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(_KUBECONFIG_BYTES_MAX)
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (safe loaders)
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"])
        return Target(
            server=str(cluster["server"]),
            token=str(user.get("token") or _text_of(path, user.get("tokenFile")) or ""),
            ca_pem=_pem(path, cluster, "certificate-authority"),
            source=str(path),
            server_name=str(cluster.get("tls-server-name") or ""),
            verify=not cluster.get("insecure-skip-tls-verify"),
            client_pem="\n".join(filter(None, (_pem(path, user, one) for one in _CLIENT))),
        )
    except FileNotFoundError as error:
        raise CliError(
            f"{error.filename}: no such file",
            "start a server with `clusterling serve`, or name one's with --kubeconfig or --data-dir",
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CliError(
            f"{path} is not a kubeconfig with a current context", "see `kubectl config view --kubeconfig`"
        ) from error


def _named(document: Any, section: str, part: str, name: str) -> Any:
    for entry in document[section]:
        if entry["name"] == name:
            return entry[part] or {}
    raise KeyError(name)


def _text_of(kubeconfig: Path, path: str | None) -> str:
    """A file that a kubeconfig names, relative to itself."""
    return (kubeconfig.parent / path).read_text().strip() if path else ""


def _pem(kubeconfig: Path, entry: Any, field: str) -> str:
    """PEM that an entry has in its `FIELD-data`, or in the file that its FIELD names."""
    data = entry.get(f"{field}-data")
    if data:
        return base64.b64decode(data).decode("ascii")
    return _text_of(kubeconfig, entry.get(field))


def find_target(kubeconfig: str | None, data_dir: str | None) -> Target:
    """The server that flags or environment name: a kubeconfig, else the one in a data directory."""
    if kubeconfig:
        return read_kubeconfig(Path(kubeconfig).expanduser())
    return read_kubeconfig(Path(data_dir or DATA_DIR).expanduser() / "admin.kubeconfig")


def check_writable(path: Path) -> None:
    """Raises CliError where a file of that path cannot be written: its directory is not there, or not ours."""
    path = path.expanduser()
    if path.is_dir():
        raise CliError(f"cannot write {path}: it is a directory")
    if not path.parent.is_dir():
        raise CliError(f"cannot write {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CliError(f"cannot write {path}: permission denied")


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads, whole or not at all: it carries a credential.

    Raises CliError where `check_writable` does, OSError for what else goes wrong.
    """
    path = path.expanduser()
    check_writable(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
