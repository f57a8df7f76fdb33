"""A store that is put back to an older backup under replicas that run on.

What was acknowledged after the backup is gone, which nobody can help. But nobody may go on as if nothing had
happened: a client that comes with a revision from the time that is no more is told 410, or of a conflict; revisions go
on above all that were ever given; and all replicas agree on what there is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tests.faults.history import History, Key, Outcome, State, Write
from tests.faults.replicas import Replica
from tests.faults.workload import PREFIX, Answer, Clients, Watcher, config_maps, make_cluster

if TYPE_CHECKING:
    from tests.faults.rounds import Service

T = TypeVar("T")

KEPT: Final = 20
LOST: Final = 20
BLIND: Final = 3  # Writers that go on through a restore.
BLINDLY: Final = f"{PREFIX}-blind-"
BLIND_BEFORE_S: Final = 0.5
SETTLED_S: Final = 1.0  # An acknowledgement that was on its way when the store went has arrived.
UNNOTICED: Final = 60  # More than were lost: who looks only at how far the store has come sees nothing.
WATCHERS: Final = 4
PATIENCE_S: Final = 15.0
ATTEMPTS_MAX: Final = 20


class Restoring:
    """One round of it. `before` is the history up to the restore; what came after is in the clients' history."""

    def __init__(self, service: Service, clients: Clients, chance: random.Random, name: str) -> None:
        self._service = service
        self._clients = clients
        self._chance = chance
        self._collection = config_maps(f"{name}-z")
        self._watchers: list[Watcher] = []
        self._newest = 0
        self._writing = True
        self._blind: list[Write] = []
        self._blind_via: Sequence[Replica] = ()
        self._away = self._back = 0.0  # When the store was put back.
        self.before = clients.history
        self.relists = 0
        self.ready_s = 0.0

    async def run(self) -> None:
        service, clients, collection = self._service, self._clients, self._collection
        await make_cluster(clients, collection.cluster)
        kept = {f"{PREFIX}{n}": await self._write("create", f"{PREFIX}{n}") for n in range(KEPT)}
        watching = self._watch()
        try:
            await asyncio.to_thread(service.server.save)
            await self._ready()
            lost = [await self._lose(number, kept) for number in range(LOST)]
            await self._caught_up(lambda watcher: watcher.reached >= self._newest)
            clients.history = History()
            service.leaders.forget()
            kept |= await self._put_back()
            await self._check_blind()
            await self._compare(kept, [write for write in lost if write is not None])
            await self._caught_up(lambda watcher: watcher.relists > 0 and watcher.reached >= self._newest)
        except TimeoutError as error:
            clients.complain(str(error))
        finally:
            self.relists = sum(watcher.relists for watcher in self._watchers)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _put_back(self) -> dict[str, Write]:
        """The restore, and what was written before anybody noticed it."""
        service, clients = self._service, self._clients
        one, *others = self._chance.sample(list(service.replicas), len(service.replicas))
        fate = self._chance.choice(("runs", "stands still", "is new", "is new and alone"))
        unnoticed: dict[str, Write] = {}
        self._blind_via = others
        blind = [] if fate == "is new and alone" else [self._write_blindly(n) for n in range(BLIND)]
        going = asyncio.gather(*blind)
        await asyncio.sleep(BLIND_BEFORE_S if blind else 0.0)
        if fate == "stands still":
            one.pause()
        elif fate.startswith("is new"):
            one.kill()
        if fate == "is new and alone":
            clients.replicas = others  # For watchers: who knows nothing cannot know that they know too much.
            for other in others:
                other.pause()
            for way in service.direct_ways:
                way.harm("closed")
        self._away = clients.now()
        await asyncio.to_thread(service.server.restore)
        self._back = clients.now()
        service.leaders.forget()
        if fate == "stands still":
            one.resume()
        elif fate.startswith("is new"):
            one.revive()
        if fate == "is new and alone":
            await self._ready([one])
            for number in range(UNNOTICED):
                name = f"{PREFIX}-unnoticed-{number}"
                unnoticed[name] = await self._write("create", name, via=[one])
            # Where an answer was lost the object was read, too, by a revision of the time before anybody noticed.
            clients.history.reads.clear()
            for other in others:
                other.resume()
            for way in service.direct_ways:
                way.heal()
        await self._ready()
        clients.replicas = service.replicas
        self._writing = False
        await going
        return unnoticed

    async def _write_blindly(self, writer: int) -> None:
        """Makes one object after the other, whatever is going on."""
        clients, collection = self._clients, self._collection
        while self._writing:
            value = clients.value("blind")
            replica = self._chance.choice(self._blind_via)
            key = Key(collection.name, f"{BLINDLY}{writer}-{value}")
            write = Write(key, "create", replica.incarnation, 0.0, value)
            self._blind.append(write)
            self.before.writes.append(write)
            await clients.write(replica, collection, write, collection.object(key.name, value))
            await asyncio.sleep(0.02)

    async def _check_blind(self) -> None:
        """What was acknowledged when the backup was there is there; what was acknowledged before is gone."""
        clients = self._clients
        for write in self._blind:
            if write.outcome is Outcome.UNKNOWN or self._away <= write.end <= self._back + SETTLED_S:
                continue
            state = await clients.get(
                self._service.replicas[0], self._collection, write.key.name, "z", weak=False
            )
            there = state is not None and state.revision > 0
            expected = write.outcome is Outcome.DONE and write.end > self._back
            if state is not None and there is not expected:
                clients.complain(
                    f"{write.key.name} was {write.outcome} ({write.code}) at {write.end:.3f} and is {state}; the store"
                    f" was put back between {self._away:.3f} and {self._back:.3f}"
                )

    def _watch(self) -> list[asyncio.Task[None]]:
        self._watchers = [
            Watcher(f"w{n}", self._clients, self._collection, random.Random(self._chance.random()), 0.0)
            for n in range(WATCHERS)
        ]
        return [asyncio.create_task(watcher.run()) for watcher in self._watchers]

    async def _write(self, verb: str, name: str, expected: int = 0, via: Sequence[Replica] = ()) -> Write:
        """Until it is done. Raises TimeoutError where no replica does it."""
        clients, collection = self._clients, self._collection
        deadline = clients.now() + PATIENCE_S
        while clients.now() < deadline:
            value = clients.value("z")
            replica = self._chance.choice(via or clients.replicas)
            write = Write(Key(collection.name, name), verb, replica.incarnation, 0.0, value, expected)
            body = collection.object(name, value, expected)
            await clients.write(replica, collection, write, body)
            if write.outcome is Outcome.DONE:
                self._newest = max(self._newest, write.revision)
                return write
            if write.code == 409 and verb == "create":
                found = await clients.get(replica, collection, name, "z", weak=False)
                if found is not None and found.revision:
                    # An earlier attempt, whose answer was lost, has made it.
                    self._newest = max(self._newest, found.revision)
                    return replace(write, revision=found.revision, uid=found.uid, value=found.value)
            await asyncio.sleep(0.1)
        raise TimeoutError(f"nobody writes {name}: {write.code} {write.reason}")

    async def _lose(self, number: int, kept: dict[str, Write]) -> Write | None:
        name = f"{PREFIX}{number}"
        match number % 3:
            case 0:
                return await self._write("create", f"{PREFIX}{number + KEPT}")
            case 1:
                return await self._write("update", name)
        await self._delete(name, kept[name])
        return None

    async def _delete(self, name: str, kept: Write) -> None:
        clients, collection = self._clients, self._collection
        for _ in range(ATTEMPTS_MAX):
            replica = self._chance.choice(clients.replicas)
            write = Write(Key(collection.name, name), "delete", replica.incarnation, 0.0)
            await clients.write(replica, collection, write, None)
            if write.outcome is Outcome.DONE or write.code == 404:
                return
            await asyncio.sleep(0.1)

    async def _ready(self, replicas: Sequence[Replica] = ()) -> None:
        began = self._clients.now()
        deadline = began + PATIENCE_S
        for replica in replicas or self._service.replicas:
            while not await replica.is_ready(self._clients.session):
                if self._clients.now() > deadline:
                    self._clients.complain(f"{replica.name} is not ready {PATIENCE_S:.0f} s after a restore")
                    return
                await asyncio.sleep(0.05)
        self.ready_s = self._clients.now() - began

    async def _compare(self, kept: dict[str, Write], lost: list[Write]) -> None:
        """What every replica says now."""
        clients, collection = self._clients, self._collection
        expected = {name: (write.value, write.uid) for name, write in kept.items()}
        first: dict[str, State] | None = None
        for replica in self._service.replicas:
            await self._refuses(replica, lost)
            listing = await self._patiently(partial(clients.list, replica, collection, weak=False))
            if listing is None:
                clients.complain(f"{replica.name} does not list after a restore")
                continue
            items = {name: state for name, state in listing.items.items() if not name.startswith(BLINDLY)}
            found = {name: (state.value, state.uid) for name, state in items.items()}
            if found != expected:
                clients.complain(f"{replica.name} has {found} after a restore of {expected}")
            if first is None:
                first = items
                self._say_written(dict(listing.items))
            elif first != items:
                clients.complain(f"{replica.name} has {items}, another has {first}")
        newest = self._newest
        for number in range(3):
            write = await self._write("create", f"{PREFIX}-after-{number}")
            if write.revision <= newest:
                clients.complain(f"after a restore {write.revision} was given, and {newest} had been")

    def _say_written(self, items: dict[str, State]) -> None:
        """In the new history, what is there was written before it began."""
        listed = {state.value for state in items.values()}
        late = [
            write for write in self._blind if write.outcome is Outcome.UNKNOWN and write.value not in listed
        ]
        self._clients.history.writes = late
        during = {write.value: write for write in self._blind}
        for name, state in items.items():
            if write := during.get(state.value):
                late.append(Write(write.key, "create", write.replica, write.start, write.value))
                continue
            self._clients.history.writes.append(
                Write(
                    Key(self._collection.name, name),
                    "create",
                    "",
                    0.0,
                    state.value,
                    end=0.0,
                    outcome=Outcome.DONE,
                    revision=state.revision,
                    uid=state.uid,
                )
            )

    async def _refuses(self, replica: Replica, lost: list[Write]) -> None:
        """A revision from the time that is no more is good for nothing."""
        clients, collection = self._clients, self._collection
        for write in self._chance.sample(lost, 3):
            revision = str(write.revision)
            watch = {"watch": "true", "resourceVersion": revision, "timeoutSeconds": "1"}
            answer = await self._answer(replica, "GET", collection.url, query=watch)
            code = answer.status
            if code == 200 and isinstance(answer.body, dict):
                code = answer.body["object"].get("code", 200)
            if code != 410:
                clients.complain(
                    f"{replica.name} goes on with a watch from {revision}, which is no more: {answer}"
                )
            exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
            answer = await self._answer(replica, "GET", collection.url, query=exact)
            if answer.status != 410:
                clients.complain(f"{replica.name} lists at {revision}, which is no more: {answer.status}")
            body = collection.object(write.key.name, "never", write.revision)
            answer = await self._answer(replica, "PUT", f"{collection.url}/{write.key.name}", body)
            if answer.status not in (404, 409):
                clients.complain(
                    f"{replica.name} takes a write on {revision}, which is no more: {answer.status}"
                )

    async def _answer(self, replica: Replica, method: str, path: str, *rest: Any, **more: Any) -> Answer:
        """What a replica says that may be busy with the new epoch for another moment."""
        for _ in range(ATTEMPTS_MAX):
            answer = await self._clients.ask(replica, method, path, *rest, **more)
            if answer.status != 503:
                break
            await asyncio.sleep(0.1)
        return answer

    async def _patiently(self, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        for _ in range(ATTEMPTS_MAX):
            if (answer := await ask()) is not None:
                return answer
            await asyncio.sleep(0.1)
        return None

    async def _caught_up(self, done: Callable[[Watcher], bool]) -> None:
        deadline = self._clients.now() + PATIENCE_S
        while not all(done(watcher) for watcher in self._watchers):
            if self._clients.now() > deadline:
                for watcher in self._watchers:
                    if not done(watcher):
                        self._clients.complain(
                            f"{watcher.name} has come to {watcher.reached} of {self._newest},"
                            f" after {watcher.relists} relists"
                        )
                return
            await asyncio.sleep(0.05)
