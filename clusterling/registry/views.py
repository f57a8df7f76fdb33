"""What a stored entry looks like to a reader: the document at a version, its labels, the fields one may select by.

The stored bytes *are* the answer when they were written under the current schema and are read at the storage
version (decision 14). Everything else is derived once per entry and kept in `Entry.views`, shared by all readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
import orjson

from clusterling.machinery.codec import OUTLINED_BYTES_MIN, encode_stored, with_api_version, with_revision
from clusterling.machinery.jsonpath import compile_path
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.schema.shaping import json_copy
from clusterling.machinery.selectors import FieldSelector, LabelSelector
from clusterling.registry.resource import Resource, Served
from clusterling.storage.store import Entry

_OUTLINE: Final = "~outline"  # No version is called so.
_REVISION: Final = b'"metadata":{"resourceVersion":"'


def finish(key: str, value: bytes, revision: int) -> bytes:
    """Splices the resourceVersion into an object on its way into the cache; other records stay as they are."""
    return value if key.startswith("~") else with_revision(value, revision)


def at_revision(value: bytes, revision: int) -> bytes:
    """A finished document under another resourceVersion (a deletion shows the object with the deletion's)."""
    start = value.index(_REVISION) + len(_REVISION)
    return b"%s%d%s" % (value[:start], revision, value[value.index(b'"', start) :])


def document(entry: Entry, served: Served) -> bytes:
    """The entry's JSON document as `served` shows it."""
    if entry.revision >= served.resource.schema_revision and served.as_stored:
        return entry.value
    return _derived(entry, served)


def outline(entry: Entry, value: bytes, outlined: Callable[[bytes], Object]) -> Object:
    """What `outlined` makes of `value`, the entry's document: the caller's own, of what was made once for all who ask."""
    if value is not entry.value or len(value) <= OUTLINED_BYTES_MIN:
        return outlined(value)
    views = entry.views
    if views is None:
        views = entry.views = {}
    known = views.get(_OUTLINE)
    if known is None:
        known = views[_OUTLINE] = outlined(value)
    return cast(Object, json_copy(known))


def documents(entries: Sequence[Entry], served: Served) -> Sequence[bytes]:
    """The documents of many entries: for most kinds one pass that looks at nothing but revisions."""
    current = served.resource.schema_revision
    if not served.as_stored:
        return [_derived(entry, served) for entry in entries]
    if not current:
        return [entry.value for entry in entries]
    return [entry.value if entry.revision >= current else _derived(entry, served) for entry in entries]


def to_derive(entries: Sequence[Entry], served: Served) -> Sequence[Entry]:
    """Those whose documents have to be made, once: of another version, or of what an older schema stored."""
    current = served.resource.schema_revision
    if not served.as_stored:
        return entries
    return [entry for entry in entries if entry.revision < current] if current else ()


def _derived(entry: Entry, served: Served) -> bytes:
    views = entry.views
    if views is None:
        views = entry.views = {}
    # One for each version's name: what an older schema made of the entry goes when a newer one is asked.
    known = views.get(served.version.name)
    if known is None or not isinstance(known, _Derived) or known.resource is not served.resource:
        known = views[served.version.name] = _Derived(served.resource, _derive(entry, served))
    return known.value


@dataclass(frozen=True, slots=True)
class _Derived:
    """A document, and the Resource that it was made for."""

    resource: Resource
    value: bytes


def _derive(entry: Entry, served: Served) -> bytes:
    resource = served.resource
    if entry.revision >= resource.schema_revision and resource.converter is None and _one_schema(served):
        return with_api_version(entry.value, served.api_version)
    obj: Object = orjson.loads(entry.value)
    if entry.revision < resource.schema_revision:
        refresh(obj, resource)
    return with_revision(encode_stored(from_storage(obj, served)), entry.revision)


def _one_schema(served: Served) -> bool:
    return served.version.schema is served.resource.version(served.resource.storage_version).schema


def refresh(obj: Object, resource: Resource) -> None:
    """Prunes and defaults an object that was stored under another schema, by the version it was stored in."""
    name = GroupVersion.parse(obj["apiVersion"]).version
    known = [version for version in resource.versions if version.name == name]
    schema = (known[0] if known else resource.version(resource.storage_version)).schema
    schema.prune(obj)
    schema.default(obj)


def from_storage(obj: Object, served: Served) -> Object:
    """The object as `served` shows it. May return the same object, changed."""
    resource = served.resource
    if resource.converter is not None:
        return resource.converter.from_storage(obj, served.version.name)
    wanted = served.api_version
    if obj["apiVersion"] != wanted:
        obj["apiVersion"] = wanted
        served.version.schema.prune(obj)
    return obj


def to_storage(obj: Object, served: Served) -> Object:
    """The object as it is stored; `obj` itself is not changed where that differs."""
    resource = served.resource
    if resource.converter is not None:
        return resource.converter.to_storage(obj, served.version.name)
    if served.version.name == resource.storage_version:
        return obj
    stored: Object = orjson.loads(orjson.dumps(obj))
    stored["apiVersion"] = str(GroupVersion(resource.group, resource.storage_version))
    schema = resource.version(resource.storage_version).schema
    schema.prune(stored)
    schema.default(stored)
    return stored


class _Meta(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None
    name: str = ""
    namespace: str = ""


class _Labelled(msgspec.Struct, gc=False):
    metadata: _Meta


_decode_labelled = msgspec.json.Decoder(_Labelled).decode
_NO_LABELS: Final[dict[str, str]] = {}


class _Uid(msgspec.Struct, gc=False):
    uid: str = ""


class _Identified(msgspec.Struct, gc=False):
    metadata: _Uid


_decode_identified = msgspec.json.Decoder(_Identified).decode


def uid_of(value: bytes) -> str:
    """The uid in an object's document, without decoding the rest."""
    return _decode_identified(value).metadata.uid


def _meta_of(entry: Entry) -> _Meta:
    views = entry.views
    if views is None:
        views = entry.views = {}
    known = views.get(_Meta)
    if type(known) is _Meta:
        return known
    made = views[_Meta] = _decode_labelled(entry.value).metadata
    return made


class Selection:
    """What a list or watch picks from a collection: label and field selectors over entries of one resource."""

    __slots__ = ("_fields", "_labels", "_served", "key")

    def __init__(self, served: Served, labels: LabelSelector | None, fields: FieldSelector | None) -> None:
        self._served = served
        self._labels = labels if labels is not None and not labels.is_everything else None
        self._fields = fields if fields is not None and fields.requirements else None
        # Equal keys pick equally: what was made for one watcher serves the others.
        self.key = (
            self._labels.canonical if self._labels else "",
            self._fields.canonical if self._fields else "",
        )

    @property
    def everything(self) -> bool:
        return self._labels is None and self._fields is None

    def matches(self, entry: Entry) -> bool:
        if self._labels is not None and not self._labels.matches(_meta_of(entry).labels or _NO_LABELS):
            return False
        return self._fields is None or self._fields.matches(self._field_values(entry))

    def _field_values(self, entry: Entry) -> dict[str, str]:
        assert self._fields is not None, "asked for only with a field selector"
        meta = _meta_of(entry)
        values = {"metadata.name": meta.name, "metadata.namespace": meta.namespace}
        if any(field not in values for field, _, _ in self._fields.requirements):
            obj = orjson.loads(document(entry, self._served))
            values.update(self._served.resource.strategy.field_values(obj))
            for path in self._served.version.selectable_fields:
                values[path] = _field_text(obj, path)
        return values


def _field_text(obj: Object, path: str) -> str:
    """A selectable field's value as selectors compare it (upstream: customresource/strategy.go, selectableFields)."""
    found: list[Any] = compile_path(f".{path}").find(obj)
    if not found or found[0] is None:
        return ""
    value = found[0]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
