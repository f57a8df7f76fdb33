"""How the status of a job may change: finished jobs stay so, and counts agree with conditions.

A rule about a part of the status holds only where that part changes, so that what is wrong elsewhere does not stand in
the way. Upstream: validateJobStatus, ValidateJobStatusUpdate, getStatusValidationOptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    invalid_value,
    required,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.packs.batch.jobspec import INDEXED, read_indexes
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import Problems, non_negative

_CONDITIONS: Final = "status.conditions"


def has_condition(obj: Object, kind: str, status: str = "True") -> bool:
    given = (obj.get("status") or {}).get("conditions") or ()
    return any(one and one.get("type") == kind and one.get("status") == status for one in given)


def is_finished(obj: Object) -> bool:
    return has_condition(obj, "Complete") or has_condition(obj, "Failed")


@dataclass(frozen=True, slots=True)
class _Change:
    """A job's status as it is written and as it was."""

    new: Object
    old: Object

    def of(self, *fields: str) -> bool:
        """One of these fields of the status differs."""
        new, old = self.new.get("status") or {}, self.old.get("status") or {}
        return any((new.get(field) or None) != (old.get(field) or None) for field in fields)

    def condition(self, *kinds: str) -> bool:
        return any(has_condition(self.new, kind) != has_condition(self.old, kind) for kind in kinds)

    @property
    def finishing(self) -> bool:
        return is_finished(self.new) != is_finished(self.old)


def status_problems(new: Object, old: Object) -> Problems:
    status, change = new.get("status") or {}, _Change(new, old)
    yield from non_negative(status, "status", "active", "succeeded", "failed", "ready", "terminating")
    yield from _uncounted_problems(status)
    yield from _condition_problems(new, change)
    yield from _time_problems(new, status, change)
    yield from _incomplete_problems(new, change)
    if is_finished(new):
        yield from _finished_problems(new, status, change)
    yield from _index_problems(new, status, change)
    ready, active = status.get("ready"), status.get("active", 0)
    if change.of("ready", "active") and ready is not None and ready > active:
        yield invalid_value("status.ready", ready, "cannot set more ready pods than active")
    yield from _criteria_problems(new)
    yield from _regress_problems(new, old, status)


def _wrong(why: str) -> FieldError:
    return FieldError(FieldErrorType.INVALID, _CONDITIONS, detail=why)


def _uncounted_problems(status: Object) -> Problems:
    uncounted, seen = status.get("uncountedTerminatedPods") or {}, set()
    for field in ("succeeded", "failed"):
        for index, uid in enumerate(uncounted.get(field) or ()):
            here = f"status.uncountedTerminatedPods.{field}[{index}]"
            if not uid:
                yield invalid_value(here, uid, "must not be empty")
            elif uid in seen:
                yield duplicate(here, uid)
            seen.add(uid)


def _condition_problems(new: Object, change: _Change) -> Problems:
    complete, failed = has_condition(new, "Complete"), has_condition(new, "Failed")
    if change.condition("Complete", "Failed") and complete and failed:
        yield _wrong("cannot set Complete=True and Failed=true conditions")
    if change.condition("Complete", "FailureTarget") and complete and has_condition(new, "FailureTarget"):
        yield _wrong("cannot set Complete=True and FailureTarget=true conditions")


def _incomplete_problems(new: Object, change: _Change) -> Problems:
    """What has to come before a job may be called failed or complete."""
    complete, failed = has_condition(new, "Complete"), has_condition(new, "Failed")
    target, met = has_condition(new, "FailureTarget"), has_condition(new, "SuccessCriteriaMet")
    if (change.condition("Failed") or change.of("failedIndexes")) and failed and not target:
        yield _wrong("cannot set Failed=True condition without the FailureTarget=true condition")
    if change.condition("Complete", "SuccessCriteriaMet") and complete and not met:
        yield _wrong("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")


