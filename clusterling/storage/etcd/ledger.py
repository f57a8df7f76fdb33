"""What clusters with limits have, as the watch tells it, and how far others may have written unseen.

A cluster is counted when the first of its limits is looked at, and followed from there on by the watch, which brings every
replica's writes. What others have committed since, nobody here knows. But every batch has a revision of etcd's own, and
holds `BATCH_OBJECTS_MAX` objects at most: where there is room for n batches more than the write itself takes, the commit
compares that no more than n came after what was seen (`writing.Footing.within`). If more did, nothing happens, and the
write looks again. So far from a limit replicas do not disturb each other; next to it one commits at a time. There is
never more than may be.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from clusterling.storage.backend import Transaction
from clusterling.storage.etcd.layout import INDEX_MAX
from clusterling.storage.etcd.reading import Answer, Reads
from clusterling.storage.store import (
    ABSENT,
    VALUE_BYTES_MAX,
    Compacted,
    Event,
    LimitReached,
    Measure,
    Op,
    Unavailable,
    Usage,
)
from clusterling.storage.usage import Tally, Totals, collection_of, counted

BATCH_OBJECTS_MAX: Final = INDEX_MAX + 1
BATCH_BYTES_MAX: Final = VALUE_BYTES_MAX + (64 << 10)  # etcd takes no larger request.
ACCOUNTS_MAX: Final = 20_000
PAGE_ENTRIES: Final = 500
ATTEMPTS_MAX: Final = 5
PAUSE_AT_LIMIT_MS: Final = 4


class _Account:
    """One cluster's totals. Events wait until it has been counted; those up to `counted_at` are in the count."""

    __slots__ = ("counted_at", "ready", "totals", "valid", "waiting")

    def __init__(self) -> None:
        self.totals = Totals()
        self.waiting: list[Event] = []
        self.ready = asyncio.Event()
        self.counted_at = 0
        self.valid = True

    def apply(self, event: Event) -> None:
        if event.revision <= self.counted_at:
            return
        if event.dropped:
            if event.key != collection_of(event.key):
                self.valid = False  # Part of a collection: only counting tells how much it was.
            self.totals.drop(event.key)
            return
        try:
            before = event.previous()
        except Compacted:
            self.valid = False
            return
        after = None if event.entry is None else event.entry.value
        self.totals.change(event.key, None if before is None else counted(before.value), counted(after))


class Ledger:
    """The accounts of clusters, those used last."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def hear(self, events: Iterable[Event]) -> None:
        """Takes what the watch tells, in its order."""
        if not self._accounts:
            return
        for event in events:
            if event.dropped and event.key.count("/") < 1:
                self.forget()
                return
            name = _cluster_of(event.key)
            account = self._accounts.get(name)
            if account is None:
                continue
            if not account.ready.is_set():
                account.waiting.append(event)
                continue
            account.apply(event)
            if not account.valid:
                del self._accounts[name]

    def forget(self) -> None:
        """There is a gap, or the store was put back: all is counted anew."""
        for account in self._accounts.values():
            account.valid = False
        self._accounts.clear()

    async def usage(self, prefix: str) -> Sequence[Usage]:
        """As `Store.usage`."""
        name = _cluster_of(prefix)
        if not name:
            return (await self._counted("")).totals.under(prefix)
        await self.open([name])
        account = self._accounts.get(name)
        if account is None or not account.ready.is_set():
            raise Unavailable("the etcd store changes too fast to count")
        return account.totals.under(prefix)

    async def open(self, clusters: Iterable[str]) -> None:
        """Returns when the clusters, first parts of keys, have been counted."""
        for name in clusters:
            account = self._accounts.get(name)
            for _ in range(ATTEMPTS_MAX):
                if account is not None and account.ready.is_set():
                    break
                if account is None:
                    account = await self._count(name)
                else:
                    await account.ready.wait()
                    account = self._accounts.get(name)
            if account is not None and name in self._accounts:
                self._accounts.move_to_end(name)

    def tally(self, lengths: Mapping[str, int | None] | None) -> Tally:
        """By the totals as they are. Using it raises Uncounted where a cluster has been forgotten since `open`.

        `lengths`: as below; None: every write counts for the most that it may add.
        """
        if lengths is None:
            return Tally(self.used)
        return Tally(self.used, lambda op: lengths.get(op.key))

    def used(self, prefix: str, what: Measure) -> int:
        account = self._accounts.get(_cluster_of(prefix))
        if account is None or not account.ready.is_set():
            raise Uncounted(prefix)
        return account.totals.used(prefix, what)

    async def lengths(self, transactions: Sequence[Transaction]) -> Mapping[str, int | None]:
        """For what the values count that the transactions take the place of."""
        found: dict[str, int | None] = {}

        async def look(key: str) -> None:
            entry = await self._reads.get(key)
            found[key] = None if entry is None else counted(entry.value)

        async with asyncio.TaskGroup() as group:
            for transaction in transactions:
                for op in transaction.ops:
                    if op.expected != ABSENT:
                        group.create_task(look(op.key))
        return found

    async def _count(self, name: str) -> _Account | None:
        """Counts the cluster; None where it has to be tried again."""
        account = self._accounts[name] = _Account()
        while len(self._accounts) > ACCOUNTS_MAX:
            self._accounts.popitem(last=False)[1].ready.set()
        try:
            of_now = await self._counted(name)
        except BaseException:
            account.valid = False
            if self._accounts.get(name) is account:
                del self._accounts[name]
            account.ready.set()
            raise
        account.totals, account.counted_at = of_now.totals, of_now.counted_at
        for event in account.waiting:
            account.apply(event)
        account.waiting.clear()
        account.ready.set()
        if account.valid and self._accounts.get(name) is account:
            return account
        if self._accounts.get(name) is account:
            del self._accounts[name]
        return None

    async def _counted(self, prefix: str) -> _Account:
        account = _Account()
        after = ""
        while True:
            page = await self._reads.list(
                prefix, after=after, limit=PAGE_ENTRIES, revision=account.counted_at
            )
            account.counted_at = page.revision
            for entry in page.entries:
                account.totals.change(entry.key, None, counted(entry.value))
            if len(page.entries) < PAGE_ENTRIES:
                return account
            after = page.entries[-1].key


class Uncounted(Exception):
    """The cluster's account is gone. `args[0]` is the prefix that was asked about."""


