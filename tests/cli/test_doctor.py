"""`clusterling doctor`, against installations that are well, and with one thing broken after the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typing_extensions import override

from clusterling.cli.doctor.directory import mount_of
from clusterling.cli.program import run
from clusterling.controllers.history import TIMES_KEY
from clusterling.server import ApiServer
from clusterling.storage import memory, sqlite
from clusterling.storage.election import LEASES
from clusterling.storage.opening import open_store
from clusterling.storage.store import Op, StorageError
from clusterling.tenancy import pki
from clusterling.tenancy.authorization import ADMIN
from clusterling.tenancy.kubeconfig import kubeconfig
from tests.cli.processes import PROGRAM, Serving, clusterling, eventually, serving
from tests.storage import etcd_server, postgres_server
from tests.tenancy.clocks import Turned

LOCAL = (
    *("python", "openssl", "file descriptors", "memory", "data directory", "format", "file system", "disk"),
    *("certificate", "certificate authority", "kubeconfig", "store", "clock", "history", "store size"),
)
REMOTE = (
    *("served certificate", "server clock", "version", "credentials", "deletions", "quotas", "tokens"),
    *("controllers", "lag"),
)
CLUSTERS = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
STATUS = "application/merge-patch+json"


class Document:
    """What `-o json` printed."""

    def __init__(self, text: str, code: int) -> None:
        self.code = code
        self._document = json.loads(text)
        self.status: str = self._document["status"]

    def of(self, check: str) -> list[tuple[str, str, str]]:
        """Status, what was found, and the remedy, of each finding of the check."""
        return [
            (one["status"], one["found"], one["remedy"])
            for one in self._document["checks"]
            if one["check"] == check
        ]

    def bad(self) -> dict[str, str]:
        """What is not well, with what was found."""
        return {
            one["check"]: one["found"]
            for one in self._document["checks"]
            if one["status"] in ("warn", "fail")
        }

    def is_so(self, check: str, status: str, *parts: str) -> bool:
        """One finding of the check has that status, and these in what was found; whatever is wrong has a remedy."""
        return any(
            found == status and all(part in text for part in parts) and bool(remedy) == (status != "ok")
            for found, text, remedy in self.of(check)
        )


Doctor = Callable[..., Document]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("store", "server"):  # This machine may be busy.
        monkeypatch.setattr(f"clusterling.cli.doctor.{part}.SLOW_S", 30.0)
    for name in (
        "DATA_DIR",
        "STORE",
        "STORE_PASSWORD",
        "STORE_PASSWORD_FILE",
        "KUBECONFIG",
        "TLS_CERT",
        "TLS_KEY",
    ):
        monkeypatch.delenv(f"CLUSTERLING_{name}", raising=False)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    def ask(*arguments: object) -> Document:
        capsys.readouterr()
        code = run(["doctor", "-o", "json", *map(str, arguments)])
        return Document(capsys.readouterr().out, code)

    return ask


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of a server that ran."""
    directory = tmp_path_factory.mktemp("once") / "data"
    with serving(directory) as server:
        assert server.stop() == 0
    return directory


