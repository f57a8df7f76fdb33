"""Events of both APIs: v1 and events.k8s.io/v1 show the same stored objects under other field names.

They are stored as v1 writes them and go after an hour. Rules: v1 accepts what it always did; events.k8s.io is strict.
Upstream: kubernetes pkg/registry/core/event, pkg/apis/core/validation/events.go, pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, immutable_field, invalid_value, required
from clusterling.machinery.meta import Object, name_of, namespace_of
from clusterling.machinery.names import is_path_segment_name, is_qualified_name
from clusterling.machinery.table import Column, age
from clusterling.packs import builtin
from clusterling.packs.core.times import read_micro_time, read_time
from clusterling.registry.resource import Converter
from clusterling.registry.strategy import Context, Strategy

TTL_S: Final = 3600

_REFERENCE_FIELDS: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_CHARACTERS_MAX: Final = 128
_NOTE_CHARACTERS_MAX: Final = 1024

# events.k8s.io/v1 field → v1 field, where they differ.
_RENAMED: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
# Fields that v1 writes even when they are empty, and events.k8s.io does not.
_ALWAYS_WRITTEN: Final = ("reportingComponent", "reportingInstance")
_RENAMED_BACK: Final = {core: new for new, core in _RENAMED.items()}


def to_core(obj: Object, _version: str) -> Object:
    """An events.k8s.io/v1 Event as v1 stores it."""
    return dict.fromkeys(_ALWAYS_WRITTEN, "") | _renamed(obj, _RENAMED, "v1")


def from_core(obj: Object, version: str) -> Object:
    """A stored v1 Event as events.k8s.io shows it."""
    kept = {key: value for key, value in obj.items() if value != "" or key not in _ALWAYS_WRITTEN}
    return _renamed(kept, _RENAMED_BACK, f"events.k8s.io/{version}")


def _renamed(obj: Object, names: dict[str, str], api_version: str) -> Object:
    return {names.get(key, key): value for key, value in obj.items()} | {"apiVersion": api_version}


class EventStrategy(Strategy):
    """Events of v1: the legacy rules."""

    has_generation = False
    name_problems = staticmethod(is_path_segment_name)
    allow_create_on_update = True
    default_propagation = "unsupported"

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _write_as_go_does(new)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return _legacy_problems(new, "reportingComponent")

    @override
    def expires_at(self, ctx: Context, obj: Object) -> int | None:
        return int(ctx.ports.clock.now().timestamp()) + TTL_S

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return _field_values(obj, "involvedObject") | {
            "reportingComponent": _text(obj, "reportingComponent"),
            "source": _component(obj),
        }


class NewEventStrategy(EventStrategy):
    """Events of events.k8s.io/v1. Errors name the fields as v1 has them, as upstream's do."""

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _in_core_form(new, _write_as_go_does)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        core = to_core(new, "v1")
        return [*_legacy_problems(core, "reportingController"), *_strict_problems(core)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        core, before = to_core(new, "v1"), to_core(old, "v1")
        found = _legacy_problems(core, "reportingController")
        if core.get("series") != before.get("series"):
            found += _series_problems(core)
        return found + _changed(core, before)

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return _field_values(obj, "regarding") | {"reportingController": _text(obj, "reportingController")}


def _write_as_go_does(event: Object) -> None:
    """The fields Go writes whatever they hold, and times in the form it gives them (core/v1 types.go)."""
    read_micro_time(event, event, "eventTime")
    for field in ("firstTimestamp", "lastTimestamp"):
        read_time(event, event, field)
    series = event.get("series")
    if series:
        read_micro_time(event, series, "lastObservedTime")
    for field in ("involvedObject", "source"):
        event.setdefault(field, {})
        _drop_empty(event[field], event[field])
    _drop_empty(event, ("reason", "message", "count", "type", "action"))
    for field in _ALWAYS_WRITTEN:
        event.setdefault(field, "")
    for field in ("eventTime", "firstTimestamp", "lastTimestamp"):
        event.setdefault(field, None)


def _drop_empty(part: Object, fields: Iterable[str]) -> None:
    """What is Go's zero value in a field that is left out then."""
    for field in [field for field in fields if field in part and not part[field]]:
        del part[field]


def _in_core_form(event: Object, change: Callable[[Object], None]) -> None:
    core = to_core(event, "v1")
    change(core)
    shown = from_core(core, "v1")
    event.clear()
    event.update(shown)


def _text(obj: Object, field: str) -> str:
    return str(obj.get(field) or "")


def _component(event: Object) -> str:
    return _text(event.get("source") or {}, "component") or _text(event, "reportingComponent")


def _field_values(event: Object, reference: str) -> dict[str, str]:
    about = event.get(reference) or {}
    return {
        **{f"{reference}.{field}": _text(about, field) for field in _REFERENCE_FIELDS},
        "reason": _text(event, "reason"),
        "type": _text(event, "type"),
    }


def _legacy_problems(event: Object, controller: str) -> list[FieldError]:
    namespace, about = namespace_of(event), _text(event.get("involvedObject") or {}, "namespace")
    allowed = {about} if about else {"", "default"}
    if event.get("eventTime"):
        # An event made by the new API may stand in any namespace, unless it is about a cluster-scoped object.
        allowed = {namespace} if about else {"default", "kube-system"}
    found = []
    if namespace not in allowed:
        found.append(invalid_value("involvedObject.namespace", about, "does not match event.namespace"))
    return found + (_new_style_problems(event, controller) if event.get("eventTime") else [])


def _new_style_problems(event: Object, controller: str) -> list[FieldError]:
    reporting = _text(event, "reportingComponent")
    found = [] if reporting else [required(controller)]
    found += [invalid_value(controller, reporting, problem) for problem in is_qualified_name(reporting)]
    for field in ("reportingInstance", "action", "reason"):
        text = _text(event, field)
        if not text:
            found.append(required(field))
        if len(text.encode()) > _CHARACTERS_MAX:
            found.append(invalid_value(field, "", f"can have at most {_CHARACTERS_MAX} characters"))
    if len(_text(event, "message").encode()) > _NOTE_CHARACTERS_MAX:
        found.append(invalid_value("message", "", f"can have at most {_NOTE_CHARACTERS_MAX} characters"))
    return found


def _strict_problems(event: Object) -> list[FieldError]:
    found = _series_problems(event)
    if not event.get("eventTime"):
        found.append(required("eventTime"))
    if _text(event, "type") not in ("Normal", "Warning"):
        found.append(invalid_value("type", "", f"has invalid value: {_text(event, 'type')}"))
    source = event.get("source") or {}
    given = {
        "firstTimestamp": event.get("firstTimestamp"),
        "lastTimestamp": event.get("lastTimestamp"),
        "count": event.get("count"),
        "source": source.get("component") or source.get("host"),
    }
    return found + [invalid_value(field, "", "needs to be unset") for field, value in given.items() if value]


def _series_problems(event: Object) -> list[FieldError]:
    series = event.get("series")
    if series is None:
        return []
    found = []
    if series.get("count", 0) < 2:
        found.append(invalid_value("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        found.append(required("series.lastObservedTime"))
    return found


def _changed(event: Object, before: Object) -> list[FieldError]:
    """What an update through events.k8s.io may not change; paths as upstream names them."""
    fields = {
        "involvedObject": "involvedObject", "reason": "reason", "message": "message", "source": "source",
        "firstTimestamp": "firstTimestamp", "lastTimestamp": "lastTimestamp", "count": "count", "type": "type",
        "eventTime": "eventTime", "action": "action", "related": "related",
        "reportingComponent": "reportingController", "reportingInstance": "reportingInstance",
    }  # fmt: skip
    return [
        immutable_field(path, event.get(field))
        for field, path in fields.items()
        if (event.get(field) or None) != (before.get(field) or None)
    ]


def _columns(form: Callable[[Object], Object]) -> tuple[Column, ...]:
    """The ten columns, over events turned into their v1 form first."""

    def column(
        name: str, cell: Callable[[Object, datetime], object], *, wide: bool = False, shown_as: str = ""
    ) -> Column:
        return Column(name, "string", lambda obj, now: cell(form(obj), now), shown_as, priority=int(wide))

    return (
        column("Last Seen", _last_seen),
        column("Type", lambda event, _: _text(event, "type")),
        column("Reason", lambda event, _: _text(event, "reason")),
        column("Object", _target),
        column(
            "Subobject", lambda event, _: _text(event.get("involvedObject") or {}, "fieldPath"), wide=True
        ),
        column("Source", _source, wide=True),
        column("Message", lambda event, _: _text(event, "message").strip()),
        column("First Seen", _first_seen, wide=True),
        column("Count", _count, wide=True),
        column("Name", lambda event, _: name_of(event), wide=True, shown_as="name"),
    )


def _first_seen(event: Object, now: datetime) -> str:
    return age(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen(event: Object, now: datetime) -> str:
    series = event.get("series")
    if series:
        return age(series.get("lastObservedTime"), now)
    last = event.get("lastTimestamp")
    return age(last, now) if last else _first_seen(event, now)


def _count(event: Object, _now: datetime) -> object:
    series = event.get("series")
    return (series.get("count") or 0) if series else event.get("count") or 1


def _target(event: Object, _now: datetime) -> str:
    about = event.get("involvedObject") or {}
    kind, name = _text(about, "kind").lower(), _text(about, "name")
    return f"{kind}/{name}" if name else kind


def _source(event: Object, _now: datetime) -> str:
    host = _text(event.get("source") or {}, "host") or _text(event, "reportingInstance")
    return f"{_component(event)}, {host}" if host else _component(event)


EVENTS: Final = builtin.resource(
    "", "v1", "events", strategy=EventStrategy(), columns=_columns(lambda obj: obj)
)

NEW_EVENTS: Final = builtin.resource(
    "events.k8s.io",
    "v1",
    "events",
    strategy=NewEventStrategy(),
    columns=_columns(lambda obj: to_core(obj, "v1")),
    storage=EVENTS,
    converter=Converter(to_storage=to_core, from_storage=from_core),
)
