"""Query parameters → options, with upstream's checks and texts. Pure.

Upstream: apimachinery/pkg/apis/meta/v1/{conversion,zz_generated.conversion}.go, …/meta/v1/validation/validation.go,
…/meta/internalversion/validation/validation.go, apiserver/pkg/endpoints/filters/request_deadline.go.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, TypeVar, cast

from clusterling.machinery.errors import (
    ApiError,
    FieldError,
    bad_request,
    forbidden_field,
    go_quote,
    invalid,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.gotext import json_type
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import FieldSelector, LabelSelector
from clusterling.registry import continuation
from clusterling.registry.options import (
    DeleteOptions,
    FieldValidation,
    ListOptions,
    Match,
    Propagation,
    ToldBy,
    WatchOptions,
    WriteOptions,
)
from clusterling.registry.resource import Served
from clusterling.services.requestinfo import Query, first, is_true

FIELD_MANAGER_BYTES_MAX: Final = 128
DURATION_CHARACTERS_MAX: Final = 64
VERSION_DIGITS_MAX: Final = 64

_T = TypeVar("_T")

_META_GROUP: Final = "meta.k8s.io"
_NO_LIST: Final = ListOptions()
_NO_DELETE: Final = DeleteOptions()
_INT: Final = re.compile(r"[+-]?[0-9]{1,64}")
_ALWAYS_SELECTABLE: Final = frozenset({"metadata.name", "metadata.namespace"})


def list_options(query: Query, served: Served, name: str = "") -> ListOptions:
    """Options of a list, and of what a deletecollection picks. `name`: the one object that the request may mean.

    Raises ApiError 400 for what cannot be read, 422 for what cannot go together.
    """
    if not query:
        return _NO_LIST
    labels, fields = _selectors(query, served, name)
    limit = _integer(query, "limit") or 0
    _integer(query, "timeoutSeconds")
    match = first(query, "resourceVersionMatch")
    version = first(query, "resourceVersion")
    token = first(query, "continue")
    wrong: list[FieldError] = []
    if match:
        if not version:
            wrong.append(
                _match_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
            )
        if token:
            wrong.append(_match_forbidden("resourceVersionMatch is forbidden when continue is provided"))
        if match not in {"Exact", "NotOlderThan"}:
            wrong.append(not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and version == "0":
            wrong.append(
                _match_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
            )
    if query.get("sendInitialEvents"):
        wrong.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    _check("ListOptions", wrong)
    if token and version not in {"", "0"}:
        continuation.decode(token)  # What is wrong with the token itself is told first.
        raise bad_request("specifying resource version is not allowed when using continue")
    problem = version_problem(version)
    if problem:
        raise bad_request(f"invalid resource version: {problem}")
    return ListOptions(labels, fields, version, cast(Match, match), limit, token)


def watch_options(query: Query, served: Served, name: str = "") -> WatchOptions:
    """Options of a watch. `name`: the one object that is watched, "" for the collection. Raises ApiError 400, 422."""
    labels, fields = _selectors(query, served, name)
    _integer(query, "limit")
    match = first(query, "resourceVersionMatch")
    initial = is_true(query["sendInitialEvents"]) if query.get("sendInitialEvents") else None
    if initial is None and not match and first(query, "resourceVersion") in {"", "0"}:
        # Upstream: internalversion/defaults.go, SetListOptionsDefaults.
        initial, match = True, "NotOlderThan"
    wrong: list[FieldError] = []
    if initial is not None and match != "NotOlderThan":
        wrong.append(
            _match_forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        )
    if match:
        if initial is None:
            wrong.append(
                _match_forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
                )
            )
        if match != "NotOlderThan":
            wrong.append(not_supported("resourceVersionMatch", match, ["NotOlderThan"]))
        if first(query, "continue"):
            wrong.append(_match_forbidden("resourceVersionMatch is forbidden when continue is provided"))
    _check("ListOptions", wrong)
    return WatchOptions(
        labels,
        fields,
        read_version(query),
        cast(Match, match),
        initial,
        is_true(query.get("allowWatchBookmarks")),
    )


def read_version(query: Query) -> str:
    """`resourceVersion` of a get or watch. Raises ApiError 500 where it is none, as upstream does."""
    version = first(query, "resourceVersion")
    problem = version_problem(version)
    if problem:
        raise ApiError(500, "", problem)
    return version


def version_problem(version: str) -> str:
    """What is wrong with a resourceVersion, "" where nothing is (upstream: ParseResourceVersion)."""
    digits = version.isascii() and version.isdigit()
    # Upstream reads any number of zeros in front. Python reads no number of many thousands of digits.
    if not version or (digits and len(version) <= VERSION_DIGITS_MAX and int(version) < 1 << 64):
        return ""
    why = f"strconv.ParseUint: parsing {go_quote(version)}: {'value out of range' if digits else 'invalid syntax'}"
    return str(invalid_value("resourceVersion", version, why))


def watch_timeout_s(query: Query) -> int | None:
    """`timeoutSeconds`, None where the client leaves it to the server (not given, or 0). Raises ApiError 400."""
    return _integer(query, "timeoutSeconds") or None


def write_options(
    query: Query,
    kind: Literal["CreateOptions", "UpdateOptions", "PatchOptions"],
    user_agent: str | None,
    told_by: ToldBy = "place",
) -> WriteOptions:
    """Options of a create, update or patch. Who names no field manager is known by its user agent. Raises ApiError 422."""
    if not query:
        return _plain_write(_told(user_agent), told_by)
    manager = first(query, "fieldManager")
    dry_run = query.get("dryRun") or []
    validation = first(query, "fieldValidation")
    wrong: list[FieldError] = []
    if kind == "PatchOptions" and query.get("force"):
        wrong.append(forbidden_field("force", "may not be specified for non-apply patch"))
    wrong += _manager_problems(manager)
    wrong += _dry_run_problems(dry_run)
    if validation not in {"", "Ignore", "Warn", "Strict"}:
        wrong.append(not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"]))
    _check(kind, wrong)
    manager = manager or _plain_write(_told(user_agent), told_by).field_manager
    told = cast(FieldValidation, validation or "Warn")
    return WriteOptions(bool(dry_run), manager, told, told_by=told_by)


def _told(user_agent: str | None) -> str:
    """As much of it as may make a name: what is kept for the next request is bounded."""
    return (user_agent or "")[: 4 * FIELD_MANAGER_BYTES_MAX]


@lru_cache(maxsize=1024)
def _plain_write(user_agent: str, told_by: ToldBy) -> WriteOptions:
    """Upstream: endpoints/handlers/create.go, prefixFromUserAgent."""
    name = "".join(filter(str.isprintable, user_agent.partition("/")[0]))
    while len(name.encode()) > FIELD_MANAGER_BYTES_MAX:
        name = name[:-1]
    return WriteOptions(field_manager=name or "unknown", told_by=told_by)


def apply_options(query: Query) -> WriteOptions:
    """Options of a server-side apply. Raises ApiError 422."""
    apply_problems(query)
    dry_run = bool(query.get("dryRun"))
    validation = first(query, "fieldValidation")
    if validation not in {"", "Ignore", "Warn", "Strict"}:
        _check(
            "PatchOptions", [not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"])]
        )
    force = bool(query.get("force")) and is_true(query["force"])
    told = cast(FieldValidation, validation or "Warn")
    return WriteOptions(dry_run, first(query, "fieldManager"), told, force=force)


def apply_problems(query: Query) -> None:
    """What an apply patch's options must have, whether or not applies are served. Raises ApiError 422."""
    manager = first(query, "fieldManager")
    wrong = [] if manager else [required("fieldManager", "is required for apply patch")]
    _check("PatchOptions", wrong + _manager_problems(manager) + _dry_run_problems(query.get("dryRun") or []))


