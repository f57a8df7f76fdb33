"""`clusterling store`, as an operator uses it: against the stores of servers that ran, with kills in between."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import apsw
import asyncpg
import pytest

from clusterling.cli.program import run
from clusterling.storage import bulk, sqlite
from clusterling.storage.bulk import COPIED_KEY
from clusterling.storage.opening import open_store
from clusterling.storage.store import Op, Store, StoreOpenError
from tests.cli.processes import PATIENCE_S, PROGRAM, clusterling, eventually, serving
from tests.storage.conftest import postgres
from tests.storage.postgres_server import PostgresServer
from tests.storage.test_copying import KINDS, Place, etcd, place

__all__ = ["etcd", "place", "postgres"]  # Fixtures.

KILLS = 8


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATA_DIR", "STORE", "STORE_PASSWORD", "STORE_PASSWORD_FILE", "OUTPUT"):
        monkeypatch.delenv(f"CLUSTERLING_{name}", raising=False)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The data directory of a server that ran, with two clusters."""
    directory = tmp_path / "data"
    with serving(directory) as server:
        for name in ("team-a", "team-b"):
            assert run(["create", name, "--data-dir", str(directory), "--quiet"]) == 0
        assert server.stop() == 0
    return directory


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What the verb prints with `-o json`."""
    capsys.readouterr()
    assert run(["store", *arguments, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


# check


def test_a_sound_store_has_no_findings(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "check", "--data-dir", str(served))
    assert found["findings"] == []
    assert found["records"] > 0
    assert found["store"] == f"sqlite://{served}/state.db"
    assert run(["store", "check", "--data-dir", str(served)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"no findings in {found['records']} records at revision {found['revision']}\n")
    assert run(["store", "check", "--data-dir", str(served), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_findings_are_a_table_and_the_exit_code_1(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = apsw.Connection(str(served / "state.db"))
    db.execute("UPDATE log SET value = x'7b' WHERE key LIKE 'root/tenancy%/team-a'")
    db.close()
    found = shown(capsys, "check", "--data-dir", str(served), code=1)
    where = "root/tenancy.clusterling.io/logicalclusters/-/team-a"
    assert (where, "value") in [(one["where"], one["kind"]) for one in found["findings"]]
    assert run(["store", "check", "--data-dir", str(served)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["KIND", "WHERE", "WHAT"]
    assert any(where in line for line in out.splitlines())
    assert f"{len(found['findings'])} findings in" in err


def test_a_store_is_checked_and_counted_while_it_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "data") as server:
        assert run(["create", "team-a", "--data-dir", str(server.data_dir), "--quiet"]) == 0
        assert shown(capsys, "check", "--data-dir", str(server.data_dir))["findings"] == []
        assert shown(capsys, "stats", "--data-dir", str(server.data_dir))["clusters"] == 3
        assert run(["store", "compact", "--data-dir", str(server.data_dir)]) == 1
        assert "is in use by process" in capsys.readouterr().err
        assert server.stop() == 0


@pytest.mark.parametrize("verb", ["check", "stats", "compact"])
def test_where_there_is_no_store_it_is_said_in_a_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["store", verb]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and ".clusterling/state.db does not exist" in err
    assert len(err.splitlines()) == 1


def test_what_is_no_store_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.db").write_bytes(b"something else" * 1000)
    for url in (f"sqlite://{tmp_path}/state.db", "sqlite://host/x", "nosuch://x", "etcd://"):
        assert run(["store", "check", "--store", url]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


# stats


def test_stats_name_clusters_kinds_and_space(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "stats", "--data-dir", str(served))
    assert found["clusters"] == 4  # root, default, team-a, team-b
    assert found["largest"][0]["name"] == "root"
    kinds = {one["kind"]: one["records"] for one in found["kinds"]}
    assert kinds["tenancy.clusterling.io/logicalclusters"] == 4
    assert sum(kinds.values()) == found["records"]
    assert 0 < found["oldest"] <= found["head"]
    assert found["diskBytes"] >= (served / "state.db").stat().st_size
    assert run(["store", "stats", "--data-dir", str(served), "--top", "1"]) == 0
    out = capsys.readouterr().out
    store, clusters, largest = out.split("\n\n")
    assert f"head        {found['head']}\n" in store
    assert clusters.splitlines()[0].split() == ["CLUSTER", "ID", "OBJECTS", "SIZE"]
    assert len(clusters.splitlines()) == len(largest.splitlines()) == 2


# compact


MUCH_BYTES = 4_000_000


async def write_much(store: Store) -> None:
    for number in range(MUCH_BYTES // 100_000):
        await store.write([Op("root/core/configmaps/-/a", random.Random(number).randbytes(100_000), None)])


def test_compacting_forgets_and_gives_space_back(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def write() -> None:
        async with sqlite.open(served / "state.db") as store:
            await write_much(store)

    asyncio.run(write())
    before = (served / "state.db").stat().st_size
    first = shown(capsys, "compact", "--data-dir", str(served), "--revision", "10")
    assert (first["oldestBefore"], first["oldest"]) == (1, 10)
    done = shown(capsys, "compact", "--data-dir", str(served))
    assert done["oldest"] > done["oldestBefore"] == 10
    assert done["diskBytes"] < done["diskBytesBefore"] / 4
    assert (served / "state.db").stat().st_size < before / 4
    assert done["logRows"] < done["logRowsBefore"]
    assert run(["store", "compact", "--data-dir", str(served)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "oldest",
        "revision",
        str(done["oldest"]),
        str(done["oldest"]),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_store_is_compacted_and_counted(
    kind: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    url = place(kind)

    async def write() -> int:
        async with open_store(url) as store:
            await write_much(store)
            return store.head()

    head = asyncio.run(write())
    # etcd's file grows a moment after etcd has acknowledged a write.
    assert eventually(lambda: shown(capsys, "stats", "--store", url)["diskBytes"] > MUCH_BYTES)
    before = shown(capsys, "stats", "--store", url)
    assert (before["records"], before["objects"], before["head"]) == (1, 1, head)
    done = shown(capsys, "compact", "--store", url)
    assert done["oldestBefore"] < done["oldest"] == head
    assert done["diskBytes"] < done["diskBytesBefore"]
    after = shown(capsys, "stats", "--store", url)
    assert (after["records"], after["oldest"], after["diskBytes"]) == (1, head, done["diskBytes"])
    assert shown(capsys, "check", "--store", url, code=1)["records"] == 1


def test_history_can_be_kept_by_age(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compacted(age: str) -> int:
        return int(shown(capsys, "compact", "--data-dir", str(served), "--older-than", age)["oldest"])

    assert compacted("10m") == 1

    async def note() -> None:
        async with sqlite.open(served / "state.db") as store:
            times = [[time.time() - 7200, 5], [time.time() - 3600, 9], [time.time(), 12]]
            await store.write([Op("~store/times/-/main", json.dumps(times).encode())])

    asyncio.run(note())
    assert compacted("1h30m") == 5
    assert compacted("30m") == 9
    assert compacted("3h") == 9


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compact", "--older-than", "10"], "no age as in"),
        (["compact", "--older-than", "1m", "--revision", "3"], "exclude each other"),
        (["compact", "--revision", "0"], "not in the range"),
        (["copy", "--from", "x"], "Missing option '--to'"),
        (["nosuch"], "No such command"),
    ],
)
def test_wrong_usage_exits_2(
    arguments: Sequence[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", *arguments]) == 2
    assert complaint in capsys.readouterr().err


# copy


def test_a_service_moves_from_store_to_store_and_its_clients_with_it(
    served: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file to PostgreSQL, to etcd, to another file; the data directory keeps certificates and credentials."""
    source, revisions = str(served), [0]
    for kind in ("postgres", "etcd", "sqlite"):
        target = place(kind)
        done = shown(capsys, "copy", "--from", source, "--to", target)
        assert done["head"] > done["revision"] > revisions[-1]
        assert shown(capsys, "check", "--store", target)["findings"] == []
        with serving(served, "--store", target) as server:
            assert run(["create", f"in-{kind}", "--data-dir", str(served), "--quiet"]) == 0
            capsys.readouterr()
            assert run(["list", "--data-dir", str(served), "-o", "json"]) == 0
            listed = json.loads(capsys.readouterr().out)["items"]
            assert {"team-a", "team-b", f"in-{kind}"} <= {one["metadata"]["name"] for one in listed}
            [made] = [one for one in listed if one["metadata"]["name"] == f"in-{kind}"]
            revisions.append(int(made["metadata"]["resourceVersion"]))
            assert revisions[-1] > done["head"]
            assert server.stop() == 0
        assert shown(capsys, "check", "--store", target)["findings"] == []
        source = target
    assert revisions == sorted(revisions)


