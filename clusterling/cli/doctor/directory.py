"""What is in a server's data directory, and what it is on: permissions, file system, space, certificates, kubeconfig."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterling.cli.datadir import DataDirectory
from clusterling.cli.doctor.finding import Finding, fail, ok, shown_age, shown_size, warn
from clusterling.cli.errors import CliError
from clusterling.cli.target import Target, read_kubeconfig

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SPACE_WARN: Final = 1 << 30
SPACE_FAIL: Final = 128 << 20
SPACE_PART_WARN: Final = 0.05
FILES_MIN: Final = 1000
LOG_MAX: Final = 256 << 20  # Of SQLite's write-ahead log; it is begun anew at some megabytes.

DAY_S: Final = 86_400
ENDING_S: Final = 30 * DAY_S
AUTHORITY_ENDING_S: Final = 180 * DAY_S

# Where locks, or memory that processes share, are not what SQLite needs them to be: https://sqlite.org/wal.html
REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"}
    | {
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "ncpfs",
        "virtiofs",
        "beegfs",
        "fuse.blobfuse",
        "fuse.gcsfuse",
    }
)
FLEETING: Final = frozenset({"tmpfs", "ramfs"})

_MOUNTS: Final = Path("/proc/self/mountinfo")
_SECRET: Final = ("admin.kubeconfig", "state.db", "state.db-wal", "pki/ca.key", "pki/tls.key")


def checks(directory: DataDirectory, *, keeps_store: bool) -> Iterator[Finding]:
    """`keeps_store`: the store is in it, and not elsewhere."""
    path = directory.path
    if not path.is_dir():
        yield fail(
            "data directory",
            f"there is none at {path}",
            "start a server with `clusterling serve`, or name its directory with --data-dir",
        )
        return
    yield _permissions(path)
    yield _format(directory)
    yield _file_system(path, keeps_store=keeps_store)
    yield _space(path)
    if keeps_store:
        yield from _database(directory)
    if (directory.pki / "tls.crt").exists():
        yield from certificates(
            directory.pki / "tls.crt",
            directory.pki / "tls.key",
            directory.pki / "ca.crt",
            "restart the server: it makes a new one",
        )
    yield _kubeconfig(directory)


def _permissions(path: Path) -> Finding:
    status = path.stat()
    if status.st_mode & 0o077:
        found = f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: others can reach keys and secrets in it"
        return fail("data directory", found, f"chmod 700 {path}")
    open_files = [name for name in _SECRET if _is_open(path / name)]
    if open_files:
        remedy = f"chmod 600 {' '.join(str(path / name) for name in open_files)}"
        return fail("data directory", f"others can read {', '.join(open_files)} in {path}", remedy)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run this, and the server, as its owner (uid {status.st_uid})"
        return fail("data directory", f"{path} cannot be written to by uid {os.geteuid()}", remedy)
    return ok("data directory", f"{path}, for its owner alone")


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _format(directory: DataDirectory) -> Finding:
    try:
        directory.check_format()
        text = (directory.path / "FORMAT").read_text().strip()
    except FileNotFoundError:
        return warn("format", "no server has ever been ready here", "start one with `clusterling serve`")
    except CliError as error:
        return fail("format", error.message, error.hint)
    return ok("format", text)


def mount_of(path: Path, table: str) -> tuple[str, str]:
    """Where what the path is on is mounted, and its file system's type, by a table as of /proc/self/mountinfo."""
    best, kind = "", ""
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        place = before.split()[4].encode().decode("unicode_escape")
        if path.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, after.split()[0]
    return best, kind


def _file_system(path: Path, *, keeps_store: bool) -> Finding:
    try:
        place, kind = mount_of(path.resolve(), _MOUNTS.read_text())
    except (OSError, IndexError):
        return ok("file system", "its type cannot be told here")
    found = f"{kind} at {place}"
    if keeps_store and kind in REMOTE:
        remedy = "move the data directory to a local disk; to keep the data elsewhere, use --store postgres:// or etcd://"
        return fail("file system", f"{found}: SQLite loses data there", remedy)
    if keeps_store and kind in FLEETING:
        return warn("file system", f"{found}: the data are gone with the machine", "use a disk")
    if keeps_store and kind == "overlay":
        return warn("file system", f"{found}: the data are gone with the container", "mount a volume there")
    return ok("file system", found)


