"""The process that `test_sqlite.py` kills: writes without end, and says on its standard output what was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from clusterling.storage import sqlite
from clusterling.storage.store import ABSENT, Op, Store


async def create(store: Store, life: str, writer: int) -> None:
    for number in itertools.count():
        key = f"apps/things/{life}/{writer}-{number}"
        [revision] = await store.write([Op(key, key.encode() * 20, ABSENT)])
        os.write(1, f"{key} {revision}\n".encode())


async def count_up(store: Store, key: str) -> None:
    while True:
        entry = await store.get(key)
        value = int(entry.value) + 1 if entry else 1
        [revision] = await store.write([Op(key, str(value).encode(), entry.revision if entry else ABSENT)])
        os.write(1, f"{key} {revision} {value}\n".encode())


async def compact(store: Store) -> None:
    while True:
        await asyncio.sleep(0.002)
        await store.compact(store.head() - 20)


async def main(path: str, life: str) -> None:
    async with sqlite.open(path) as store, asyncio.TaskGroup() as group:
        group.create_task(count_up(store, "apps/counters/-/one"))
        group.create_task(compact(store))
        for writer in range(6):
            group.create_task(create(store, life, writer))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
