"""`metadata.managedFields`: who owns which fields of an object, kept with every write.

    track(live, new, writer, …)              after a create, update or patch: who changed what owns it
    apply(live, applied, writer, …) → obj    server-side apply

An entry is one writer's: a manager by name, an operation, a version (for updates), a subresource. Only what changed
counts, so a write that changes nothing changes no entry either. Of updates ten entries are kept; older ones become
`ancient-changes`. An object without entries that is updated stays without: tracking starts at its creation, or when it is first
applied to, when what was there belongs to `before-first-apply`.

Upstream: apimachinery pkg/util/managedfields/internal (fieldmanager.go, managedfields.go, managedfieldsupdater.go,
capmanagers.go, skipnonapplied.go, stripmeta.go, lastapplied*.go, conflict.go); KEP-555.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from clusterling.machinery.apply import owners as ownership
from clusterling.machinery.apply.fieldset import (
    FieldSet,
    FieldSetError,
    Steps,
    covers,
    difference,
    has,
    intersection,
    of_path,
    only,
    ordered,
    parse,
    path_text,
    union,
)
from clusterling.machinery.apply.owners import (
    Comparison,
    Conflict,
    Conflicts,
    Misfit,
    Owned,
    Owner,
    Owners,
    Versions,
    compare,
)
from clusterling.machinery.apply.types import MapType, TypedError
from clusterling.machinery.codec import check_depth
from clusterling.machinery.errors import ApiError, bad_request, go_quote
from clusterling.machinery.meta import Object, meta

UPDATES_MAX: Final = 10
APPLY: Final = "Apply"
UPDATE: Final = "Update"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_ANNOTATIONS_BYTES_MAX: Final = 256 * 1024
_ANCIENT: Final = "ancient-changes"
_BEFORE_APPLY: Final = "before-first-apply"
SHAPES_MAX: Final = 512  # Of new objects, whose fields as they are told of are remembered, and
SHAPE_BYTES_MAX: Final = 1024  # the most that there is to one.
# What identifies an object or is written by the server alone belongs to nobody.
_STRIPPED: Final = only(
    ("apiVersion",),
    ("kind",),
    ("metadata",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "creationTimestamp"),
    ("metadata", "selfLink"),
    ("metadata", "uid"),
    ("metadata", "clusterName"),
    ("metadata", "generation"),
    ("metadata", "managedFields"),
    ("metadata", "resourceVersion"),
)
_SELF: Final = Owner("current-operation", "", "", "")
_shapes: Final[dict[bytes, bytes]] = {}


class Writer(NamedTuple):
    """A request's field manager (`fieldManager`, or what the user agent begins with), the version it writes, and where."""

    manager: str
    api_version: str
    subresource: str = ""
    shown_as: str = ""  # The version in which owners are told of in conflicts, where it is not their own.
    only: Steps = ()  # The one field that is written, where it is shown as an object of its own: a scale.

    def owner(self, operation: str) -> Owner:
        # One that applies has one entry for all versions.
        version = "" if operation == APPLY else self.api_version
        return Owner(self.manager or "unknown", operation, version, self.subresource)

    def is_tracked(self, owners: Owners) -> bool:
        """Whether the object that is shown has owners: else updates of it are not told of, as of any object."""
        return not self.only or any(has(owned.fields, self.only) for owned in owners.values())


class ManagedError(ValueError):
    """Entries that cannot be read."""


@dataclass(slots=True)
class _Managed:
    owners: Owners = field(default_factory=dict)
    times: dict[Owner, str] = field(default_factory=dict)
    # The entries as they were, to be handed on where nothing changed in them.
    written: dict[Owner, tuple[Owned, Object]] = field(default_factory=dict)


# --------------------------------------------------------------------------- entries


def _decoded(entries: object, *, trusted: bool) -> _Managed:
    """`trusted`: they were written here, so their steps are spelled as ours. Raises ManagedError."""
    managed = _Managed()
    if not entries:
        return managed
    if type(entries) is not list:
        raise ManagedError("managedFields must be a list")
    for position, entry in enumerate(entries):
        if type(entry) is not dict:
            raise ManagedError(f"managed fields entry {position} must be a map")
        owner, owned = _read(position, entry, trusted=trusted)
        managed.owners[owner] = owned
        managed.written[owner] = owned, entry
        if entry.get("time") is not None:
            managed.times[owner] = entry["time"]
    return managed