def _space(path: Path) -> Finding:
    status = os.statvfs(path)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{shown_size(free)} free of {shown_size(size)}"
    remedy = "free some, or grow the disk; `clusterling store compact` gives back what history takes"
    if free < SPACE_FAIL:
        return fail("disk", found, remedy)
    if status.f_files and status.f_favail < FILES_MIN:
        return warn("disk", f"{found}, but only {status.f_favail} more files", "remove some files there")
    if free < SPACE_WARN or free < SPACE_PART_WARN * size:
        return warn("disk", found, remedy)
    return ok("disk", found)


def _database(directory: DataDirectory) -> Iterator[Finding]:
    try:
        size = directory.database.stat().st_size
    except OSError:
        return
    log = directory.database.with_name("state.db-wal")
    log_size = log.stat().st_size if log.exists() else 0
    if log_size > max(LOG_MAX, size):
        yield warn(
            "database",
            f"{shown_size(size)}, and {shown_size(log_size)} in its write-ahead log",
            "close what reads it for long (a backup, an open sqlite3), or restart the server",
        )


def certificates(certificate: Path, key: Path, authority: Path | None, remedy: str) -> Iterator[Finding]:
    """`remedy`: what to do when the leaf ends."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    broken = "move the directory `pki` away and restart: new ones are made, and kubeconfigs must be had anew"
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        yield fail("certificate", f"{certificate} or its key cannot be read: {_line(error)}", broken)
        return
    encoding = (
        serialization.Encoding.DER,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    if private.public_key().public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
        yield fail("certificate", f"{key} is not the key of {certificate}", broken)
        return
    yield ends("certificate", leaf, ENDING_S, remedy)
    if authority is None:
        return
    try:
        root = x509.load_pem_x509_certificate(authority.read_bytes())
    except (OSError, ValueError) as error:
        yield fail("certificate authority", f"{authority} cannot be read: {_line(error)}", broken)
        return
    why = "plan for a new one: every kubeconfig that was issued trusts this one, and must be had anew then"
    yield ends("certificate authority", root, AUTHORITY_ENDING_S, why)


def ends(check: str, certificate: Certificate, ending_s: float, remedy: str) -> Finding:
    """When a certificate ends, and whether that is soon."""
    now = datetime.now(UTC)
    left = (certificate.not_valid_after_utc - now).total_seconds()
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        when = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
        return fail(check, f"it is not valid before {when}", "look at the clock of this machine")
    if left <= 0:
        return fail(check, f"it ended on {until}", remedy)
    if left < ending_s:
        return warn(check, f"it ends in {shown_age(left)}, on {until}", remedy)
    return ok(check, f"until {until}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _kubeconfig(directory: DataDirectory) -> Finding:
    if not directory.admin_kubeconfig.exists():
        remedy = "it is written when a server is ready: start one with `clusterling serve`"
        return warn("kubeconfig", f"there is no {directory.admin_kubeconfig}", remedy)
    try:
        target = read_kubeconfig(directory.admin_kubeconfig)
    except CliError as error:
        return fail(
            "kubeconfig", error.message, "restart the server: it keeps this one aside and writes a new one"
        )
    return kubeconfig(target)


def kubeconfig(target: Target) -> Finding:
    """Whether what a kubeconfig's current context says can be of use."""
    if not target.token and not target.client_pem:
        remedy = "use the admin.kubeconfig of the server's data directory"
        return fail("kubeconfig", f"{target.source} has no credential", remedy)
    if not target.verify:
        remedy = "put the server's CA into it, as in the admin.kubeconfig of its data directory"
        return warn("kubeconfig", f"{target.source} trusts any server", remedy)
    if target.server.startswith("http://"):
        return warn("kubeconfig", f"{target.source} sends its token in the clear", "serve with TLS")
    return ok("kubeconfig", f"{target.source}, of {target.server}")
