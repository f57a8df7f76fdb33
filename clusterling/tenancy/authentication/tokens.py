"""Tokens: bearer secrets that the server made, kept only as hashes, each good in one realm.

A token is 256 random bits, so its SHA-256 is as unguessable as itself: it may be a key in the store and be
looked up by equality, and how long that takes tells nobody anything they could use.

Hashes live outside every logical cluster's keys, at `~tokens/<realm>/-/-/<hash>`: no cluster serves them, a fork or
backup of a cluster does not carry its credentials, and one watch over `~tokens/` tells every replica what was revoked.
A token that was given a name has a record `~tokens/<realm>/-/names/<name>` beside it, written and removed with it; one
that was not is called after the beginning of its hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.registry.ports import API_AUDIENCE, Clock
from clusterling.registry.strategy import User
from clusterling.storage.backoff import Backoff
from clusterling.storage.clearing import clear
from clusterling.storage.store import (
    ABSENT,
    Entry,
    Event,
    Guard,
    GuardFailed,
    KeyExists,
    Op,
    RevisionConflict,
    StorageError,
    Store,
    Watch,
)
from clusterling.tenancy.names import ROOT_ID, fence_key

_log = logging.getLogger(__name__)

PREFIX: Final = "~tokens/"

# Scanners of repositories and logs find our tokens by this.
MARK: Final = "clst_"

# No credential of ours or of anybody's identity provider is longer; what is, is refused before it is hashed.
TOKEN_CHARACTERS_MAX: Final = 16_384

# Users kept in memory, over all realms: about 1 KB each.
CACHED_USERS_MAX: Final = 20_000

_DELETED: Final = "the logical cluster is being deleted"


# What tokens are called that nobody named. People's names are never of this form.
_UNNAMED: Final = re.compile("t-[0-9a-f]{16}")


def is_for_unnamed(name: str) -> bool:
    """Whether that name is of the form that tokens without one are given."""
    return _UNNAMED.fullmatch(name) is not None


def unnamed(digest: str) -> str:
    """What the token of that hash is called where nobody named it."""
    return f"t-{digest[:16]}"


def new_token() -> str:
    """A secret of 256 bits, in characters that a header and a shell take as they are."""
    return MARK + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class StaticTokens:
    """Tokens given at start, as the administrator's of `root` is. Nothing of them is stored."""

    def __init__(self, users: Mapping[str, User]) -> None:
        """`users` by token; each user's realm is where the token is good. They are meant for the API alone."""
        self._users = {(user.realm, token_hash(token)): user for token, user in users.items()}

    async def find(
        self, digest: str, realms: Sequence[str], audiences: tuple[str, ...] = (API_AUDIENCE,)
    ) -> User | None:
        """The user whose token has this hash, in the first of the realms that knows it."""
        if API_AUDIENCE not in audiences:
            return None
        for realm in realms:
            user = self._users.get((realm, digest))
            if user is not None:
                return user
        return None


@dataclass(frozen=True, slots=True)
class _Issued:
    """What is kept of a token, besides its hash. `expires_at` None: it stays until it is revoked."""

    user: User
    audiences: tuple[str, ...] = (API_AUDIENCE,)
    expires_at: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """What may be told of an issued token: everything but itself. `issued` is a metav1.Time.

    `expires_at` in whole seconds since the epoch, None: it stays until it is revoked.
    """

    name: str
    user: User
    issued: str
    audiences: tuple[str, ...]
    expires_at: int | None