def delete_options(query: Query) -> DeleteOptions:
    """Options of a delete whose body is empty. Raises ApiError 400, 422."""
    if not query:
        return _NO_DELETE
    document: Object = {}
    grace_s = _integer(query, "gracePeriodSeconds")
    if grace_s is not None:
        document["gracePeriodSeconds"] = grace_s
    if query.get("orphanDependents"):
        document["orphanDependents"] = is_true(query["orphanDependents"])
    if query.get("propagationPolicy"):
        document["propagationPolicy"] = first(query, "propagationPolicy")
    if query.get("dryRun"):
        document["dryRun"] = query["dryRun"]
    # Upstream: meta/v1/conversion.go, Convert_url_Values_To_v1_DeleteOptions.
    preconditions = {name: first(query, name) for name in ("uid", "resourceVersion") if first(query, name)}
    if preconditions:
        document["preconditions"] = preconditions
    return delete_options_of(document)


def delete_options_of(document: Object) -> DeleteOptions:
    """Options of a `meta/v1` DeleteOptions document. Raises ApiError 400 for wrong types, 422 for wrong values."""
    grace_s = _typed(document, "gracePeriodSeconds", int, "int64")
    orphan = _typed(document, "orphanDependents", bool, "bool")
    policy = _typed(document, "propagationPolicy", str, "v1.DeletionPropagation")
    dry_run = _typed(document, "dryRun", list, "[]string") or []
    preconditions = _typed(document, "preconditions", dict, "v1.Preconditions") or {}
    uid = _typed(preconditions, "uid", str, "types.UID", "DeleteOptions.preconditions.uid")
    version = _typed(
        preconditions, "resourceVersion", str, "string", "DeleteOptions.preconditions.resourceVersion"
    )
    wrong: list[FieldError] = []
    if orphan is not None and policy is not None:
        wrong.append(
            invalid_value(
                "propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set"
            )
        )
    if policy is not None and policy not in {"Foreground", "Background", "Orphan"}:
        wrong.append(
            not_supported("propagationPolicy", policy, ["Foreground", "Background", "Orphan", "nil"])
        )
    wrong += _dry_run_problems(dry_run)
    _check("DeleteOptions", wrong)
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    return DeleteOptions(bool(dry_run), uid or "", version or "", cast(Propagation, policy or ""), grace_s)


