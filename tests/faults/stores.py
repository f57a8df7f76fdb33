"""The stores of the suite: real servers that can be killed, stopped, filled, and put back to what they were."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from tests.faults.network import Way
from tests.storage import etcd_server, postgres_server

MEMORY_BYTES: Final = 4 << 30  # Less room than this is left to others.
DISK_MB: Final = 512  # Of the file system that PostgreSQL's tables have for themselves.


class Harm(Protocol):
    """Something that can be done to a store, and undone."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Server(Protocol):
    """A store's server or servers."""

    name: str

    def version(self) -> str: ...

    def url(self) -> str:
        """Straight to it."""

    def ways(self) -> Sequence[Way]:
        """New ways to it, to be opened, for one replica."""

    def url_by(self, ways: Sequence[Way]) -> str: ...

    def harms(self) -> Mapping[str, Harm]:
        """What can be done to it, by name; one at a time."""

    def save(self) -> None:
        """Stops it, keeps a copy of what it has, and starts it."""

    def restore(self) -> None:
        """Stops it at once, puts the copy in its place, and starts it."""

    def logs(self) -> Sequence[Path]: ...


class _Harm:
    def __init__(self, begin: Any, end: Any) -> None:
        self.begin = begin
        self.end = end


class Postgres:
    """One primary. Where root may mount, its tables are on a small file system, and its log of writes is elsewhere."""

    name = "postgres"

    def __init__(
        self, server: postgres_server.PostgresServer, place: Path, data: Path, *, small: bool
    ) -> None:
        self._server = server
        self._data = data
        self._small = small
        self._ballast = place / "disk" / "ballast"
        self._wal = place / "wal"
        self._backup = place / "backup"
        self._wal_backup = place / "wal-backup"

    def version(self) -> str:
        return f"PostgreSQL {self._server.version}"

    def url(self) -> str:
        return self._server.url

    def ways(self) -> Sequence[Way]:
        return [Way(f"127.0.0.1:{self._server.port}")]

    def url_by(self, ways: Sequence[Way]) -> str:
        return self._server.url.replace(f":{self._server.port}/", f":{ways[0].port}/")

    def harms(self) -> Mapping[str, Harm]:
        server = self._server
        harms = {
            "kill primary": _Harm(server.kill, server.start),
            "pause primary": _Harm(server.pause, server.resume),
            "restart primary": _Harm(server.stop, server.start),
        }
        if self._small:
            harms["fill disk"] = _Harm(self._fill, lambda: self._ballast.unlink(missing_ok=True))
        return harms

    def _fill(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))

    def save(self) -> None:
        self._server.stop()
        for path in (self._backup, self._wal_backup):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._data, self._backup, symlinks=True)
        shutil.copytree(self._wal, self._wal_backup)
        self._server.start()

    def restore(self) -> None:
        self._server.kill()
        shutil.rmtree(self._wal)
        shutil.copytree(self._wal_backup, self._wal)
        _give_away(self._wal)
        self._server.restore_data(self._backup)
        self._server.start()

    def logs(self) -> Sequence[Path]:
        return [self._data.parent / "log"]