class IssuedTokens:
    """Makes, finds and revokes tokens over the whole store. Implements `registry.ports.TokenIssuer`.

    Finding asks the store once and then remembers; `run` forgets what other replicas revoked.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cached: dict[str, OrderedDict[str, _Issued]] = {}
        self._cached_total = 0
        self._watch: Watch | None = None
        self._fallen_behind = asyncio.Event()
        # What ends when a token does, by its realm and hash.
        self._held: dict[tuple[str, str], set[Callable[[], None]]] = {}
        # Counts what was forgotten, so that a lookup under way does not put back what was just revoked.
        self._forgotten = 0

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
        """A new token that authenticates as that user in that realm. Only the caller ever sees it.

        It goes by itself at `expires_at`, and is found for its `audiences` alone.
        Raises ApiError 409 where the cluster is being deleted: its tokens are gone or going.
        """
        issued = _Issued(User(user, groups, uid, realm=cluster_id), audiences, expires_at)
        return (await self._make(issued))[0]

    async def make(
        self, cluster_id: str, user: str, groups: tuple[str, ...], *, expires_at: int | None, name: str
    ) -> tuple[str, Token]:
        """As `issue`, of that name, and with what may be told of it. Raises KeyExists where another of that realm has the name."""
        return await self._make(
            _Issued(User(user, groups, realm=cluster_id), expires_at=expires_at, name=name)
        )

    async def _make(self, issued: _Issued) -> tuple[str, Token]:
        token = new_token()
        await self._write(issued.user.realm, self._ops(token, issued))
        return token, self._told(token, issued)

    def _told(self, token: str, issued: _Issued) -> Token:
        name = issued.name or unnamed(token_hash(token))
        return Token(name, issued.user, rfc3339(self._clock.now()), issued.audiences, issued.expires_at)

    async def _write(self, realm: str, ops: Sequence[Op]) -> None:
        """Writes what makes tokens, unless the realm's cluster is being deleted."""
        guards = []
        if realm != ROOT_ID:
            key = f"{ROOT_ID}/{fence_key(realm)}"
            fence = await self._store.get(key)
            if fence is None:
                raise ApiError(409, "Conflict", _DELETED)
            guards = [Guard(key, fence.revision)]
        try:
            await self._store.write(ops, guards)
        except GuardFailed as error:
            # A fence never comes back: this is the answer, and no other storage error is translated here.
            raise ApiError(409, "Conflict", _DELETED) from error

    async def issued(self, realm: str, *, after: str = "", limit: int) -> tuple[list[Token], str]:
        """Up to `limit` tokens of that realm, and what to give as `after` for those that follow; "" where these were the last."""
        prefix = _key(realm, "")
        page = await self._store.list(prefix, after=prefix + after if after else "", limit=limit)
        told = [_token_of(realm, entry) for entry in page.entries]
        more = len(page.entries) == limit
        return told, page.entries[-1].key.removeprefix(prefix) if more else ""

    async def named(self, realm: str, name: str) -> Token | None:
        """The token of that name, None where there is none."""
        found = await self._named(realm, name)
        return None if found is None else _token_of(realm, found[0])

    async def revoke(self, realm: str, name: str) -> Token | None:
        """Ends the token of that name, in every replica; None where there is none. What it holds open ends with it."""
        while (found := await self._named(realm, name)) is not None:
            entry, label = found
            ops = [Op(one.key, None, expected=one.revision) for one in (entry, label) if one is not None]
            # Whoever was faster has rotated or revoked it: it is looked for again.
            with contextlib.suppress(RevisionConflict):
                await self._store.write(ops)
                self._forget(realm, _digest(entry))
                return _token_of(realm, entry)
        return None

    async def rotate(
        self, realm: str, name: str, *, lifetime_s: int | None = None
    ) -> tuple[str, Token] | None:
        """Puts a new token in the place of the one of that name, which ends at once; None where there is none.

        The new one lives for `lifetime_s`, None: as long as the old one was given. One without a name gets another.
        """
        while (found := await self._named(realm, name)) is not None:
            entry, label = found
            old = _token_of(realm, entry)
            if lifetime_s is None and old.expires_at is not None:
                lifetime_s = old.expires_at - int(datetime.fromisoformat(old.issued).timestamp())
            expires_at = None if lifetime_s is None else int(self._clock.now().timestamp()) + lifetime_s
            issued = _Issued(old.user, old.audiences, expires_at, "" if label is None else name)
            token = new_token()
            made, *labelled = self._ops(token, issued)
            ops = [Op(entry.key, None, expected=entry.revision), made]
            if label is not None:
                ops += [Op(one.key, one.value, label.revision, one.expires_at) for one in labelled]
            with contextlib.suppress(RevisionConflict):
                await self._write(realm, ops)
                self._forget(realm, _digest(entry))
                return token, self._told(token, issued)
        return None

    async def _named(self, realm: str, name: str) -> tuple[Entry, Entry | None] | None:
        """A token's record, and that of its name where it was given one."""
        prefix = _key(realm, "")
        if is_for_unnamed(name):
            page = await self._store.list(prefix, after=prefix + name[2:], limit=1)
            (entry,) = page.entries or (None,)
            if entry is None or not _digest(entry).startswith(name[2:]):
                return None
            given = orjson.loads(entry.value).get("name")
            return (entry, None) if given is None else None
        label = await self._store.get(_name_key(realm, name))
        if label is None:
            return None
        entry = await self._store.get(_key(realm, orjson.loads(label.value)["hash"]))
        return None if entry is None else (entry, label)

    def hold(self, realm: str, digest: str, stop: Callable[[], None]) -> Callable[[], None]:
        """Has `stop` called, once or more, when that token ends; what is returned says that it need not be any more.

        It is not asked whether the token is good now: that is to be done after this, lest it ended in between.
        """
        key = realm, digest
        self._held.setdefault(key, set()).add(stop)

        def release() -> None:
            held = self._held.get(key)
            if held is not None:
                held.discard(stop)
                if not held:
                    del self._held[key]

        return release

    async def keep(self, token: str, user: User) -> None:
        """Has every replica know a token that was made elsewhere, in the user's realm. Safe to repeat."""
        with contextlib.suppress(KeyExists):
            await self._store.write(self._ops(token, _Issued(user)))

    def _ops(self, token: str, issued: _Issued) -> list[Op]:
        """Writes the token's record, and that of its name where it has one."""
        user = issued.user
        value: Object = {"user": user.name, "groups": user.groups, "issued": rfc3339(self._clock.now())}
        if user.uid:
            value["uid"] = user.uid
        if issued.audiences != (API_AUDIENCE,):
            value["audiences"] = issued.audiences
        if issued.expires_at is not None:
            value["expires"] = issued.expires_at
        if issued.name:
            value["name"] = issued.name
        digest, expires_at = token_hash(token), issued.expires_at
        ops = [Op(_key(user.realm, digest), orjson.dumps(value), expected=ABSENT, expires_at=expires_at)]
        if issued.name:
            label = orjson.dumps({"hash": digest})
            ops.append(Op(_name_key(user.realm, issued.name), label, expected=ABSENT, expires_at=expires_at))
        return ops

    async def find(
        self, digest: str, realms: Sequence[str], audiences: tuple[str, ...] = (API_AUDIENCE,)
    ) -> User | None:
        """The user whose token has this hash, in the first of the realms that knows it; None: never issued there, or revoked.

        What is remembered of any realm is asked before the store is: an administrator of `root` at work in
        a tenant's cluster must not cost a read each time for not being the tenant's.
        """
        for realm in realms:
            users = self._cached.get(realm)
            if users is not None and (issued := users.get(digest)) is not None:
                return self._good(issued, audiences)
        for realm in realms:
            found = await self._look_up(realm, digest)
            if found is not None:
                return self._good(found, audiences)
        return None

    def _good(self, issued: _Issued, audiences: tuple[str, ...]) -> User | None:
        """Its user, where it is meant for one of these and has not expired: it is removed a little later than that."""
        if issued.audiences != audiences and not set(issued.audiences) & set(audiences):
            return None
        if issued.expires_at is not None and self._clock.now().timestamp() >= issued.expires_at:
            return None
        return issued.user

    async def _look_up(self, realm: str, digest: str) -> _Issued | None:
        forgotten = self._forgotten
        entry = await self._store.get(_key(realm, digest))
        if entry is None:
            return None
        stored = orjson.loads(entry.value)
        user = User(stored["user"], tuple(stored["groups"]), stored.get("uid", ""), realm=realm)
        issued = _Issued(user, tuple(stored.get("audiences", (API_AUDIENCE,))), stored.get("expires"))
        if self._watch is not None and forgotten == self._forgotten:
            self._remember(realm, digest, issued)
        return issued

    async def revoke_all(self, realm: str) -> None:
        """Every token of that realm ends (its cluster is being deleted). Safe to repeat."""
        self._forget(realm)
        await clear(self._store, f"{PREFIX}{realm}/")
        self._forget(realm)

    async def run(self) -> None:
        """Hears of revocations until cancelled, however often the store goes away and comes back.

        While nothing is heard nothing is remembered, and each lookup asks the store.
        """
        backoff = Backoff()
        while True:
            self._fallen_behind.clear()
            try:
                async with self._store.watch(PREFIX, after=await self._store.fresh()) as watch:
                    self._watch = watch
                    watch.notify(self._drain)
                    self._drain()
                    await self._look_after_held()
                    backoff.success()
                    await self._fallen_behind.wait()
            except StorageError as error:
                _log.info("tokens-put-off error=%r", error)
            finally:
                self._stop_hearing()
            await backoff.wait()

    async def _look_after_held(self) -> None:
        """Ends what tokens hold open that ended while nothing was heard."""
        for realm, digest in tuple(self._held):
            if await self._store.get(_key(realm, digest)) is None:
                self._end(realm, digest)

    def _end(self, realm: str, digest: str = "") -> None:
        """Ends what that token holds open, or with none every one of the realm."""
        ended = [(realm, digest)] if digest else [key for key in self._held if key[0] == realm]
        for key in ended:
            for stop in tuple(self._held.get(key, ())):
                stop()

    def _stop_hearing(self) -> None:
        self._watch = None
        self._fallen_behind.set()
        self._forget("")

    def _drain(self) -> None:
        if self._watch is None:
            return
        try:
            while (batch := self._watch.take()) is not None:
                for event in batch.events:
                    self._hear(event)
        except StorageError:
            # From this moment on, not only from when `run` has its turn.
            self._stop_hearing()

    def _hear(self, event: Event) -> None:
        if event.dropped:
            realm, _, _ = event.key.removeprefix(PREFIX).partition("/")
            self._forget(realm)
            self._end(realm)
        elif event.entry is None:
            realm, _, rest = event.key.removeprefix(PREFIX).partition("/")
            digest = rest.rpartition("/")[2]
            self._forget(realm, digest)
            self._end(realm, digest)

    def _remember(self, realm: str, digest: str, issued: _Issued) -> None:
        users = self._cached.setdefault(realm, OrderedDict())
        users[digest] = issued
        self._cached_total += 1
        if self._cached_total > CACHED_USERS_MAX:
            # The realm whose cache was made first gives up its oldest: cheap, and good enough for a bound.
            oldest = next(iter(self._cached))
            self._cached[oldest].popitem(last=False)
            self._cached_total -= 1
            if not self._cached[oldest]:
                del self._cached[oldest]

    def _forget(self, realm: str, digest: str = "") -> None:
        """Forgets one token, or all of a realm, or with no realm everything."""
        self._forgotten += 1
        if not realm:
            self._cached.clear()
            self._cached_total = 0
        elif not digest:
            self._cached_total -= len(self._cached.pop(realm, ()))
        elif digest in self._cached.get(realm, ()):
            del self._cached[realm][digest]
            self._cached_total -= 1


def _key(realm: str, digest: str) -> str:
    return f"{PREFIX}{realm}/-/-/{digest}"


def _name_key(realm: str, name: str) -> str:
    return f"{PREFIX}{realm}/-/names/{name}"


def _digest(entry: Entry) -> str:
    return entry.key.rpartition("/")[2]


def _token_of(realm: str, entry: Entry) -> Token:
    stored = orjson.loads(entry.value)
    return Token(
        stored.get("name") or unnamed(_digest(entry)),
        User(stored["user"], tuple(stored["groups"]), stored.get("uid", ""), realm=realm),
        stored["issued"],
        tuple(stored.get("audiences", (API_AUDIENCE,))),
        stored.get("expires"),
    )