def _criteria_problems(new: Object) -> Problems:
    complete, met = has_condition(new, "Complete"), has_condition(new, "SuccessCriteriaMet")
    if met and has_condition(new, "Failed"):
        yield _wrong("cannot set SuccessCriteriaMet=True and Failed=true conditions")
    if met and has_condition(new, "FailureTarget"):
        yield _wrong("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
    if new["spec"].get("successPolicy") is not None and complete and not met:
        yield _wrong("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")


def _time_problems(new: Object, status: Object, change: _Change) -> Problems:
    complete, started, completed = (
        has_condition(new, "Complete"), status.get("startTime"), status.get("completionTime"),
    )  # fmt: skip
    here = "status.completionTime"
    if change.condition("Complete") or change.of("completionTime"):
        if completed and not complete:
            why = "cannot set completionTime when there is no Complete=True condition"
            yield invalid_value(here, completed, why)
        if complete and not completed:
            yield required(here, "completionTime is required for Complete jobs")
    if change.of("startTime", "completionTime") and started and completed:
        try:
            before = parse_rfc3339(completed) < parse_rfc3339(started)
        except ValueError:
            before = False
        if before:
            yield invalid_value(here, completed, "must be equal to or after `startTime`")


def _finished_problems(new: Object, status: Object, change: _Change) -> Problems:
    spec = new["spec"]
    if (change.finishing or change.of("active")) and status.get("active", 0) > 0:
        yield invalid_value("status.active", status["active"], "active>0 is invalid for finished job")
    never_ran = spec.get("suspend") is True and spec.get("completions") == 0
    if (change.finishing or change.of("startTime")) and not never_ran and not status.get("startTime"):
        yield required("status.startTime", "startTime is required for finished job")
    uncounted = status.get("uncountedTerminatedPods") or {}
    left = uncounted.get("failed") or uncounted.get("succeeded")
    if (change.finishing or change.of("uncountedTerminatedPods")) and left:
        shown = as_internal("UncountedTerminatedPods", uncounted)
        yield invalid_value("status.uncountedTerminatedPods", shown, "must be empty for finished job")
    if (change.finishing or change.of("terminating")) and (status.get("terminating") or 0) > 0:
        why = "terminating>0 is invalid for finished job"
        yield invalid_value("status.terminating", status["terminating"], why)


def _index_problems(new: Object, status: Object, change: _Change) -> Problems:
    spec = new["spec"]
    completions, per_index = spec.get("completions"), spec.get("backoffLimitPerIndex")
    done, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
    read: dict[str, list[tuple[int, int]]] = {}
    for field, text, judged in (
        ("completedIndexes", done, completions is not None),
        ("failedIndexes", failed, completions is not None and per_index is not None and failed is not None),
    ):
        if not judged:
            continue
        try:
            read[field] = read_indexes(text or "", completions)
        except ValueError as error:
            if change.of(field):
                yield invalid_value(f"status.{field}", text, f"error parsing {field}: {error}")
    if change.of("completedIndexes") and done and spec.get("completionMode") != INDEXED:
        why = "cannot set non-empty completedIndexes when non-indexed completion mode"
        yield invalid_value("status.completedIndexes", done, why)
    if change.of("failedIndexes") and per_index is None and failed is not None:
        why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        yield invalid_value("status.failedIndexes", failed, why)
    if change.of("failedIndexes", "completedIndexes"):
        overlap = _overlap(read.get("completedIndexes", []), read.get("failedIndexes", []))
        if overlap is not None:
            why = f"failedIndexes and completedIndexes overlap at index: {overlap}"
            yield invalid_value("status.failedIndexes", failed, why)


def _overlap(done: list[tuple[int, int]], failed: list[tuple[int, int]]) -> int | None:
    """The first index in both: two pointers, as both lists rise."""
    at, other = 0, 0
    while at < len(done) and other < len(failed):
        (start, end), (begin, stop) = done[at], failed[other]
        if start <= stop and begin <= end:
            return max(start, begin)
        if start <= begin:
            at += 1
        else:
            other += 1
    return None


def _regress_problems(new: Object, old: Object, status: Object) -> Problems:
    spec, before = new["spec"], old.get("status") or {}
    for kind in ("Failed", "Complete", "FailureTarget"):
        if has_condition(old, kind) and not has_condition(new, kind):
            yield _wrong(f"cannot disable the terminal {kind}=True condition")
    if status.get("failed", 0) < before.get("failed", 0):
        why = "cannot decrease the failed counter"
        yield invalid_value("status.failed", status.get("failed", 0), why)
    elastic = spec.get("completionMode") == INDEXED and spec.get("completions") == spec.get("parallelism")
    if not elastic and status.get("succeeded", 0) < before.get("succeeded", 0):
        why = "cannot decrease the succeeded counter"
        yield invalid_value("status.succeeded", status.get("succeeded", 0), why)
    completed, was = status.get("completionTime"), before.get("completionTime")
    if completed and was and completed != was:
        yield invalid_value("status.completionTime", completed, "field is immutable")
    resuming = has_condition(old, "Suspended") and has_condition(new, "Suspended", "False")
    started, was = status.get("startTime"), before.get("startTime")
    if was and started != was and not resuming and not spec.get("suspend"):
        yield invalid_value("status.startTime", started, "field is immutable for unsuspended job once set")
    met, was_met = has_condition(new, "SuccessCriteriaMet"), has_condition(old, "SuccessCriteriaMet")
    if was_met and not met:
        yield _wrong("cannot disable the SuccessCriteriaMet=True condition")
    if has_condition(old, "Complete") and not was_met and met:
        yield _wrong("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