def _read(position: int, entry: Object, *, trusted: bool) -> tuple[Owner, Owned]:
    operation, version = entry.get("operation"), entry.get("apiVersion")
    if operation not in (APPLY, UPDATE):
        raise ManagedError("operation must be `Apply` or `Update`")
    if not version or not isinstance(version, str):
        raise ManagedError("apiVersion must not be empty")
    if not entry.get("fieldsType"):
        raise ManagedError(f"missing fieldsType in managed fields entry {position}")
    if entry["fieldsType"] != "FieldsV1":
        raise ManagedError(
            f"invalid fieldsType {go_quote(str(entry['fieldsType']))} in managed fields entry {position}"
        )
    names = entry.get("manager") or "", entry.get("subresource") or ""
    if not trusted and not all(isinstance(text, str) for text in (*names, entry.get("time") or "")):
        raise ManagedError(
            f"managed fields entry {position} must have a manager, subresource and time of text"
        )
    try:
        fields = entry.get("fieldsV1") or {}
        found = fields if trusted else parse(fields)
    except FieldSetError as error:
        raise ManagedError(f"error decoding set: {error}") from error
    owner = Owner(names[0], operation, "" if operation == APPLY else version, names[1])
    return owner, Owned(found, version, operation == APPLY)


def _encoded(managed: _Managed) -> list[Object]:
    return [
        _written(managed, owner, owned)
        for owner, owned in sorted(managed.owners.items(), key=lambda item: _position(managed, *item))
    ]


def _position(managed: _Managed, owner: Owner, owned: Owned) -> tuple[str, str, str, str, str]:
    return (
        owner.operation,
        managed.times.get(owner, ""),
        owner.manager,
        owned.api_version,
        owner.subresource,
    )


def _written(managed: _Managed, owner: Owner, owned: Owned) -> Object:
    time = managed.times.get(owner)
    before = managed.written.get(owner)
    if before is not None and before[0].fields is owned.fields and before[0].api_version == owned.api_version:
        # Most updates change what their writer owns already: all that is new is the time.
        if before[1].get("time") == time:
            return before[1]
        if time is not None and "time" in before[1]:
            return {**before[1], "time": time}
    return _entry(owner, owned.api_version, ordered(owned.fields), time)


def _entry(owner: Owner, api_version: str, fields: FieldSet, time: str | None) -> Object:
    entry: Object = {"manager": owner.manager} if owner.manager else {}
    entry |= {"operation": owner.operation, "apiVersion": api_version}
    if time is not None:
        entry["time"] = time
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    if owner.subresource:
        entry["subresource"] = owner.subresource
    return entry


def _set(obj: Object, managed: _Managed) -> None:
    entries = _encoded(managed)
    if entries:
        meta(obj)["managedFields"] = entries
    else:
        meta(obj).pop("managedFields", None)


# --------------------------------------------------------------------------- updates


def track(versions: Versions, live: Object, new: Object, writer: Writer, now: str) -> None:
    """Writes into `new` who owns its fields, after `writer` made it of `live` (for a create: the kind's empty object).

    `now`: RFC 3339, whole seconds. Where the fields of an object cannot be told from each other, the entries stay as they were.
    """
    own = meta(new)
    before, sent = live.get("metadata", {}).get("managedFields"), own.pop("managedFields", None)
    if writer.subresource or sent == before:
        sent = None
    # A list that is empty, or has one empty entry, starts anew.
    nobodys = sent in ([], [{}]) or not (sent or before)
    is_new = not live.get("metadata", {}).get("uid")
    if nobodys and not is_new:
        return
    try:
        entries = (
            _claimed(versions, live, new, writer, now)
            if nobodys
            else _followed(versions, live, new, before, sent, writer, now)
        )
        if entries is None and is_new:
            entries = _claimed(versions, live, new, writer, now)
    except TypedError:
        entries = before
    if entries:
        own["managedFields"] = entries


def _followed(
    versions: Versions,
    live: Object,
    new: Object,
    before: Any,
    sent: Any,
    writer: Writer,
    now: str,
) -> list[Object] | None:
    """The entries that there were, or were sent, after what changed. None where none of them can be read."""
    bare = _without_entries(live)
    changed = ownership.changes(versions, bare, new, writer.api_version)
    entries = None if sent else _stamped(versions, before, changed, writer, now)
    if entries is not None:
        return entries
    managed = _live_or_sent(before, sent)
    return _tracked(versions, bare, new, changed, managed, writer, now) if managed.owners else None


