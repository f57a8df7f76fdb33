"""Jobs: pods that end. Their selector is made from their uid. Upstream: kubernetes pkg/registry/batch/job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.errors import FieldError, immutable_field, invalid_value, required
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_label
from clusterling.machinery.table import NAME_COLUMN, Column, human_duration
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.packs import builtin
from clusterling.packs.batch.jobspec import INDEXED, MANY, default_job_spec, job_spec_problems
from clusterling.packs.batch.jobstatus import has_condition, status_problems
from clusterling.packs.core.podspec import pod_template_warnings
from clusterling.packs.core.podspec.internal import as_internal, same
from clusterling.packs.core.podspec.rules import Problems
from clusterling.packs.core.podspec.warnings import name_warnings
from clusterling.packs.core.times import read_time
from clusterling.packs.workloads import (
    WorkloadStrategy,
    container_columns,
    read_selector,
    selector_column,
    selector_text,
)
from clusterling.registry.strategy import Context

_UID: Final = "batch.kubernetes.io/controller-uid"
_OLD_UID: Final = "controller-uid"
_NAME: Final = "batch.kubernetes.io/job-name"
_OLD_NAME: Final = "job-name"
_PARALLEL_MAX: Final = 10_000
# What stays of a job's spec, and of what kind it is.
_FIXED: Final = {
    "completionMode": "*s",
    "podFailurePolicy": "*PodFailurePolicy",
    "backoffLimitPerIndex": "*i",
    "managedBy": "*s",
    "successPolicy": "*SuccessPolicy",
}


class JobStrategy(WorkloadStrategy):
    default_propagation = "orphan"
    propagation_warning = (
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them "
        "or set propagationPolicy=Orphan to suppress this warning"
    )

    @override
    def default(self, obj: Object) -> None:
        _take_labels(obj)
        default_job_spec(obj["spec"])

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        super().prepare_for_create(ctx, new)
        if not new["spec"]["manualSelector"]:
            labels = meta(new).get("labels")
            # Labels that it has from its template are the same map, as upstream: it has the generated ones, too.
            shared = not labels or labels is new["spec"]["template"]["metadata"].get("labels")
            _generate_selector(new)
            if shared:
                meta(new)["labels"] = dict(new["spec"]["template"]["metadata"]["labels"])

    @override
    def read(self, ctx: Context, new: Object) -> None:
        super().read(ctx, new)
        if ctx.subresource:
            for field in ("startTime", "completionTime"):
                read_time(new, new["status"], field)

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        if old is None:
            yield from _generated_problems(new)
        yield from job_spec_problems(spec, "spec")
        yield from _selector_problems(spec)
        if old is not None:
            yield from _change_problems(new, old)
        yield from _host_name_problems(new)

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        return status_problems(new, old)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        of_name = name_warnings(name_of(new)) if old is None else []
        return [*of_name, *job_spec_warnings(new["spec"], "spec")]

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"status.successful": str((obj.get("status") or {}).get("succeeded") or 0)}


def _take_labels(job: Object) -> None:
    """A job without labels of its own has its template's."""
    labels = (job["spec"].setdefault("template", {}).get("metadata") or {}).get("labels")
    if labels and not meta(job).get("labels"):
        meta(job)["labels"] = labels