@pytest.fixture
def data(once: Path, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    return Path(shutil.copytree(once, tmp_path / "data"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One that is well. Who changes what it serves puts it back."""
    with serving(tmp_path_factory.mktemp("served") / "data") as found:
        yield found


# an installation that is well


def test_an_installation_that_is_well_has_nothing_but_ok_inside_and_outside(
    server: Serving, doctor: Doctor
) -> None:
    found = doctor("--data-dir", server.data_dir)
    assert (found.bad(), found.code, found.status) == ({}, 0, "ok")
    for check in (*LOCAL, *REMOTE, "server 127.0.0.1", "counts 127.0.0.1"):
        assert [status for status, _, _ in found.of(check)] == ["ok"], check
    assert "a server is at work on it" in found.of("store")[0][1]
    assert "used" in found.of("file descriptors")[0][1], "those of the server are meant"


def test_a_server_elsewhere_is_looked_at_from_outside_alone(server: Serving, doctor: Doctor) -> None:
    found = doctor("--kubeconfig", server.data_dir / "admin.kubeconfig")
    assert (found.bad(), found.code) == ({}, 0)
    assert all(found.of(check) for check in (*REMOTE, "kubeconfig"))
    assert not any(found.of(check) for check in LOCAL if check != "kubeconfig")


def test_without_a_server_what_is_here_can_be_looked_at(data: Path, doctor: Doctor) -> None:
    found = doctor("--data-dir", data, "--local")
    assert (found.bad(), found.code) == ({}, 0)
    assert all(found.of(check) for check in LOCAL)
    assert "no server is at work on it" in found.of("store")[0][1]


def test_the_table_has_a_line_for_each_and_one_for_what_to_do(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--data-dir", str(data)]) == 1
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split()[:3] == ["ok", "python", "CPython"]
    at = next(index for index, line in enumerate(lines) if line.startswith("fail"))
    assert "nothing listens at port" in lines[at]
    assert lines[at + 1].strip().startswith("-> start the server")
    assert shown.err.startswith("1 failed, 0 to be watched, ")
    assert run(["doctor", "--data-dir", str(data), "--quiet"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].startswith("fail ") and len(shown.out.splitlines()) == 2
    assert shown.err == ""
    assert run(["doctor", "--data-dir", str(data), "--local", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["status"] == "ok"


def test_nothing_is_changed_by_looking(data: Path, doctor: Doctor) -> None:
    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path.relative_to(data)): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(data.rglob("*"))
            if path.is_file()
        }

    before = state()
    doctor("--data-dir", data)
    assert {name: of for name, of in state().items() if name in before} == before
    assert set(state()) - set(before) <= {"state.db-shm", "state.db-wal"}


# the data directory


def test_a_directory_that_is_not_there(tmp_path: Path, doctor: Doctor) -> None:
    found = doctor("--data-dir", tmp_path / "none")
    assert found.is_so("data directory", "fail", "there is none at") and found.code == 1


@pytest.mark.parametrize(
    ("path", "mode", "said"),
    [
        (".", 0o755, "has mode 0755"),
        (".", 0o770, "has mode 0770"),
        ("pki/ca.key", 0o644, "others can read pki/ca.key"),
        ("admin.kubeconfig", 0o640, "others can read admin.kubeconfig"),
        ("state.db", 0o604, "others can read state.db"),
    ],
)
def test_what_others_can_read_fails(data: Path, doctor: Doctor, path: str, mode: int, said: str) -> None:
    (data / path).chmod(mode)
    found = doctor("--data-dir", data, "--local")
    assert found.is_so("data directory", "fail", said) and found.code == 1
    assert "chmod" in found.of("data directory")[0][2]


def test_what_a_newer_release_wrote_fails(data: Path, doctor: Doctor) -> None:
    (data / "FORMAT").write_text("99\n")
    assert doctor("--data-dir", data, "--local").is_so("format", "fail", "written by a newer Clusterling")


def mounted(script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a mount namespace of its own. Skips where there is none to be had."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    return subprocess.run(
        ["unshare", "-rm", "sh", "-ec", script], capture_output=True, text=True, check=False
    )


def inside(data: Path, options: str, prepare: str = "") -> Document:
    """What doctor says of the data on a file system of their own."""
    program = " ".join(PROGRAM)
    done = mounted(
        f"cp -a {data} {data}.kept; mount {options} {data}; cp -a {data}.kept/. {data}/; chmod 700 {data}; {prepare}\n"
        f"cd /; {program} doctor --data-dir {data} --local -o json || exit $?"
    )
    assert done.stdout, done.stderr
    return Document(done.stdout, done.returncode)


def test_a_disk_that_is_nearly_full_fails_and_a_small_one_warns(data: Path) -> None:
    found = inside(data, "-t tmpfs -o size=40m none")
    assert found.is_so("disk", "fail", "free of 40.0 MiB") and found.code == 1
    found = inside(data, "-t tmpfs -o size=900m none")
    assert found.is_so("disk", "warn", "free of 900.0 MiB") and found.code == 0
    assert found.is_so("file system", "warn", "tmpfs at ", "gone with the machine")


def test_a_disk_without_room_for_files_warns(data: Path) -> None:
    found = inside(data, "-t tmpfs -o size=4g,nr_inodes=500 none")
    assert found.is_so("disk", "warn", "more files")


def test_a_containers_own_layer_warns(data: Path) -> None:
    upper = data.parent / "layers"
    prepare = f"mkdir -p {upper}/l {upper}/u {upper}/w"
    options = f"-t overlay -o lowerdir={upper}/l,upperdir={upper}/u,workdir={upper}/w none"
    done = mounted(
        f"mount -t tmpfs none {data.parent}/ && {prepare} && mkdir {data} && mount {options} {data}"
    )
    if done.returncode:
        pytest.skip("no overlays here")
    program = " ".join(PROGRAM)
    kept = f"/tmp/{data.parent.name}-{os.getpid()}"
    shutil.copytree(data, kept)
    try:
        done = mounted(
            f"mount -t tmpfs none {data.parent}; {prepare}; mkdir {data}; mount {options} {data}; cp -a {kept}/. {data}/;"
            f"chmod 700 {data}; cd /; {program} doctor --data-dir {data} --local -o json"
        )
    finally:
        shutil.rmtree(kept)
    assert Document(done.stdout, 0).is_so("file system", "warn", "overlay at ", "gone with the container")


TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 0:31 / /var/lib rw shared:2 - nfs4 filer:/exports rw,vers=4.2
37 36 0:32 / /var/lib/my\\040data rw - xfs /dev/vdb rw
38 22 0:33 / /mnt rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        ("/home/x", "/", "ext4"),
        ("/var/lib/clusterling", "/var/lib", "nfs4"),
        ("/var/library", "/", "ext4"),
        ("/var/lib/my data/d", "/var/lib/my data", "xfs"),
        ("/mnt", "/mnt", "fuse.sshfs"),
    ],
)
def test_a_path_is_on_what_is_mounted_nearest_above_it(path: str, place: str, kind: str) -> None:
    assert mount_of(Path(path), TABLE) == (place, kind)


# certificates


def made(days: int, since: datetime | None = None) -> pki.Credentials:
    """Credentials whose leaf ends in so many days."""
    now = datetime.now(UTC)
    return pki.ephemeral(since or now - pki.LEAF_LIFE + timedelta(days=days), ["127.0.0.1"])


def test_a_certificate_that_has_ended_fails_and_one_that_ends_soon_warns(data: Path, doctor: Doctor) -> None:
    for days, status, said in (
        (-3, "fail", "it ended on"),
        (10, "warn", "it ends in 9 days"),
        (60, "ok", "until"),
    ):
        credentials = made(days)
        (data / "pki/tls.crt").write_bytes(credentials.certificate_pem)
        (data / "pki/tls.key").write_bytes(credentials.key_pem)
        assert doctor("--data-dir", data, "--local").is_so("certificate", status, said)


def test_a_certificate_that_begins_tomorrow_fails(data: Path, doctor: Doctor) -> None:
    credentials = made(0, since=datetime.now(UTC) + timedelta(days=1))
    (data / "pki/tls.crt").write_bytes(credentials.certificate_pem)
    (data / "pki/tls.key").write_bytes(credentials.key_pem)
    assert doctor("--data-dir", data, "--local").is_so("certificate", "fail", "it is not valid before")


def test_an_authority_that_ends_this_year_warns(data: Path, doctor: Doctor) -> None:
    old = pki.ephemeral(datetime.now(UTC) - pki.CA_LIFE + timedelta(days=100), ["127.0.0.1"])
    (data / "pki/ca.crt").write_bytes(old.ca_pem)
    assert doctor("--data-dir", data, "--local").is_so("certificate authority", "warn", "it ends in 99 days")


def test_a_key_of_another_certificate_fails_and_so_does_none(data: Path, doctor: Doctor) -> None:
    (data / "pki/tls.key").write_bytes(made(60).key_pem)
    assert doctor("--data-dir", data, "--local").is_so("certificate", "fail", "is not the key of")
    (data / "pki/tls.key").unlink()
    assert doctor("--data-dir", data, "--local").is_so("certificate", "fail", "cannot be read")


def test_a_certificate_that_the_server_was_given_is_looked_at_as_well(
    data: Path, tmp_path: Path, doctor: Doctor
) -> None:
    credentials = made(-1)
    (tmp_path / "own.crt").write_bytes(credentials.certificate_pem)
    (tmp_path / "own.key").write_bytes(credentials.key_pem)
    own = ("--tls-cert", tmp_path / "own.crt", "--tls-key", tmp_path / "own.key")
    found = doctor("--data-dir", data, "--local", *own)
    assert [status for status, _, _ in found.of("certificate")] == ["ok", "fail"]


# the kubeconfig, and what it leads to


def changed(data: Path, **fields: Any) -> Path:
    """A kubeconfig with other fields of its cluster or user; None takes one away."""
    document = yaml.safe_load((data / "admin.kubeconfig").read_text())
    for part in (document["clusters"][0]["cluster"], document["users"][0]["user"]):
        for name, value in fields.items():
            if name in part:
                del part[name]
            if value is not None and (name == "token") == (
                "token" in part or part is document["users"][0]["user"]
            ):
                part[name] = value
    path = data.parent / "changed.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_kubeconfig_that_is_none_fails(data: Path, doctor: Doctor) -> None:
    (data / "admin.kubeconfig").write_text("clusters: [")
    assert doctor("--data-dir", data, "--local").is_so("kubeconfig", "fail", "is not a kubeconfig")
    found = doctor("--kubeconfig", data / "none")
    assert found.is_so("kubeconfig", "fail", "no such file") and found.code == 1


def test_a_kubeconfig_without_a_credential_fails(server: Serving, doctor: Doctor, tmp_path: Path) -> None:
    shutil.copy(server.data_dir / "admin.kubeconfig", tmp_path)
    found = doctor("--kubeconfig", changed(_dir(tmp_path), token=None))
    assert found.is_so("kubeconfig", "fail", "has no credential")
    assert found.is_so("credentials", "fail", "is not let in")


def _dir(path: Path) -> Path:
    (path / "k").mkdir(exist_ok=True)
    shutil.copy(path / "admin.kubeconfig", path / "k")
    return path / "k"


def test_a_token_that_is_not_let_in_fails(server: Serving, doctor: Doctor, tmp_path: Path) -> None:
    shutil.copy(server.data_dir / "admin.kubeconfig", tmp_path)
    found = doctor("--kubeconfig", changed(_dir(tmp_path), token="x" * 40))
    assert found.is_so("credentials", "fail", "is not let in")
    assert found.is_so("server 127.0.0.1", "ok", "ready")
    assert found.of("metrics")[0][0] == "skipped"


def test_a_server_whose_certificate_is_not_trusted_fails(
    server: Serving, doctor: Doctor, tmp_path: Path
) -> None:
    import base64

    shutil.copy(server.data_dir / "admin.kubeconfig", tmp_path)
    other = base64.b64encode(made(60).ca_pem).decode()
    path = changed(_dir(tmp_path), **{"certificate-authority-data": other})
    found = doctor("--kubeconfig", path)
    assert found.is_so("server 127.0.0.1", "fail", "its certificate is not trusted") and found.code == 1
    path = changed(_dir(tmp_path), **{"insecure-skip-tls-verify": True, "certificate-authority-data": None})
    assert doctor("--kubeconfig", path).is_so("kubeconfig", "warn", "trusts any server")
    none = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
    path = changed(_dir(tmp_path), **{"certificate-authority-data": none})
    assert doctor("--kubeconfig", path).is_so("server 127.0.0.1", "fail", "has a CA that is none")


def test_a_name_that_has_no_address_fails(server: Serving, doctor: Doctor, tmp_path: Path) -> None:
    shutil.copy(server.data_dir / "admin.kubeconfig", tmp_path)
    found = doctor("--kubeconfig", changed(_dir(tmp_path), server="https://nowhere.invalid:6443"))
    assert found.is_so("server", "fail", "nowhere.invalid has no address")


def test_each_address_of_a_name_is_looked_at(server: Serving, doctor: Doctor, tmp_path: Path) -> None:
    addresses = {str(one[4][0]) for one in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}
    shutil.copy(server.data_dir / "admin.kubeconfig", tmp_path)
    url = server.url.replace("127.0.0.1", "localhost")
    found = doctor("--kubeconfig", changed(_dir(tmp_path), server=f"{url}/clusters/root"))
    assert found.is_so("server 127.0.0.1", "ok", "ready")
    for address in addresses - {"127.0.0.1"}:
        assert found.is_so(f"server {address}", "fail", "nothing listens")


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """A port where something listens that answers so, or never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                taken.append(link)
                if answer is not None:
                    link.sendall(answer)
                    link.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for link in taken:
                link.close()
            thread.join(10)


def test_who_does_not_answer_and_who_is_something_else_fail(data: Path, doctor: Doctor) -> None:
    with listening(None) as port:
        path = changed(data, server=f"https://127.0.0.1:{port}")
        found = doctor("--kubeconfig", path, "--timeout", "0.5")
        assert found.is_so("server 127.0.0.1", "fail", "no answer at port", "within 0.5 s")
    with listening(b"220 mail.example.com ESMTP\r\n") as port:
        path = changed(data, server=f"https://127.0.0.1:{port}")
        assert doctor("--kubeconfig", path).is_so("server 127.0.0.1", "fail", f"port {port}")


def test_a_replica_that_hangs_fails_while_its_store_is_well(tmp_path: Path, doctor: Doctor) -> None:
    with serving(tmp_path / "data") as found:
        found.process.send_signal(signal.SIGSTOP)
        try:
            told = doctor("--data-dir", found.data_dir, "--timeout", "0.5")
        finally:
            found.process.send_signal(signal.SIGCONT)
        assert told.is_so("server 127.0.0.1", "fail", "no answer at port")
        assert told.is_so("store", "ok", "a server is at work on it") and told.code == 1


# clocks


@contextmanager
def http_of(ahead_s: float) -> Iterator[str]:
    """A server that says it is ready, with a clock that is ahead."""

    class Handler(BaseHTTPRequestHandler):
        @override
        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + ahead_s, usegmt=True)

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        @override
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("ahead_s", "status", "said"),
    [
        (0, "ok", "0 s"),
        (10, "warn", "10 s ahead of"),
        (-30, "warn", "30 s behind"),
        (900, "fail", "900 s ahead of"),
    ],
)
def test_a_clock_that_goes_wrong_is_noticed(
    data: Path, doctor: Doctor, ahead_s: float, status: str, said: str
) -> None:
    with http_of(ahead_s) as url:
        found = doctor("--kubeconfig", changed(data, server=url))
        assert any(known == status for known, _, _ in found.of("server clock"))
        if ahead_s:
            assert found.is_so("server clock", status, said.split(maxsplit=2)[-1])
        assert found.is_so("kubeconfig", "warn", "in the clear")
        assert found.is_so("version", "fail", "is not a Kubernetes API's")


def write(database: Path, key: str, value: object) -> None:
    async def put() -> None:
        async with sqlite.open(database) as store:
            await store.write([Op(key, orjson.dumps(value))])

    asyncio.run(put())


def test_times_of_the_future_in_the_store_are_noticed(data: Path, doctor: Doctor) -> None:
    now = int(time.time())
    for ahead_s, status in ((0, "ok"), (40, "warn"), (4000, "fail")):
        write(data / "state.db", TIMES_KEY, [[now + ahead_s, 2]])
        assert [found[0] for found in doctor("--data-dir", data, "--local").of("clock")] == [status]


# the store


def test_a_store_that_is_none_fails(data: Path, doctor: Doctor) -> None:
    (data / "state.db").write_bytes(b"no database " * 1000)
    for extra in ("state.db-wal", "state.db-shm"):
        (data / extra).unlink(missing_ok=True)
    found = doctor("--data-dir", data, "--local")
    assert [status for status, _, _ in found.of("store")] == ["fail"] and found.code == 1


def test_a_store_that_cannot_be_reached_fails(data: Path, doctor: Doctor) -> None:
    url = "postgres://clusterling@127.0.0.1:1/none?sslmode=disable"
    found = doctor("--data-dir", data, "--local", "--store", url)
    assert [status for status, _, _ in found.of("store")] == ["fail"] and found.code == 1
    assert not found.of("clock")


def test_history_that_is_not_forgotten_warns(tmp_path: Path, doctor: Doctor) -> None:
    with serving(tmp_path / "data") as found:
        assert found.stop() == 0
    now = int(time.time())
    write(tmp_path / "data/state.db", TIMES_KEY, [[now - 7200, 2], [now, 10]])
    assert doctor("--data-dir", tmp_path / "data", "--local").is_so("history", "ok", "2 hours")
    with serving(tmp_path / "data") as served:
        # It may note a time of its own at any moment, which lies after these.
        told = doctor("--data-dir", served.data_dir)
        assert told.is_so("history", "warn", "2 hours: it is not compacted")


def test_a_replica_that_is_behind_its_store_fails(server: Serving, data: Path, doctor: Doctor) -> None:
    async def much() -> None:
        async with sqlite.open(data / "state.db") as store:
            for number in range(100):
                await store.write([Op(f"x/y/z/-/{number}", b"{}")])

    asyncio.run(much())
    shutil.copy(server.data_dir / "admin.kubeconfig", data)
    found = doctor("--data-dir", data)
    assert found.is_so("lag", "fail", "is at revision", "behind")


@pytest.fixture(scope="module")
def database() -> Iterator[postgres_server.PostgresServer]:
    try:
        with postgres_server.running() as found:
            yield found
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


def test_replicas_over_postgres_and_who_leads_them(
    database: postgres_server.PostgresServer, tmp_path: Path, doctor: Doctor
) -> None:
    url = f"{database.url}&schema=doctor"
    with serving(tmp_path / "data", "--store", url) as server:

        def ask() -> Document:
            return doctor("--data-dir", server.data_dir, "--store", url, "--timeout", "3")

        found = ask()
        while found.of("leader") == [] or found.of("controllers")[0][1].startswith("run at another"):
            found = ask()
        assert (found.bad(), found.code) == ({}, 0)
        assert "term 1" in found.of("leader")[0][1]
        # The machine may stand still between the two looks at a clock.
        assert eventually(lambda: ask().of("clock")[0][1].startswith("the store's is 0.0 s"))
        database.stop()
        found = ask()
        assert found.is_so("store", "fail") and found.code == 1
        assert found.is_so("server 127.0.0.1", "fail", "not ready: store")
        database.start()
        assert server.stop() == 0

    async def leaderless(holder: str, age_s: int) -> None:
        async with open_store(url) as store:
            lease = {"holder": holder, "term": 2, "leaseSeconds": 15}
            noted = [[int(time.time()) - age_s, 2]]
            await store.write([Op(f"{LEASES}main", orjson.dumps(lease)), Op(TIMES_KEY, orjson.dumps(noted))])

    def told() -> Document:
        return doctor("--data-dir", tmp_path / "data", "--store", url, "--local")

    asyncio.run(leaderless("gone-1", 900))
    assert told().is_so("leader", "ok", "no server runs")

    async def beside(holder: str, age_s: int) -> Document:
        await leaderless(holder, age_s)
        async with open_store(url) as store:  # To be present, and to lead nobody.
            await store.fresh()
            return await asyncio.to_thread(told)

    assert asyncio.run(beside("gone-1", 900)).is_so(
        "leader", "fail", "gone-1 has noted nothing for 15 minutes"
    )
    assert asyncio.run(beside("", 0)).is_so("leader", "fail", "nobody leads main")


def test_replicas_over_etcd_and_who_leads_them(tmp_path: Path, doctor: Doctor) -> None:
    pytest.importorskip("etcd3aio")
    try:
        with etcd_server.running(tmp_path / "etcd") as etcd:
            _replicas_over_etcd(etcd, tmp_path, doctor)
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))


