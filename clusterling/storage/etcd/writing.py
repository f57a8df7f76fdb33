"""Batches of writes as etcd transactions.

A batch is tried `together` first: one list of comparisons, in which what several writes depend on (their namespace, their
cluster) stands once, and one list of changes; a third of the work of the other way, here and in etcd. Where any
comparison fails nothing happens, and the batch is done `apart`: every transaction is a nested one with its own
comparisons, so one that is refused fails none of its neighbours. Both hold what all depend on (`Footing`).

etcd allows 128 operations along any path of nesting, and counts a level as the larger of its comparisons and
operations: `groups` cuts batches to that, `_spread` long lists of operations. What has more comparisons than that is
done on sight of the whole batch record instead (`EtcdBackend._commit_exactly`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from clusterling.storage.backend import Drops, Transaction, refusal
from clusterling.storage.etcd.layout import BatchRecord, Layout, State, bounds, index_of, wrapped
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.others import OTHERS
from clusterling.storage.store import ABSENT, Guard, Op, StorageError

PATH_OPS_MAX: Final = 128  # etcd's --max-txn-ops.
FOOTING: Final = 4
RECORD: Final = 2  # What every batch writes of its own.
SPREAD: Final = 20  # Operations in each part of a list that is too long for one level.

_COMPARE: Final = rpc.Compare
_EQUAL, _GREATER, _LESS = _COMPARE.EQUAL, _COMPARE.GREATER, _COMPARE.LESS


@dataclass(frozen=True, slots=True)
class Footing:
    """What a writer believes about the store. If any of it is not so, its batch does nothing.

    `seen`: the last batch known, which a store that was restored from an older backup has not got. With `alone` it must be
    the last one that there is; `within`: no more than so many may have come after it. `told`: keys at the revisions that the watch told of them, where a writer expects just these.
    """

    state: State
    writer: bytes
    writer_mod: int
    seen: int
    alone: bool = False
    within: int | None = None
    told: Mapping[str, int] = field(default_factory=dict)

    def comparisons(self, layout: Layout) -> list[Any]:
        own = [mod_is(layout.state, self.state.mod_revision), mod_is(self.writer, self.writer_mod)]
        if self.alone:
            return [*own, mod_is(layout.batch, self.seen)]
        if self.within is not None:
            own.append(_mod(layout.batch, _LESS, self.seen + self.within + 1))
        return [*own, _mod(layout.batch, _GREATER, self.seen - 1)]

    def questions(self, layout: Layout) -> list[Any]:
        """What to ask when it was not so; `answers` are in this order."""
        return [get(layout.state), get(self.writer), get(layout.batch)]

    def holds(self, response: Any) -> bool:
        """Whether it was so after all, by the answers: then it was a comparison of a write's own that failed."""
        own, writer, batch = (_mod_of(answer.response_range.kvs) for answer in response.responses)
        if own != self.state.mod_revision or writer != self.writer_mod:
            return False
        if self.alone:
            return batch == self.seen
        return batch >= self.seen and (self.within is None or batch <= self.seen + self.within)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch on its way: the request, the numbers each transaction gets, and its random name."""

    request: Any
    name: bytes
    starts: Sequence[int]  # The index of each transaction's first op.
    questions: Sequence[Sequence[str]] = ()  # Apart: the keys asked about where the transaction is refused.


def get(key: bytes, *, keys_only: bool = False, revision: int = 0) -> Any:
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key, keys_only=keys_only, revision=revision))


def put(key: bytes, value: bytes) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))


def delete(key: bytes, end: bytes = b"") -> Any:
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, range_end=end))


def mod_is(key: bytes, mod_revision: int) -> Any:
    return _mod(key, _EQUAL, mod_revision)


def mod_below(key: bytes, mod_revision: int, end: bytes = b"") -> Any:
    """Holds where the key was last written before, or is absent; with `end`, for every key of a range."""
    return _COMPARE(key=key, range_end=end, target=_COMPARE.MOD, result=_LESS, mod_revision=mod_revision)


def _mod(key: bytes, result: int, mod_revision: int) -> Any:
    return _COMPARE(key=key, target=_COMPARE.MOD, result=result, mod_revision=mod_revision)


def _value(key: bytes, result: int, value: bytes) -> Any:
    return _COMPARE(key=key, target=_COMPARE.VALUE, result=result, value=value)


def parted(transaction: Transaction) -> tuple[Transaction, int]:
    """The transaction without its guard of what others have written (`others.py`), and the count there; 0 where it has none."""
    for guard in transaction.guards:
        if guard.key == OTHERS:
            rest = [other for other in transaction.guards if other is not guard]
            return Transaction(transaction.ops, rest, transaction.limits), guard.revision
    return transaction, 0


def groups(transactions: Sequence[Transaction], told: Mapping[str, int]) -> Iterator[Sequence[int]]:
    """The transactions' positions, in order, in groups that fit one etcd transaction each, together and apart."""
    group: list[int] = []
    room = _Room(told)
    for position, transaction in enumerate(transactions):
        if not room.takes(transaction) and group:
            yield group
            group, room = [], _Room(told)
            room.takes(transaction)
        group.append(position)
    if group:
        yield group