def job_spec_warnings(spec: Object, path: str) -> list[str]:
    found = []
    many = (spec.get("completions") or 0) > MANY and (spec.get("parallelism") or 0) > _PARALLEL_MAX
    if spec.get("completionMode") == INDEXED and many:
        found.append(
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "
            "10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    return found + pod_template_warnings(spec["template"], f"{path}.template")


def _generate_selector(job: Object) -> None:
    """Labels by which the job's pods are its own; those that the template has already are judged later."""
    name, uid = name_of(job), meta(job)["uid"]
    metadata = job["spec"]["template"]["metadata"]
    generated = {_OLD_NAME: name, _NAME: name, _OLD_UID: uid, _UID: uid}
    metadata["labels"] = generated | (metadata.get("labels") or {})
    selector = job["spec"].setdefault("selector", {})
    selector["matchLabels"] = {_UID: uid} | (selector.get("matchLabels") or {})


def _generated_problems(job: Object) -> Problems:
    spec = job["spec"]
    if spec["manualSelector"] or spec.get("selector") is None:
        return
    name, uid = name_of(job), meta(job)["uid"]
    labels = spec["template"]["metadata"].get("labels") or {}
    expected = {_OLD_UID: uid, _OLD_NAME: name, _UID: uid, _NAME: name}
    for key, value in expected.items():
        if key not in labels:
            yield required(f"spec.template.metadata.labels[{key}]", f"must be '{value}'")
        elif labels[key] != value:
            yield invalid_value(f"spec.template.metadata.labels[{key}]", labels, f"must be '{value}'")
    selector = read_selector(spec["selector"])
    if selector is not None and not selector.matches(expected):
        shown = as_internal("LabelSelector", spec["selector"])
        yield invalid_value("spec.selector", shown, "`selector` not auto-generated")


def _selector_problems(spec: Object) -> Problems:
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
    yield from label_selector_problems(selector, "spec.selector")
    read, labels = read_selector(selector), spec["template"]["metadata"].get("labels")
    if read is not None and not read.matches(labels or {}):
        why = "`selector` does not match template `labels`"
        yield invalid_value("spec.template.metadata.labels", labels, why)


def _host_name_problems(job: Object) -> Problems:
    spec = job["spec"]
    last = (spec.get("completions") or 0) - 1
    if spec.get("completionMode") == INDEXED and last >= 0:
        host = f"{name_of(job)}-{last}"
        if is_dns1123_label(host):
            why = f"will not able to create pod with invalid DNS label: {host}"
            yield invalid_value("metadata.name", name_of(job), why)


def _change_problems(new: Object, old: Object) -> Problems:
    spec, before = new["spec"], old["spec"]
    if spec.get("completions") != before.get("completions"):
        if spec.get("completionMode") != INDEXED:
            yield immutable_field("spec.completions", spec.get("completions"))
        elif spec.get("completions") is not None and spec["completions"] != spec.get("parallelism"):
            why = "can only be modified in tandem with spec.parallelism"
            yield invalid_value("spec.completions", spec["completions"], why)
    if spec.get("selector") != before.get("selector"):
        yield immutable_field("spec.selector", as_internal("*LabelSelector", spec.get("selector")))
    yield from _template_change_problems(new, old)
    for field, kind in _FIXED.items():
        if not same(spec.get(field), before.get(field)):
            yield immutable_field(f"spec.{field}", as_internal(kind, spec.get(field)))


def _template_change_problems(new: Object, old: Object) -> Problems:
    """A template is fixed but while the job is suspended and nothing of it runs: then where pods go and what they ask for is open."""
    status = old.get("status") or {}
    suspended = old["spec"].get("suspend") is True
    still = not status.get("startTime") or has_condition(old, "Suspended")
    open_now = suspended and still and not status.get("active")
    template: Object = new["spec"]["template"]
    allowed: Object = orjson.loads(orjson.dumps(old["spec"]["template"]))
    if open_now:
        _let_schedule(allowed, template)
        _let_ask(allowed["spec"], template["spec"])
        if not same(template["spec"], allowed["spec"]):
            yield immutable_field("spec.template.spec", as_internal("PodSpec", template["spec"]))
    elif not same(template, allowed):
        yield immutable_field("spec.template", as_internal("PodTemplateSpec", template))


def _let_schedule(allowed: Object, wanted: Object) -> None:
    for part, field in (
        ("spec", "nodeSelector"), ("spec", "tolerations"), ("spec", "schedulingGates"), ("metadata", "annotations"),
        ("metadata", "labels"),
    ):  # fmt: skip
        allowed[part].pop(field, None)
        if field in wanted[part]:
            allowed[part][field] = wanted[part][field]
    affinity, mine = wanted["spec"].get("affinity"), allowed["spec"].get("affinity")
    kept = {key: value for key, value in (mine or {}).items() if key != "nodeAffinity"}
    if affinity is not None:
        nodes = {"nodeAffinity": affinity["nodeAffinity"]} if "nodeAffinity" in affinity else {}
        allowed["spec"]["affinity"] = kept | nodes
    elif not kept:
        allowed["spec"].pop("affinity", None)


def _let_ask(allowed: Object, wanted: Object) -> None:
    for field in ("containers", "initContainers"):
        mine, theirs = allowed.get(field) or [], wanted.get(field) or []
        if len(mine) == len(theirs):
            for one, other in zip(mine, theirs, strict=True):
                if one.get("name") == other.get("name"):
                    one["resources"] = other.get("resources") or {}


def _status(obj: Object, _now: datetime) -> str:
    for kind in ("Complete", "Failed"):
        if has_condition(obj, kind):
            return kind
    if meta(obj).get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if has_condition(obj, kind):
            return kind
    return "Running"


def _completions(obj: Object, _now: datetime) -> str:
    spec, done = obj.get("spec") or {}, (obj.get("status") or {}).get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(obj: Object, now: datetime) -> str:
    status = obj.get("status") or {}
    try:
        started = parse_rfc3339(status["startTime"])
        end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else now
    except (KeyError, ValueError, TypeError):
        return ""
    return human_duration(end - started)


JOBS: Final = builtin.resource(
    "batch",
    "v1",
    "jobs",
    strategy=JobStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Status", "string", _status, "", "Status of the job."),
        Column("Completions", "string", _completions),
        Column("Duration", "string", _duration, "", "Time required to complete the job."),
        builtin.AGE,
        *container_columns(),
        selector_column(lambda obj, _: selector_text((obj.get("spec") or {}).get("selector"))),
    ),
)
