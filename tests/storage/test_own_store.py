"""The example of a third party's store is one: it keeps the whole contract, and what it acknowledged."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clusterling.server import ApiServer
from clusterling.storage.store import Op, Store, Unavailable
from clusterling.testing.store_contract import StoreContract, put
from examples.logfile_store import open_logfile
from tests.conftest import ROOT
from tests.storage.test_sqlite import files_limited

EXAMPLE = ROOT / "examples/logfile_store.py"
LINES_MAX = 100


class TestLogfile(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with open_logfile(tmp_path / "log") as store:
            yield store


def test_it_is_short_and_the_page_about_it_shows_it_whole() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    page = (ROOT / "docs/howto/own-store.md").read_text()
    shown = re.search(
        r"<!-- file: logfile_store.py -->\n```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    assert shown and shown[1] == text


async def test_opened_again_it_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_logfile(path) as store:
        await put(store, "apps/things/ns/a", b"\x00\xff")
        await put(store, "gone/things/ns/a", b"1")
        await store.drop("gone/")
        await store.write([Op("apps/things/ns/b", b"{}", None, 5)])
        await put(store, "apps/things/ns/a", b"")
        await store.compact(store.head())
        was, identity = (await store.list("")).entries, await store.identity()
    async with open_logfile(path) as store:
        assert (await store.list("")).entries == was
        assert (await store.identity(), store.head()) == (identity, 6)
        assert [entry.key for entry in await store.expired(5, 10)] == ["apps/things/ns/b"]
        assert await put(store, "apps/things/ns/a", b"on") == 7


async def test_a_line_cut_short_was_never_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_logfile(path) as store:
        await put(store, "apps/things/ns/a", b"1")
        whole = path.read_bytes()
        await put(store, "apps/things/ns/a", b"2")
    lines = path.read_bytes()
    for length in range(len(lines)):
        path.write_bytes(lines[:length])
        async with open_logfile(path) as store:
            entry = await store.get("apps/things/ns/a")
            assert (entry.value if entry else None) == (b"1" if length >= len(whole) else None)
            await put(store, "apps/things/ns/b", b"on")
        async with open_logfile(path) as store:
            assert await store.get("apps/things/ns/b") is not None


async def test_a_full_disk_refuses_and_forgets_the_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_logfile(path) as store:
        await put(store, "apps/things/ns/a", b"1")
        with files_limited(10_000), pytest.raises(Unavailable, match="cannot be written"):
            await put(store, "apps/things/ns/b", b"x" * 20_000)
        assert await store.get("apps/things/ns/b") is None
        await put(store, "apps/things/ns/c", b"on")
    async with open_logfile(path) as store:
        assert [entry.value for entry in (await store.list("")).entries] == [b"1", b"on"]


async def test_a_server_runs_on_it(tmp_path: Path) -> None:
    async with open_logfile(tmp_path / "log") as store, ApiServer(store).running() as server:
        await server.clusters.create("team-a")
        await server.client("team-a").post(
            "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "kept"}, "data": {"a": "b"}}
        )
    async with open_logfile(tmp_path / "log") as store, ApiServer(store).running() as server:
        found = await server.client("team-a").get("/api/v1/namespaces/default/configmaps/kept")
        assert found["data"] == {"a": "b"}