class _Room:
    """What a group of transactions takes of etcd's bound."""

    def __init__(self, told: Mapping[str, int]) -> None:
        self._told = told
        self._guards: set[Guard] = set()
        self._comparisons = FOOTING
        self._operations = RECORD
        self._count = 0
        self._deepest = 0

    def takes(self, transaction: Transaction) -> bool:
        """Counts it in, and says whether all of them fit."""
        ops, guards = transaction.ops, self._guards
        for guard in transaction.guards:
            if guard not in guards:
                guards.add(guard)
                self._comparisons += _comparisons_at(self._told, guard.key, guard.revision)
        for op in ops:
            expected = op.expected
            if expected is not None:
                self._comparisons += (
                    1 if expected == ABSENT else _comparisons_at(self._told, op.key, expected)
                )
            if op.value is None and not expected:
                self._comparisons += 1
            if op.expires_at is not None:
                self._operations += 1
        self._operations += len(ops)
        self._count += 1
        # What nearly all are, one op and few guards, is taken for the most that it can be.
        weight = 4 + 3 * len(transaction.guards) if len(ops) == 1 else SPREAD
        if weight >= SPREAD:
            weight = _weight(transaction, self._told)
        self._deepest = max(self._deepest, weight)
        apart = RECORD + self._count + self._deepest
        return max(self._comparisons, self._operations, apart) <= PATH_OPS_MAX


def _comparisons_at(told: Mapping[str, int], key: str, revision: int) -> int:
    """As many as `_at` makes, at most."""
    return 1 if revision == ABSENT or told.get(key) == revision else 3


