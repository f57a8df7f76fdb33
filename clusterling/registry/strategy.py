"""Strategy: what is special about a kind, as hooks whose defaults suit a custom resource.

`prepare_*` change the object and are synchronous and pure; `validate*` return what is wrong; `admit` may wait
for other objects. Each gets one frozen `Context`, so a hook needs no globals and a pack no imports from above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import orjson
from msgspec import Struct

from clusterling.machinery.apply.fieldset import FieldSet, difference_below, only
from clusterling.machinery.errors import FieldError
from clusterling.machinery.meta import Object
from clusterling.registry.ports import Ports
from clusterling.storage.store import Entry, Guard, Op

if TYPE_CHECKING:
    from clusterling.registry.catalog import Catalog
    from clusterling.registry.objects import ObjectStore
    from clusterling.registry.resource import Resource
    from clusterling.storage.others import Standing


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `realm` is a cluster's id or `root`'s: set only by the authenticator that accepted the credential."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    realm: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


STATUS: Final = only(("status",))
SPEC: Final = only(("spec",))
# A write to the object leaves its status, and one to its status the rest.
RESETS: Final[Mapping[str, FieldSet]] = {"": STATUS, "status": SPEC, "finalize": STATUS}
RESETS_METADATA: Final[Mapping[str, FieldSet]] = {**RESETS, "status": only(("metadata",), ("spec",))}

WARNINGS_MAX: Final = 256  # Of one request; the headers of an answer hold fewer (services/filters.py).

ANONYMOUS: Final = User("system:anonymous", ("system:unauthenticated",))
SERVER: Final = User("system:clusterling:controllers", ("system:masters", "system:authenticated"))


class Context(Struct, frozen=True):
    """What one request brings along to a hook.

    `objects` reaches the other objects of the same cluster (and of no other). `cluster` and `cluster_id` name it.
    `warn` adds a Warning header to the answer. `standing` is what the request's writes depend on besides what they say.
    `weigh` is shown the object that is to be changed, before anything is done to it; what it raises ends the write.
    """

    user: User
    cluster: str
    cluster_id: str
    objects: ObjectStore
    catalog: Catalog
    ports: Ports
    dry_run: bool = False
    warnings: list[str] = []
    subresource: str = ""
    standing: Standing | None = None
    weigh: Callable[[Entry], None] | None = None

    def warn(self, text: str) -> None:
        """One Warning header; a text already given is not repeated, and what is beyond `WARNINGS_MAX` not said."""
        if len(self.warnings) < WARNINGS_MAX and text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True, slots=True)
class Companions:
    """What else one write does and depends on, in the same transaction (fences: decision 4)."""

    ops: tuple[Op, ...] = ()
    guards: tuple[Guard, ...] = ()


NO_COMPANIONS: Final = Companions()


class Strategy:
    """The behaviour of a kind. Override what is special; the defaults are those of a custom resource.

    `ctx.subresource` says which part is being written (`""` the object, `"status"`, `"finalize"`, …).
    """

    # A PUT to a name that does not exist creates it (leases, events, …: upstream's AllowCreateOnUpdate).
    allow_create_on_update: bool = False
    # A PUT without resourceVersion overwrites. False for custom resources: 422 "must be specified for an update".
    allow_unconditional_update: bool = True
    # metadata.generation starts at 1 and rises with every change outside metadata (and status, if that is a subresource).
    has_generation: bool = True
    # How dependents go when a DELETE does not say: "background", or "orphan" (a few legacy kinds); "unsupported" where
    # that cannot be said (events).
    default_propagation: str = "background"
    # Warned of where that leaves dependents behind that whoever deletes may not have thought of.
    propagation_warning: str = ""
    # A DELETE that removes the object at once answers with it, not with a Status (a few kinds: upstream's ReturnDeletedObject).
    returns_deleted_object: bool = False
    # What a write to each part leaves as it was.
    resets: ClassVar[Mapping[str, FieldSet]] = RESETS
    # Where only generateName is given, something random is added to it. False: it is the name (addresses).
    generates_names: bool = True
    # The kind's own columns are of what `outline` decodes. Name and age always are.
    outlines_columns: bool = False
    # What the rows of a list's Table are sorted by (flow schemas); None: as they are stored.
    row_order: Callable[[Object], tuple[int, str]] | None = None
    # Names are DNS subdomains unless a kind says otherwise: returns what is wrong, in upstream's words.
    name_problems: Callable[[str], Sequence[str]] | None = None

    def outline(self, value: bytes) -> Object:
        """A stored object for who looks at its metadata and status alone, or removes it.

        What else is large, and none of these hooks looks at then, may stay as it is written (`msgspec.Raw`).
        """
        whole: Object = orjson.loads(value)
        return whole

    def read(self, ctx: Context, new: Object) -> None:
        """What decoding into the kind's Go type does to an object beyond its schema, in place: canonical forms, zero values
        that are always written, defaults that follow from other fields. Raises ApiError 400.

        Whoever wrote the object owns what this fills in, but not what `prepare_*` change after it.
        """

    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        """Changes an object about to be created, after it was read and before validation."""

    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        """Changes an object about to replace `old`: restores what this part (ctx.subresource) may not change."""

    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        """What is wrong with an object being created, beyond its schema and metadata."""
        return ()

    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        """What is wrong with a change, beyond schema and metadata. Validate `new` itself here too."""
        return self.validate(ctx, new)

    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        """The kind's own admission, before validation; may read other objects. Raises ApiError to refuse."""

    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        """What goes into the same transaction. `new` None: the object is being removed for good."""
        return NO_COMPANIONS

    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool | None:
        """Whether metadata.generation rises with a change of a kind that has one; None: by the rule beside `has_generation`."""
        return None

    def may_delete(self, ctx: Context, old: Object) -> None:
        """Raises ApiError where the object is protected (`default` namespace)."""

    def restored(self, ctx: Context, old: Object) -> Object | None:
        """What takes the place of an object that a cluster is never without, in the write that removes it; None: nothing.

        A new object, without uid and creation time. Upstream's controllers make one a moment later.
        """
        return None

    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        """Marks an object that stays for now (a namespace becomes Terminating); True where it must stay.

        Called when a delete arrives; the object already has deletionTimestamp when True was returned before.
        What stays by its kind gets no deletionGracePeriodSeconds, as upstream.
        """
        return False

    def grace_period_s(self, obj: Object, asked: int | None) -> int | None:
        """How long an object about to be deleted may take to end, in seconds; None for kinds that do not take time.

        `asked`: what the DELETE says. 0 is a deletion at once that watchers are told of before (pods).
        """
        return None

    def is_finished(self, obj: Object) -> bool:
        """An object being deleted whose metadata.finalizers are empty may go now (namespaces also wait for spec.finalizers)."""
        return True

    def changeable(self, part: str, fields: FieldSet, *, has_status: bool) -> FieldSet:
        """Of these fields those that a write to `part` ("" the object itself) can change: others it does not come to own.

        `has_status`: the status is a part of its own (upstream: GetResetFields).
        """
        return difference_below(fields, self.resets.get(part, {}) if has_status or part else {})

    def expires_at(self, ctx: Context, obj: Object) -> int | None:
        """Whole seconds since the epoch when the object goes by itself (events); None never."""
        return None

    def field_values(self, obj: Object) -> dict[str, str]:
        """Fields usable in field selectors, besides metadata.name and metadata.namespace: all, also of an object that has
        nothing but metadata."""
        return {}

    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        """Warning headers that a create or update (`old` is what was) of this object answers with, once it is valid."""
        return ()

    def after_write(self, ctx: Context, resource: Resource, new: Object | None, old: Object | None) -> None:
        """Called once the write is durable; must not fail and must not wait."""
