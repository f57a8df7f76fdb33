"""What a worker runs: `main`, with one end of a socket pair as its argument.

It serves one job after the other by the handlers that the server has, on a cluster whose store asks the server. It has a
loop of its own, and nothing that would go on without a server: when the socket ends, so does the process, in the middle of
whatever it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs import OFFER
from clusterling.registry.admission import Admission, AdmissionChain, CatalogAdmission, Operation
from clusterling.registry.catalog import Catalog
from clusterling.registry.choice import Choice
from clusterling.registry.cluster import CRDS, Cluster
from clusterling.registry.committing import GroundMoved
from clusterling.registry.crd import CustomResourceStrategy, decoded, is_true, resource_of, schema_fence
from clusterling.registry.pack import GroupResource
from clusterling.registry.ports import API_AUDIENCE, Ports
from clusterling.registry.resource import Resource, Served
from clusterling.registry.strategy import Context, User
from clusterling.services import app as serving
from clusterling.services import handlers
from clusterling.services.app import App, Decision
from clusterling.services.request import Headers, Request, Response
from clusterling.services.requestinfo import RequestInfo
from clusterling.services.workers import wire
from clusterling.storage.cache import CachedStore
from clusterling.storage.store import (
    Entry,
    Guard,
    Identity,
    Limit,
    Op,
    Page,
    Unavailable,
    Usage,
    Watch,
)
from clusterling.telemetry import faults

KEPT_BYTES_MAX: Final = 256 << 20  # Resident: who has grown beyond works no more when its job is done.
NICENESS: Final = 10  # Where cores are few, whoever wants little goes first.
CATALOGS_MAX: Final = 16
KINDS_MAX: Final = 16

_T = TypeVar("_T")


class Remote:
    """The store of one cluster, asked by messages: what ObjectStore needs of a Store to write."""

    def __init__(self, server: wire.Channel) -> None:
        self._server = server
        self._one = asyncio.Lock()
        self._seen = 0

    async def ask(self, question: wire.Question) -> wire.Answer:
        """The server's answer. Raises StorageError."""
        async with self._one:
            await self._server.send(question)
            return await self._answer()

    async def _answer(self) -> wire.Answer:
        answer: wire.Job | wire.Answer = await self._server.receive(wire.to_worker)
        if isinstance(answer, wire.Failed):
            raise wire.storage_error(answer)
        assert not isinstance(answer, wire.Job), "jobs come one after the other"
        return answer

    async def get(self, key: str) -> Entry | None:
        found = await self.ask(wire.Get(key))
        assert isinstance(found, wire.Found), "a get is answered by what is there"
        return None if found.row is None else self._entry(found.row)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        entries: list[Entry] = []
        async with self._one:
            await self._server.send(wire.List(prefix, after, limit, revision))
            while True:
                found = await self._answer()
                assert isinstance(found, wire.Rows), "a list is answered by rows"
                entries += map(self._entry, found.rows)
                if not found.more:
                    self._seen = max(self._seen, found.revision)
                    return Page(entries, found.revision, found.remaining, found.last_change)

    async def fresh(self) -> int:
        answer = await self.ask(wire.Fresh())
        assert isinstance(answer, wire.Number), "a revision is asked for"
        self._seen = max(self._seen, answer.value)
        return self._seen

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        assert not limits, "limits are the server's"
        written = await self.ask(wire.Write(ops, guards))
        assert isinstance(written, wire.Written), "a write is answered by revisions"
        return written.revisions

    def head(self) -> int:
        return self._seen

    def _entry(self, row: wire.Row) -> Entry:
        self._seen = max(self._seen, row[2])
        return Entry(*row)

    # What no write needs.

    async def count(self, prefix: str) -> int:
        _not_here()

    async def usage(self, prefix: str) -> Sequence[Usage]:
        _not_here()

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        _not_here()

    async def compact(self, horizon: int) -> None:
        _not_here()

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        _not_here()

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        _not_here()

    async def identity(self) -> Identity:
        _not_here()


