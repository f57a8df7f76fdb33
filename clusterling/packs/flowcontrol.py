"""flowcontrol.apiserver.k8s.io/v1: FlowSchemas and priority levels, validated and kept; the server limits by its own rules.

Upstream: kubernetes pkg/apis/flowcontrol (validation, defaults), pkg/registry/flowcontrol, apiserver pkg/apis/flowcontrol/bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import ceil, log2
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec.rules import Problems, items, named
from clusterling.packs.flowcontrol_bootstrap import EXEMPT, FLOW_SCHEMAS, MANDATORY, PRIORITY_LEVELS
from clusterling.packs.split import SplitStrategy
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import RESETS_METADATA, Context

GROUP: Final = "flowcontrol.apiserver.k8s.io"

_PRECEDENCE: Final = 1000
_PRECEDENCE_MAX: Final = 10000
_QUEUES_MAX: Final = 10_000_000
_HASH_BITS_MAX: Final = 60
_QUEUING: Final = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_SHARES: Final = 30
_METHODS: Final = ("ByNamespace", "ByUser")
_SUBJECTS: Final = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}
_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_ZERO_SHARES: Final = "flowcontrol.k8s.io/concurrency-shares-defaults-to-zero"


class _FlowStrategy(SplitStrategy):
    """What both kinds share: status apart, a few objects that stay as they are."""

    resets = RESETS_METADATA

    def __init__(self, default: Callable[[Object], None], problems: Callable[[Object], Problems]) -> None:
        self._default = default
        self._problems = problems

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        self._default(new.setdefault("spec", {}))

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        super().prepare_for_update(ctx, new, old)
        if ctx.subresource == "status":
            # Metadata are not its part, but for what its writer manages.
            new["metadata"] = {**meta(old), "resourceVersion": meta(new).get("resourceVersion", "")}

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*self._problems(new), *_status_problems(new)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return list(_status_problems(new)) if ctx.subresource == "status" else self.validate(ctx, new)


def _status_problems(new: Object) -> Problems:
    seen: set[str] = set()
    for path, condition in items(new.get("status") or {}, "conditions", "status"):
        kind = condition.get("type") or ""
        if kind in seen:
            yield duplicate(f"{path}.type", kind)
        seen.add(kind)
        if not kind:
            yield required(f"{path}.type")


# ---------------------------------------------------------------------- flow schemas


class _SchemaStrategy(_FlowStrategy):
    @staticmethod
    @override
    def row_order(obj: Object) -> tuple[int, str]:
        """Those that are asked first are shown first."""
        return obj["spec"].get("matchingPrecedence") or 0, name_of(obj)


def _default_schema(spec: Object) -> None:
    spec.setdefault("priorityLevelConfiguration", {}).setdefault("name", "")
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = _PRECEDENCE
    for rule in spec.get("rules") or ():
        for one in rule.get("resourceRules") or ():
            # Always written upstream.
            one.setdefault("namespaces", None)


def _schema_problems(new: Object) -> Problems:
    spec, name = new["spec"], name_of(new)
    precedence, path = spec["matchingPrecedence"], "spec.matchingPrecedence"
    if precedence <= 0:
        yield invalid_value(path, precedence, "must be a positive value")
    if precedence > _PRECEDENCE_MAX:
        yield invalid_value(path, precedence, f"must not be greater than {_PRECEDENCE_MAX}")
    if precedence == 1 and name != EXEMPT:
        yield invalid_value(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1")
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        shown = {"Type": method.get("type") or ""}
        yield not_supported("spec.distinguisherMethod.type", shown, _METHODS)
    level = spec["priorityLevelConfiguration"]["name"]
    where = "spec.priorityLevelConfiguration.name"
    if level:
        yield from named(level, where, is_dns1123_subdomain)
    else:
        yield required(where, "must reference a priority level")
    for here, rule in items(spec, "rules", "spec"):
        yield from _rule_problems(rule, here)
    fixed = MANDATORY.get(("FlowSchema", name))
    if fixed is not None and spec != fixed:
        yield invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value")


def _rule_problems(rule: Object, path: str) -> Problems:
    if not rule.get("subjects"):
        yield required(f"{path}.subjects", "subjects must contain at least one value")
    for here, subject in items(rule, "subjects", path):
        yield from _subject_problems(subject, here)
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        yield required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for here, one in items(rule, "resourceRules", path):
        yield from _resource_problems(one, here)
    for here, one in items(rule, "nonResourceRules", path):
        yield from _verb_problems(one, here)
        yield from _url_problems(one, here)


def _subject_problems(subject: Object, path: str) -> Problems:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        yield not_supported(f"{path}.kind", kind, sorted(_SUBJECTS))
        return
    field = _SUBJECTS[kind]
    one, here = subject.get(field), f"{path}.{field}"
    if one is None:
        yield required(here, f"{field} is required when subject kind is '{kind}'")
    else:
        yield from _name_problems(kind, one, here)
    for other, shown in (("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")):
        if other != kind and subject.get(shown) is not None:
            why = f"{shown} is forbidden when subject kind is not '{other}'"
            yield forbidden_field(f"{path}.{shown}", why)


def _name_problems(kind: str, one: Object, path: str) -> Problems:
    name = one.get("name") or ""
    if not name:
        yield required(f"{path}.name")
    if kind != "ServiceAccount":
        return
    if name and name != "*":
        yield from named(name, f"{path}.name", is_dns1123_subdomain)
    if one.get("namespace"):
        yield from named(one["namespace"], f"{path}.namespace", is_dns1123_label)
    else:
        yield required(f"{path}.namespace", "must specify namespace for service account")


def _alone(values: Sequence[str], path: str, others: str) -> Problems:
    if "*" in values and len(values) > 1:
        yield invalid_value(path, list(values), f"if '*' is present, must not specify other {others}")


def _verb_problems(rule: Object, path: str) -> Problems:
    verbs = rule.get("verbs") or []
    if not verbs:
        yield required(f"{path}.verbs", "verbs must contain at least one value")
    elif "*" in verbs:
        yield from _alone(verbs, f"{path}.verbs", "verbs")
    elif not set(verbs) <= set(_VERBS):
        yield not_supported(f"{path}.verbs", verbs, _VERBS)


def _resource_problems(rule: Object, path: str) -> Problems:
    yield from _verb_problems(rule, path)
    for field, one, others in (
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ):
        values = rule.get(field) or []
        if not values:
            yield required(f"{path}.{field}", f"resource rules must supply at least one {one}")
        yield from _alone(values, f"{path}.{field}", others)
    namespaces, where = rule.get("namespaces") or [], f"{path}.namespaces"
    if not namespaces and not rule.get("clusterScope"):
        why = "resource rules that are not cluster scoped must supply at least one namespace"
        yield required(where, why)
    elif "*" in namespaces:
        yield from _alone(namespaces, where, "namespaces")
    else:
        for index, namespace in enumerate(namespaces):
            for problem in is_dns1123_label(namespace):
                why = f"each member of this list must be '*' or a DNS-1123 label; {problem}"
                yield invalid_value(f"{where}[{index}]", namespace, why)


def _url_problems(rule: Object, path: str) -> Problems:
    urls, where = rule.get("nonResourceURLs") or [], f"{path}.nonResourceURLs"
    if not urls:
        yield required(where, "nonResourceURLs must contain at least one value")
    elif "*" in urls:
        yield from _alone(urls, where, "non-resource URLs")
    else:
        for index, url in enumerate(urls):
            why = _url_problem(url)
            if why:
                yield invalid_value(f"{where}[{index}]", url, why)


def _url_problem(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    if url.count("*") > 1 or ("*" in url and not url.endswith("/*")):
        return "wildcard can only do suffix matching"
    return ""


# ---------------------------------------------------------------------- priority levels


def _default_level(spec: Object) -> None:
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if exempt is not None:
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    if limited is not None:
        limited.setdefault("nominalConcurrencyShares", _SHARES)
        limited.setdefault("lendablePercent", 0)
        queuing = limited.setdefault("limitResponse", {}).get("queuing")
        if queuing is not None:
            for field, value in _QUEUING.items():
                queuing[field] = queuing.get(field) or value


def _level_problems(new: Object) -> Problems:
    spec, name = new["spec"], name_of(new)
    kind = spec.get("type") or ""
    if _ZERO_SHARES in (meta(new).get("annotations") or {}):
        yield forbidden_field("metadata.annotations", f"annotation '{_ZERO_SHARES}' is forbidden")
    if (name == EXEMPT) is not (kind == "Exempt"):
        yield invalid_value("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'")
    declared: list[FieldError] = []
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if kind != "Limited" and limited is not None:
        declared.append(forbidden_field("spec.limited", ""))
    if kind == "Exempt":
        if exempt is not None:
            yield from _share_problems(exempt, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            declared.append(forbidden_field("spec.exempt", ""))
        if limited is None:
            declared.append(required("spec.limited"))
        else:
            yield from _limit_problems(limited, "spec.limited")
    elif not kind:
        declared.append(required("spec.type"))
    else:
        yield not_supported("spec.type", kind, ("Exempt", "Limited"))
    yield from _changed_problems(name, spec)
    yield from declared


def _changed_problems(name: str, spec: Object) -> Problems:
    """Levels that there always are stay as they are."""
    fixed = MANDATORY.get(("PriorityLevelConfiguration", name))
    if fixed is None:
        return
    if name == EXEMPT and {**spec, "exempt": None} != {**fixed, "exempt": None}:
        why = f"spec of '{name}' except the 'spec.exempt' field must equal the fixed value"
        yield invalid_value("spec", spec, why)
    if name != EXEMPT and spec != fixed:
        yield invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value")


def _share_problems(part: Object, path: str) -> Problems:
    if part["nominalConcurrencyShares"] < 0:
        where = f"{path}.nominalConcurrencyShares"
        yield invalid_value(where, part["nominalConcurrencyShares"], "must be a non-negative integer")
    if not 0 <= part["lendablePercent"] <= 100:
        why = "must be between 0 and 100, inclusive"
        yield invalid_value(f"{path}.lendablePercent", part["lendablePercent"], why)


def _limit_problems(limited: Object, path: str) -> Problems:
    shares, lending = _split(list(_share_problems(limited, path)))
    yield from shares
    response, here = limited["limitResponse"], f"{path}.limitResponse"
    kind, queuing = response.get("type") or "", response.get("queuing")
    if not kind:
        yield required(f"{here}.type")
    elif kind == "Reject":
        if queuing is not None:
            yield forbidden_field(f"{here}.queuing", "")
    elif kind != "Queue":
        yield not_supported(f"{here}.type", kind, ("Queue", "Reject"))
    elif queuing is None:
        yield required(f"{here}.queuing")
    else:
        yield from _queuing_problems(queuing, f"{here}.queuing")
    yield from lending
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        why = "if specified, must be a non-negative integer"
        yield invalid_value(f"{path}.borrowingLimitPercent", borrowing, why)


def _split(found: list[FieldError]) -> tuple[list[FieldError], list[FieldError]]:
    lending = [one for one in found if one.field.endswith("lendablePercent")]
    return [one for one in found if one not in lending], lending


def _queuing_problems(queuing: Object, path: str) -> Problems:
    length, queues, hand = (queuing[field] for field in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        yield invalid_value(f"{path}.queueLengthLimit", length, "must be positive")
    if queues <= 0:
        yield invalid_value(f"{path}.queues", queues, "must be positive")
    elif queues > _QUEUES_MAX:
        yield invalid_value(f"{path}.queues", queues, f"must not be greater than {_QUEUES_MAX}")
    where = f"{path}.handSize"
    if hand <= 0:
        yield invalid_value(where, hand, "must be positive")
    elif hand > queues:
        yield invalid_value(where, hand, f"should not be greater than queues ({queues})")
    elif _entropy_bits(queues, hand) > _HASH_BITS_MAX:
        why = (
            f"required entropy bits of deckSize {queues} and handSize {hand} "
            f"should not be greater than {_HASH_BITS_MAX}"
        )
        yield invalid_value(where, hand, why)


def _entropy_bits(deck: int, hand: int) -> int:
    """Of a hand dealt without repetition (upstream: shufflesharding.RequiredEntropyBits)."""
    # More cards need more bits than there are, whatever the deck.
    return (
        _HASH_BITS_MAX + 1
        if hand > _HASH_BITS_MAX
        else ceil(sum(log2(deck - dealt) for dealt in range(hand) if deck > dealt))
    )


def _dangling(obj: Object, _now: datetime) -> str:
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Dangling":
            return str(one.get("status") or "")
    return "?"


def _queuing(field: str) -> Column:
    heading = field[0].upper() + field[1:]
    return Column(
        heading, "string", builtin.at("spec", "limited", "limitResponse", "queuing", field, absent="<none>")
    )


FLOWSCHEMAS: Final = builtin.resource(
    GROUP,
    "v1",
    "flowschemas",
    strategy=_SchemaStrategy(_default_schema, _schema_problems),
    columns=(
        NAME_COLUMN,
        Column("PriorityLevel", "string", builtin.at("spec", "priorityLevelConfiguration", "name")),
        Column("MatchingPrecedence", "string", builtin.at("spec", "matchingPrecedence")),
        Column(
            "DistinguisherMethod",
            "string",
            builtin.at("spec", "distinguisherMethod", "type", absent="<none>"),
        ),
        builtin.AGE,
        Column("MissingPL", "string", _dangling),
    ),
)
PRIORITYLEVELCONFIGURATIONS: Final = builtin.resource(
    GROUP,
    "v1",
    "prioritylevelconfigurations",
    strategy=_FlowStrategy(_default_level, _level_problems),
    columns=(
        NAME_COLUMN,
        Column("Type", "string", builtin.at("spec", "type")),
        Column(
            "NominalConcurrencyShares",
            "string",
            builtin.at("spec", "limited", "nominalConcurrencyShares", absent="<none>"),
        ),
        _queuing("queues"),
        _queuing("handSize"),
        _queuing("queueLengthLimit"),
        builtin.AGE,
    ),
)

PACK: Final = Pack(
    "flowcontrol",
    (FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS),
    bootstrap=(*FLOW_SCHEMAS, *PRIORITY_LEVELS),
)