def _replicas_over_etcd(etcd: etcd_server.Etcd, tmp_path: Path, doctor: Doctor) -> None:
    url = etcd.url("doctor")
    [member] = etcd.members
    with serving(tmp_path / "data", "--store", url) as server:

        def ask() -> Document:
            return doctor("--data-dir", server.data_dir, "--store", url, "--timeout", "3")

        found = ask()
        while found.of("leader") == [] or found.of("controllers")[0][1].startswith("run at another"):
            found = ask()
        assert (found.bad(), found.code) == ({}, 0)
        assert f"etcd://{member.endpoint}/doctor at revision" in found.of("store")[0][1]
        assert "term 1" in found.of("leader")[0][1]
        assert found.of("clock")[0][1] == "no server has noted a time in the store yet"
        assert "iB" in found.of("store size")[0][1]
        member.kill()
        found = ask()
        assert found.is_so("store", "fail") and found.code == 1
        assert found.is_so("server 127.0.0.1", "fail", "not ready: store")
        member.start()
        member.ready()
        while not ask().is_so("store", "ok"):
            time.sleep(0.1)
        assert server.stop() == 0

    async def noted(holder: str, age_s: int) -> None:
        async with open_store(url) as store:
            lease = {"holder": holder, "term": 2, "leaseSeconds": 15}
            times = [[int(time.time()) - age_s, 2]]
            await store.write([Op(f"{LEASES}main", orjson.dumps(lease)), Op(TIMES_KEY, orjson.dumps(times))])

    def told(holder: str, age_s: int) -> Document:
        asyncio.run(noted(holder, age_s))
        return doctor("--data-dir", tmp_path / "data", "--store", url, "--local")

    assert told("gone-1", 900).is_so("leader", "fail", "gone-1 has noted nothing for 15 minutes")
    assert told("", 0).is_so("leader", "fail", "nobody leads main")
    assert told("here-1", -300).is_so("clock", "fail", "s ahead of this machine's")
    assert told("here-1", -40).is_so("clock", "warn", "s ahead of this machine's")