def _clusters_of(transactions: Iterable[Transaction]) -> list[str]:
    """Those whose limits the transactions have."""
    return list(
        {_cluster_of(limit.prefix): None for transaction in transactions for limit in transaction.limits}
    )


def _judged(tally: Tally, transactions: Sequence[Transaction]) -> tuple[list[LimitReached | None], int]:
    """Which of the transactions are refused, and how many batches of others, unseen, leave room for the rest."""
    refusals = [tally.refusal(transaction.ops, transaction.limits) for transaction in transactions]
    batches = 1 << 40
    for transaction, refused in zip(transactions, refusals, strict=True):
        if refused is None and any(_grows(op) for op in transaction.ops):
            for limit in transaction.limits:
                room = max(limit.most - tally.used(limit), 0)
                size = BATCH_OBJECTS_MAX if limit.what is Measure.OBJECTS else BATCH_BYTES_MAX
                batches = min(batches, room // size)
    return refusals, batches


class Bounds:
    """The limits of transactions on their way. They are looked at as often as the store moves under the commit.

    First every write counts for the most that it may add. Only where that is too much is it looked up what the writes take the
    place of, and only with all that was acknowledged before is one refused.
    """

    def __init__(
        self, ledger: Ledger, reads: Reads, transactions: Sequence[Transaction], *, exact: bool = False
    ) -> None:
        self._ledger = ledger
        self._reads = reads
        self._transactions = transactions
        self._clusters = _clusters_of(transactions)
        self._lengths: Mapping[str, int | None] | None = None
        self._exact = exact
        self._disturbed = 0
        self.refusals: Sequence[LimitReached | None] = ()
        self.batches = 0

    async def prepare(self, come: Callable[[Answer], Awaitable[None]]) -> None:
        """Learns what judging needs. `come` returns when the watch has come as far as an answer."""
        if self._disturbed:
            # Of several replicas next to a limit, not always the same one comes too late.
            await asyncio.sleep(secrets.randbelow(PAUSE_AT_LIMIT_MS * 1000) / 1e6)
        if self._exact:
            await come(await self._reads.latest())
            self._lengths = await self._ledger.lengths(self._transactions)
        await self._ledger.open(self._clusters)

    def judge(self) -> bool:
        """Whether `refusals` and `batches` are right, with what the watch has told; if not, `prepare` again."""
        try:
            self.refusals, self.batches = _judged(self._ledger.tally(self._lengths), self._transactions)
        except Uncounted:
            return False
        if any(self.refusals) and not self._exact:
            self._exact = True
            return False
        return True

    def disturbed(self) -> None:
        """Others have written meanwhile."""
        self._disturbed += 1
        self._lengths = None
        self._exact = False


def _grows(op: Op) -> bool:
    return counted(op.value) is not None


def _cluster_of(key: str) -> str:
    return key[: key.find("/") + 1]
