"""Specs of jobs, their own and those of a cron job's template. Upstream: validateJobSpec and what it calls."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    go_quote,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain, is_qualified_name
from clusterling.packs.core.podspec import pod_template_problems
from clusterling.packs.core.podspec.defaults import entries
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import Problems, items, named, non_negative, one_of

INDEXED: Final = "Indexed"
MANY: Final = 100_000
_FEW: Final = 10_000
_INT32_MAX: Final = 2**31 - 1
_MANAGER_BYTES_MAX: Final = 63
_INDEXES_BYTES_MAX: Final = 64 * 1024
_RULES_MAX: Final = 20
_EXIT_CODES_MAX: Final = 255
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")
_HTTP_PATH: Final = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"
_is_http_path = re.compile(_HTTP_PATH).fullmatch
_is_integer = re.compile(r"[+-]?[0-9]{1,18}").fullmatch
_COUNTS: Final = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


def default_job_spec(spec: Object) -> None:
    """What a Job gets where it says nothing; a cron job's template gets only what `default_patterns` gives."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _INT32_MAX if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", policy)
    spec.setdefault("manualSelector", False)
    default_patterns(spec)


def default_patterns(spec: Object) -> None:
    for rule in entries(spec.get("podFailurePolicy") or {}, "rules"):
        for pattern in entries(rule, "onPodConditions"):
            if not pattern.get("status"):
                pattern["status"] = "True"
    # Waits for a feature gate (WorkloadWithJob).
    spec.pop("scheduling", None)


def job_spec_problems(spec: Object, path: str) -> Problems:
    yield from non_negative(spec, path, *_COUNTS)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        yield required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec.get("managedBy") is not None:
        yield from _manager_problems(spec["managedBy"], f"{path}.managedBy")
    mode = spec.get("completionMode")
    if mode is not None:
        yield from one_of(mode, f"{path}.completionMode", ("NonIndexed", INDEXED))
    if mode == INDEXED:
        yield from _indexed_problems(spec, path)
    elif mode in (None, "NonIndexed"):
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                yield invalid_value(f"{path}.{field}", spec[field], "requires indexed completion mode")
    if spec.get("podFailurePolicy") is not None:
        yield from _failure_problems(spec, f"{path}.podFailurePolicy")
    if spec.get("successPolicy") is not None:
        yield from _success_problems(spec, f"{path}.successPolicy")
    yield from _replacement_problems(spec, f"{path}.podReplacementPolicy")
    yield from pod_template_problems(spec["template"], f"{path}.template")
    yield from _restart_problems(spec, f"{path}.template.spec.restartPolicy")


