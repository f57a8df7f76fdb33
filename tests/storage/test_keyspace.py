"""The isolation boundary: no key, prefix, guard or error leads out of a keyspace."""

from __future__ import annotations

from itertools import product

import pytest

from clusterling.storage import memory
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import ABSENT, Guard, GuardFailed, KeyExists, Op
from clusterling.testing.store_contract import put, take

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../victim/a",
    "a/../../victim/a",
    "a/./b",
    "a/..",
    "a/b/.",
    "a/\x00b",
    "a/\ud800",
]
BAD_PREFIXES = ["/", "//", "a", "../", "a/../", "./", "a//", "/a/", "a/./b/", "a\x00/"]
BAD_IDS = ["", ".", "..", "a/b", "/", "a\x00"]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_key_that_could_lead_out_is_refused(key: str) -> None:
    async with memory.open() as base:
        space = Keyspace(base, "mine")
        with pytest.raises(ValueError, match="not a key"):
            await space.get(key)
        with pytest.raises(ValueError, match="not a key"):
            await space.write([Op(key, b"")])
        with pytest.raises(ValueError, match="not a key"):
            await space.write([Op("a/b/c", b"")], [Guard(key, ABSENT)])
        assert await base.count("") == 0


async def test_of_all_short_keys_those_are_refused_that_have_a_segment_of_no_name() -> None:
    async with memory.open() as base:
        space = Keyspace(base, "mine")
        for length in range(6):
            for characters in product("/.a\x00\ud800é", repeat=length):
                key = "".join(characters)
                named = all(segment not in {"", ".", ".."} for segment in key.split("/"))
                if named and "\x00" not in key and "\ud800" not in key:
                    assert await space.get(key) is None
                else:
                    with pytest.raises(ValueError, match="not a key"):
                        await space.get(key)


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
async def test_a_prefix_that_could_lead_out_is_refused(prefix: str) -> None:
    async with memory.open() as base:
        await put(base, "victim/a/b/c", b"")
        space = Keyspace(base, "mine")
        with pytest.raises(ValueError, match="not a prefix"):
            await space.list(prefix)
        with pytest.raises(ValueError, match="not a prefix"):
            await space.count(prefix)
        with pytest.raises(ValueError, match="not a prefix"):
            space.watch(prefix, after=1)
        with pytest.raises(ValueError, match="not a prefix"):
            await space.drop(prefix)
        assert await base.count("") == 1


@pytest.mark.parametrize("cluster_id", BAD_IDS)
async def test_an_id_that_is_no_single_segment_is_refused(cluster_id: str) -> None:
    async with memory.open() as base:
        with pytest.raises(ValueError, match="not a cluster id"):
            Keyspace(base, cluster_id)


async def test_names_with_dots_in_them_are_names() -> None:
    async with memory.open() as base:
        space = Keyspace(base, "mine")
        for name in ("a.b", "...", ".a", "a.", "kube-root-ca.crt"):
            await put(space, f"core/configmaps/ns/{name}", b"")
        assert await space.count("core/configmaps/") == 5


async def test_neighbours_are_neither_seen_nor_touched() -> None:
    async with memory.open() as base:
        ids = ["ab", "abc", "abcd", "abd", "abc-", "abc.", "abc0"]
        spaces = {name: Keyspace(base, name) for name in ids}
        start = base.head()
        for name, space in spaces.items():
            await space.write([Op("a/b/c", name.encode(), expires_at=1)])
        for name, space in spaces.items():
            page = await space.list("")
            assert [(entry.key, entry.value) for entry in page.entries] == [("a/b/c", name.encode())]
            assert [entry.value for entry in await space.expired(5, 10)] == [name.encode()]
            async with space.watch("", after=start) as watch:
                [event] = await take(watch, 1)
            assert event.key == "a/b/c" and event.entry is not None and event.entry.value == name.encode()
        async with spaces["abcd"].watch("", after=base.head()) as watch:
            await spaces["abc"].drop("")
            assert watch.take() is None
        assert await base.count("") == len(ids) - 1
        assert await spaces["abc"].count("") == 0


async def test_errors_name_keys_as_the_cluster_knows_them() -> None:
    async with memory.open() as base:
        space = Keyspace(base, "mine")
        await put(space, "a/b/c", b"")
        with pytest.raises(KeyExists) as exists:
            await put(space, "a/b/c", b"", ABSENT)
        with pytest.raises(GuardFailed) as guard:
            await space.write([Op("a/b/d", b"")], [Guard("a/b/c", ABSENT)])
        assert exists.value.args == guard.value.args == ("a/b/c",)


async def test_the_drop_of_a_whole_cluster_is_the_drop_of_everything_in_it() -> None:
    async with memory.open() as base:
        space = Keyspace(base, "mine")
        await put(space, "a/b/c", b"")
        async with (
            space.watch("", after=base.head()) as whole,
            space.watch("a/b/", after=base.head()) as part,
        ):
            await base.drop("mine/")
            [event] = await take(whole, 1)
            assert event.dropped and event.key == ""
            [event] = await take(part, 1)
            assert event.dropped and event.key == "a/b/"
