"""Lists: one page, or all of it, as of one revision, and by what a whole one is known again.

Documents are answered as they are kept: an object is decoded only where a selector must see it. What takes long gives others
the loop between; what is current was looked at in one go all the same, so that it is of one moment.

Semantics: https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Final

from clusterling.machinery import errors
from clusterling.registry import continuation, views
from clusterling.registry.continuation import Continuation
from clusterling.registry.options import ListOptions
from clusterling.registry.refusing import refuse, translated
from clusterling.registry.resource import Served
from clusterling.registry.views import Selection
from clusterling.storage.cache import CachedStore, Turn, give_way
from clusterling.storage.store import Compacted, Entry, FutureRevision, Page, StorageError

FUTURE_WAIT_S: Final = (
    3.0  # How long a read waits for a revision that has not happened (upstream: blockTimeout).
)
FUTURE_POLL_S: Final = 0.05
# Entries read at a time, and for how long they are looked at between two chances for others to run, when a selector
# must see each: one with a thousand requirements takes 0.15 ms for an entry.
SCAN_PAGE: Final = 1000
SCAN_SLICE_S: Final = 0.001
DOCUMENTS_SLICE: Final = 5_000  # Documents that are there are looked up so many at a turn.
FREE_MAX: Final = 500  # So many are looked at where the request stands; for more it waits for its turn.


@dataclass(frozen=True, slots=True)
class Listing:
    """A list's parts. `values` are whole JSON documents of the objects, to be joined or decoded."""

    values: Sequence[bytes]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


async def read(
    store: CachedStore,
    served: Served,
    namespace: str,
    options: ListOptions,
    now_s: int,
    turn: Turn = give_way,
) -> Listing:
    """One page, or all of it, as of one revision. Raises 410 for history that is gone, 504 for what is not there yet."""
    selection = Selection(served, options.label_selector, options.field_selector)
    prefix = served.resource.within(namespace)
    begun_s, after = now_s, ""
    resumed = continuation.decode(options.continue_token) if options.continue_token else None
    if resumed is None:
        at = await _revision_of(store, served, namespace, options)
    else:
        if resumed.is_over(now_s):
            raise resumed.too_old()
        after, at = prefix + resumed.last, max(resumed.revision, 0)
        begun_s = resumed.begun_s if at else now_s
    try:
        # Upstream answers "0" from its cache, which does not page.
        limit = 0 if options.resource_version == "0" else max(options.limit, 0)
        values, page, more = await _select(store, served, prefix, selection, after, at, limit, turn)
    except Compacted as error:
        if resumed is not None:
            raise resumed.too_old() from error
        raise errors.expired(continuation.LIST_TOO_OLD) from error
    except FutureRevision as error:
        raise errors.resource_version_too_large(at, store.head()) from error
    except StorageError as error:
        refuse(error)
    # What a client is told is the collection's own last change, so that nobody reads others' write rate off it.
    told = page.revision if resumed is not None or more else page.last_change
    if at and not more and resumed is None:
        told = at
    if resumed is None and options.resource_version.isdigit():
        told = max(told, int(options.resource_version))
    token = ""
    if more:
        token = continuation.encode(Continuation(more.removeprefix(prefix), page.revision, begun_s))
    remaining = page.remaining if more and selection.everything else None
    return Listing(values, str(told), token, remaining)


def stamp(store: CachedStore, served: Served, namespace: str, options: ListOptions) -> Hashable:
    """What a list of a whole collection is known by: equal stamps of one cluster, equal lists. None: list it.

    A thousand clients that list again after a restart then share one answer. As recent as `get` is.
    """
    anything = options.resource_version == "0"
    if (
        options.label_selector is not None
        or options.field_selector is not None
        or options.continue_token
        or (options.limit > 0 and not anything)
        or options.resource_version not in ("", "0")
    ):
        return None
    prefix = served.resource.within(namespace)
    change = store.last_change(prefix)
    return None if change is None else (served.resource, served.version.name, prefix, change)


async def _revision_of(store: CachedStore, served: Served, namespace: str, options: ListOptions) -> int:
    """The exact revision to list at; 0 for "current", after waiting for it to be current enough."""
    asked = options.resource_version
    exact = is_exact(served, namespace, options, paged=options.limit > 0)
    if asked in ("", "0") or not exact:
        await not_older_than(store, asked)
        return 0
    return revision(asked)


