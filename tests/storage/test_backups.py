"""The commands in docs/howto/backup.md bring a store back, and no revision that clients have seen means something else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.server import ApiServer
from clusterling.storage import bulk
from clusterling.storage.opening import open_store
from clusterling.storage.store import Compacted, Store
from clusterling.tenancy import contents
from tests.conftest import ROOT
from tests.storage import etcd_server, postgres_server

PAGE = (ROOT / "docs/howto/backup.md").read_text()
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
CALL_S = 60


def commands(section: str) -> list[str]:
    """The shell blocks of a section, in order."""
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def shell(script: str, cwd: Path, env: Mapping[str, str] | None = None, path: str = "") -> None:
    own = os.pathsep.join([*([path] if path else []), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env={**os.environ, **(env or {}), "PATH": own},
        capture_output=True,
        text=True,
        timeout=CALL_S,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def needed(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on this machine")


async def made(server: ApiServer, name: str) -> int:
    body = {"metadata": {"name": name}, "data": {"a": "b"}}
    return int((await server.client("team-a").post(CONFIGMAPS, body))["metadata"]["resourceVersion"])


async def live(url: str, backup: Callable[[], None]) -> list[int]:
    """A service, backed up while it runs. The revisions that clients saw."""
    async with open_store(url) as store, ApiServer(store).running() as server:
        await server.clusters.create("team-a")
        seen = [await made(server, "kept")]
        backup()
        seen += [await made(server, f"lost-{number}") for number in range(30)]
    return seen


async def come_back(url: str, seen: list[int]) -> None:
    async with open_store(url) as store, ApiServer(store).running() as server:
        team = server.client("team-a")
        listed = await team.get(CONFIGMAPS)
        names = [item["metadata"]["name"] for item in listed["items"]]
        assert "kept" in names and "lost-0" not in names
        assert await made(server, "lost-0") > max(seen)
        for revision in seen:
            await refuses_the_past(store, team, revision)
    async with bulk.snapshot(url) as snapshot:
        assert [one async for one in contents.check(snapshot, lambda _done, _total: None)] == []


async def refuses_the_past(store: Store, client: Any, revision: int) -> None:
    with pytest.raises(Compacted):
        async with store.watch("", after=revision) as watch:
            watch.take()
    with pytest.raises(ApiError) as caught:
        await client.get(f"{CONFIGMAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


async def test_sqlite(tmp_path: Path) -> None:
    needed("sqlite3")
    backup, restore = (
        one.replace("/backups", str(tmp_path)).replace("/var/lib/clusterling", str(tmp_path / "restored"))
        for one in commands("SQLite")
    )
    seen = await live(f"sqlite://{tmp_path}/.clusterling/state.db", lambda: shell(backup, tmp_path))
    shell(restore, tmp_path)
    await come_back(f"sqlite://{tmp_path}/restored/state.db", seen)


async def test_postgres(tmp_path: Path) -> None:
    backup, restore = commands("PostgreSQL")
    try:
        with postgres_server.running() as server:
            binaries = str(postgres_server.installations()[0])
            if not all((Path(binaries) / name).exists() for name in ("pg_dump", "pg_restore", "psql")):
                pytest.skip(f"{binaries} has not all of pg_dump, pg_restore and psql")
            env = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": postgres_server.USER}
            await execute(server.url, "CREATE DATABASE clusterling")
            url = server.url.replace("/postgres?", "/clusterling?")
            seen = await live(url, lambda: shell(backup, tmp_path, env, binaries))
            await execute(url, "DROP SCHEMA clusterling CASCADE")
            shell(restore, tmp_path, env, binaries)
            await come_back(url, seen)
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


async def execute(url: str, statement: str) -> None:
    db = await asyncpg.connect(url)
    try:
        await db.execute(statement)
    finally:
        await db.close()


def beside() -> Path:
    """Where the tools are of the etcd that the tests run."""
    return etcd_server.binary().parent


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[etcd_server.Etcd]:
    try:
        if not all((beside() / name).exists() for name in ("etcdctl", "etcdutl")):
            pytest.skip(f"{beside()} has not both of etcdctl and etcdutl: make etcd builds them")
        with etcd_server.running(tmp_path / "etcd") as server:
            yield server
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))


async def test_etcd(etcd: etcd_server.Etcd, tmp_path: Path) -> None:
    [member] = etcd.members
    backup, restore = (one.replace("127.0.0.1:2379", member.endpoint) for one in commands("etcd"))
    url = etcd.url("prod")
    seen = await live(url, lambda: shell(backup, tmp_path, path=str(beside())))
    member.kill()
    shell(restore, tmp_path, path=str(beside()))
    shutil.rmtree(member.directory / "data")
    (tmp_path / "restored.etcd").rename(member.directory / "data")
    member.start()
    member.ready()
    await come_back(url, seen)
