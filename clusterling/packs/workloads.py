"""What the kinds that keep pods running have in common: a template, a selector, a scale, counts in their status.

Upstream: kubernetes pkg/registry/apps/*/strategy.go, pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, forbidden_field, immutable_field, invalid_value, required
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.names import is_percent
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs.builtin import AGE, definition_of
from clusterling.packs.core.podspec import (
    default_pod_template,
    drop_disabled_fields,
    pod_template_problems,
    pod_template_warnings,
    reading,
)
from clusterling.packs.core.podspec.defaults import entries
from clusterling.packs.core.podspec.internal import as_internal, same
from clusterling.packs.core.podspec.omitting import write_as_go
from clusterling.packs.core.podspec.rules import NEGATIVE, Problems, non_negative, one_of
from clusterling.packs.core.times import read_time
from clusterling.registry.resource import Resource, Scale
from clusterling.registry.strategy import Context, Strategy

OBJECT_SCALE: Final = Scale("spec.replicas", "status.replicas", "spec.selector", selector_is_object=True)

_CONDITION_TIMES: Final = ("lastProbeTime", "lastUpdateTime", "lastTransitionTime")
_MISMATCH: Final = "`selector` does not match template `labels`"
_MORE_THAN_ALL: Final = "cannot be greater than status.replicas"
_is_number = re.compile(r"[+-]?[0-9]{1,18}").fullmatch


class WorkloadStrategy(Strategy):
    """A kind with a pod template and a status of its own. Kinds say what else they default and what is wrong."""

    def default(self, obj: Object) -> None:
        """Defaults everything but the template. Called on every write of the object."""

    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        """What is wrong with the spec, the template included."""
        return ()

    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        """What is wrong with a new status."""
        return ()

    def template_of(self, obj: Object) -> Object:
        """The pod template, made if absent."""
        template: Object = obj["spec"].setdefault("template", {})
        return template

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource == "status":
            self._complete_status(new)
        else:
            self._complete(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = {}
        _write_part(new, "status")

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new.setdefault("spec", {})
            with reading(new):
                # Of what is sent, metadata is kept, and some have labels by default.
                self.default(new)
            new["spec"] = old["spec"]
            return
        new["status"] = old.get("status", {})

    def has_template(self, obj: Object) -> bool:
        """False where the kind may come without one, and this object does."""
        return True

    def _complete(self, obj: Object) -> None:
        obj.setdefault("spec", {})
        has_template = self.has_template(obj)
        with reading(obj):
            self.default(obj)
            if has_template:
                default_pod_template(self.template_of(obj))
        _write_part(obj, "spec")
        if has_template:
            drop_disabled_fields(self.template_of(obj))

    def _complete_status(self, obj: Object) -> None:
        for condition in entries(obj.setdefault("status", {}), "conditions"):
            for field in _CONDITION_TIMES:
                read_time(obj, condition, field)
        _write_part(obj, "status")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(self.spec_problems(new, None))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return list(self.status_problems(new, old))
        return list(self.spec_problems(new, old))

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if ctx.subresource or (old is not None and _generation(new) == _generation(old)):
            return ()
        return self.spec_warnings(new, old)

    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        """What to tell of a spec that is new."""
        return pod_template_warnings(self.template_of(new), "spec.template")


def _write_part(obj: Object, part: str) -> None:
    """The spec or the status as Go writes it."""
    group_version = GroupVersion.parse(obj["apiVersion"])
    definition = definition_of(group_version.group, group_version.version, obj["kind"])
    write_as_go(obj[part], f"{definition}{part.capitalize()}")


def _generation(obj: Object) -> object:
    return obj["metadata"].get("generation")


def with_scale(resource: Resource, scale: Scale = OBJECT_SCALE) -> Resource:
    """The kind with a scale subresource in each of its versions."""
    return replace(resource, versions=tuple(replace(one, scale=scale) for one in resource.versions))


def selector_problems(spec: Object, what: str, unreadable: str = "invalid label selector") -> Problems:
    """A selector that has to be there and to select something; `what` is the kind as upstream's words have it."""
    selector, path = spec.get("selector"), "spec.selector"
    if selector is None:
        yield required(path)
        return
    yield from label_selector_problems(selector, path)
    shown = as_internal("LabelSelector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid_value(path, shown, f"empty selector is invalid for {what}")
    if read_selector(selector) is None:
        yield invalid_value(path, shown, unreadable)


def read_selector(selector: Object | None) -> LabelSelector | None:
    """The selector; None where it is none. No selector at all selects nothing."""
    try:
        return LabelSelector.from_object(selector)
    except ValueError:
        return None


def matching_problems(spec: Object, path: str = "spec.template") -> Problems:
    """The template's labels are what the selector selects."""
    selector = read_selector(spec.get("selector"))
    labels = spec["template"]["metadata"].get("labels")
    if selector is not None and not selector.is_everything and not selector.matches(labels or {}):
        yield invalid_value(f"{path}.metadata.labels", labels, _MISMATCH)


def kept_running_problems(spec: Object, what: str) -> Problems:
    """A template whose pods always run again."""
    yield from pod_template_problems(spec["template"], "spec.template")
    yield from always_problems(spec, what)


def always_problems(spec: Object, what: str) -> Problems:
    pod = spec["template"]["spec"]
    yield from one_of(pod.get("restartPolicy"), "spec.template.spec.restartPolicy", ("Always",))
    if pod.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {what} is not Supported"
        yield forbidden_field("spec.template.spec.activeDeadlineSeconds", why)


def immutable_problems(new: Object, old: Object, *fields: str) -> Problems:
    """Fields of the spec that stay as they were."""
    for field in fields:
        if not same(new["spec"].get(field), old["spec"].get(field)):
            given = new["spec"].get(field)
            shown = as_internal("*LabelSelector", given) if field == "selector" else given
            yield immutable_field(f"spec.{field}", shown)


def count_problems(status: Object, *fields: str) -> Problems:
    yield from non_negative(status, "status", *fields)


def share_problems(status: Object, *fields: str) -> Problems:
    """Counts of some replicas are no more than those of all."""
    for field in fields:
        if status.get(field, 0) > status.get("replicas", 0):
            yield invalid_value(f"status.{field}", status.get(field, 0), _MORE_THAN_ALL)


def available_problems(status: Object, than: str = "readyReplicas") -> Problems:
    """Whoever is available is ready; `than` is how upstream says that."""
    if status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
        why = f"cannot be greater than {than}"
        yield invalid_value("status.availableReplicas", status.get("availableReplicas", 0), why)


def collision_problems(new: Object, old: Object) -> Problems:
    """Collisions are counted up only."""
    now = (new.get("status") or {}).get("collisionCount")
    was = (old.get("status") or {}).get("collisionCount")
    if was is not None and (now is None or now < was):
        yield invalid_value("status.collisionCount", now or 0, "cannot be decremented")


# --------------------------------------------------------------------------- numbers or percentages


def share_of(value: int | str | None) -> int:
    """The number, or the percentage's: 0 only where it is nothing."""
    if not isinstance(value, str):
        return value or 0
    text = value.removesuffix("%") if not is_percent(value) else value[:-1]
    return int(text) if _is_number(text) else 0


def share_value_problems(value: int | str, path: str) -> Problems:
    """An IntOrString that is a number from 0, or a percentage."""
    if isinstance(value, str):
        for problem in is_percent(value):
            yield invalid_value(path, value, problem)
    elif value < 0:
        yield invalid_value(path, value, NEGATIVE)


def within_all_problems(value: int | str, path: str) -> Problems:
    if isinstance(value, str) and not is_percent(value) and share_of(value) > 100:
        yield invalid_value(path, value, "must not be greater than 100%")


# --------------------------------------------------------------------------- columns

Template = Callable[[Object], Object]


def _template(obj: Object) -> Object:
    found: Object = (obj.get("spec") or {}).get("template") or {}
    return found


def container_columns(template: Template = _template, *, priority: int = 1) -> tuple[Column, ...]:
    """The names and images of the template's containers."""

    def listed(field: str) -> Callable[[Object, datetime], object]:
        def cell(obj: Object, _now: datetime) -> str:
            containers = (template(obj).get("spec") or {}).get("containers") or ()
            return ",".join((one or {}).get(field) or "" for one in containers)

        return cell

    return (
        Column(
            "Containers", "string", listed("name"), "", "Names of each container in the template.", priority
        ),
        Column(
            "Images",
            "string",
            listed("image"),
            "",
            "Images referenced by each container in the template.",
            priority,
        ),
    )


def selector_column(cell: Callable[[Object, datetime], object]) -> Column:
    return Column("Selector", "string", cell, priority=1)


def selector_text(selector: Object | None, nothing: str = "<none>") -> str:
    """A label selector for people (upstream: metav1.FormatLabelSelector)."""
    found = read_selector(selector)
    if found is None:
        return "<error>"
    if found.nothing:
        return nothing
    return str(found) or "<none>"


def labels_text(labels: Object | None) -> str:
    """Labels for people (upstream: labels.FormatLabels)."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def count_column(name: str, part: str, field: str, *, type: str = "integer") -> Column:  # noqa: A002 - as tables say
    return Column(name, type, lambda obj, _: (obj.get(part) or {}).get(field) or 0)


def replica_columns(selector: Callable[[Object | None], str]) -> tuple[Column, ...]:
    """How many are wanted, there and ready, and which they are: `selector` tells `spec.selector`."""
    return (
        NAME_COLUMN,
        count_column("Desired", "spec", "replicas"),
        count_column("Current", "status", "replicas"),
        count_column("Ready", "status", "readyReplicas"),
        AGE,
        *container_columns(),
        selector_column(lambda obj, _: selector((obj.get("spec") or {}).get("selector"))),
    )


def ready_of(obj: Object, _now: datetime) -> str:
    ready, wanted = (obj.get("status") or {}).get("readyReplicas"), (obj.get("spec") or {}).get("replicas")
    return f"{ready or 0}/{wanted or 0}"