def _weight(transaction: Transaction, told: Mapping[str, int]) -> int:
    """What the transaction takes of the path."""
    comparisons, keys = 0, len(transaction.guards)
    for guard in transaction.guards:
        comparisons += _comparisons_at(told, guard.key, guard.revision)
    for op in transaction.ops:
        if op.expected is not None:
            comparisons += _comparisons_at(told, op.key, op.expected)
            keys += 1
        if op.value is None and not op.expected:
            comparisons += 1
    operations = len(transaction.ops) + len({op.expires_at for op in transaction.ops}) + 2
    if max(operations, keys) <= SPREAD:
        return max(comparisons, operations)
    return max(comparisons, operations // SPREAD + 1) + SPREAD


def fits(transaction: Transaction, told: Mapping[str, int]) -> bool:
    """Whether its comparisons can be made in one etcd transaction at all."""
    return _weight(transaction, told) + FOOTING <= PATH_OPS_MAX


def together(layout: Layout, footing: Footing, transactions: Sequence[Transaction]) -> Batch:
    """The transactions as one request that does all of them or nothing; they fit (`groups`)."""
    name = secrets.token_bytes(8)
    terms = Terms(layout, footing.state, footing.told)
    # Parts are made in place: copying them into place costs more than all the rest.
    request = rpc.TxnRequest(compare=footing.comparisons(layout), failure=footing.questions(layout))
    compare, success = request.compare, request.success
    record = success.add().request_put
    success.append(put(footing.writer, name))
    starts: list[int] = []
    deletes: dict[str, int] = {}
    guards: set[Guard] = set()
    expiring: dict[int, list[str]] = {}
    index = 0
    for transaction in transactions:
        starts.append(index)
        for guard in transaction.guards:
            if guard not in guards:
                guards.add(guard)
                compare.extend(terms.at(guard.key, guard.revision))
        for op in transaction.ops:
            place = layout.key(op.key)
            terms.add(compare, op, place)
            if op.value is None:
                deletes[op.key] = index
                success.add().request_delete_range.key = place
            else:
                made = success.add().request_put
                made.key = place
                made.value = wrapped(op.value, index, op.expires_at)
                if op.expires_at is not None:
                    expiring.setdefault(op.expires_at, []).append(op.key)
            index += 1
    success.extend(_filed(layout, expiring, f"{name.hex()}-00"))
    record.key = layout.batch
    record.value = BatchRecord(name.hex(), index, deletes).encoded()
    return Batch(request, name, starts)


def apart(layout: Layout, footing: Footing, transactions: Sequence[Transaction]) -> Batch:
    """The transactions as one request that does those of them that may happen; they fit (`groups`)."""
    name = secrets.token_bytes(8)
    terms = Terms(layout, footing.state, footing.told)
    starts: list[int] = []
    deletes: dict[str, int] = {}
    index = 0
    for transaction in transactions:
        starts.append(index)
        for op in transaction.ops:
            if op.value is None:
                deletes[op.key] = index
            index += 1
    record = [
        put(layout.batch, BatchRecord(name.hex(), index, deletes).encoded()),
        put(footing.writer, name),
    ]
    questions: list[Sequence[str]] = []
    nested: list[Any] = []
    alone = len(transactions) == 1
    for start, transaction in zip(starts, transactions, strict=True):
        comparisons, asked = terms.of(transaction)
        questions.append(asked)
        operations = [
            *(record if alone else ()),
            *changes(layout, transaction.ops, start, name.hex()),
        ]
        nested.append(
            _nested(
                comparisons,
                _spread(operations),
                _spread([get(layout.key(key), keys_only=True) for key in asked]),
            )
        )
    request = rpc.TxnRequest(
        compare=footing.comparisons(layout),
        success=nested if alone else [*record, *nested],
        failure=footing.questions(layout),
    )
    return Batch(request, name, starts, questions)


def exact(layout: Layout, footing: Footing, transaction: Transaction, batch_mod: int) -> Batch:
    """One transaction whose conditions have been looked at: it happens if nothing at all was written since."""
    name = secrets.token_bytes(8)
    deletes = {op.key: index for index, op in enumerate(transaction.ops) if op.value is None}
    request = rpc.TxnRequest(
        compare=[*footing.comparisons(layout), mod_is(layout.batch, batch_mod)],
        success=_spread(
            [
                put(layout.batch, BatchRecord(name.hex(), len(transaction.ops), deletes).encoded()),
                put(footing.writer, name),
                *changes(layout, transaction.ops, 0, name.hex()),
            ]
        ),
        failure=footing.questions(layout),
    )
    return Batch(request, name, [0], [()])


def changes(layout: Layout, ops: Sequence[Op], start: int, name: str) -> list[Any]:
    """The ops as puts and deletions, and what files those that expire."""
    operations: list[Any] = []
    expiring: dict[int, list[str]] = {}
    for index, op in enumerate(ops, start):
        key = layout.key(op.key)
        if op.value is None:
            operations.append(delete(key))
            continue
        operations.append(put(key, wrapped(op.value, index, op.expires_at)))
        if op.expires_at is not None:
            expiring.setdefault(op.expires_at, []).append(op.key)
    operations += _filed(layout, expiring, f"{name}-{start:02x}")
    return operations


def _filed(layout: Layout, expiring: Mapping[int, Sequence[str]], name: str) -> Iterator[Any]:
    for at, keys in expiring.items():
        yield put(layout.expiry(at, name), orjson.dumps(keys))


class Terms:
    """What must hold where a write may happen, in a store in which some drops are being swept.

    A revision says where in a batch its key was written, which etcd's does not: to compare that, too, the value's envelope is
    looked at. Not where the watch has `told` that the key came to be at this revision, as in one batch it did so once.
    """

    def __init__(self, layout: Layout, state: State, told: Mapping[str, int]) -> None:
        self._layout = layout
        self._state = state
        self._drops = state.dropping()
        self._told = told

    def of(self, transaction: Transaction) -> tuple[list[Any], list[str]]:
        """The comparisons, and the keys that they are about."""
        comparisons: list[Any] = []
        asked: dict[str, None] = {}
        for guard in transaction.guards:
            asked[guard.key] = None
            comparisons += self.at(guard.key, guard.revision)
        for op in transaction.ops:
            if op.expected is not None or op.value is None:
                asked[op.key] = None
                comparisons += self.of_op(op)
        return comparisons, list(asked)

    def add(self, compare: Any, op: Op, place: bytes) -> None:
        """Adds what `of_op` gives to comparisons in the making; `place` is the op's key in etcd."""
        expected = op.expected
        if not self._state.drops:
            # Nearly always one comparison says it all.
            if expected == ABSENT and op.value is not None:
                compare.add(key=place, target=_COMPARE.MOD, result=_LESS, mod_revision=1)
                return
            if expected and self._told.get(op.key) == expected:
                mod_revision = self._state.mod_of(expected)
                if mod_revision > 0:
                    compare.add(key=place, target=_COMPARE.MOD, result=_EQUAL, mod_revision=mod_revision)
                    return
        compare.extend(self.of_op(op))

    def of_op(self, op: Op) -> Iterator[Any]:
        """Without the guards of its transaction."""
        if op.expected is not None:
            yield from self.at(op.key, op.expected)
        if op.value is None and not op.expected:
            yield _mod(self._layout.key(op.key), _GREATER, _floor(self._drops, op.key))

    def at(self, key: str, revision: int) -> Iterator[Any]:
        """What holds where the key is at that revision."""
        place = self._layout.key(key)
        floor = _floor(self._drops, key)
        if revision == ABSENT:
            yield mod_below(place, floor + 1)
            return
        mod_revision = self._state.mod_of(revision)
        if mod_revision <= floor:
            # From before the drop, or the epoch: no key is there.
            yield mod_is(place, -1)
            return
        yield mod_is(place, mod_revision)
        if self._told.get(key) == revision:
            return
        lowest, highest = bounds(index_of(revision))
        if index_of(revision):
            yield _value(place, _GREATER, lowest)
        yield _value(place, _LESS, highest)


def _floor(drops: Drops, key: str) -> int:
    """What was written to the key at or below this revision of etcd's has been dropped."""
    return drops.floor(key, at=1 << 62) if drops else 0


def _nested(comparisons: Sequence[Any], success: Sequence[Any], failure: Sequence[Any]) -> Any:
    return rpc.RequestOp(request_txn=rpc.TxnRequest(compare=comparisons, success=success, failure=failure))


def _spread(operations: Sequence[Any]) -> Sequence[Any]:
    """The operations, or unconditional transactions of some each, where they are too many for one level."""
    if len(operations) <= SPREAD:
        return operations
    return [
        _nested((), operations[start : start + SPREAD], ()) for start in range(0, len(operations), SPREAD)
    ]


def _mod_of(kvs: Any) -> int:
    """etcd's revision of the one key asked for; 0 where it is not there."""
    return kvs[0].mod_revision if kvs else 0


def mods_found(response: Any) -> dict[bytes, int]:
    """etcd's revision of every key found in a transaction's answers, nested ones included."""
    found: dict[bytes, int] = {}
    for answer in response.responses:
        kind = answer.WhichOneof("response")
        if kind == "response_range":
            for kv in answer.response_range.kvs:
                found[kv.key] = kv.mod_revision
        elif kind == "response_txn":
            found |= mods_found(answer.response_txn)
    return found


def refused_by(
    layout: Layout, state: State, transaction: Transaction, asked: Sequence[str], found: dict[bytes, int]
) -> StorageError | None:
    """Why it was refused, as far as etcd's revisions tell; None where only an index within a batch differs."""
    drops = state.dropping()
    expected = {op.key: op.expected for op in transaction.ops if op.expected}
    expected |= {guard.key: guard.revision for guard in transaction.guards if guard.revision}
    known = set(asked)

    def revision_of(key: str) -> int:
        if key not in known:
            return 1 << 62  # Nothing depends on it.
        mod_revision = found.get(layout.key(key), 0)
        if mod_revision <= _floor(drops, key):
            return ABSENT
        wanted = expected.get(key)
        if wanted is not None and state.mod_of(wanted) == mod_revision:
            return wanted
        return state.revision(mod_revision, 0)

    return refusal(transaction, revision_of)
