"""Three replicas over PostgreSQL under a mixed load, scraped by a real Prometheus: for the tests, and for the pictures."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.metrics.prometheus import Prometheus, Target, running
from tests.replicas.processes import Replica, replicas

TENANTS: Final = tuple(f"team-{letter}" for letter in "abcdef")
CLUSTERS: Final = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
CONFIGMAPS: Final = "/api/v1/namespaces/default/configmaps"


class Load:
    """What clients do; `stop` ends it."""

    def __init__(self, members: list[Replica], session: aiohttp.ClientSession) -> None:
        self._members = members
        self._session = session
        self._numbers = itertools.count()
        self._made: list[str] = []

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> int:
        """The status, of whichever replica; 0 where there was none."""
        url = random.choice(self._members).url
        try:
            async with self._session.request(method, url + path, json=body, **options) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def one(self, tenant: str) -> None:
        """One request of a tenant."""
        at = f"/clusters/{tenant}{CONFIGMAPS}"
        kind = random.random()
        name = random.choice(self._made) if self._made else "none"
        if kind < 0.25:
            name = f"c{next(self._numbers)}"
            self._made.append(name)
            await self.ask(
                "POST", at, {"metadata": {"name": name}, "data": {"k": "v" * random.randint(1, 2000)}}
            )
        elif kind < 0.35:
            await self.ask(
                "PATCH",
                f"{at}/{name}",
                {"data": {"k": "w"}},
                headers={"Content-Type": "application/merge-patch+json"},
            )
        elif kind < 0.40:
            await self.ask("DELETE", f"{at}/{name}")
        elif kind < 0.50:
            await self.ask("GET", at)
        elif kind < 0.52:
            await self.ask("GET", at, headers={"Authorization": "Bearer wrong"})
        elif kind < 0.53:
            large = {f"k{number}": "v" for number in range(1_500)}
            await self.ask("POST", at, {"metadata": {"name": f"large{next(self._numbers)}"}, "data": large})
        else:
            await self.ask("GET", f"{at}/{name}")

    async def clients(self) -> None:
        """Twelve of them, until cancelled; some tenants have more than others."""

        async def client(tenant: str) -> None:
            while True:
                await self.one(tenant)
                await asyncio.sleep(0.02)

        async def watch(member: Replica, tenant: str) -> None:
            path = f"{member.url}/clusters/{tenant}{CONFIGMAPS}?watch=1"
            while True:
                with suppress(aiohttp.ClientError):
                    async with self._session.get(path, timeout=aiohttp.ClientTimeout(None)) as answer:
                        async for _ in answer.content:
                            pass
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(client(TENANTS[min(number // 2, number % len(TENANTS))]))
            for member in self._members:
                for tenant in TENANTS[:3]:
                    group.create_task(watch(member, tenant))


@asynccontextmanager
async def scraped(
    directory: Path, store_url: str, rules: Path, every: str = "1s"
) -> AsyncIterator[tuple[Prometheus, list[Replica], Load]]:
    """The replicas, loaded from here on, and the Prometheus that scrapes them. Raises NoPrometheus."""
    token = directory / "metrics-token"
    token.write_text(f"{secrets.token_hex(24)}\n")
    async with replicas(directory, store_url, 3, "--metrics-token-file", str(token)) as members:
        connector = aiohttp.TCPConnector(ssl=members[0].trust(), limit=0)
        headers = {"Authorization": f"Bearer {members[0].token}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            load = Load(members, session)
            for tenant in TENANTS:
                made = {
                    "apiVersion": "tenancy.clusterling.io/v1alpha1",
                    "kind": "LogicalCluster",
                    "metadata": {"name": tenant},
                    "spec": {"quota": {"hard": {"objects": 20_000, "bytes": "50Mi", "watches": 100}}},
                }
                assert await load.ask("POST", f"/clusters/root{CLUSTERS}", made) == 201
            targets = [
                Target(f"127.0.0.1:{one.port}", one.directory / "pki" / "ca.crt", token.read_text().strip())
                for one in members
            ]
            clients = asyncio.create_task(load.clients())
            try:
                with running(directory / "prometheus", targets, rules, every=every) as prometheus:
                    yield prometheus, members, load
            finally:
                clients.cancel()
                await asyncio.wait({clients})