_AMOUNT: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_UNIT: Final = re.compile(r"[^0-9.]*")
_UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def request_timeout_s(query: Query) -> float | None:
    """The `timeout` parameter; None where it is not given. Raises ApiError 400 with the words of Go's time package."""
    text = first(query, "timeout")
    if not text:
        return None
    # Before any pattern looks at it: this is read before anybody is asked who he is.
    problem, duration_ns = (
        _duration(text) if len(text) <= DURATION_CHARACTERS_MAX else ("invalid duration", 0)
    )
    if problem:
        shown = _go_time_quote(text[:DURATION_CHARACTERS_MAX])
        raise bad_request(f"invalid timeout specified in the request URL - time: {problem} {shown}")
    return duration_ns / 1e9


def _duration(text: str) -> tuple[str, int]:
    """What is wrong with it, "" if nothing; and its nanoseconds (time.ParseDuration)."""
    negative, rest = text[0] == "-", text[1:] if text[0] in "+-" else text
    if rest == "0":
        return "", 0
    total_ns, at = 0, 0
    while at < len(rest) or not rest:
        amount = _AMOUNT.match(rest, at)
        assert amount is not None, "the pattern matches nothing too"
        whole, fraction = amount[1], amount[2] or ""
        if not (whole or fraction):
            return "invalid duration", 0
        name = _UNIT.match(rest, amount.end())
        assert name is not None, "the pattern matches nothing too"
        if not name[0]:
            return "missing unit in duration", 0
        unit_ns = _UNIT_NS.get(name[0])
        if unit_ns is None:
            return f"unknown unit {_go_time_quote(name[0])} in duration", 0
        total_ns += int(whole or "0") * unit_ns + int(fraction or "0") * unit_ns // 10 ** len(fraction)
        if total_ns > 1 << 63:
            return "invalid duration", 0
        at = name.end()
    if total_ns >= 1 << 63 and not negative:
        return "invalid duration", 0
    return "", -total_ns if negative else total_ns