def _claimed(versions: Versions, empty: Object, new: Object, writer: Writer, now: str) -> list[Object]:
    """What following comes to for a new object, which nobody owns anything of: it is its writer's."""
    fields = _told(ownership.claimed(versions, empty, new, writer.api_version))
    return [_entry(writer.owner(UPDATE), writer.api_version, fields, now)] if fields else []


def _told(fields: FieldSet) -> FieldSet:
    """What is told of these fields of a new object, in upstream's order. Most objects are made like others before."""
    shape = orjson.dumps(fields)
    known = _shapes.get(shape)
    if known is not None:
        made: FieldSet = orjson.loads(known)
        return made
    made = ordered(difference(fields, _STRIPPED))
    if len(shape) <= SHAPE_BYTES_MAX:
        if len(_shapes) >= SHAPES_MAX:
            _shapes.clear()
        _shapes[shape] = orjson.dumps(made)
    return made


def _stamped(
    versions: Versions, entries: Sequence[Object], changed: Comparison, writer: Writer, now: str
) -> list[Object] | None:
    """What track comes to for an update of fields that its writer alone owns, as of most: all that is new is the time.

    None where more is, or may be.
    """
    touched, version = changed.modified, writer.api_version
    if changed.added or changed.removed or writer.only or len(entries) > UPDATES_MAX:
        return None
    kind = None if versions.settled else versions.type(version)
    ours = writer.owner(UPDATE)
    made: list[Object] = []
    found = not touched
    for entry in entries:
        fields = entry.get("fieldsV1")
        if not fields or entry.get("apiVersion") != version or "time" not in entry:
            return None
        if kind is not None and kind.reconciled(fields) is not fields:
            return None
        whose = entry.get("manager"), entry.get("operation"), version, entry.get("subresource", "")
        if whose != ours:
            if intersection(fields, touched):
                return None
        elif touched:
            if not covers(fields, touched):
                return None
            entry = {**entry, "time": now}  # noqa: PLW2901
            found = True
        made.append(entry)
    if not found:
        return None
    if len(made) > 1:
        made.sort(key=_place)
    return made


def _place(entry: Object) -> tuple[str, ...]:
    return tuple(
        entry.get(field, "") for field in ("operation", "time", "manager", "apiVersion", "subresource")
    )


def _live_or_sent(before: object, sent: object) -> _Managed:
    """The entries to go on from: those a client sends, for it may change them; the live ones if it sends none."""
    if sent is not None:
        try:
            managed = _decoded(sent, trusted=False)
        except ManagedError:
            managed = _Managed()
        if managed.owners:
            return managed
    try:
        return _decoded(before, trusted=True)
    except ManagedError:
        return _Managed()


def _tracked(
    versions: Versions,
    live: Object,
    new: Object,
    changed: Comparison,
    managed: _Managed,
    writer: Writer,
    now: str,
) -> list[Object]:
    if writer.is_tracked(managed.owners):
        _update(versions, live, new, managed, writer, now, changed)
    _cap(managed)
    return _encoded(managed)


def _update(
    versions: Versions,
    live: Object,
    new: Object,
    managed: _Managed,
    writer: Writer,
    now: str,
    changed: Comparison | None = None,
) -> None:
    managed.owners = ownership.update(versions, live, new, writer.api_version, managed.owners, _SELF, changed)
    taken = managed.owners.pop(_SELF, None)
    fields = {} if taken is None else difference(taken.fields, _STRIPPED)
    if not fields:
        return
    owner = writer.owner(UPDATE)
    before = managed.owners.get(owner)
    if before is not None:
        fields = union(fields, before.fields) if difference(fields, before.fields) else before.fields
    managed.owners[owner] = Owned(fields, writer.api_version, applied=False)
    _stamp(managed, owner, now)


def _stamp(managed: _Managed, owner: Owner, now: str) -> None:
    """The time of an entry; those of a scale have none, as upstream."""
    if owner.subresource == "scale":
        managed.times.pop(owner, None)
    else:
        managed.times[owner] = now


def _cap(managed: _Managed) -> None:
    """Merges the oldest updates of each version into one entry, until no more than `UPDATES_MAX` are left."""
    updates = [owner for owner, owned in managed.owners.items() if not owned.applied]
    count = len(updates)
    if count <= UPDATES_MAX:
        return
    first: dict[str, Owner] = {}
    for owner in sorted(updates, key=lambda one: (managed.times.get(one, ""), one)):
        if count <= UPDATES_MAX:
            return
        owned = managed.owners[owner]
        version = owned.api_version
        bucket = Owner(_ANCIENT, UPDATE, version, "")
        if version not in first:
            first[version] = owner
            continue
        if bucket not in managed.owners:
            managed.owners[bucket] = managed.owners.pop(first[version])
        fields = union(owned.fields, managed.owners[bucket].fields)
        if owner != bucket:
            del managed.owners[owner]
        managed.owners[bucket] = Owned(fields, version, owned.applied)
        count -= 1
        if owner in managed.times:
            managed.times[bucket] = managed.times[owner]