async def _select(
    store: CachedStore,
    served: Served,
    prefix: str,
    selection: Selection,
    after: str,
    at: int,
    limit: int,
    turn: Turn,
) -> tuple[Sequence[bytes], Page, str]:
    """The matching documents, the page they came from, and the key to go on after ("" when that is all)."""
    if selection.everything:
        page = await store.list(prefix, after=after, limit=limit, revision=at)
        entries = page.entries
        values = await _documents(entries, served, turn)
        more = entries[-1].key if limit and goes_on(page, limit) else ""
        if more and page.remaining is None:
            # Not counted: only what follows tells a last page that is full from one before it.
            following = await store.list(prefix, after=more, limit=1, revision=page.revision)
            more = more if following.entries else ""
        return values, page, more
    found: list[Entry] = []
    while True:
        # What is current is looked at in one go as it is at this moment; what is older is read from the store, in pages.
        scan = SCAN_PAGE if at else 0
        page = await store.list(prefix, after=after, limit=scan, revision=at)
        follows = bool(scan) and goes_on(page, scan)
        if len(page.entries) > FREE_MAX:
            await turn()
        until = perf_counter() + SCAN_SLICE_S
        for entry in page.entries:
            if perf_counter() >= until:
                await turn()
                until = perf_counter() + SCAN_SLICE_S
            if selection.matches(entry):
                found.append(entry)
                if limit and len(found) == limit:
                    rest = follows or entry is not page.entries[-1]
                    return await _documents(found, served, turn), page, entry.key if rest else ""
        if not follows:
            return await _documents(found, served, turn), page, ""
        after = page.entries[-1].key
        await turn()


async def not_older_than(store: CachedStore, asked: str) -> None:
    """Waits until what this process knows is as new as the client asks. Raises 504 when that does not come."""
    if asked in ("", "0"):
        return
    wanted = revision(asked)
    try:
        async with asyncio.timeout(FUTURE_WAIT_S):
            # Another replica may have written it: only asking the store tells.
            while await translated(store.fresh()) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(FUTURE_POLL_S)
    except TimeoutError as error:
        raise errors.resource_version_too_large(wanted, store.head()) from error


def revision(text: str) -> int:
    """A resourceVersion that the client sent. Upstream: storage/etcd3/api_object_versioner.go, ParseResourceVersion."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        wrong = errors.invalid_value(
            "resourceVersion", text, f"strconv.ParseUint: parsing {errors.go_quote(text)}: invalid syntax"
        )
        raise errors.invalid("", "", "", [wrong])
    return int(text)


def is_exact(served: Served, namespace: str, options: ListOptions, *, paged: bool) -> bool:
    """The list is as of the very revision asked for, if it asks for one: that is said, or it is paged and nothing is said.

    Where one object is selected by its name upstream gets that object, and a limit means nothing.
    """
    if options.resource_version_match or not paged:
        return options.resource_version_match == "Exact"
    if options.resource_version in ("", "0") or options.continue_token:
        return False
    in_one_place = bool(namespace) or not served.resource.namespaced
    fields = options.field_selector
    return not (in_one_place and fields is not None and fields.exact("metadata.name") is not None)


def goes_on(page: Page, limit: int) -> bool:
    """There may be entries after this page of at most `limit`: for certain where the store has counted them."""
    return bool(page.entries) and (
        len(page.entries) >= limit if page.remaining is None else page.remaining > 0
    )


async def _documents(entries: Sequence[Entry], served: Served, turn: Turn) -> Sequence[bytes]:
    """The documents of entries; of many, in turns."""
    if len(entries) > FREE_MAX:
        await turn()
    if len(entries) <= DOCUMENTS_SLICE:
        return await _some_documents(entries, served, turn)
    found: list[bytes] = []
    left = iter(entries)
    while part := list(islice(left, DOCUMENTS_SLICE)):
        found += await _some_documents(part, served, turn)
        await turn()
    return found


async def _some_documents(entries: Sequence[Entry], served: Served, turn: Turn) -> Sequence[bytes]:
    until = perf_counter() + SCAN_SLICE_S
    for entry in views.to_derive(entries, served):
        views.document(entry, served)
        if perf_counter() >= until:
            await turn()
            until = perf_counter() + SCAN_SLICE_S
    return views.documents(entries, served)