class Etcd:
    """Three members."""

    name = "etcd"

    def __init__(self, etcd: etcd_server.Etcd, directory: Path) -> None:
        self._etcd = etcd
        self._directory = directory

    def version(self) -> str:
        said = subprocess.run([etcd_server.binary(), "--version"], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()[0].replace(" Version:", "")

    def url(self) -> str:
        return self._etcd.url("faults")

    def ways(self) -> Sequence[Way]:
        return [Way(member.endpoint) for member in self._etcd.members]

    def url_by(self, ways: Sequence[Way]) -> str:
        return f"etcd://{','.join(way.endpoint for way in ways)}/faults"

    def harms(self) -> Mapping[str, Harm]:
        harms: dict[str, Harm] = {}
        members = self._etcd.members
        for number in range(len(members)):
            one = [members[number]]
            two = [members[number], members[(number + 1) % len(members)]]
            harms[f"kill member {number}"] = _of_members(one, "kill", "start")
            harms[f"pause member {number}"] = _of_members(one, "pause", "resume")
            harms[f"kill members {number} and {(number + 1) % 3}"] = _of_members(two, "kill", "start")
            harms[f"pause members {number} and {(number + 1) % 3}"] = _of_members(two, "pause", "resume")
        harms["kill all members"] = _of_members(members, "kill", "start")
        harms["compact etcd"] = _Harm(self._compact, lambda: None)
        harms["no space"] = _Harm(lambda: self._alarm("ACTIVATE"), lambda: self._alarm("DEACTIVATE"))
        return harms

    def _alarm(self, action: str) -> None:
        """What a member does by itself when its quota is reached, and an operator when there is space again."""
        for _ in range(50):
            for member in self._etcd.members:
                try:
                    found = _ask(
                        member.endpoint, "/v3/maintenance/alarm", {"action": "GET", "alarm": "NOSPACE"}
                    )
                    ids = [alarm["memberID"] for alarm in found.get("alarms", ())]
                    if action == "ACTIVATE":
                        ids = [found["header"]["member_id"]]
                    for one in ids:
                        body = {"action": action, "alarm": "NOSPACE", "memberID": one}
                        _ask(member.endpoint, "/v3/maintenance/alarm", body)
                    return
                except (OSError, urllib.error.URLError):
                    continue
        raise AssertionError("etcd's alarm cannot be set or cleared")

    def _compact(self) -> None:
        """As an operator may, without asking the store above: who lags behind has lost what came between."""
        with contextlib.suppress(OSError):
            endpoint = self._etcd.members[0].endpoint
            now = _ask(endpoint, "/v3/maintenance/status", {})["header"]["revision"]
            _ask(endpoint, "/v3/kv/compaction", {"revision": now})

    def save(self) -> None:
        self._all("kill")
        for member in self._etcd.members:
            copy = self._directory / f"{member.name}-backup"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(member.directory / "data", copy)
        self._again()

    def restore(self) -> None:
        self._all("kill")
        for member in self._etcd.members:
            shutil.rmtree(member.directory / "data")
            shutil.copytree(self._directory / f"{member.name}-backup", member.directory / "data")
        self._again()

    def _again(self) -> None:
        self._all("start")
        self._all("ready")

    def _all(self, what: str) -> None:
        for member in self._etcd.members:
            getattr(member, what)()

    def logs(self) -> Sequence[Path]:
        return [member.directory / "log" for member in self._etcd.members]


def _of_members(members: Sequence[etcd_server.Member], begin: str, end: str) -> _Harm:
    def each(what: str) -> None:
        for member in members:
            getattr(member, what)()

    return _Harm(lambda: each(begin), lambda: each(end))


def _ask(endpoint: str, path: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(f"http://{endpoint}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=2) as answer:
        return json.load(answer)


@contextmanager
def postgres() -> Iterator[Server]:
    """Raises NoPostgres."""
    with _place() as place, _small_disk(place / "disk") as small:
        before, tempfile.tempdir = tempfile.tempdir, str(place / "disk")
        try:
            running = postgres_server.running()
            server = running.__enter__()
        finally:
            tempfile.tempdir = before
        try:
            [data] = (place / "disk").glob("*/data")
            server.stop()
            shutil.move(data / "pg_wal", place / "wal")
            (data / "pg_wal").symlink_to(place / "wal")
            _give_away(place / "wal")
            server.start()
            yield Postgres(server, place, data, small=small)
        finally:
            running.__exit__(None, None, None)


@contextmanager
def etcd() -> Iterator[Server]:
    """Raises NoEtcd."""
    with _place() as place, etcd_server.running(place / "etcd", members=3) as running:
        yield Etcd(running, place)


STORES: Final = {"postgres": postgres, "etcd": etcd}


@contextmanager
def _place() -> Iterator[Path]:
    """A directory in memory, where there is such a thing: killing a process loses nothing of it, and disks differ."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES
    place = Path(tempfile.mkdtemp(prefix="clusterling-faults-", dir=memory if roomy else None))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _small_disk(path: Path) -> Iterator[bool]:
    """A file system of a size of its own, where this process may mount one; whether it is."""
    path.mkdir()
    path.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", str(path)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=False)


def _give_away(directory: Path) -> None:
    """To the user that PostgreSQL runs as."""
    directory.chmod(0o700)
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
