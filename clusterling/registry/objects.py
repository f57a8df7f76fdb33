"""ObjectStore: the verbs of the Kubernetes API over one logical cluster's keys. INTERFACE, being implemented."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from clusterling.machinery.meta import Object
from clusterling.registry.options import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context


@dataclass(frozen=True, slots=True)
class Listing:
    """A list's parts. `values` are whole JSON documents of the objects, to be joined or decoded."""

    values: Sequence[bytes]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


class FrameCodec(Protocol):
    """How watch events are written for one media type. Frames are made once and shared by all watchers with an equal `key`."""

    @property
    def key(self) -> Hashable: ...

    def frame(self, event_type: str, value: bytes) -> bytes:
        """One event. `event_type` is ADDED, MODIFIED, DELETED or BOOKMARK; `value` the object's JSON document."""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """What goes to the socket for one batch (transfer framing included)."""


class ObjectWatch(Protocol):
    """The events of one watch request; pulled by the response when `notify`'s callback says there may be some."""

    def notify(self, callback: Callable[[], None]) -> None: ...

    def take(self) -> bytes | None:
        """Joined frames since the last take, ready for the socket, or None. Raises ApiError (410 Expired)."""

    def bookmark(self) -> bytes | None:
        """A bookmark frame at the watch's revision, or None where the client takes none or nothing moved."""


class ObjectStore(Protocol):
    """Reads answer JSON documents (bytes) at `served`'s version. Everything raises ApiError.

    `namespace` is "" for cluster-scoped resources and for a list over all namespaces.
    """

    async def get(self, served: Served, namespace: str, name: str, *, resource_version: str = "") -> bytes: ...

    async def list(self, served: Served, namespace: str, options: ListOptions) -> Listing: ...

    def watch(
        self, served: Served, namespace: str, options: WatchOptions, codec: FrameCodec
    ) -> AbstractAsyncContextManager[ObjectWatch]: ...

    async def create(
        self, ctx: Context, served: Served, namespace: str, obj: Object, options: WriteOptions
    ) -> bytes: ...

    async def update(
        self, ctx: Context, served: Served, namespace: str, name: str, obj: Object, options: WriteOptions
    ) -> tuple[bytes, bool]:
        """Replaces the object, or the part that ctx.subresource names. The bool: it was created."""

    async def patch(
        self,
        ctx: Context,
        served: Served,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        options: WriteOptions,
    ) -> bytes:
        """Reads, applies the pure `change`, writes; repeated on conflict when the change set no resourceVersion."""

    async def delete(
        self, ctx: Context, served: Served, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[bytes, bool]:
        """The object as it was, and whether it is gone (True: answer a Status; False: finalizers keep it, answer it)."""

    async def delete_collection(
        self, ctx: Context, served: Served, namespace: str, which: ListOptions, options: DeleteOptions
    ) -> Listing: ...

    async def read(self, served: Served, namespace: str, name: str) -> Object | None:
        """The object decoded, None where it does not exist: for strategies and controllers."""