# --------------------------------------------------------------------------- apply


def apply(
    versions: Versions,
    live: Object,
    applied: Object,
    writer: Writer,
    now: str,
    *,
    empty: Object,
    force: bool,
) -> Object:
    """The object that a configuration makes of `live` (of `empty`, the kind's empty object, if there is none yet).

    Raises ApiError: 409 with a cause for each field that somebody else owns, unless `force`; 400 for a configuration
    of another version, or with managedFields; 500, as upstream does, for one that is not of the kind's type.
    """
    try:
        managed = _decoded(live.get("metadata", {}).get("managedFields"), trusted=True)
    except ManagedError as error:
        raise ApiError(500, "", f"failed to decode managed fields: {error}") from error
    bare = _without_entries(live)
    _check(versions, bare, applied, writer)
    if not writer.is_tracked(managed.owners):
        _keep_scale(bare, managed, writer)
    elif not managed.owners:
        before = Writer(_BEFORE_APPLY, writer.api_version, writer.subresource)
        # Where what is there is none of its type nobody owns it, and what is applied is refused below.
        with suppress(TypedError):
            _update(versions, empty, bare, managed, before, now)
    try:
        made = _applied(versions, bare, applied, managed, writer, force=force)
    except Conflicts as conflicts:
        raise _conflict(conflicts.conflicts, writer.shown_as) from conflicts
    if made is None:
        made = {**bare, "metadata": dict(bare.get("metadata", {}))}
    else:
        made = {**made, "metadata": dict(made.get("metadata") or {})}
        _stamp(managed, writer.owner(APPLY), now)
    if writer.manager == "kubectl":
        _keep_last_applied(made, applied)
    _set(made, managed)
    return made


def _keep_scale(live: Object, managed: _Managed, writer: Writer) -> None:
    """The one field belongs to who was there before: not to the first who applies it."""
    value: Any = live
    for step in writer.only:
        value = value.get(step.partition(":")[2]) if isinstance(value, dict) else None
    if value:
        owner = Owner(_BEFORE_APPLY, UPDATE, writer.api_version, writer.subresource)
        managed.owners[owner] = Owned(of_path(writer.only), writer.api_version, applied=False)


def check_applied(kind: MapType, applied: Object) -> None:
    """Raises ApiError: 400 for a configuration that says who owns fields, 500 for one that is not of the kind's type."""
    own = applied.get("metadata")
    if isinstance(own, dict) and own.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    _refuse(list(kind.validate(applied, "", duplicates=False)), "patch", applied)


def _check(versions: Versions, live: Object, applied: Object, writer: Writer) -> None:
    kind = versions.type(writer.api_version)
    assert kind is not None, "what is applied is of a version that is served"
    check_applied(kind, applied)
    if not versions.certain:
        _refuse(list(kind.validate(ownership.own_fields(live), "", duplicates=True)), "live", live)


def _refuse(errors: list[str], what: str, obj: Object) -> None:
    if errors:
        words = errors[0] if len(errors) == 1 else "\n  ".join(("errors:", *errors))
        raise ApiError(500, "", f"failed to create typed {what} object ({label(obj)}): {words}")


def label(obj: Object) -> str:
    """An object as messages of what cannot be typed name it: `namespace/name; v1, Kind=Pod`."""
    own = obj.get("metadata")
    own = own if isinstance(own, dict) else {}
    return f"{own.get('namespace', '')}/{own.get('name', '')}; {kind_text(obj)}"


def kind_text(obj: Object) -> str:
    """`apps/v1, Kind=Deployment`, `/v1, Kind=Pod`: as Go prints a GroupVersionKind; what is no text is none."""
    version, kind = (
        value if isinstance(value, str) else "" for value in (obj.get("apiVersion"), obj.get("kind"))
    )
    if version.count("/") > 1:
        return "/, Kind="
    return f"{version if '/' in version else '/' + version}, Kind={kind}"