def _manager_problems(manager: str, path: str) -> Problems:
    host, slash, rest = manager.partition("/")
    if not manager:
        yield required(path)
    elif not slash or not host or not rest:
        yield invalid_value(path, manager, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        yield from named(host, path, is_dns1123_subdomain)
        if not _is_http_path(rest):
            why = f"Invalid path (regex used for validation is '{_HTTP_PATH}')"
            yield invalid_value(path, rest, why)
    if len(manager.encode()) > _MANAGER_BYTES_MAX:
        yield too_long(path, _MANAGER_BYTES_MAX)


def _indexed_problems(spec: Object, path: str) -> Problems:
    completions, parallelism = spec.get("completions"), spec.get("parallelism")
    failing = spec.get("maxFailedIndexes")
    if completions is None:
        yield required(f"{path}.completions", "when completion mode is Indexed")
    if parallelism is not None and parallelism > MANY:
        why = f"must be less than or equal to {MANY} when completion mode is Indexed"
        yield invalid_value(f"{path}.parallelism", parallelism, why)
    if completions is not None and failing is not None and failing > completions:
        yield invalid_value(f"{path}.maxFailedIndexes", failing, "must be less than or equal to completions")
    if failing is not None and failing > MANY:
        yield invalid_value(f"{path}.maxFailedIndexes", failing, f"must be less than or equal to {MANY}")
    if completions is None or completions <= MANY or spec.get("backoffLimitPerIndex") is None:
        return
    why = (
        f"must be less than or equal to {_FEW} when completions are above {MANY} "
        "and used with backoff limit per index"
    )
    if failing is None:
        text = f"must be specified when completions is above {MANY}"
        yield required(f"{path}.maxFailedIndexes", text)
    if parallelism is not None and parallelism > _FEW:
        yield invalid_value(f"{path}.parallelism", parallelism, why)
    if failing is not None and failing > _FEW:
        yield invalid_value(f"{path}.maxFailedIndexes", failing, why)


def _replacement_problems(spec: Object, path: str) -> Problems:
    policy = spec.get("podReplacementPolicy")
    if policy is not None:
        known = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
        yield from one_of(policy, path, known)


def _restart_problems(spec: Object, path: str) -> Problems:
    policy = spec["template"]["spec"].get("restartPolicy")
    if policy in (None, "", "Always"):
        yield required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield not_supported(path, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid_value(path, policy, why)


def _failure_problems(spec: Object, path: str) -> Problems:
    policy, pod = spec["podFailurePolicy"], spec["template"]["spec"]
    rules = policy.get("rules") or ()
    if len(rules) > _RULES_MAX:
        yield too_many(f"{path}.rules", len(rules), _RULES_MAX)
    names = {
        one.get("name") for field in ("containers", "initContainers") for _, one in items(pod, field, "")
    }
    for here, rule in items(policy, "rules", path):
        action, codes = rule.get("action") or "", rule.get("onExitCodes")
        conditions = rule.get("onPodConditions") or ()
        if not action:
            yield required(f"{here}.action", _choices(_ACTIONS))
        elif action == "FailIndex":
            if spec.get("backoffLimitPerIndex") is None:
                why = "requires the backoffLimitPerIndex to be set"
                yield invalid_value(f"{here}.action", action, why)
        else:
            yield from one_of(action, f"{here}.action", _ACTIONS)
        if codes is not None:
            yield from _exit_code_problems(codes, f"{here}.onExitCodes", names)
        yield from _condition_problems(rule, here)
        if codes is not None and conditions:
            why = "specifying both OnExitCodes and OnPodConditions is not supported"
            yield FieldError(FieldErrorType.INVALID, here, detail=why)
        if codes is None and not conditions:
            why = "specifying one of OnExitCodes and OnPodConditions is required"
            yield FieldError(FieldErrorType.INVALID, here, detail=why)


def _choices(values: tuple[str, ...]) -> str:
    return f"valid values: [{' '.join(map(go_quote, values))}]"


def _condition_problems(rule: Object, path: str) -> Problems:
    statuses, given = ("False", "True", "Unknown"), rule.get("onPodConditions") or ()
    if len(given) > _RULES_MAX:
        yield too_many(f"{path}.onPodConditions", len(given), _RULES_MAX)
    for here, pattern in items(rule, "onPodConditions", path):
        yield from named(pattern.get("type") or "", f"{here}.type", is_qualified_name)
        yield from one_of(pattern.get("status", ""), f"{here}.status", statuses)


def _exit_code_problems(codes: Object, path: str, names: set[object]) -> Problems:
    operator, values = codes.get("operator") or "", codes.get("values") or []
    if not operator:
        yield required(f"{path}.operator", _choices(("In", "NotIn")))
    else:
        yield from one_of(operator, f"{path}.operator", ("In", "NotIn"))
    name = codes.get("containerName")
    if name is not None and name not in names:
        why = "must be one of the container or initContainer names in the pod template"
        yield invalid_value(f"{path}.containerName", name, why)
    if not values:
        yield invalid_value(f"{path}.values", codes.get("values"), "at least one value is required")
    elif len(values) > _EXIT_CODES_MAX:
        yield too_many(f"{path}.values", len(values), _EXIT_CODES_MAX)
    seen: set[int] = set()
    for index, value in enumerate(values):
        if operator == "In" and not value:
            yield invalid_value(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in seen:
            yield duplicate(f"{path}.values[{index}]", value)
        seen.add(value)
    if any(later < earlier for earlier, later in pairwise(values)):
        yield invalid_value(f"{path}.values", values, "must be ordered")


def _success_problems(spec: Object, path: str) -> Problems:
    if spec.get("completionMode") != INDEXED:
        shown = as_internal("SuccessPolicy", spec["successPolicy"])
        yield invalid_value(path, shown, "requires indexed completion mode")
        return
    rules, completions = spec["successPolicy"].get("rules") or (), spec.get("completions") or 0
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        yield required(f"{path}.rules", why)
    if len(rules) > _RULES_MAX:
        yield too_many(f"{path}.rules", len(rules), _RULES_MAX)
    for here, rule in items(spec["successPolicy"], "rules", path):
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            why = "at least one of succeededCount or succeededIndexes must be specified"
            yield required(here, why)
        total = 0
        if indexes is not None:
            if len(indexes.encode()) > _INDEXES_BYTES_MAX:
                yield too_long(f"{here}.succeededIndexes", _INDEXES_BYTES_MAX)
            try:
                total = sum(last - first + 1 for first, last in read_indexes(indexes, completions))
            except ValueError as error:
                why = f"error parsing succeededIndexes: {error}"
                yield invalid_value(f"{here}.succeededIndexes", indexes, why)
        if count is None:
            continue
        yield from non_negative(rule, here, "succeededCount")
        if count > completions:
            why = f"must be less than or equal to {completions} (the number of specified completions)"
            yield invalid_value(f"{here}.succeededCount", count, why)
        if indexes is not None and count > total:
            what = "the number of indexes in the specified succeededIndexes field"
            why = f"must be less than or equal to {total} ({what})"
            yield invalid_value(f"{here}.succeededCount", count, why)


def read_indexes(text: str, completions: int) -> list[tuple[int, int]]:
    """The intervals of `1,3-5,7`, rising and below `completions`. Raises ValueError in upstream's words."""
    found: list[tuple[int, int]] = []
    for fragment in text.split(",") if text else ():
        first, last = _interval(fragment, completions)
        if found and found[-1][1] >= first:
            raise ValueError(f"non-increasing order, previous: {found[-1][1]}, current: {first}")
        found.append((first, last))
    return found


def _interval(fragment: str, completions: int) -> tuple[int, int]:
    first, *rest = fragment.split("-")
    if len(rest) > 1:
        raise ValueError(
            f"the fragment {go_quote(fragment)} violates the requirement that an index interval "
            "can have at most two parts separated by '-'"
        )
    start = _index(first, completions)
    if not rest:
        return start, start
    end = _index(rest[0], completions)
    if start >= end:
        raise ValueError(f"non-increasing order, previous: {start}, current: {end}")
    return start, end


def _index(text: str, completions: int) -> int:
    if not _is_integer(text):
        raise ValueError(f"cannot convert string to integer for index: {go_quote(text)}")
    if int(text) >= completions:
        raise ValueError(f"too large index: {go_quote(text)}")
    return int(text)
