from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.registry.strategy import User
from clusterling.storage import memory
from clusterling.storage.metered import MeteredStore
from clusterling.storage.store import Entry, Guard, Limit, Op, Store
from clusterling.tenancy.authentication.authenticator import Tokens, bearer_token
from clusterling.tenancy.authentication.tokens import (
    PREFIX,
    TOKEN_CHARACTERS_MAX,
    IssuedTokens,
    StaticTokens,
    token_hash,
)
from clusterling.tenancy.authorization import ADMIN, MASTERS, allows
from clusterling.tenancy.names import ROOT_ID, fence_key
from tests.tenancy.clocks import Turned
from tests.tenancy.forgetful import Forgetful, opened

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
OWNER = User("owner", (MASTERS,), realm=A)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as opened:
        await opened.write([Op(f"{ROOT_ID}/{fence_key(realm)}", b"{}") for realm in (A, B)])
        yield opened


@asynccontextmanager
async def _running(issued: IssuedTokens) -> AsyncIterator[None]:
    task = asyncio.create_task(issued.run())
    await asyncio.sleep(0.01)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_issued_token_is_good_in_its_realm_and_in_no_other(store: Store) -> None:
    issued = IssuedTokens(store, Turned())
    async with _running(issued):
        token = await issued.issue(A, "owner", (MASTERS,))
        for _ in range(2):
            assert await issued.find(token_hash(token), (A,)) == OWNER
            assert await issued.find(token_hash(token), (B,)) is None
            assert await issued.find(token_hash(token), (ROOT_ID,)) is None
            assert await issued.find(token_hash(token + "x"), (A,)) is None


class _Closing(MeteredStore):
    """A store in which A's deletion begins just before each write."""

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        await super().write([Op(f"{ROOT_ID}/{fence_key(A)}", None)])
        return await super().write(ops, guards, limits)


async def test_a_cluster_whose_deletion_begins_meanwhile_gets_no_token(store: Store) -> None:
    with pytest.raises(ApiError) as refused:
        await IssuedTokens(_Closing(store), Turned()).issue(A, "owner", (MASTERS,))
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    assert (await store.list(PREFIX)).entries == []


async def test_two_tokens_are_never_alike_and_neither_is_stored(store: Store) -> None:
    issued = IssuedTokens(store, Turned())
    tokens = {await issued.issue(A, "owner", (MASTERS,)) for _ in range(50)}
    assert len(tokens) == 50
    page = await store.list(PREFIX)
    assert len(page.entries) == 50
    for entry in page.entries:
        for token in tokens:
            assert token not in entry.key
            assert token.encode() not in entry.value


async def test_another_server_on_the_store_knows_the_token_and_hears_of_its_end(store: Store) -> None:
    one, other = IssuedTokens(store, Turned()), IssuedTokens(store, Turned())
    async with _running(one), _running(other):
        token, kept = await one.issue(A, "owner", (MASTERS,)), await one.issue(B, "other", ())
        assert await other.find(token_hash(token), (A,)) == OWNER
        assert await other.find(token_hash(kept), (B,)) is not None
        await one.revoke_all(A)
        assert await other.find(token_hash(token), (A,)) is None
        assert await one.find(token_hash(token), (A,)) is None
        assert await other.find(token_hash(kept), (B,)) is not None


async def test_a_single_revoked_token_ends_at_once(store: Store) -> None:
    issued = IssuedTokens(store, Turned())
    async with _running(issued):
        token, kept = await issued.issue(A, "owner", (MASTERS,)), await issued.issue(A, "owner", (MASTERS,))
        assert (
            await issued.find(token_hash(token), (A,)) == await issued.find(token_hash(kept), (A,)) == OWNER
        )
        await store.write([Op(f"{PREFIX}{A}/-/-/{token_hash(token)}", None)])
        assert await issued.find(token_hash(token), (A,)) is None
        assert await issued.find(token_hash(kept), (A,)) == OWNER


async def test_a_static_token_is_good_in_its_realm(store: Store) -> None:
    static = StaticTokens({"secret": ADMIN})
    assert await static.find(token_hash("secret"), (ROOT_ID,)) == ADMIN
    assert await static.find(token_hash("secret"), (A,)) is None