def _not_here() -> NoReturn:
    raise Unavailable("a worker cannot do this")


class Uncached(CachedStore):
    """A cache that has nothing: the server's answers instead, in whose cache entries have been finished."""

    @override
    def peek(self, key: str) -> Entry | None:
        return None

    @override
    async def get(self, key: str) -> Entry | None:
        return await self._below.get(key)

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await self._below.list(prefix, after=after, limit=limit, revision=revision)


class SoftLimits(Admission):
    """The last member of the server's chain, which only the server can ask."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        warned = await self._remote.ask(wire.Soft(operation))
        assert isinstance(warned, wire.Warned), "soft limits warn"
        for text in warned.warnings:
            ctx.warn(text)


class JobClock:
    """The server's time when it sent the job, and what has passed since."""

    def __init__(self, now_s: float) -> None:
        self._ahead_s = now_s - time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic() + self._ahead_s, UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Nothing:
    """Who is asked for what no write needs: credentials, addresses, other clusters."""

    async def find(self, name: str) -> serving.Cluster | None:
        return None

    async def authenticate(self, request: Request) -> User | None:
        return None

    async def authorize(self, user: User, cluster: serving.Cluster | None, info: RequestInfo) -> Decision:
        return Decision(allowed=False)

    async def documents(self, request: Request, catalog: Catalog | None, prepare: object) -> Response | None:
        return None

    async def issue(
        self,
        cluster_id: str,
        user: str,
        groups: tuple[str, ...],
        *,
        uid: str = "",
        audiences: tuple[str, ...] = (API_AUDIENCE,),
        expires_at: int | None = None,
    ) -> str:
        _not_here()

    def kubeconfig(self, cluster: str, token: str) -> Object:
        _not_here()

    def url(self, cluster: str) -> str:
        return ""


_NOTHING: Final = Nothing()