def _applied(
    versions: Versions, live: Object, applied: Object, managed: _Managed, writer: Writer, *, force: bool
) -> Object | None:
    """Sets the owners of `managed` and gives the object, None for one that stays as it is. Raises Conflicts, ApiError."""
    owner = writer.owner(APPLY)

    def attempt(force: bool) -> Object | None:
        made, owners = ownership.apply(
            versions, live, applied, writer.api_version, managed.owners, owner, force=force
        )
        mine = owners.get(owner)
        if mine is not None:
            fields = difference(mine.fields, _STRIPPED)
            before = managed.owners.get(owner)
            if before is not None and before.fields == fields and before.api_version == mine.api_version:
                owners[owner] = before
            elif fields:
                owners[owner] = Owned(fields, mine.api_version, applied=True)
            else:
                del owners[owner]
        managed.owners = owners
        return made

    try:
        return attempt(force)
    except Conflicts as found:
        # Whoever moves from `kubectl apply` to applying on the server keeps what the old way had set.
        allowed = _last_applied_fields(versions, live, writer) if writer.manager == "kubectl" else None
        if allowed is None:
            raise
        left = [one for one in found.conflicts if not has(allowed, one.path)]
        if left:
            raise Conflicts(left) from found
        return attempt(True)
    except Misfit as error:
        raise ApiError(500, "", str(error)) from error
    except TypedError as error:
        raise ApiError(500, "", f"failed to merge config: {error}") from error


def _without_entries(obj: Object) -> Object:
    own = obj.get("metadata") or {}
    if "managedFields" not in own:
        return obj
    return {**obj, "metadata": {name: value for name, value in own.items() if name != "managedFields"}}


def _annotation(obj: Object) -> str:
    found = ((obj.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    return found if isinstance(found, str) else ""


def _last_applied_fields(versions: Versions, live: Object, writer: Writer) -> FieldSet | None:
    """The fields that the last `kubectl apply` set and that are still as it set them; None where none is known."""
    try:
        last = orjson.loads(_annotation(live) or "null")
        check_depth(last)
    except (ValueError, ApiError):
        return None
    if type(last) is not dict or last.get("apiVersion") != writer.api_version:
        return None
    kind = versions.type(writer.api_version)
    assert kind is not None, "what is applied is of a version that is served"
    if any(kind.validate(last, "", duplicates=False)):
        return None
    try:
        fields = kind.field_set(last) or {}
        changed = compare(kind, last, live)
    except TypedError:
        return None
    for gone in changed:
        fields = difference(fields, gone)
    return fields


def _keep_last_applied(obj: Object, applied: Object) -> None:
    """Keeps the annotation of `kubectl apply` true for whoever goes back to it, where there is one that fits."""
    if not _annotation(obj):
        return
    own = dict(applied.get("metadata") or {})
    if "annotations" in own:
        own["annotations"] = {k: v for k, v in (own["annotations"] or {}).items() if k != LAST_APPLIED}
    text = orjson.dumps({**applied, "metadata": own}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    annotations: dict[str, Any] = {**obj["metadata"]["annotations"], LAST_APPLIED: text}
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > _ANNOTATIONS_BYTES_MAX:
        del annotations[LAST_APPLIED]
    obj["metadata"]["annotations"] = annotations


# --------------------------------------------------------------------------- conflicts


def _conflict(conflicts: Sequence[Conflict], shown_as: str) -> ApiError:
    # Each owner's fields stay in the order of its set: what ends on a level comes before what goes deeper.
    told = [
        (_owner_text(one.owner, shown_as), path_text(one.path))
        for one in sorted(conflicts, key=lambda one: _identifier(one.owner))
    ]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path}
        for owner, path in told
    ]
    if len(told) == 1:
        [(owner, path)] = told
        text = f"Apply failed with 1 conflict: conflict with {owner}: {path}"
    else:
        lines: list[str] = []
        for one in dict.fromkeys(owner for owner, _ in told):
            lines += [f"conflicts with {one}:", *(f"- {path}" for owner, path in told if owner == one)]
        text = f"Apply failed with {len(told)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", text, {"causes": causes})


def _identifier(owner: Owner) -> str:
    """An owner as upstream writes it down and sorts by: JSON, without what is empty."""
    fields = owner._asdict()
    fields = {
        name: fields[name] for name in ("manager", "operation", "api_version", "subresource") if fields[name]
    }
    return orjson.dumps(fields).decode()


def _owner_text(owner: Owner, shown_as: str) -> str:
    text = go_quote(owner.manager)
    if owner.subresource:
        text += f" with subresource {go_quote(owner.subresource)}"
    return f"{text} using {shown_as or owner.api_version}" if owner.operation == UPDATE else text