def test_a_copy_of_a_running_server_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "data") as server:
        assert run(["store", "copy", "--from", str(server.data_dir), "--to", str(tmp_path / "copy")]) == 0
        out, err = capsys.readouterr()
        assert "what it writes from now on is not copied" in err
        assert out.splitlines()[0].split() == ["COPIED", "VALUE"]
        assert server.stop() == 0
    assert run(["store", "copy", "--from", str(tmp_path / "data"), "--to", str(tmp_path / "copy")]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_passwords_come_from_files_and_the_environment(
    served: Path, postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prepare() -> None:
        db = await asyncpg.connect(postgres.url)
        await db.execute(
            "CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE SCHEMA locked AUTHORIZATION locked"
        )
        await db.close()

    asyncio.run(prepare())
    parts = urlsplit(postgres.url)
    url = urlunsplit(
        ("postgres", f"locked@127.0.0.1:{postgres.port}", parts.path, f"{parts.query}&schema=locked", "")
    )
    assert run(["store", "copy", "--from", str(served), "--to", url]) == 1
    assert "lets nobody in" in capsys.readouterr().err
    (tmp_path / "password").write_text("right\n")
    with_file = ["--to-password-file", str(tmp_path / "password")]
    assert run(["store", "copy", "--from", str(served), "--to", url, *with_file, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "right" not in out
    checked = clusterling("store", "check", "--store", url, env={"CLUSTERLING_STORE_PASSWORD": "right"})
    assert checked.returncode == 0, checked.stderr
    back = clusterling(
        "store",
        "copy",
        "--from",
        url,
        "--to",
        str(tmp_path / "back"),
        env={"CLUSTERLING_FROM_PASSWORD": "right"},
    )
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "state.db").stat().st_mode & 0o777 == 0o600


async def filled(path: Path, count: int) -> None:
    async with sqlite.open(path) as store:
        await asyncio.gather(
            *(
                store.write(
                    [Op(f"id/core/configmaps/{n % 9}/{n:05}-{m}", b"{}" + b"x" * 500) for m in range(50)]
                )
                for n in range(count // 50)
            )
        )


class Watched:
    """A copy that believes to have a terminal, from whose progress can be seen how far it is."""

    def __init__(self, source: str, target: str) -> None:
        self._screen, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, "store", "copy", "--from", source, "--to", target],
            stdout=subprocess.DEVNULL,
            stderr=slave,
            stdin=subprocess.DEVNULL,
        )
        os.close(slave)
        self.said = ""

    def read(self) -> bool:
        try:
            more = os.read(self._screen, 4096).decode()
        except OSError:  # The other end has gone.
            return False
        self.said += more
        return bool(more)

    def close(self) -> int:
        code = self.process.wait(PATIENCE_S)
        os.close(self._screen)
        return code


def test_a_terminal_is_shown_how_far_the_copy_is(tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "a" / "state.db", 5000))
    watched = Watched(str(tmp_path / "a"), str(tmp_path / "b"))
    while watched.read():
        pass
    assert watched.close() == 0
    assert "\rcopying    [..............................]   0%  0 of 5,000" in watched.said
    assert "\rverifying  [##############################] 100%  5,000 of 5,000" in watched.said
    quiet = clusterling("store", "copy", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "c"))
    assert (quiet.returncode, quiet.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_killed_at_any_moment_is_whole_or_no_store(kind: str, place: Place, tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "a" / "state.db", 40_000))
    target = place(kind)

    async def state() -> int | None:
        """How many records the target has, None where there is no store (an empty one is as good)."""
        try:
            async with bulk.snapshot(target) as snapshot:
                return await snapshot.count() or None
        except StoreOpenError:
            return None

    seen = []
    for number in range(KILLS):
        watched = Watched(str(tmp_path / "a"), target)
        while "copying" not in watched.said and watched.read():
            pass
        time.sleep(number * 0.04)
        watched.process.send_signal(signal.SIGKILL)
        watched.close()
        seen.append(asyncio.run(state()))
        assert seen[-1] in (None, 40_001)
        if seen[-1]:
            break
    assert seen[0] is None

    async def complete() -> None:
        async with open_store(target) as store:
            assert await store.count("") == 40_001
            assert await store.get(COPIED_KEY) is not None

    if seen[-1] is None:
        assert eventually(lambda: run(["store", "copy", "--from", str(tmp_path / "a"), "--to", target]) == 0)
    asyncio.run(complete())
