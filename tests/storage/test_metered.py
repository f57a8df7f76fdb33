"""What the meter counts."""

from __future__ import annotations

import pytest

from clusterling.storage import memory
from clusterling.storage.metered import Figures, MeteredStore
from clusterling.storage.store import ABSENT, KeyExists
from clusterling.testing.store_contract import put


async def test_calls_errors_bytes_and_open_watches_are_counted() -> None:
    async with memory.open() as base:
        store = MeteredStore(base)
        await put(store, "a/b/c", b"four", ABSENT)
        with pytest.raises(KeyExists):
            await put(store, "a/b/c", b"more", ABSENT)
        await store.get("a/b/c")
        await store.list("a/")
        async with store.watch("a/", after=1), store.watch("a/", after=1):
            assert store.figures.watches == 2
        figures = store.figures
        assert figures.calls == {"write": 2, "get": 1, "list": 1, "watch": 2}
        assert figures.errors == {("write", "KeyExists"): 1}
        assert figures.value_bytes_written == 4 and figures.entries_listed == 1 and figures.watches == 0
        assert figures.seconds.keys() == figures.calls.keys() and min(figures.seconds.values()) > 0


async def test_several_stores_may_share_their_figures() -> None:
    async with memory.open() as base:
        figures = Figures()
        for _ in range(3):
            await MeteredStore(base, figures).get("a/b/c")
        assert figures.calls == {"get": 3}
