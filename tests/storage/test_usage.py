"""Totals where versions meet: stores of a version that kept none, and replicas of it that still write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import asyncpg

from clusterling.storage import bulk, postgres_links, sqlite
from clusterling.storage.opening import open_store
from clusterling.storage.postgres import migrations
from clusterling.storage.store import Limit, Measure, Op, Store, Usage
from clusterling.storage.usage import Tally, collection_of
from tests.storage.postgres_server import PostgresServer

PUT_OF_OLDER = """
SELECT * FROM commit_batch('older', $1, 0, 1000, NULL, $2, $3, $4, $5, $6, '{}', '{}', '{}')
"""


async def filled(store: Store) -> None:
    await store.write([Op("id/core/maps/ns/a", b"one"), Op("id/core/maps/ns/b", b"four")])
    await store.write([Op("id/core/maps/ns/b", None), Op("other/core/maps/ns/a", b"\x18")])


EXPECTED = [Usage("id/core/maps/", 1, 3)]


async def test_a_file_of_an_older_version_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        await filled(store)
        await store.write([Op("id/gone/maps/ns/a", b"dropped")])
        await store.drop("id/gone/")
    db = apsw.Connection(str(path))
    db.execute("DROP TRIGGER usage_of_writes; DROP TRIGGER usage_of_drops; DROP TABLE usage")
    db.close()
    async with sqlite.open(path) as store:
        assert await store.usage("") == EXPECTED
        await store.write([Op("id/core/maps/ns/c", b"three")])
        assert await store.usage("") == [Usage("id/core/maps/", 2, 8)]


async def test_totals_that_are_wrong_are_found(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with sqlite.open(path) as store:
        await filled(store)
    db = apsw.Connection(str(path))
    db.execute("UPDATE usage SET objects = objects + 1 WHERE collection = 'id/core/maps/'")
    db.close()
    async with bulk.snapshot(f"sqlite://{path}") as snapshot:
        found = [one async for one in snapshot.findings()]
    assert [(one.where, one.kind) for one in found] == [("id/core/maps/", "usage")]


class Older:
    """A replica of the version before, that is: what it sends."""

    def __init__(self, db: asyncpg.Connection[Any]) -> None:
        self._db = db
        self._number = 0

    async def write(self, *ops: tuple[str, bytes | None]) -> None:
        self._number += 1
        nothing = [None] * len(ops)
        columns: Sequence[Any] = (
            [0] * len(ops),
            [key for key, _ in ops],
            [value for _, value in ops],
            nothing,
            nothing,
        )
        await self._db.fetchrow(PUT_OF_OLDER, self._number, *columns)


async def test_replicas_of_an_older_version_are_counted_too(
    postgres: PostgresServer, postgres_url: str
) -> None:
    address = postgres_links.parse(postgres_url)
    plain = await asyncpg.connect(postgres.url)
    await plain.execute(f"CREATE SCHEMA {address.schema}")
    await plain.close()
    db = await postgres_links.connect(address)
    try:
        await db.execute(
            "CREATE TABLE migrations (number integer PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
        )
        for number, name, text in migrations()[:2]:
            await db.execute(text)
            await db.execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", number, name)
        older = Older(db)
        await older.write(("id/core/maps/ns/a", b"one"), ("id/core/maps/ns/b", b"four"))
        await older.write(("id/core/maps/ns/b", None), ("other/core/maps/ns/a", b"\x18"))
        async with open_store(postgres_url) as store:
            assert await store.usage("") == EXPECTED
            await older.write(("id/core/maps/ns/c", b"three"))
            assert await store.usage("") == [Usage("id/core/maps/", 2, 8)]
            await db.execute("SELECT drop_range('id/core/maps/ns/', 'id/core/maps/ns0')")
            assert await store.usage("") == []
    finally:
        await db.close()


def test_a_collection_is_the_first_three_parts_of_a_key() -> None:
    for key, expected in (
        ("id/core/maps/ns/a", "id/core/maps/"),
        ("id/core/maps/", "id/core/maps/"),
        ("id/core/", "id/core/"),
        ("id/a", "id/"),
        ("a", ""),
    ):
        assert collection_of(key) == expected


def test_of_a_batch_what_was_refused_leaves_its_room_to_the_next() -> None:
    limit = Limit("id/", Measure.BYTES, 10)
    tally = Tally(lambda _prefix, _what: 4, lambda _op: None)
    refused = [tally.refusal([Op(f"id/g/r/ns/{size}", b"x" * size)], [limit]) for size in (7, 4, 3, 2)]
    assert [one is not None for one in refused] == [True, False, True, False]
