"""CronJobs. Upstream: kubernetes pkg/registry/batch/cronjob."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value, not_supported, required
from clusterling.machinery.meta import Object, name_of
from clusterling.machinery.table import NAME_COLUMN, Column, age
from clusterling.packs import builtin
from clusterling.packs.batch.jobs import job_spec_warnings
from clusterling.packs.batch.jobspec import default_patterns, job_spec_problems
from clusterling.packs.batch.schedule import check_schedule, zone_problems
from clusterling.packs.core.podspec.defaults import read_metadata
from clusterling.packs.core.podspec.rules import Problems, non_negative, one_of
from clusterling.packs.core.podspec.warnings import name_warnings
from clusterling.packs.core.times import read_time
from clusterling.packs.workloads import (
    WorkloadStrategy,
    container_columns,
    selector_column,
    selector_text,
)
from clusterling.registry.strategy import Context

_NAME_CHARACTERS_MAX: Final = 52
_TEMPLATE: Final = "spec.jobTemplate.spec"


class CronJobStrategy(WorkloadStrategy):
    @override
    def template_of(self, obj: Object) -> Object:
        template: Object = _job_spec(obj).setdefault("template", {})
        return template

    @override
    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        spec.setdefault("schedule", "")
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        read_metadata(spec.setdefault("jobTemplate", {}).setdefault("metadata", {}))
        default_patterns(_job_spec(obj))

    @override
    def read(self, ctx: Context, new: Object) -> None:
        super().read(ctx, new)
        if ctx.subresource:
            for field in ("lastScheduleTime", "lastSuccessfulTime"):
                read_time(new, new["status"], field)

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        yield from _schedule_problems(spec, old["spec"] if old else None)
        yield from non_negative(spec, "spec", "startingDeadlineSeconds")
        zone = spec.get("timeZone")
        if zone is not None and (old is None or old["spec"].get("timeZone") != zone):
            for problem in zone_problems(zone):
                yield invalid_value("spec.timeZone", zone, problem)
        yield from one_of(spec["concurrencyPolicy"], "spec.concurrencyPolicy", ("Allow", "Forbid", "Replace"))
        job = _job_spec(new)
        yield from job_spec_problems(job, _TEMPLATE)
        if job.get("selector") is not None:
            why = "`selector` will be auto-generated"
            yield invalid_value(f"{_TEMPLATE}.selector", job["selector"], why)
        if job.get("manualSelector"):
            yield not_supported(f"{_TEMPLATE}.manualSelector", True, ("nil", "false"))
        yield from non_negative(spec, "spec", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
        if not spec["schedule"]:
            yield required("spec.schedule")
        if old is None and len(name_of(new).encode()) > _NAME_CHARACTERS_MAX:
            why = f"must be no more than {_NAME_CHARACTERS_MAX} characters"
            yield invalid_value("metadata.name", name_of(new), why)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        of_name = name_warnings(name_of(new)) if old is None else []
        return [*of_name, *job_spec_warnings(_job_spec(new), _TEMPLATE)]


def _job_spec(obj: Object) -> Object:
    """The spec of the job template, made if absent."""
    template = obj["spec"].setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    spec: Object = template.setdefault("spec", {})
    return spec


def _schedule_problems(spec: Object, before: Object | None) -> Problems:
    schedule, path = spec["schedule"], "spec.schedule"
    if not schedule:
        return
    try:
        check_schedule(schedule)
    except ValueError as error:
        yield invalid_value(path, schedule, str(error))
    if "TZ" not in schedule:
        return
    had = before is not None and "TZ" in before["schedule"]
    if had and spec.get("timeZone") is not None:
        why = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        yield invalid_value(path, schedule, why)
    elif not had:
        why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        yield invalid_value(path, schedule, why)


def _template(obj: Object) -> Object:
    found: Object = _spec_of_jobs(obj).get("template") or {}
    return found


def _spec_of_jobs(obj: Object) -> Object:
    found: Object = ((obj.get("spec") or {}).get("jobTemplate") or {}).get("spec") or {}
    return found


def _suspended(obj: Object, _now: datetime) -> str:
    value = (obj.get("spec") or {}).get("suspend")
    return "<unset>" if value is None else str(bool(value))


def _last(obj: Object, now: datetime) -> str:
    when = (obj.get("status") or {}).get("lastScheduleTime")
    return age(when, now) if when else "<none>"


def _zone(obj: Object, _now: datetime) -> str:
    zone = (obj.get("spec") or {}).get("timeZone")
    return "<none>" if zone is None else str(zone)


CRONJOBS: Final = builtin.resource(
    "batch",
    "v1",
    "cronjobs",
    strategy=CronJobStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Schedule", "string", lambda obj, _: (obj.get("spec") or {}).get("schedule") or ""),
        Column("Timezone", "string", _zone),
        Column("Suspend", "boolean", _suspended),
        Column("Active", "integer", lambda obj, _: len((obj.get("status") or {}).get("active") or ())),
        Column("Last Schedule", "string", _last),
        builtin.AGE,
        *container_columns(_template),
        selector_column(lambda obj, _: selector_text(_spec_of_jobs(obj).get("selector"))),
    ),
)