def test_members_of_an_etcd_that_are_gone_or_full_are_named(tmp_path: Path, doctor: Doctor) -> None:
    pytest.importorskip("etcd3aio")
    try:
        with etcd_server.running(
            tmp_path / "etcd", members=3, options=[f"--quota-backend-bytes={20 << 20}"]
        ) as etcd:
            _members_of_an_etcd(etcd, tmp_path, doctor)
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))


def _members_of_an_etcd(etcd: etcd_server.Etcd, tmp_path: Path, doctor: Doctor) -> None:
    url = etcd.url("doctor")

    def told() -> list[tuple[str, str, str]]:
        return doctor("--data-dir", tmp_path / "data", "--store", url, "--local").of("store members")

    async def fill(writes: int) -> None:
        async with open_store(url) as store:
            for number in range(writes):
                await store.write([Op(f"x/core/configmaps/y/{number}", b"z" * (1 << 20))])

    asyncio.run(fill(5))
    found = told()
    assert [status for status, _, _ in found] == ["ok"]
    version = subprocess.run(
        [etcd_server.binary(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    # Older ones do not tell how much they may have.
    while found[0][0] == "ok" and "Version: 3.5." not in version:
        asyncio.run(fill(1))
        found = told()
    assert all("of the 20 MiB" in text for status, text, _ in found if status == "warn")
    with pytest.raises(StorageError):
        asyncio.run(fill(20))
    full = told()
    assert ("fail", True, True) in {
        (status, "NOSPACE" in text, "nothing can be written" in text) for status, text, _ in full
    }
    etcd.members[0].kill()
    assert ("warn", f"{etcd.members[0].endpoint} does not answer") in {one[:2] for one in told()}


# limits of the process


def limited(shell: str, data: Path) -> Document:
    done = subprocess.run(
        ["bash", "-c", f"{shell}; exec {' '.join(PROGRAM)} doctor --local -o json --data-dir {data}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return Document(done.stdout, done.returncode)


def test_few_file_descriptors_warn_and_very_few_fail(data: Path) -> None:
    assert limited("ulimit -Sn 1024", data).is_so("file descriptors", "warn", "1024 at most")
    found = limited("ulimit -Sn 256", data)
    assert found.is_so("file descriptors", "fail", "256 at most") and found.code == 1


def test_little_memory_warns(data: Path) -> None:
    assert limited("ulimit -Sv 900000", data).is_so("memory", "warn", "878.9 MiB")


def test_the_limits_are_those_of_the_server_that_runs(tmp_path: Path, doctor: Doctor) -> None:
    with serving(tmp_path / "data") as server:
        pid = server.process.pid
        for most in (1024, 60):
            subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={most}:"], check=True)
            found = doctor("--data-dir", server.data_dir)
            assert found.is_so("file descriptors", "warn" if most == 1024 else "fail", f"of {most} used")


def test_a_container_with_little_memory_warns_and_one_that_is_killed_in_it_too(data: Path) -> None:
    root = Path("/sys/fs/cgroup/memory")
    unified = not root.is_dir()
    if unified:
        root = Path("/sys/fs/cgroup")
    group = root / f"clusterling-doctor-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(600 << 20))
    except OSError as error:
        pytest.skip(f"no control groups to be made here: {error}")
    try:
        found = limited(f"echo $$ > {group}/cgroup.procs", data)
        assert found.is_so("memory", "warn", "600.0 MiB")
        hog = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -c 'x = b\"x\" * (700 << 20)'"
        assert subprocess.run(["bash", "-c", hog], check=False).returncode == -signal.SIGKILL
        found = limited(f"echo $$ > {group}/cgroup.procs", data)
        assert found.is_so("killed for memory", "warn", "1 times in")
    finally:
        group.rmdir()


# tenants


@contextmanager
def as_of(days: float, hours: float = 0) -> Iterator[tuple[Path, Callable[[Any], Any]]]:
    """A server whose clock was so long ago, its kubeconfig, and what runs a coroutine beside it."""
    clock = Turned()
    clock.turn(datetime.now(UTC) - clock.now() - timedelta(days=days, hours=hours))
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    told: dict[str, Any] = {}

    async def serve() -> None:
        async with memory.open() as store:
            server = ApiServer(store, clock=clock, admin_tokens={"t" * 40: ADMIN})
            async with server.running():
                told["server"], told["url"] = server, await server.listen()
                ready.set()
                await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    path = Path("past.kubeconfig").absolute()
    path.write_text(yaml.safe_dump(kubeconfig(told["url"], "root", "t" * 40, b"")))
    try:
        yield path, lambda work: asyncio.run_coroutine_threadsafe(work(told["server"]), loop).result(30)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_tokens_that_end_soon_are_named_and_those_made_for_hours_are_not(doctor: Doctor) -> None:
    with as_of(days=20) as (path, do):

        async def prepare(server: ApiServer) -> None:
            await server.clusters.create("team-a")
            root = server.client("root")
            for name, days in (("ends", 22), ("lasts", 60), ("brief", 1)):
                body = {"metadata": {"name": name}, "spec": {"expirationSeconds": days * 86_400}}
                await root.post(f"{CLUSTERS}/team-a/tokens", body)

        do(prepare)
        found = doctor("--kubeconfig", path)
        assert [(status, text) for status, text, _ in found.of("tokens")] == [
            ("warn", "of 2 clusters end soon: team-a/ends (47 hours)")
        ]


def test_deletions_that_do_not_end_are_named(doctor: Doctor) -> None:
    with as_of(days=0, hours=1) as (path, do):

        async def prepare(server: ApiServer) -> None:
            root = server.client("root")
            body = {
                "apiVersion": "tenancy.clusterling.io/v1alpha1",
                "kind": "LogicalCluster",
                "metadata": {"name": "kept", "finalizers": ["example.com/mine"]},
            }
            await root.post(CLUSTERS, body)
            await root.delete(f"{CLUSTERS}/kept")

        do(prepare)
        assert doctor("--kubeconfig", path).is_so("deletions", "warn", "not done after 10 minutes: kept")


def test_quotas_that_are_full_or_nearly_and_clusters_that_end_are_named(doctor: Doctor) -> None:
    with as_of(days=0) as (path, do):

        async def prepare(server: ApiServer) -> None:
            root = server.client("root")
            for name, used in (("full", 10), ("near", 9), ("free", 3)):
                await server.clusters.create(name, {"ttl": "10s"} if name == "free" else {})
                status: dict[str, Any] = {"quota": {"hard": {"objects": 10}, "used": {"objects": used}}}
                if name == "free":
                    status["conditions"] = [_expiring()]
                await root.patch(f"{CLUSTERS}/{name}/status", {"status": status}, content_type=STATUS)

        do(prepare)
        found = doctor("--kubeconfig", path)
        assert [(status, text) for status, text, _ in found.of("quotas")] == [
            ("warn", "reached: full (objects)"),
            ("warn", "nearly reached: near (objects 90%)"),
        ]
        assert found.is_so("lifetimes", "warn", "deleted soon: free")
        assert found.code == 0


def _expiring() -> dict[str, Any]:
    return {
        "type": "Expiring",
        "status": "True",
        "reason": "Ttl",
        "message": "soon",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def test_what_was_not_foreseen_is_told(doctor: Doctor) -> None:
    with as_of(days=0) as (path, do):

        async def prepare(server: ApiServer) -> None:
            server.app.errors += 3

        do(prepare)
        assert doctor("--kubeconfig", path).is_so("counts 127.0.0.1", "warn", "3 requests ended in something")


def test_flags_that_exclude_each_other_are_refused() -> None:
    done = clusterling("doctor", "--local", "--kubeconfig", "x")
    assert done.returncode == 2 and "exclude each other" in done.stderr
