"""ObjectStore: the verbs of the Kubernetes API over one logical cluster's keys.

Every write is *read → compute → one transaction*. What is computed is pure (strategy, schema, selectors); what it
was computed from is named in the transaction as an expected revision or a guard, so a write that commits was right
at the moment it committed. A guard that fails means "look again", never "try harder".

Rules of this file
- Nothing is stored that was not defaulted, pruned and validated by the schema whose fence guards the write.
- A write that changes nothing writes nothing (decision 13).
- Reads answer bytes; objects are decoded only for writes and selectors.

Order of steps and texts: apiserver pkg/registry/generic/registry/store.go, pkg/registry/rest/{create,update,delete}.go,
pkg/endpoints/handlers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import orjson

from clusterling.machinery import errors
from clusterling.machinery.codec import as_written, encode_stored, same_json, with_revision
from clusterling.machinery.errors import ApiError, FieldError
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.names import generate_name, is_dns1123_subdomain
from clusterling.machinery.objectmeta import (
    validate_object_meta,
    validate_object_meta_update,
)
from clusterling.registry import deleting, listing, managing, owners, views
from clusterling.registry.admission import Admission
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE, Again, Commits
from clusterling.registry.listing import Listing
from clusterling.registry.options import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from clusterling.registry.ports import Clock
from clusterling.registry.receiving import Undecodable, receive, yaml_lines
from clusterling.registry.refusing import refuse, translated
from clusterling.registry.resource import Resource, Served
from clusterling.registry.strategy import Context, Strategy
from clusterling.registry.uids import new_uid
from clusterling.registry.views import Selection
from clusterling.registry.watching import FrameCodec, ObjectWatch, picked
from clusterling.storage.awaited import Waking
from clusterling.storage.cache import CachedStore, Turn
from clusterling.storage.store import (
    ABSENT,
    VALUE_BYTES_MAX,
    Compacted,
    Entry,
    Op,
    StorageError,
    Store,
)

GENERATED_NAME_TRIES: Final = 8
PROBLEMS_MAX: Final = 1000  # Told of one object.
DEPENDENTS_PAGE: Final = 500
COLLECTION_DELETES: Final = 16  # In flight at once, of a deletecollection.

# What an applied configuration has that is unknown is told of where it is typed, or kept.
_UNLOOKED: Final = WriteOptions(field_validation="Ignore")

# One for all clusters: each is 2.5 KB.
_RANDOM: Final = random.Random()

# Groups whose kinds are validated without what kubernetes' own packages add: finalizers need no domain.
_GENERIC: Final = frozenset({"apiextensions.k8s.io", "apiregistration.k8s.io"})
# Of what is sent with a new object, what only the server says of an old one.
_NEVER_NEW: Final = frozenset({"deletionGracePeriodSeconds", "deletionTimestamp", "selfLink"})


class ObjectStore:
    """The verbs of one logical cluster. Everything raises ApiError.

    `namespace` is "" for cluster-scoped resources and for a list over all namespaces.
    """

    def __init__(self, store: CachedStore, records: Store, admission: Admission, clock: Clock) -> None:
        """`records`: the same keys, uncached, for the index of dependents."""
        self._store = store
        self._records = records
        self._admission = admission
        self._commits = Commits(store, admission)
        self._clock = clock
        self._watches: set[ObjectWatch] = set()
        # Those of kinds that definitions make: ten thousand others need not look at theirs when one changes.
        self._changing: set[ObjectWatch] = set()
        self._waking = Waking()

    # ------------------------------------------------------------------ reads

    async def get(self, served: Served, namespace: str, name: str, *, resource_version: str = "") -> bytes:
        """The object's document. `resource_version`: "" is the most recent, "0" whatever is at hand, else not older.

        The most recent as of the barrier that the request has passed on its way here.
        """
        if resource_version:
            await listing.not_older_than(self._store, resource_version)
        key = served.resource.key(namespace, name)
        entry = self._store.peek(key) or await translated(self._store.get(key))
        if entry is None:
            raise errors.not_found(served.plural, served.group, name)
        return views.document(entry, served)

    async def read(self, served: Served, namespace: str, name: str) -> Object | None:
        """The object decoded, None where it does not exist: for strategies and controllers."""
        entry = await self._entry(served.resource, namespace, name)
        return None if entry is None else orjson.loads(views.document(entry, served))

    async def outline(self, served: Served, namespace: str, name: str) -> Object | None:
        """As `read`, for controllers that look at metadata and status alone: of large kinds the rest is as it is written."""
        entry = await self._entry(served.resource, namespace, name)
        if entry is None:
            return None
        return views.outline(entry, views.document(entry, served), served.resource.strategy.outline)

    def _outlined(self, ctx: Context, served: Served, entry: Entry, shown: bytes) -> Object:
        """The object that is to be amended or deleted, whole where anybody else may look at it, or it has to be converted."""
        if served.as_stored and not self._admission.looks_inside(ctx):
            return views.outline(entry, shown, served.resource.strategy.outline)
        whole: Object = orjson.loads(shown)
        return whole

    async def fence(self, key: str, *, alone: bool = False) -> int:
        """The revision at which a fence stands now; 0 where it is absent. `alone`: the others beside it are not to be kept in memory."""
        entry = await translated((self._records if alone else self._store).get(key))
        return 0 if entry is None else entry.revision

    def has_none(self, served: Served, namespace: str) -> bool:
        """There certainly are none of the kind in the namespace; False says nothing. As recent as `get` is."""
        return self._store.known_count(served.resource.within(namespace)) == 0

    async def active_fence(self, namespace: str) -> int:
        """The revision at which a namespace's fence stands; 0 where it is being deleted or not there."""
        entry = await translated(self._store.get(NAMESPACE_FENCE + namespace))
        return entry.revision if entry is not None and entry.value == ACTIVE_FENCE else 0

    async def dependents(self, uid: str) -> AsyncIterator[owners.Dependent]:
        """The objects that name this uid as an owner, in pages, as the index has them now."""
        prefix, after = owners.prefix(uid), ""
        while True:
            page = await translated(self._records.list(prefix, after=after, limit=DEPENDENTS_PAGE))
            for entry in page.entries:
                yield owners.parse(entry.key)
            if not listing.goes_on(page, DEPENDENTS_PAGE):
                return
            after = page.entries[-1].key

    async def some_dependents(self, uid: str, after: str, limit: int) -> tuple[list[owners.Dependent], str]:
        """So many dependents of the uid, of any owner where it is "", behind a mark; and the mark to go on from, "" at the end."""
        prefix = owners.prefix(uid) if uid else owners.OWNERS
        page = await translated(self._records.list(prefix, after=after, limit=limit))
        found = [owners.parse(entry.key) for entry in page.entries]
        return found, page.entries[-1].key if listing.goes_on(page, limit) else ""

    async def has_dependents(self) -> bool:
        """Some object of the cluster names an owner."""
        return bool((await translated(self._records.list(owners.OWNERS, limit=1))).entries)

    async def list(
        self, served: Served, namespace: str, options: ListOptions, turn: Turn | None = None
    ) -> Listing:
        """One page, or all of it, as of one revision. Raises 410 for history that is gone, 504 for what is not there yet.

        `turn` is awaited between two slices of work; None: the cluster's own.
        """
        now_s = int(self._clock.now().timestamp())
        return await listing.read(self._store, served, namespace, options, now_s, turn or self._store.turn)

    def stamp(self, served: Served, namespace: str, options: ListOptions) -> Hashable:
        """What a list of a whole collection is known by: equal stamps of one cluster, equal lists. None: list it.

        A thousand clients that list again after a restart then share one answer. As recent as `get` is.
        """
        return listing.stamp(self._store, served, namespace, options)

    async def _entry(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        key = resource.key(namespace, name)
        found = self._store.peek(key)
        if found is not None:
            return found
        return await translated(self._store.get(key))

    async def _certain_entry(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """As `_entry`, where it is written what is absent: only once it is certain that it is."""
        found = await self._entry(resource, namespace, name)
        if found is None:
            await translated(self._store.fresh())
            found = await self._entry(resource, namespace, name)
        return found

    # ------------------------------------------------------------------ watch

    @asynccontextmanager
    async def watch(
        self, served: Served, namespace: str, options: WatchOptions, codec: FrameCodec
    ) -> AsyncIterator[ObjectWatch]:
        """The events from a revision on, or the present state first and then the events. Raises 410 where history is gone.

        Upstream: the table at https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch
        """
        selection = Selection(served, options.label_selector, options.field_selector)
        prefix = served.resource.within(namespace)
        asked = options.resource_version
        initial = options.send_initial_events
        if initial is None:
            initial = asked in ("", "0")
        entries: Iterator[Entry | None] | None = None
        try:
            if initial or asked in ("", "0"):
                await listing.not_older_than(self._store, asked)
                page = await self._store.list(prefix)
                after, begun_at = page.revision, max(page.last_change, listing.revision(asked or "0"))
                entries = picked(page, served, selection) if initial else None
            else:
                after = begun_at = listing.revision(asked)
            async with self._store.watch(prefix, after=after) as watch:
                events = ObjectWatch(
                    watch,
                    served,
                    selection,
                    codec,
                    begun_at=begun_at,
                    initial=entries,
                    marks_initial_end=bool(options.send_initial_events) and options.bookmarks,
                    bookmarks=options.bookmarks,
                    is_current=lambda: self._is_current(served.resource),
                )
                self._watches.add(events)
                if served.resource.guard_key:
                    self._changing.add(events)
                try:
                    yield events
                finally:
                    self._watches.discard(events)
                    self._changing.discard(events)
                    self._waking.spare(events)
        except Compacted as error:
            raise errors.expired(f"too old resource version: {asked} ({error.args[-1]})") from error
        except StorageError as error:
            refuse(error)

    @property
    def in_use(self) -> bool:
        """Watches are open."""
        return bool(self._watches)

    def wake_watches(self) -> None:
        """Has every open watch of a kind that may change look at whether it is still what it was."""
        self._waking.wake(self._changing)

    def _is_current(self, resource: Resource) -> bool:
        """False once the kind's schema was replaced or its CRD is gone."""
        if not resource.guard_key:
            return True
        fence = self._store.peek(resource.guard_key)
        if fence is None:
            # Not in memory says nothing: short of memory, the cache lets go of what nobody watches.
            return not self._store.is_loaded(resource.guard_key)
        return fence.revision == resource.schema_revision

    # ------------------------------------------------------------------ create

    async def create(
        self, ctx: Context, served: Served, namespace: str, obj: Object, options: WriteOptions
    ) -> bytes:
        """Stores a new object and returns it as stored. Generates a name where only generateName is given."""
        self._read(ctx, served, obj, options)
        metadata = meta(obj)
        self._place(served, namespace, metadata)
        if served.resource.review is not None:
            return orjson.dumps(await served.resource.review(ctx, obj, namespace))
        now = self._now()
        managing.track_create(served, obj, options, now)
        base = metadata.get("generateName") if not metadata.get("name") else None
        if base and not served.resource.strategy.generates_names:
            metadata["name"], base = base, None
        name, copies = "", _copies(obj)

        async def attempt() -> bytes:
            given = next(copies)
            if name:
                meta(given)["name"] = name
            return await self._create(ctx, served, namespace, given, now, applied=False)

        for tried in range(1, GENERATED_NAME_TRIES + 1):
            if base:
                name = generate_name(base, _RANDOM.randrange)
            try:
                return await self._commits.retried(attempt)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                if not base or tried == GENERATED_NAME_TRIES:
                    raise await self._taken(served, namespace, name or name_of(obj), metadata) from error
        raise AssertionError("the loop returns or raises")

    async def _taken(self, served: Served, namespace: str, name: str, metadata: Object) -> ApiError:
        """409 for a name that there is. Whoever gave a generateName, with a name or not, may try again (store.go, Create)."""
        told = errors.generate_name_conflict if metadata.get("generateName") else errors.already_exists
        error = told(served.plural, served.group, name)
        entry = await self._entry(served.resource, namespace, name)
        if entry is not None and "deletionTimestamp" in meta(orjson.loads(views.document(entry, served))):
            error.message = f"object is being deleted: {error.message}"
        return error

    async def _create(
        self, ctx: Context, served: Served, namespace: str, obj: Object, now: str, *, applied: bool
    ) -> bytes:
        resource, strategy = served.resource, served.resource.strategy
        if resource.terminating:
            why = "create not allowed while custom resource definition is terminating"
            raise errors.forbidden(served.plural, served.group, name_of(obj), why)
        metadata = meta(obj)
        metadata.update(uid=new_uid(), creationTimestamp=now)
        if not _NEVER_NEW.isdisjoint(metadata):
            for field in _NEVER_NEW:
                metadata.pop(field, None)
        if strategy.has_generation:
            metadata["generation"] = 1
        await self._admission.mutate(ctx, served, "CREATE", obj, None)
        strategy.prepare_for_create(ctx, obj)
        _default_again(served, obj)
        await strategy.admit(ctx, obj, None)
        self._check(served, obj, self._validate(ctx, served, obj))
        for text in strategy.warnings(ctx, obj):
            ctx.warn(text)
        guards = await self._commits.guards(ctx, served, namespace, name_of(obj))
        await self._admission.validate(ctx, served, "CREATE", obj, None)
        companions = await self._commits.companions(ctx, served, obj, None)
        given = meta(obj).pop("resourceVersion", None)
        stored = _stored(obj, served, owned=applied or ctx.dry_run)
        if ctx.dry_run:
            if await self._entry(resource, namespace, name_of(obj)) is not None:
                raise errors.already_exists(served.plural, served.group, name_of(obj))
            if given:
                meta(obj)["resourceVersion"] = given
            return orjson.dumps(_reread(obj, stored, served))
        if given not in (None, "", "0"):
            # Only upstream's store asks: who does not come that far is told what else is wrong (etcd3/store.go, Create).
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        op = Op(resource.key(namespace, name_of(obj)), stored, ABSENT, strategy.expires_at(ctx, obj))
        revision = await self._commits.write(ctx, served, op, companions, guards, new=obj, old=None)
        strategy.after_write(ctx, resource, obj, None)
        return _shown(obj, stored, revision, served)

    # ------------------------------------------------------------------ update and patch

    async def update(
        self, ctx: Context, served: Served, namespace: str, name: str, obj: Object, options: WriteOptions
    ) -> tuple[bytes, bool]:
        """Replaces the object, or the part that ctx.subresource names. The bool: it was created."""
        self._read(ctx, served, obj, options)
        self._place(served, namespace, meta(obj))
        tied = bool(meta(obj).get("resourceVersion"))
        copies = _copies(obj)

        async def attempt() -> tuple[bytes, bool]:
            entry = await self._certain_entry(served.resource, namespace, name)
            if entry is None:
                if not served.resource.strategy.allow_create_on_update or ctx.subresource:
                    raise errors.not_found(served.plural, served.group, name)
                return await self._create_by_update(ctx, served, namespace, next(copies), options), True
            if ctx.weigh is not None:
                ctx.weigh(entry)
            uid, found = meta(obj).get("uid"), views.uid_of(entry.value)
            if uid and uid != found:
                raise _precondition_uid(served, name, uid, found, _upstreams_key(served, entry.key, ctx))
            return await self._replace(ctx, served, namespace, entry, next(copies), options), False

        return await self._commits.retried(
            attempt, of=served.resource.key(namespace, name), conflicts=not tied
        )

    async def amend(self, ctx: Context, served: Served, namespace: str, obj: Object) -> Object:
        """Writes back metadata and status that the server itself changed of an object which it had of `outline`. As it is then.

        Tied to the resourceVersion it was read at. What else there is was valid when it was written: it stays as it is
        written, and is not looked at.
        """

        async def attempt() -> Object:
            entry = await self._entry(served.resource, namespace, name_of(obj))
            if entry is None:
                raise errors.not_found(served.plural, served.group, name_of(obj))
            return await self._amend(ctx, served, entry, obj)

        return await self._commits.retried(attempt, conflicts=False)

    async def _amend(self, ctx: Context, served: Served, entry: Entry, obj: Object) -> Object:
        strategy = served.resource.strategy
        self._check_revision_given(served, entry, name_of(obj), meta(obj))
        shown = views.document(entry, served)
        old = self._outlined(ctx, served, entry, shown)
        new = {**old, "metadata": dict(meta(obj))}
        if "status" in obj:
            new["status"] = obj["status"]
        await self._admission.mutate(ctx, served, "UPDATE", new, old)
        await self._admission.validate(ctx, served, "UPDATE", new, old)
        if new == old:
            return new
        if self._finishes(strategy, new, meta(old)):
            revision = await self._remove(ctx, served, entry, new)
        else:
            revision, _ = await self._mark(ctx, served, entry, new, old)
        meta(new)["resourceVersion"] = str(revision)
        return new

    async def _create_by_update(
        self, ctx: Context, served: Served, namespace: str, obj: Object, options: WriteOptions | None
    ) -> bytes:
        """`options` None: the object tells already who owns its fields. Raises Again if somebody made it meanwhile."""
        metadata = meta(obj)
        if metadata.get("uid"):
            name = name_of(obj)
            key = _upstreams_key(served, served.resource.key(namespace, name), ctx)
            raise _precondition_uid(served, name, metadata["uid"], "", key)
        _check_revision(metadata.pop("resourceVersion", None))
        now = self._now()
        if options is not None:
            managing.track_create(served, obj, options, now)
        try:
            return await self._create(ctx, served, namespace, obj, now, applied=options is None)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            raise Again(error) from error

    async def patch(
        self,
        ctx: Context,
        served: Served,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        options: WriteOptions,
    ) -> bytes:
        """Reads, applies the pure `change`, writes; repeated on conflict unless the change named a resourceVersion."""
        tied = False

        async def attempt() -> bytes:
            nonlocal tied
            entry = await self._entry(served.resource, namespace, name)
            if entry is None:
                raise errors.not_found(served.plural, served.group, name)
            if ctx.weigh is not None:
                ctx.weigh(entry)
            current: Object = orjson.loads(views.document(entry, served))
            known = meta(current)
            before = {**known}
            obj = change(current)
            self._same_kind(served, current, obj)
            tied = self._takes_shape(ctx, served, namespace, name, before, obj, options, known)
            return await self._replace(ctx, served, namespace, entry, obj, options)

        try:
            key = served.resource.key(namespace, name)
            return await self._commits.retried(attempt, of=key, conflicts=lambda: not tied)
        except Undecodable as error:
            entry = await self._entry(served.resource, namespace, name)
            if entry is not None:
                error.patched = change(orjson.loads(views.document(entry, served)))
            raise

    async def apply(
        self,
        ctx: Context,
        served: Served,
        namespace: str,
        name: str,
        applied: Object,
        options: WriteOptions,
        *,
        creates: bool = True,
    ) -> tuple[bytes, bool]:
        """Server-side apply: lays the configuration over the object, or makes it (`creates`). The bool: it was created.

        Repeated on conflict unless the configuration names a resourceVersion.
        """
        given = applied.get("metadata")
        tied = isinstance(given, dict) and bool(given.get("resourceVersion"))
        twice, copies = options.duplicates, _copies(applied)

        def merged(current: Object | None) -> Object:
            part = "" if current is None else ctx.subresource
            obj = managing.apply(served, part, current, next(copies), options, self._now())
            if twice and options.field_validation == "Strict":
                raise errors.bad_request(
                    f"error strict decoding patch: error converting YAML to JSON: {twice[0]}"
                )
            if twice and options.field_validation == "Warn":
                for line in yaml_lines(twice[0]):
                    ctx.warn(line)
            nulls = [] if served.resource.builtin else _nulls(obj)
            before = None if current is None else meta(current)
            known = {"managedFields": meta(obj).get("managedFields")}
            try:
                self._takes_shape(ctx, served, namespace, name, before, obj, _UNLOOKED, known)
            except Undecodable as error:
                raise managing.unconvertible(served, applied, error.why) from error
            for holder, field in nulls:
                holder.setdefault(field, None)
            return obj

        async def attempt() -> tuple[bytes, bool]:
            entry = await self._certain_entry(served.resource, namespace, name)
            if entry is None:
                if ctx.subresource or not creates:
                    raise errors.not_found(served.plural, served.group, name)
                obj = merged(None)
                if meta(obj).get("uid"):
                    why = f"uid mismatch: the provided object specified uid {meta(obj)['uid']}, and no existing object was found"
                    raise errors.conflict(served.plural, served.group, name, why)
                return await self._create_by_update(ctx, served, namespace, obj, None), True
            if ctx.weigh is not None:
                ctx.weigh(entry)
            obj = merged(orjson.loads(views.document(entry, served)))
            return await self._replace(ctx, served, namespace, entry, obj, None), False

        return await self._commits.retried(
            attempt, of=served.resource.key(namespace, name), conflicts=not tied
        )

    def _takes_shape(
        self,
        ctx: Context,
        served: Served,
        namespace: str,
        name: str,
        before: Object | None,
        obj: Object,
        options: WriteOptions,
        known: Object,
    ) -> bool:
        """Makes what a patch or an apply made an object of its kind; whether it is tied to a resourceVersion.

        `before`: the metadata of what there is, None for nothing. `known` as in `_read`.
        """
        self._read(ctx, served, obj, options, known)
        metadata = meta(obj)
        tied = False
        if before is not None:
            given, seen = metadata.get("resourceVersion"), before["resourceVersion"]
            tied = given not in (None, "", seen)
            unconditional = options.written_as or served.resource.strategy.allow_unconditional_update
            if not given and unconditional:
                metadata["resourceVersion"] = seen
        self._place(served, namespace, metadata)
        if not metadata.get("name"):
            why = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
            raise errors.bad_request(why)
        if metadata["name"] != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        return tied

    def _same_kind(self, served: Served, before: Object, after: Object) -> None:
        for field in ("apiVersion", "kind"):
            if after.get(field) != before[field]:
                raise errors.bad_request(
                    f"the {'API version' if field == 'apiVersion' else 'kind'} in the data "
                    f"({after.get(field, '')}) does not match the expected "
                    f"{'API version' if field == 'apiVersion' else 'kind'} ({before[field]})"
                )

    async def _replace(
        self,
        ctx: Context,
        served: Served,
        namespace: str,
        entry: Entry,
        obj: Object,
        options: WriteOptions | None,
    ) -> bytes:
        """The tail of every update: `obj` takes the place of `entry`, or of the part that ctx.subresource names.

        `options` None: the object tells already who owns its fields.
        """
        resource, strategy = served.resource, served.resource.strategy
        shown = views.document(entry, served)
        old: Object = orjson.loads(shown)
        before, metadata = meta(old), meta(obj)
        self._check_revision_given(served, entry, name_of(old), metadata)
        if obj["kind"] != served.kind and not ctx.subresource:
            # What custom resources say they are is judged with what they have in them.
            wrong = errors.invalid_value("kind", obj["kind"], f"must be {served.kind}")
            raise errors.invalid(obj["kind"], served.group, name_of(old), [wrong])
        _keep_system_fields(before, metadata)
        metadata["resourceVersion"] = before["resourceVersion"]
        if options is not None:
            managing.track_update(served, ctx.subresource, obj, old, options, self._now())
        managed = metadata.get("managedFields")
        await self._admission.mutate(ctx, served, "UPDATE", obj, old)
        strategy.prepare_for_update(ctx, obj, old)
        _default_again(served, obj)
        _keep_system_fields(before, metadata := meta(obj))
        if managed:
            metadata["managedFields"] = managed
        else:
            metadata.pop("managedFields", None)
        rises = strategy.raises_generation(ctx, obj, old) if strategy.has_generation else False
        if self._outgrew(served, obj, old) if rises is None else rises:
            metadata["generation"] = int(before.get("generation", 0)) + 1
        metadata["resourceVersion"] = before["resourceVersion"]
        await strategy.admit(ctx, obj, old)
        self._check(served, obj, self._validate(ctx, served, obj, old))
        for text in strategy.warnings(ctx, obj, old):
            ctx.warn(text)
        await self._admission.validate(ctx, served, "UPDATE", obj, old)
        if same_json(obj, old) or managing.same_but_for_times(obj, old):
            return shown
        if self._finishes(strategy, obj, before):
            metadata["resourceVersion"] = str(await self._remove(ctx, served, entry, obj))
            return orjson.dumps(obj)
        companions = await self._commits.companions(ctx, served, obj, old)
        guards = await self._commits.guards(ctx, served, "", name_of(obj))
        stored = _stored(obj, served, owned=options is None or ctx.dry_run)
        if ctx.dry_run:
            return orjson.dumps(_reread(obj, stored, served))
        op = Op(entry.key, stored, entry.revision, strategy.expires_at(ctx, obj))
        revision = await self._commits.write(ctx, served, op, companions, guards, new=obj, old=old)
        strategy.after_write(ctx, resource, obj, old)
        return _shown(obj, stored, revision, served)

    def _check_revision_given(self, served: Served, entry: Entry, name: str, metadata: Object) -> None:
        """Optimistic concurrency, where the client gave a resourceVersion."""
        given = metadata.get("resourceVersion")
        if not given or given == "0":
            if not served.resource.strategy.allow_unconditional_update:
                wrong = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
                raise errors.invalid(served.plural, served.group, name, [wrong])
        elif given != str(entry.revision):
            _check_revision(given)
            raise errors.conflict(served.plural, served.group, name)

    @staticmethod
    def _outgrew(served: Served, obj: Object, old: Object) -> bool:
        """Something changed that is neither metadata nor (where it is a subresource) status."""
        apart = {"metadata", "status"} if served.version.status else {"metadata"}
        fields = (obj.keys() | old.keys()) - apart
        return any(not same_json(obj.get(field), old.get(field)) for field in fields)

    @staticmethod
    def _finishes(strategy: Strategy, obj: Object, before: Object) -> bool:
        """The update took the last finalizer of an object that is being deleted."""
        if "deletionTimestamp" not in before or meta(obj).get("finalizers"):
            return False
        return strategy.is_finished(obj) and not before.get("deletionGracePeriodSeconds")

    # ------------------------------------------------------------------ delete

    async def delete(
        self, ctx: Context, served: Served, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[bytes, bool]:
        """The object as it was last, and whether it is gone. False: finalizers keep it for now."""

        async def attempt() -> tuple[bytes, bool]:
            entry = await self._entry(served.resource, namespace, name)
            if entry is None:
                raise errors.not_found(served.plural, served.group, name)
            if ctx.weigh is not None:
                ctx.weigh(entry)
            return await self._delete(ctx, served, namespace, entry, options)

        key = served.resource.key(namespace, name)
        return await self._commits.retried(attempt, of=key, conflicts=not options.resource_version)

    async def _delete(
        self, ctx: Context, served: Served, namespace: str, entry: Entry, options: DeleteOptions
    ) -> tuple[bytes, bool]:
        strategy = served.resource.strategy
        shown = views.document(entry, served)
        obj = self._outlined(ctx, served, entry, shown)
        deleting.check(served, obj, options)
        strategy.may_delete(ctx, obj)
        if strategy.propagation_warning and not options.propagation:
            ctx.warn(strategy.propagation_warning)
        await self._admission.validate(ctx, served, "DELETE", None, obj)
        metadata = meta(obj)
        began = "deletionTimestamp" in metadata
        period_s = strategy.grace_period_s(obj, options.grace_period_s)
        if period_s is not None:
            grace = deleting.give_grace(metadata, period_s, options.grace_period_s, self._clock.now())
            if grace is not deleting.Grace.NONE:
                return await self._delete_gracefully(ctx, served, entry, obj, options, grace)
        deleting.propagate(strategy.default_propagation, metadata, options)
        stays = strategy.begin_delete(ctx, obj)
        if not stays and not metadata.get("finalizers"):
            revision = await self._remove(ctx, served, entry, obj)
            return views.at_revision(shown, revision), True
        if not began:
            metadata["deletionTimestamp"] = self._now()
            if not stays:
                metadata["deletionGracePeriodSeconds"] = 0
                if metadata.get("generation"):
                    metadata["generation"] += 1
        old = self._outlined(ctx, served, entry, shown)
        if obj == old:
            return shown, False
        if ctx.dry_run:
            return orjson.dumps(obj, default=as_written), False
        revision, stored = await self._mark(ctx, served, entry, obj, old)
        return _shown(obj, stored, revision, served), False

    async def _delete_gracefully(
        self,
        ctx: Context,
        served: Served,
        entry: Entry,
        obj: Object,
        options: DeleteOptions,
        grace: deleting.Grace,
    ) -> tuple[bytes, bool]:
        """The delete of a kind that takes time: `obj` says until when. Watchers see that first, and then it go."""
        shown = views.document(entry, served)
        if grace is deleting.Grace.RUNNING:
            return shown, False
        metadata = meta(obj)
        deleting.propagate(served.resource.strategy.default_propagation, metadata, options)
        gone = not metadata["deletionGracePeriodSeconds"] and not metadata.get("finalizers")
        if ctx.dry_run:
            return orjson.dumps(obj, default=as_written), gone
        revision, stored = await self._mark(
            ctx, served, entry, obj, self._outlined(ctx, served, entry, shown)
        )
        value = _shown(obj, stored, revision, served)
        if not gone:
            return value, False
        # Whoever changes it between the two is found out, and the next attempt finds its time to be up.
        revision = await self._remove(ctx, served, Entry(entry.key, stored, revision), obj)
        return views.at_revision(value, revision), True

    async def _mark(
        self, ctx: Context, served: Served, entry: Entry, obj: Object, old: Object
    ) -> tuple[int, bytes]:
        """Stores an object of which the server changed metadata or status, as one that is being deleted and stays for now.

        Its revision, and what was stored.
        """
        strategy = served.resource.strategy
        companions = await self._commits.companions(ctx, served, obj, old)
        guards = await self._commits.guards(ctx, served, "", name_of(obj))
        stored = encode_stored(views.to_storage(obj, served))
        op = Op(entry.key, stored, entry.revision, strategy.expires_at(ctx, obj))
        revision = await self._commits.write(ctx, served, op, companions, guards, new=obj, old=old)
        strategy.after_write(ctx, served.resource, obj, old)
        return revision, stored

    async def _remove(self, ctx: Context, served: Served, entry: Entry, last: Object) -> int:
        """Takes the object out of the store, in its state `last`. The revision; the one it has where nothing is written."""
        strategy = served.resource.strategy
        anew = strategy.restored(ctx, last)
        stored = None
        if anew is not None:
            meta(anew).update(uid=new_uid(), creationTimestamp=self._now())
            stored = encode_stored(views.to_storage(anew, served))
        companions = await self._commits.companions(ctx, served, anew, last)
        if ctx.dry_run:
            return entry.revision
        op = Op(entry.key, stored, entry.revision)
        revision = await self._commits.write(ctx, served, op, companions, (), new=anew, old=last)
        strategy.after_write(ctx, served.resource, anew, last)
        return revision

    async def delete_collection(
        self, ctx: Context, served: Served, namespace: str, which: ListOptions, options: DeleteOptions
    ) -> Listing:
        """Deletes what the list options pick, object by object, and returns what it found."""
        if listing.is_exact(served, namespace, which, paged=which.limit >= 0):
            # Upstream pages through what has no limit (registry/generic/registry/store.go, DeleteCollection).
            which = replace(which, resource_version_match="Exact")
        found = await self.list(served, namespace, which)
        values = iter(found.values)

        async def worker() -> None:
            for value in values:
                metadata = orjson.loads(value)["metadata"]
                # The one that was listed, not a namesake made since.
                exactly = replace(options, uid=options.uid or metadata["uid"])
                try:
                    await self.delete(ctx, served, metadata.get("namespace", ""), metadata["name"], exactly)
                except ApiError as error:
                    asked = options.uid or options.resource_version
                    if error.reason != "NotFound" and (asked or error.reason != "Conflict"):
                        raise

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(COLLECTION_DELETES, len(found.values))):
                    group.create_task(worker())
        except ExceptionGroup as group:
            # What is raised inside `except*` would come out as a group again.
            refused, other = group.split(ApiError)
            if refused is None or other is not None:
                raise
            raise refused.exceptions[0] from None
        return found

    # ------------------------------------------------------------------ the steps that writes share

    @staticmethod
    def _read(
        ctx: Context, served: Served, obj: Object, options: WriteOptions, known: Object | None = None
    ) -> None:
        """The object as decoding into its kind makes it, in place. Raises ApiError 400.

        `known`: metadata that were read when they were written; they, or managedFields alone, are not read again where the
        object still has the very same.
        """
        known = known or {}
        metadata: Any = obj.get("metadata")
        given = metadata.get("managedFields") if type(metadata) is dict else None
        untouched = given is not None and given is known.get("managedFields")
        if metadata is known:
            obj["metadata"] = {**known}
        elif untouched:
            obj["metadata"] = {key: value for key, value in metadata.items() if key != "managedFields"}
        receive(ctx, served, obj, options, reads_metadata=metadata is not known)
        # A custom resource's metadata takes the way through Go's type, where an empty list is none.
        if untouched or (given == [] and served.resource.builtin):
            meta(obj)["managedFields"] = given
        served.resource.strategy.read(ctx, obj)

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    @staticmethod
    def _place(served: Served, namespace: str, metadata: Object) -> None:
        """The namespace in the object is the one in the path, or empty (upstream: EnsureObjectNamespaceMatchesRequestNamespace)."""
        given = metadata.get("namespace") or ""
        if given and given != namespace:
            if served.resource.namespaced:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            del metadata["namespace"]
        if namespace:
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)

    @staticmethod
    def _validate(
        ctx: Context, served: Served, obj: Object, old: Object | None = None
    ) -> Sequence[FieldError]:
        """Everything wrong with the object, in upstream's order: metadata, schema, the kind's own rules."""
        resource, strategy = served.resource, served.resource.strategy
        builtin = resource.builtin and resource.group not in _GENERIC
        found = owners.problems(obj)
        if found:
            # Telling what else is wrong with each of a hundred thousand references takes a second.
            return found
        if old is None:
            found += validate_object_meta(
                obj["metadata"],
                namespaced=resource.namespaced,
                name_problems=strategy.name_problems or is_dns1123_subdomain,
                builtin=builtin,
            )
        else:
            wrong = validate_object_meta_update(obj["metadata"], old["metadata"], builtin=builtin)
            # Of a custom resource upstream judges metadata twice, and tells so.
            found += wrong if resource.builtin else [*wrong, *wrong]
        if not resource.builtin:
            judge = served.version.schema
            found += (judge.validate_status if ctx.subresource == "status" else judge.validate)(obj, old)
        found += strategy.validate(ctx, obj) if old is None else strategy.validate_update(ctx, obj, old)
        return found

    @staticmethod
    def _check(served: Served, obj: Object, wrong: Sequence[FieldError]) -> None:
        if wrong:
            wrong = wrong[:PROBLEMS_MAX]
            group = (served.resource.storage or served.resource).group
            raise errors.invalid(served.kind, group, name_of(obj), wrong)


def _copies(obj: Object) -> Iterator[Object]:
    """The object itself for the first attempt, which may change it, then copies of what it was for those that follow."""
    was = orjson.dumps(obj)
    yield obj
    while True:
        yield orjson.loads(was)


def _stored(obj: Object, served: Served, *, owned: bool) -> bytes:
    """The object as it is kept: without who owns its fields where it would be too large with that, unless it is to be `owned`.

    Upstream: endpoints/handlers/{create,update,patch}.go, isTooLargeError.
    """
    stored = encode_stored(views.to_storage(obj, served))
    if len(stored) > VALUE_BYTES_MAX and not owned and meta(obj).pop("managedFields", None):
        stored = encode_stored(views.to_storage(obj, served))
    return stored


def _shown(obj: Object, stored: bytes, revision: int, served: Served) -> bytes:
    """The answer to a write: what was stored, as the version asked for shows it."""
    if served.as_stored:
        return with_revision(stored, revision)
    shown = _reread(obj, stored, served)
    shown["metadata"]["resourceVersion"] = str(revision)
    return orjson.dumps(shown)


def _reread(obj: Object, stored: bytes, served: Served) -> Object:
    """The object as a reader will see it: the version that is stored may know less of it, or default more."""
    if served.version.name == served.resource.storage_version or served.resource.converter is not None:
        return obj
    metadata = obj["metadata"]
    shown = views.from_storage(orjson.loads(stored), served)
    if "resourceVersion" in metadata:
        shown["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    return shown


def _default_again(served: Served, obj: Object) -> None:
    """What a custom resource's strategy took away (status) reads as its schema's default from now on."""
    schema = served.version.schema
    if not served.resource.builtin and not schema.defaulted <= obj.keys():
        schema.default(obj)


def _check_revision(given: object) -> None:
    """Raises ApiError 500, as upstream does, for a resourceVersion that is none."""
    if given and not (isinstance(given, str) and given.isdigit()):
        raise ApiError(500, "", f"strconv.ParseUint: parsing {errors.go_quote(str(given))}: invalid syntax")


def _nulls(obj: Object) -> list[tuple[Object, str]]:
    """Where nulls stand in a custom resource. What is applied is not decoded once more upstream: defaults replace its nulls,
    but those that have none stay, to be refused or not (customresource_handler.go: unstructuredDefaulter)."""
    found: list[tuple[Object, str]] = []
    left: list[object] = [obj] if b"null" in orjson.dumps(obj) else []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found += [(value, name) for name, item in value.items() if item is None]
            left += [item for name, item in value.items() if value is not obj or name != "metadata"]
        elif isinstance(value, list):
            left += value
    return found


def _keep_system_fields(before: Object, metadata: Object) -> None:
    """What no update can change, restored rather than refused (upstream: rest.BeforeUpdate). Another uid is refused."""
    metadata["uid"] = metadata.get("uid") or before["uid"]
    for field in ("creationTimestamp", "generation", "deletionTimestamp"):
        if field in before:
            metadata[field] = before[field]
        elif field == "generation":
            metadata.pop(field, None)
    if "deletionGracePeriodSeconds" in before:
        metadata.setdefault("deletionGracePeriodSeconds", before["deletionGracePeriodSeconds"])
    metadata.pop("selfLink", None)


def _upstreams_key(served: Served, key: str, ctx: Context) -> str:
    """The key that messages name: of built-in kinds without a group, and without its root where nothing is written."""
    if served.resource.builtin:
        key = key.partition("/")[2]
    return f"/{key}" if ctx.dry_run else f"/registry/{key}"


def _precondition_uid(served: Served, name: str, wanted: str, found: str, key: str) -> ApiError:
    return errors.conflict(
        served.plural,
        served.group,
        name,
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
    )