def _go_time_quote(text: str) -> str:
    """In quotes as Go's time package writes them: what is not printable ASCII byte by byte."""
    quoted = []
    for char in text:
        if char < " " or char > "\x7f":
            quoted += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
        else:
            quoted.append(f"\\{char}" if char in '"\\' else char)
    return f'"{"".join(quoted)}"'


def _match_forbidden(detail: str) -> FieldError:
    return forbidden_field("resourceVersionMatch", detail)


def _check(kind: str, wrong: list[FieldError]) -> None:
    if wrong:
        raise invalid(kind, _META_GROUP, "", wrong)


def _integer(query: Query, name: str) -> int | None:
    values = query.get(name)
    if not values:
        return None
    text = values[0]
    if not _INT.fullmatch(text):
        raise bad_request(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise bad_request(f"strconv.ParseInt: parsing {go_quote(text)}: value out of range")
    return number


def _selectors(query: Query, served: Served, name: str) -> tuple[LabelSelector | None, FieldSelector | None]:
    labels_text, fields_text = first(query, "labelSelector"), first(query, "fieldSelector")
    try:
        labels = LabelSelector.parse(labels_text) if labels_text else None
        fields = FieldSelector.parse(fields_text) if fields_text else None
    except ValueError as error:
        raise bad_request(str(error)) from error
    if fields is not None:
        _known_fields(fields, served)
    if name:
        if fields is not None and not fields.is_everything:
            if fields.exact("metadata.name") != name:
                raise bad_request("fieldSelector metadata.name doesn't match requested name")
        else:
            fields = FieldSelector((("metadata.name", "=", name),))
    return labels, fields


def _known_fields(fields: FieldSelector, served: Served) -> None:
    """Upstream: the field label conversion of each kind; a kind without one knows name and namespace."""
    asked = [field for field, _, _ in fields.requirements if field not in _ALWAYS_SELECTABLE]
    if served.resource.builtin:
        if not asked:
            return
    elif not served.resource.namespaced:
        # A cluster-scoped custom resource has no namespace to select by (apiextensions: conversion/converter.go).
        asked = [field for field, _, _ in fields.requirements if field != "metadata.name"]
    known = {*served.version.selectable_fields, *served.resource.strategy.field_values({"metadata": {}})}
    for field in asked:
        if field not in known:
            if served.resource.builtin and not known:
                raise bad_request(
                    f"{go_quote(field)} is not a known field selector: "
                    'only "metadata.name", "metadata.namespace"'
                )
            raise bad_request(f"field label not supported: {field}")


def _manager_problems(manager: str) -> list[FieldError]:
    wrong: list[FieldError] = []
    if len(manager) <= FIELD_MANAGER_BYTES_MAX and manager.isascii() and manager.isprintable():
        return wrong
    if len(manager.encode("utf-8", "surrogatepass")) > FIELD_MANAGER_BYTES_MAX:
        wrong.append(too_long("fieldManager", FIELD_MANAGER_BYTES_MAX))
    at = 0
    for character in manager[:FIELD_MANAGER_BYTES_MAX]:
        if not character.isprintable():
            detail = f"invalid character U+{ord(character):04X} (at position {at})"
            wrong.append(invalid_value("fieldManager", manager, detail))
        at += len(character.encode("utf-8", "surrogatepass"))
    return wrong


def _dry_run_problems(values: list[str]) -> list[FieldError]:
    if all(value == "All" for value in values):
        return []
    return [not_supported("dryRun", values, ["All"])]


def _typed(document: Object, field: str, wanted: type[_T], go_type: str, path: str = "") -> _T | None:
    """A field of a decoded body, None where absent or null. Raises ApiError 400 in the words of encoding/json."""
    value = document.get(field)
    if value is None:
        return None
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise bad_request(
            f"json: cannot unmarshal {json_type(value)} into Go struct field {path or f'DeleteOptions.{field}'} of type {go_type}"
        )
    return value
