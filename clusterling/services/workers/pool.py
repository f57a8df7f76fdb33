"""The server's side of workers: what is worth giving away, whose turn it is, and processes that come and go.

There is no task here: a request that is given away drives its worker itself, and answers its questions. Who finds no worker
free waits in a line of its cluster's; the next is of the cluster that has used least, and one cluster never has all workers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from clusterling.machinery.errors import ApiError, internal_error, timeout, too_large, too_many_requests
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.cluster import CRDS, Cluster
from clusterling.registry.ports import Clock
from clusterling.registry.refusing import translated
from clusterling.registry.resource import Served
from clusterling.registry.strategy import SERVER
from clusterling.services.request import BODY_BYTES_MAX, Request, Response
from clusterling.services.workers import wire
from clusterling.storage.others import Standing
from clusterling.storage.store import Entry, Guard, Op, StorageError, Store, UnknownOutcome
from clusterling.telemetry.faults import Elsewhere
from clusterling.telemetry.spans import part

logger = logging.getLogger(__name__)

BURY_EVERY_S: Final = 1.0

# What is given away: bodies and objects of so many bytes, or so many marks. A field has two (a colon, and a comma or the end of
# a line), and costs 5 to 30 µs.
BYTES_MAX: Final = 256 * 1024
MARKS_MAX: Final = 2_000
_BINARY_MARK_BYTES: Final = 16

ROWS_BYTES: Final = 256 * 1024  # Of a list, sent at a time.
# Of a socket. Where it is larger, more of a body is taken from the loop at once, into fresh pages of the kernel.
_BUFFER_BYTES: Final = 128 << 10

# What handlers that write look at.
_HEADERS: Final = ("content-type", "accept", "user-agent")
_WRITING: Final = frozenset({"create", "update", "patch"})
# Of the environment, what an interpreter may need; the rest may be secret.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
_START: Final = "from clusterling.services.workers.process import main; main()"


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What workers may take. `processes` 0: there are none, and all is computed in the server.

    `waiting`: requests of one cluster that wait for a worker. `cpu_s`, of one request: the largest body that is accepted takes
    some seconds. `memory_bytes`: of addresses, of one process. `idle_s`: after which processes end that nobody needed.
    """

    processes: int = 2
    waiting: int = 16
    cpu_s: float = 20.0
    memory_bytes: int = 2 << 30
    idle_s: float = 60.0


def is_much(data: bytes, content_type: str) -> bool:
    """Whether to read, check and write this takes longer than the loop should be held: some ten milliseconds."""
    size = len(data)
    if size <= MARKS_MAX or size > BYTES_MAX:
        return size > BYTES_MAX
    if "protobuf" in content_type:
        return size > MARKS_MAX * _BINARY_MARK_BYTES
    marks = data.count(b":") + data.count(b",")
    if "yaml" in content_type:
        marks += data.count(b"\n")
    return marks > MARKS_MAX


class TooMuch(Exception):
    """The request that is being served is to be given to a worker, as it came. Nothing of it has been done."""


class _Gone(Exception):
    """A worker was no more when it was given something to do."""


class WorkerError(Elsewhere):
    """Something unforeseen in a worker."""


class _Worker:
    """One process, and our end of the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: wire.Channel) -> None:
        self.process = process
        self.channel = channel
        self.leaves = False
        self.jobs = 0  # That it was given.

    @classmethod
    async def start(cls, limits: WorkerLimits) -> _Worker:
        """A new process. Raises OSError."""
        ours, theirs = socket.socketpair()
        arguments = (theirs.fileno(), limits.cpu_s, limits.memory_bytes)
        try:
            with theirs:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - vfork: a millisecond or two; nothing in it is a tenant's
                    [sys.executable, "-P", "-c", _START, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # Not a session: Linux may weigh niceness only within one (sched(7), autogroups).
                )
            ours.setblocking(False)
        except BaseException:
            ours.close()
            raise
        logger.info("worker-started pid=%d", process.pid)
        return cls(process, wire.Channel(ours))

    @property
    def is_well(self) -> bool:
        return not self.leaves and self.process.poll() is None

    def end(self) -> None:
        """Has the process end at once; whoever started it buries it."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()

    async def exit_code(self) -> int:
        """Of a process whose end of the socket is closed."""
        try:
            return await asyncio.to_thread(self.process.wait, BURY_EVERY_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)