async def test_a_token_is_tried_on_its_target_then_on_root_and_nowhere_else(store: Store) -> None:
    issued = IssuedTokens(store, Turned())
    tokens = Tokens([StaticTokens({"admin": ADMIN}), issued])
    mine = await issued.issue(A, "owner", (MASTERS,))
    assert await tokens.authenticate_token(mine, A) == OWNER
    assert await tokens.authenticate_token(mine, B) is None
    assert await tokens.authenticate_token(mine, ROOT_ID) is None
    assert await tokens.authenticate_token(mine, None) is None
    for target in (A, B, ROOT_ID, None):
        assert await tokens.authenticate_token("admin", target) == ADMIN


async def test_a_token_longer_than_any_is_nobodys() -> None:
    longest = "x" * TOKEN_CHARACTERS_MAX
    tokens = Tokens([StaticTokens({longest: ADMIN, longest + "x": ADMIN})])
    assert await tokens.authenticate_token(longest, ROOT_ID) == ADMIN
    assert await tokens.authenticate_token(longest + "x", ROOT_ID) is None


class _Liar:
    """A source that gives identities of a realm it was not asked about."""

    async def find(self, digest: str, realms: Sequence[str], audiences: tuple[str, ...] = ()) -> User | None:
        return User("intruder", (MASTERS,), realm=B)


async def test_an_identity_of_another_realm_is_refused_whoever_gives_it() -> None:
    tokens = Tokens([_Liar()])
    assert await tokens.authenticate_token("any", A) is None
    assert await tokens.authenticate_token("any", ROOT_ID) is None
    assert await tokens.authenticate_token("any", None) is None
    assert await tokens.authenticate_token("any", B) is not None


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer abc", "abc"),
        ("bEaReR abc", "abc"),
        (" Bearer abc ", "abc"),
        ("Bearer abc def", "abc"),
        ("Bearer  abc", None),
        ("Basic abc", None),
        ("Bearerabc", None),
    ],
)
def test_the_header_is_read_as_upstream_reads_it(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


def test_rights_follow_the_realm() -> None:
    stranger = User("stranger", ("system:authenticated",), realm=A)
    table = [
        (ADMIN, ROOT_ID, True),
        (ADMIN, A, True),
        (ADMIN, None, False),
        (OWNER, A, True),
        (OWNER, B, False),
        (OWNER, ROOT_ID, False),
        (stranger, A, False),
        (User("anonymous", (MASTERS,)), A, False),
    ]
    assert [allows(user, cluster) for user, cluster, _ in table] == [right for _, _, right in table]


async def test_a_cluster_that_is_being_deleted_gets_no_more_tokens(store: Store) -> None:
    issued = IssuedTokens(store, Turned())
    await store.write([Op(f"{ROOT_ID}/{fence_key(A)}", None)])
    with pytest.raises(ApiError) as refused:
        await issued.issue(A, "owner", (MASTERS,))
    assert refused.value.code == 409
    assert await store.count(PREFIX) == 0
    assert (
        await issued.find(token_hash(await issued.issue(ROOT_ID, "admin", (MASTERS,))), (ROOT_ID,))
        is not None
    )


async def test_a_remembered_administrator_costs_no_read_on_a_tenants_cluster(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = IssuedTokens(store, Turned())
    async with _running(issued):
        token = await issued.issue(ROOT_ID, "admin", (MASTERS,))
        tokens = Tokens([StaticTokens({"static": ADMIN}), issued])
        await tokens.authenticate_token(token, ROOT_ID)
        reads: list[str] = []
        get = store.get

        async def counted(key: str) -> Entry | None:
            reads.append(key)
            return await get(key)

        monkeypatch.setattr(store, "get", counted)
        for target in (A, B, ROOT_ID, None):
            assert await tokens.authenticate_token(token, target) is not None
            assert await tokens.authenticate_token("static", target) is not None
        assert reads == []
        await tokens.authenticate_token("unknown", A)
        await tokens.authenticate_token("unknown", None)
        assert len(reads) == 4, "a cluster that is not there costs what one that is does"


async def test_a_server_that_fell_behind_forgets_what_it_remembered(store: Store) -> None:
    forgetful = Forgetful(store)
    issued = IssuedTokens(forgetful, Turned())
    async with _running(issued):
        token = await issued.issue(A, "owner", (MASTERS,))
        assert await issued.find(token_hash(token), (A,)) == OWNER
        (watch,) = forgetful.watches
        watch.deafen()
        await store.drop(f"{PREFIX}{A}/")
        assert await issued.find(token_hash(token), (A,)) == OWNER, "it has heard nothing yet"
        watch.lose()
        await opened(forgetful, 2)
        assert await issued.find(token_hash(token), (A,)) is None
