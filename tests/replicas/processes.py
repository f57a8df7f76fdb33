"""Replicas as processes, and what stands before them in production: something that sends requests to who is ready."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.cli.processes import PROGRAM
from tests.ports import free_port

PATIENCE_S: Final = 60.0


class Replica:
    """One `clusterling serve`, which may end and be started again on its port and data directory."""

    def __init__(self, directory: Path, store_url: str, *flags: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._command = [
            *PROGRAM,
            "serve",
            *("--data-dir", str(directory), "--listen", f"127.0.0.1:{self.port}", "--store", store_url),
            *("--external-url", "https://127.0.0.1:1", "--log-level", "info", *flags),
        ]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    @property
    def token(self) -> str:
        return self._kubeconfig()["users"][0]["user"]["token"]  # type: ignore[no-any-return]

    def trust(self) -> ssl.SSLContext:
        """What this replica's kubeconfig tells clients to trust."""
        return ssl.create_default_context(cafile=str(self.directory / "pki" / "ca.crt"))

    def _kubeconfig(self) -> dict[str, Any]:
        import yaml

        document: dict[str, Any] = yaml.safe_load((self.directory / "admin.kubeconfig").read_text())
        return document

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        assert line.startswith(b"clusterling ready"), self.log()

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None, "it runs"
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            code = await self._process.wait()
        self._process = None
        return code

    async def restart(self) -> None:
        assert await self.end() == 0, self.log()
        await self.start()

    def log(self) -> str:
        return (self.directory.parent / f"{self.directory.name}.log").read_text(errors="replace")[-4000:]


@asynccontextmanager
async def replicas(directory: Path, store_url: str, count: int, *flags: str) -> AsyncIterator[list[Replica]]:
    """Replicas with data directories of their own, killed at the end."""
    made = [Replica(directory / f"replica-{number}", store_url, *flags) for number in range(count)]
    try:
        for one in made:
            await one.start()
        yield made
    finally:
        for one in made:
            if one._process is not None:
                await one.end(signal.SIGKILL)


class Balancer:
    """Sends each request to a replica that is ready, on a connection of its own; looks often who that is."""

    def __init__(self, members: list[Replica], session: aiohttp.ClientSession) -> None:
        self._members = members
        self._session = session
        self._ready: list[str] = []
        self._turn = 0
        self.cut_off = 0  # Requests that were sent and got no answer, or half of one.

    async def watch_readiness(self) -> None:
        while True:
            self._ready = [one.url for one in self._members if await self._is_ready(one.url)]
            await asyncio.sleep(0.05)

    async def _is_ready(self, url: str) -> bool:
        try:
            async with self._session.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(2)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def pick(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while not self._ready:
                await asyncio.sleep(0.02)
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]

    async def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The answer's status and document, from whoever takes the connection."""
        while True:
            url = await self.pick()
            try:
                async with self._session.request(method, url + path, json=body) as answer:
                    return answer.status, json.loads(await answer.read())
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)  # Nothing was sent.
            except aiohttp.ClientError:
                self.cut_off += 1
                return 0, None

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.StreamReader | None]:
        """A watch's lines; None where nobody took it."""
        url = await self.pick()
        try:
            answer = await self._session.get(url + path, timeout=aiohttp.ClientTimeout(None))
        except aiohttp.ClientConnectorError:
            yield None
            return
        async with answer:
            assert answer.status == 200, await answer.text()
            yield answer.content


@asynccontextmanager
async def balanced(members: list[Replica]) -> AsyncIterator[Balancer]:
    connector = aiohttp.TCPConnector(ssl=members[0].trust(), force_close=True, limit=0)
    headers = {"Authorization": f"Bearer {members[0].token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        balancer = Balancer(members, session)
        looking = asyncio.create_task(balancer.watch_readiness())
        try:
            yield balancer
        finally:
            looking.cancel()
            await asyncio.wait({looking})