class Bench:
    """A worker's own: what it knows from one job to the next, which is only what kinds are."""

    def __init__(self) -> None:
        self._app = App(
            clusters=_NOTHING,
            authenticator=_NOTHING,
            authorizer=_NOTHING,
            documents=_NOTHING.documents,
            metrics=None,
        )
        self._catalogs: OrderedDict[tuple[tuple[str, str], ...], Catalog] = OrderedDict()
        self._kinds: OrderedDict[tuple[str, wire.Definition], Resource] = OrderedDict()

    async def perform(self, job: wire.Job, body: bytes, remote: Remote) -> wire.Outcome:
        """Does the job; what the client is to be told."""
        request = Request(job.method, job.path, job.query, Headers.lowered(job.headers), _body(body))
        request.info = wire.info_of(job.info)
        request.user = job.user
        request.warnings = job.warnings
        cluster = self._cluster(job, remote)
        request.cluster = cluster
        try:
            cluster.catalog = await self._catalog(job, remote)
            info = request.info
            served = cluster.catalog.find(info.group, info.version, info.resource)
            if served is None:
                # Its definition has changed since: the server looks again.
                return wire.Refused(wire.told(GroundMoved()), "[]", leaves=False)
            request.served = served
            response = await handlers.find(served, info, job.method)(self._app, request, served)
        except ApiError as error:
            return wire.Refused(wire.told(error), json.dumps(request.warnings), leaves=_has_grown())
        except MemoryError:
            os._exit(wire.OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001 - the server has the log, and tells the client
            return wire.Crashed(faults.classes(error), faults.stack(error), faults.classes(error, words=True))
        assert not response.headers, "handlers that write add none"
        assert not response.rest, "nor do they answer in parts"
        warnings = json.dumps(request.warnings)
        return wire.Answered(
            response.status, response.body, response.content_type, warnings, leaves=_has_grown()
        )

    def _cluster(self, job: wire.Job, remote: Remote) -> Cluster:
        admission: tuple[Admission, ...] = (CatalogAdmission(),)
        if job.asks_soft:
            admission = (*admission, SoftLimits(remote))
        return Cluster(
            job.cluster,
            job.cluster_id,
            Uncached(remote, barrier=False),
            remote,
            base=partial(self._base, job),
            ports=Ports(JobClock(job.now_s), _NOTHING, _NOTHING, root_ca=job.root_ca),
            admission=AdmissionChain(admission),
        )

    async def _catalog(self, job: wire.Job, remote: Remote) -> Catalog:
        base = await self._base(job)
        if job.definition is None:
            return base
        return Catalog((await self._kind(job.cluster_id, job.definition, remote),), parent=base)

    async def _base(self, job: wire.Job) -> Catalog:
        kinds = tuple(job.kinds)
        found = self._catalogs.get(kinds)
        if found is None:
            found = Choice(OFFER.of(GroupResource(*kind) for kind in kinds)).load()
            _keep(self._catalogs, kinds, found, CATALOGS_MAX)
        self._catalogs.move_to_end(kinds)
        return found

    async def _kind(self, cluster_id: str, definition: wire.Definition, remote: Remote) -> Resource:
        """The kind of a CRD, as it was when the request was dispatched. Raises GroundMoved where it is no more."""
        place = cluster_id, definition
        found = self._kinds.get(place)
        if found is None:
            entry = await remote.get(f"{CRDS}-/{definition.name}")
            if entry is None or entry.revision != definition.revision:
                raise GroundMoved
            crd = decoded(entry.value)
            found = resource_of(
                crd,
                schema_revision=definition.schema_revision,
                guard_key=schema_fence(definition.name),
                strategy=CustomResourceStrategy(),
            )
            if is_true(crd, "Terminating") or "deletionTimestamp" in crd["metadata"]:
                found = replace(found, terminating=True)
            _keep(self._kinds, place, found, KINDS_MAX)
        self._kinds.move_to_end(place)
        return found


_K = TypeVar("_K")


def _keep(kept: OrderedDict[_K, _T], key: _K, value: _T, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)


def _body(body: bytes) -> Callable[[int], Awaitable[Sequence[bytes]]]:
    async def read(limit: int) -> Sequence[bytes]:
        assert len(body) <= limit, "the server has read it"
        return (body,)

    return read


def _has_grown() -> bool:
    """Whether so much memory is in use that a fresh process is worth more than what this one knows."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - once for each job
            pages = int(statm.read().split()[1])
    except OSError:
        return False
    return pages * os.sysconf("SC_PAGE_SIZE") > KEPT_BYTES_MAX


async def _serve(end: socket.socket, cpu_s: float) -> None:
    server = wire.Channel(end)
    bench, remote = Bench(), Remote(server)
    while True:
        job = await server.receive(wire.to_worker)
        assert isinstance(job, wire.Job), "nothing else is sent unasked"
        body = await server.receive_raw(job.body_bytes)
        # So much for this job; the system ends who takes more, whatever he is in.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        await server.send(await bench.perform(job, body, remote))


def _limit(memory_bytes: int) -> None:
    """What there can be of it: some systems have no such limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    # Where memory is short, a worker is what can best be done without.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with(end: socket.socket) -> None:
    """Ends the process when the other end of the socket is closed, even by kill -9, and whatever is being computed."""
    poll = select.poll()
    poll.register(end.fileno(), 0)
    while not poll.poll():
        pass
    os._exit(0)


def main() -> None:
    """`python -c "from clusterling.services.workers.process import main; main()" FD CPU_SECONDS MEMORY_BYTES`."""
    number, cpu_s, memory_bytes = sys.argv[1:]
    end = socket.socket(fileno=int(number))
    end.setblocking(False)
    _limit(int(memory_bytes))
    threading.Thread(target=_end_with, args=(end,), daemon=True).start()
    gc.freeze()
    with contextlib.suppress(EOFError, OSError):
        asyncio.run(_serve(end, float(cpu_s)))
