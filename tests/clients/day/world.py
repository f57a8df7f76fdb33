"""The processes of the day: the server, and operators that are started again when they end, each behind its way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from typing_extensions import override

from tests.clients.day.streams import Streams
from tests.clients.day.way import Way
from tests.e2e.clusters import Cluster, cli_env, run
from tests.ports import free_port

REPOSITORY: Final = Path(__file__).parents[3]
AGAIN_S: Final = 0.2
START_S: Final = 60.0
STOP_S: Final = 15.0
RESYNC_MINUTES: Final = 600


class Process(ABC):
    """A program that is started again when it ends, while it is meant to run. `name` numbers its starts."""

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self.log = log
        self.starts = 0
        self.ends: list[int] = []
        """Exit codes of the ends that nobody here caused."""
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._up = False

    @property
    def name(self) -> str:
        return f"{self._name}.{self.starts}"

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """What to run now, and its environment."""

    def start(self) -> None:
        self._up = True
        self._launch()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def stop(self) -> None:
        self._up = False
        if self._supervisor is not None:
            self._supervisor.cancel()
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise

    def kill(self) -> None:
        """Ends it as a loss of power does; it is started again."""
        self._up = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._launch()
        self._up = True

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _launch(self) -> None:
        self.starts += 1
        command, env = self.command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            if self._up and self._process is not None and (code := self._process.poll()) is not None:
                self.ends.append(code)
                self._launch()


class Server(Process):
    """Ours, on one port and one data directory through all its starts."""

    def __init__(self, directory: Path, minute_s: float) -> None:
        super().__init__("server", directory / "server.log")
        self.data = directory / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._minute_s = minute_s

    @override
    def command(self) -> tuple[list[str], dict[str, str]]:
        arguments = ["serve", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        return (
            [sys.executable, "-m", "tests.clients.day.server", *arguments, "--insecure-http"],
            cli_env(self.data) | {"CLUSTERLING_DAY_MINUTE_S": str(self._minute_s)},
        )

    async def ready(self) -> None:
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                with suppress(aiohttp.ClientError, OSError):
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
        raise TimeoutError(f"the server is not ready:\n{self.log.read_text(errors='replace')[-3000:]}")


class Operator(Process):
    """A replica. Its name is its identity in the election; `held` is where it writes what its informers hold."""

    def __init__(
        self, name: str, binary: Path, directory: Path, cluster: Cluster, way: Way, minute_s: float
    ) -> None:
        super().__init__(name, directory / f"{name}.log")
        self.way = way
        self.held = directory / f"{name}.held.json"
        self._binary = binary
        self._cluster = cluster
        self._resync_s = RESYNC_MINUTES * minute_s

    @override
    def command(self) -> tuple[list[str], dict[str, str]]:
        path = self._cluster.url.partition("/clusters/")[2]
        arguments = {
            "server": f"{self.way.url}/clusters/{path}",
            "token": self._cluster.token,
            "identity": self.name,
            "dump": str(self.held),
            "resync": f"{self._resync_s}s",
        }
        return [str(self._binary), *(f"--{name}={value}" for name, value in arguments.items())], {
            name: value for name, value in os.environ.items() if not name.startswith("KUBE")
        }


@dataclass
class World:
    """What runs through the day."""

    server: Server
    cluster: Cluster
    operators: list[Operator]
    streams: Streams
    leader: str = ""
    """The name that the lease last had."""

    complaints: list[str] = field(default_factory=list)

    def leading(self) -> Operator | None:
        return next((one for one in self.operators if one.name == self.leader), None)


@asynccontextmanager
async def running(
    directory: Path, binary: Path, chance: random.Random, minute_s: float
) -> AsyncIterator[World]:
    """A server with one cluster, and two operators that are not started yet."""
    async with AsyncExitStack() as stack:
        server = Server(directory, minute_s)
        server.start()
        stack.push_async_callback(server.stop)
        await server.ready()
        kubeconfig = directory / "day.kubeconfig"
        command = [sys.executable, "-m", "clusterling", "create", "day", "--kubeconfig-out", str(kubeconfig)]
        await asyncio.to_thread(run, command, env=cli_env(server.data))
        cluster = Cluster("day", kubeconfig)
        operators, streams = [], Streams()
        for name in ("ann", "bob"):
            way = Way(name, server.url, random.Random(chance.random()), streams)
            await way.open()
            stack.push_async_callback(way.close)
            operators.append(Operator(name, binary, directory, cluster, way, minute_s))
            stack.push_async_callback(operators[-1].stop)
        yield World(server, cluster, operators, streams)