def _environment() -> dict[str, str]:
    """Enough to find the same modules, in the same places, as this process does."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    here = str(Path(__file__).parents[3])
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*filter(None, sys.path), here]))}


class Workers:
    """A server's workers: none until there is work for one."""

    def __init__(
        self,
        *,
        kinds_of: Callable[[str], Sequence[tuple[str, str]] | None],
        soft: Admission | None,
        asks_soft: Callable[[str], bool],
        clock: Clock,
        root_ca: str = "",
        limits: WorkerLimits,
    ) -> None:
        """`kinds_of`: the built-in kinds of a cluster, by its id; None where a worker cannot have the same.

        `soft` warns of soft limits, of clusters for which `asks_soft`.
        """
        self._kinds_of = kinds_of
        self._soft = soft
        self._asks_soft = asks_soft
        self._clock = clock
        self._root_ca = root_ca
        self._limits = limits
        self._most = limits.processes if sys.executable and hasattr(os, "fork") else 0
        # What is worth giving away; of bodies with their content type.
        self.is_much: Callable[[bytes, str], bool] = is_much
        self._idle: list[_Worker] = []
        self._working: dict[str, int] = {}  # By cluster.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        # Seconds of work that clusters have had, on a clock that stands where the last that was begun had come to.
        self._used: dict[str, float] = {}
        self._served_s = 0.0
        self._ended: list[_Worker] = []
        self._retiring: asyncio.TimerHandle | None = None
        self._burying: asyncio.TimerHandle | None = None
        self.started = 0  # Processes, ever.
        self.done = 0  # Jobs, ever.
        self.died = 0  # Processes that ended in the middle of a job, ever.
        self.refused = 0  # Requests, as too many of their cluster's waited.

    def __len__(self) -> int:
        """Processes there are now."""
        return len(self._idle) + sum(self._working.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return sum(map(len, self._lines.values()))

    def take_unread(self, request: Request) -> bool:
        """Whether the request goes to a worker as its body is as long as it says, up to what any body may be."""
        if request.info.verb not in _WRITING:
            return False
        length = request.headers.get("Content-Length") or ""
        if len(length) > len(str(BODY_BYTES_MAX)) or not length.isdecimal():
            return False
        return BYTES_MAX < int(length) <= BODY_BYTES_MAX and self._may_take(request)

    def take(self, request: Request, data: bytes, content_type: str) -> bool:
        """Whether the request goes to a worker, of which this is the body, or the object that it writes."""
        return self.is_much(data, content_type) and self._may_take(request)

    def _may_take(self, request: Request) -> bool:
        if not self._most:
            return False
        cluster, served = request.cluster, request.served
        assert served is not None, "dispatch has found it"
        if not isinstance(cluster, Cluster) or served.resource.review is not None:
            return False
        # What a part computes may need more than the store.
        computes = request.info.subresource in served.resource.subresources
        return not computes and self._kinds_of(cluster.id) is not None and _is_ascii(request)

    def weigh(self, request: Request, entry: Entry) -> None:
        """Raises TooMuch where the object that the request changes is worth giving it away."""
        if self.take(request, entry.value, ""):
            raise TooMuch

    async def respond(self, request: Request, served: Served, body: Sequence[bytes]) -> Response:
        """The answer to a request that is taken. Raises ApiError."""
        cluster = request.cluster
        assert isinstance(cluster, Cluster), "it was looked at when the request was taken"
        job = await self._job(cluster, request, served, body)
        with part("worker awaited"):
            worker = await self._acquire(cluster)
        began = perf_counter()
        try:
            with part("worker", {"pid": worker.process.pid}):
                outcome = await self._perform(worker, job, body, cluster, served, request.standing)
        except _Gone:
            outcome = None
        except BaseException:
            worker.leaves = True
            raise
        finally:
            self._release(worker, cluster.id, perf_counter() - began)
        if outcome is None:
            return await self.respond(request, served, body)
        self.done += 1
        if isinstance(outcome, wire.Crashed):
            raise WorkerError(outcome.classes, outcome.stack, outcome.words)
        request.warnings = json.loads(outcome.warnings)
        if isinstance(outcome, wire.Refused):
            raise wire.api_error(outcome.error)
        return Response(outcome.status, outcome.body, outcome.content_type)

    async def aclose(self) -> None:
        """Ends all workers. Those at work are ended with their requests, before."""
        for handle in (self._retiring, self._burying):
            if handle is not None:
                handle.cancel()
        self._retiring = self._burying = None
        while self._idle:
            self._end(self._idle.pop())
        while self._ended:
            await self._ended.pop().exit_code()

    # ------------------------------------------------------------------ one job

    async def _job(
        self, cluster: Cluster, request: Request, served: Served, body: Sequence[bytes]
    ) -> wire.Job:
        kinds = self._kinds_of(cluster.id)
        assert kinds is not None, "it was looked at when the request was taken"
        definition = None
        resource = served.resource
        if not resource.builtin:
            name = f"{resource.names.plural}.{resource.group}"
            entry = await translated(cluster.store.get(f"{CRDS}-/{name}"))
            definition = wire.Definition(name, entry.revision if entry else 0, resource.schema_revision)
        headers = {name: value for name in _HEADERS if (value := request.headers.get(name)) is not None}
        return wire.Job(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=headers,
            body_bytes=sum(map(len, body)),
            info=wire.fields_of(request.info),
            user=request.user,
            cluster=str(cluster.name),
            cluster_id=cluster.id,
            kinds=kinds,
            definition=definition,
            now_s=self._clock.now().timestamp(),
            root_ca=self._root_ca,
            asks_soft=self._asks_soft(cluster.id),
            warnings=request.warnings,
        )

    async def _perform(
        self,
        worker: _Worker,
        job: wire.Job,
        body: Sequence[bytes],
        cluster: Cluster,
        served: Served,
        standing: Standing | None,
    ) -> wire.Outcome:
        heard = False
        worker.jobs += 1
        try:
            await worker.channel.send(job, body)
            while True:
                message = await worker.channel.receive(wire.from_worker)
                heard = True
                match message:
                    case wire.Answered() | wire.Refused():
                        worker.leaves = message.leaves
                        return message
                    case wire.Crashed():
                        return message
                    case wire.Soft(operation):
                        await worker.channel.send(await self._warned(cluster, served, operation))
                    case wire.List():
                        await _send_list(worker.channel, cluster.store, message)
                    case _:
                        await worker.channel.send(await _answer(cluster.store, message, standing))
        except (EOFError, ConnectionError) as error:
            worker.leaves = True
            code = await worker.exit_code()
            if worker.jobs > 1 and not heard and code == -signal.SIGKILL:
                # Somebody else ended it while it had nothing to do.
                raise _Gone from error
            self.died += 1
            raise self._died(worker, code) from error

    @staticmethod
    def _died(worker: _Worker, code: int) -> ApiError:
        logger.warning("worker-died pid=%d code=%d", worker.process.pid, code)
        if code == -signal.SIGPROF:
            return timeout("the request takes more computing than one request may")
        if code == wire.OUT_OF_MEMORY:
            return too_large("the request takes more memory than one request may")
        return internal_error(
            "the process that worked on the request ended before it was done; try again, and if that does not help, with less"
        )

    async def _warned(self, cluster: Cluster, served: Served, operation: Operation) -> wire.Warned:
        ctx = cluster.context(SERVER)
        if self._soft is not None:
            await self._soft.validate(ctx, served, operation, None, None)
        return wire.Warned(ctx.warnings)

    # ------------------------------------------------------------------ whose turn it is

    async def _acquire(self, cluster: Cluster) -> _Worker:
        """A worker, which is to be released. Raises ApiError 429 where too many of the cluster's wait already."""
        line = self._lines.get(cluster.id)
        if not line and self._may_begin(cluster.id):
            self._begin(cluster.id)
        else:
            await self._stand(cluster.id)
        try:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_well:
                    return worker
                self._end(worker)
            self.started += 1
            return await _Worker.start(self._limits)
        except BaseException as error:
            self._finish(cluster.id, 0.0)
            if isinstance(error, OSError):
                logger.exception("worker-not-started")
                raise internal_error("no process could be started to work on the request") from error
            raise

    async def _stand(self, cluster_id: str) -> None:
        """Waits for a turn, which has begun when this returns."""
        line = self._lines.setdefault(cluster_id, deque())
        if len(line) >= self._limits.waiting:
            self.refused += 1
            raise too_many_requests(
                f"{len(line)} large requests of this logical cluster are waiting, which is as many as may; try again later"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The turn came, and nobody is there to take it.
                self._finish(cluster_id, 0.0)
            else:
                line.remove(turn)
                if not line:
                    self._lines.pop(cluster_id, None)
            raise

    def _may_begin(self, cluster_id: str) -> bool:
        """One is left for others, where there are several."""
        at_work = sum(self._working.values())
        return at_work < self._most and self._working.get(cluster_id, 0) < max(1, self._most - 1)

    def _begin(self, cluster_id: str) -> None:
        self._working[cluster_id] = self._working.get(cluster_id, 0) + 1
        used = max(self._used.get(cluster_id, 0.0), self._served_s)
        self._used[cluster_id] = self._served_s = used

    def _finish(self, cluster_id: str, took_s: float) -> None:
        """Ends a turn, and gives as many as there can be."""
        self._working[cluster_id] -= 1
        if not self._working[cluster_id]:
            del self._working[cluster_id]
        self._used[cluster_id] = self._used.get(cluster_id, 0.0) + took_s
        while waiting := [one for one in self._lines if self._may_begin(one)]:
            first = min(waiting, key=lambda one: max(self._used.get(one, 0.0), self._served_s))
            line = self._lines[first]
            turn = line.popleft()
            if not line:
                del self._lines[first]
            self._begin(first)
            turn.set_result(None)
        if not self._working:
            # Nobody is before or behind anybody.
            self._used.clear()
            self._served_s = 0.0

    def _release(self, worker: _Worker, cluster_id: str, took_s: float) -> None:
        if worker.is_well:
            self._idle.append(worker)
        else:
            self._end(worker)
        self._finish(cluster_id, took_s)
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = asyncio.get_running_loop().call_later(self._limits.idle_s, self._retire)

    # ------------------------------------------------------------------ ends

    def _retire(self) -> None:
        """Nobody has needed a worker for a while."""
        self._retiring = None
        while self._idle:
            self._end(self._idle.pop())

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._ended.append(worker)
        if self._burying is None:
            self._burying = asyncio.get_running_loop().call_later(BURY_EVERY_S, self._bury)

    def _bury(self) -> None:
        self._burying = None
        self._ended = [one for one in self._ended if one.process.poll() is None]
        if self._ended:
            self._burying = asyncio.get_running_loop().call_later(BURY_EVERY_S, self._bury)


def _is_ascii(request: Request) -> bool:
    """Whether what comes of a header is text that can be sent on."""
    return all((request.headers.get(name) or "").isascii() for name in _HEADERS) and request.path.isascii()


async def _answer(store: Store, question: wire.Question, standing: Standing | None) -> wire.Answer:
    try:
        match question:
            case wire.Get(key):
                entry = await store.get(key)
                return wire.Found(None if entry is None else wire.row(entry))
            case wire.Fresh():
                return wire.Number(await store.fresh())
            case wire.Write(ops, guards):
                return wire.Written(list(await _write(store, ops, guards, standing)))
            case _:
                raise AssertionError("lists and warnings are answered elsewhere")
    except StorageError as error:
        return wire.failed(error)


async def _write(
    store: Store, ops: Sequence[Op], guards: Sequence[Guard], standing: Standing | None
) -> Sequence[int]:
    """As a request writes that is not given away (registry/committing.py): it also stands on what was taken for granted."""
    if standing is None:
        return await store.write(ops, guards)
    try:
        revisions = await store.write(ops, (*guards, *standing.guards()))
    except UnknownOutcome:
        standing.settled = True
        raise
    standing.settled = True
    return revisions


async def _send_list(channel: wire.Channel, store: Store, asked: wire.List) -> None:
    """The entries, some at a time: all CRDs of a cluster may be many megabytes."""
    try:
        page = await store.list(asked.prefix, after=asked.after, limit=asked.limit, revision=asked.revision)
    except StorageError as error:
        await channel.send(wire.failed(error))
        return
    rows: list[wire.Row] = []
    size = 0
    for entry in page.entries:
        rows.append(wire.row(entry))
        size += len(entry.value)
        if size >= ROWS_BYTES:
            await channel.send(wire.Rows(rows, more=True))
            await asyncio.sleep(0)
            rows, size = [], 0
    await channel.send(
        wire.Rows(
            rows, more=False, revision=page.revision, remaining=page.remaining, last_change=page.last_change
        ),
    )
