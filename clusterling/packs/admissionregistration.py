"""admissionregistration.k8s.io/v1: webhooks and policies of admission, validated and kept. What they say is not enforced yet, and said so.

Upstream: kubernetes pkg/apis/admissionregistration (validation, defaults), pkg/registry/admissionregistration,
apiserver pkg/util/webhook. Expressions are held to be there and not compiled: that comes with what runs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    go_quote,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object, name_of
from clusterling.machinery.names import (
    is_dns1035_label,
    is_dns1123_subdomain,
    is_path_segment_name,
    is_port_number,
    is_qualified_name,
)
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.content import canonical_base64
from clusterling.packs.core.podspec.rules import Problems, items, named
from clusterling.registry.pack import Pack
from clusterling.registry.receiving import Undecodable
from clusterling.registry.strategy import Context, Strategy

GROUP: Final = "admissionregistration.k8s.io"

_NOT_ENFORCED: Final = "this server keeps the object and does not act on it yet"
_FAILURE: Final = ("Fail", "Ignore")
_MATCH: Final = ("Equivalent", "Exact")
_REINVOCATION: Final = ("IfNeeded", "Never")
_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")
_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_MUTABLE_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "UPDATE")
_SCOPES: Final = ("*", "Cluster", "Namespaced")
_REVIEWS: Final = ("v1", "v1beta1")
_REASONS: Final = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS: Final = ("Audit", "Deny", "Warn")
_TIMEOUT_S: Final = 10
_TIMEOUT_MAX_S: Final = 30
_PORT: Final = 443
_CONDITIONS_MAX: Final = 64
_ANNOTATIONS_MAX: Final = 20
_EXPRESSION_BYTES_MAX: Final = 5 * 1024
_FORM: Final = "; desired format: https://host[/path]"
_IDENTIFIER: Final = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


class KeptStrategy(Strategy):
    """The six kinds differ in what they default and in what may be wrong with them."""

    allow_unconditional_update = False

    def __init__(
        self,
        default: Callable[[Object], None],
        problems: Callable[[Object], Problems],
        *,
        has_status: bool = False,
    ) -> None:
        self._default = default
        self._problems = problems
        self._has_status = has_status

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource != "status":
            self._default(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        if self._has_status:
            new["status"] = {}

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            return
        if self._has_status:
            new["status"] = old.get("status") or {}

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(self._problems(new))

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        return () if ctx.subresource else (_NOT_ENFORCED,)


# ---------------------------------------------------------------------- rules and selectors


def _default_match(part: Object) -> None:
    part.setdefault("matchPolicy", "Equivalent")
    part.setdefault("namespaceSelector", {})
    part.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules", "rules"):
        for rule in part.get(field) or ():
            rule.setdefault("scope", "*")


def _alone(values: Sequence[str], path: str, others: str) -> Problems:
    if "*" in values and len(values) > 1:
        yield invalid_value(path, list(values), f"if '*' is present, must not specify other {others}")


def _rule_problems(rule: Object, path: str) -> Problems:
    given = rule.get("operations") or ()
    if not given:
        yield required(f"{path}.operations")
    yield from _alone(given, f"{path}.operations", "operations")
    for index, operation in enumerate(given):
        if operation not in _OPERATIONS:
            yield not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS)
    for field, others in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(field) or ()
        if not values:
            yield required(f"{path}.{field}")
        yield from _alone(values, f"{path}.{field}", others)
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield required(f"{path}.apiVersions[{index}]")
    yield from _resource_problems(rule.get("resources") or [], f"{path}.resources")
    if rule.get("scope") not in _SCOPES:
        yield not_supported(f"{path}.scope", rule.get("scope") or "", _SCOPES)


def _resource_problems(resources: list[str], path: str) -> Problems:
    if not resources:
        yield required(path)
    every_part: set[str] = set()
    every_resource: set[str] = set()
    plain = False
    for index, both in enumerate(resources):
        if not both:
            yield required(f"{path}[{index}]")
            continue
        resource, slash, part = both.partition("/")
        if not slash:
            plain = both != "*"
            continue
        if resource in every_part:
            why = f"if '{resource}/*' is present, must not specify {both}"
            yield invalid_value(f"{path}[{index}]", both, why)
        if part in every_resource:
            why = f"if '*/{part}' is present, must not specify {both}"
            yield invalid_value(f"{path}[{index}]", both, why)
        if part == "*":
            every_part.add(resource)
        if resource == "*":
            every_resource.add(part)
    if len(resources) > 1 and "*/*" in resources:
        yield invalid_value(path, resources, "if '*/*' is present, must not specify other resources")
    if "*" in resources and plain:
        why = "if '*' is present, must not specify other resources without subresources"
        yield invalid_value(path, resources, why)


def _match_problems(match: Object, path: str, operations: Sequence[str] = _OPERATIONS) -> Problems:
    if match["matchPolicy"] not in _MATCH:
        yield not_supported(f"{path}.matchPolicy", match["matchPolicy"], _MATCH)
    for field in ("namespaceSelector", "objectSelector"):
        yield from label_selector_problems(match[field], f"{path}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for here, rule in items(match, field, path):
            seen: set[str] = set()
            for index, name in enumerate(rule.get("resourceNames") or ()):
                yield from named(name, f"{here}.resourceNames[{index}]", is_path_segment_name)
                if name in seen:
                    yield duplicate(f"{here}.resourceNames[{index}]", name)
                seen.add(name)
            yield from _rule_problems(rule, here)
            if field == "resourceRules":
                # Without the places in the lists, as upstream has it.
                for operation in rule.get("operations") or ():
                    if operation in _OPERATIONS and operation not in operations:
                        yield not_supported(f"{path}.{field}.operations", operation, operations)


def _condition_problems(owner: Object, path: str) -> Problems:
    conditions = owner.get("matchConditions") or ()
    if len(conditions) > _CONDITIONS_MAX:
        yield too_many(f"{path}.matchConditions", len(conditions), _CONDITIONS_MAX)
    seen: set[str] = set()
    for here, condition in items(owner, "matchConditions", path):
        name = condition.get("name") or ""
        if not (condition.get("expression") or "").strip():
            yield required(f"{here}.expression")
        if not name:
            yield required(f"{here}.name")
            continue
        yield from named(name, f"{here}.name", is_qualified_name)
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)


# ---------------------------------------------------------------------- webhooks


def _webhook_default(*, mutating: bool) -> Callable[[Object], None]:
    def default(new: Object) -> None:
        for hook in new.get("webhooks") or ():
            hook.setdefault("failurePolicy", "Fail")
            _default_match(hook)
            hook.setdefault("timeoutSeconds", _TIMEOUT_S)
            for field, value in (("name", ""), ("clientConfig", {}), ("admissionReviewVersions", None)):
                hook.setdefault(field, value)
            hook.setdefault("sideEffects", None)
            if mutating:
                hook.setdefault("reinvocationPolicy", "Never")
            config = hook["clientConfig"]
            if config.get("service") is not None:
                config["service"].setdefault("port", _PORT)
            if config.get("caBundle") is not None:
                try:
                    config["caBundle"] = canonical_base64(config["caBundle"])
                except ValueError as error:
                    raise Undecodable(new["kind"], new["apiVersion"], str(error)) from error

    return default


def _webhooks_problems(new: Object) -> Problems:
    seen: set[str] = set()
    for path, hook in items(new, "webhooks", ""):
        here = path.removeprefix(".")
        yield from _webhook_problems(hook, here)
        yield from _review_problems(
            hook.get("admissionReviewVersions") or [], f"{here}.admissionReviewVersions"
        )
        name = hook["name"]
        if name and name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)


def _webhook_problems(hook: Object, path: str) -> Problems:
    name = hook["name"]
    if not name:
        yield required(f"{path}.name")
    elif wrong := is_dns1123_subdomain(name):
        yield invalid_value(f"{path}.name", name, ",".join(wrong))
    elif name.count(".") < 2:
        why = "should be a domain with at least three segments separated by dots"
        yield invalid_value(f"{path}.name", name, why)
    for here, rule in items(hook, "rules", path):
        yield from _rule_problems(rule, here)
    for field, allowed in (("failurePolicy", _FAILURE), ("matchPolicy", _MATCH)):
        if hook[field] not in allowed:
            yield not_supported(f"{path}.{field}", hook[field], allowed)
    if hook["sideEffects"] is None:
        yield required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}")
    elif hook["sideEffects"] not in _SIDE_EFFECTS:
        yield not_supported(f"{path}.sideEffects", hook["sideEffects"], _SIDE_EFFECTS)
    seconds = hook["timeoutSeconds"]
    if not 1 <= seconds <= _TIMEOUT_MAX_S:
        why = "the timeout value must be between 1 and 30 seconds"
        yield invalid_value(f"{path}.timeoutSeconds", seconds, why)
    for field in ("namespaceSelector", "objectSelector"):
        yield from label_selector_problems(hook[field], f"{path}.{field}")
    if hook.get("reinvocationPolicy", "Never") not in _REINVOCATION:
        yield not_supported(f"{path}.reinvocationPolicy", hook["reinvocationPolicy"], _REINVOCATION)
    yield from _client_problems(hook["clientConfig"], f"{path}.clientConfig")
    yield from _condition_problems(hook, path)


def _client_problems(config: Object, path: str) -> Problems:
    url, service = config.get("url"), config.get("service")
    if (url is None) is (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from _url_problems(url, f"{path}.url")
    else:
        assert service is not None, "one of both is there"
        # Upstream hands these two over in the other order.
        for field, other in (("name", "namespace"), ("namespace", "name")):
            if not service.get(other):
                yield required(f"{path}.service.{field}")
        if problems := is_port_number(service["port"]):
            why = f"port is not valid: {', '.join(problems)}"
            yield invalid_value(f"{path}.service.port", service["port"], why)
        if service.get("path") not in (None, "", "/"):
            yield from _path_problems(service["path"], f"{path}.service.path")


def _url_problems(url: str, path: str) -> Problems:
    if url.startswith(":"):
        why = f"parse {go_quote(url)}: missing protocol scheme"
        yield required(path, f"url must be a valid URL: {why}{_FORM}")
        return
    try:
        split: SplitResult = urlsplit(url)
    except ValueError as error:
        yield required(path, f"url must be a valid URL: {error}{_FORM}")
        return
    if split.scheme != "https":
        yield invalid_value(path, split.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    user, at, host = split.netloc.rpartition("@")
    if not host:
        yield invalid_value(path, host, f"host must be specified{_FORM}")
    for given, what in (
        (user if at else "", "user information is not permitted in the URL"),
        (split.fragment, "fragments are not permitted in the URL"),
        (split.query, "query parameters are not permitted in the URL"),
    ):
        if given:
            yield invalid_value(path, given, what)


def _path_problems(text: str, path: str) -> Problems:
    if text == "//":
        yield invalid_value(path, text, "segment[0] may not be empty")
        return
    if not text.startswith("/"):
        yield invalid_value(path, text, "must start with a '/'")
    for index, step in enumerate(text[1:].removesuffix("/").split("/")):
        if not step:
            yield invalid_value(path, text, f"segment[{index}] may not be empty")
        else:
            for problem in is_dns1123_subdomain(step):
                yield invalid_value(path, text, f"segment[{index}]: {problem}")


def _review_problems(versions: list[str], path: str) -> Problems:
    if not versions:
        yield required(path, f"must specify one of {', '.join(_REVIEWS)}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield invalid_value(f"{path}[{index}]", version, "duplicate version")
        else:
            yield from named(version, f"{path}[{index}]", is_dns1035_label)
    if not set(versions) & set(_REVIEWS):
        yield invalid_value(path, versions, f"must include at least one of {', '.join(_REVIEWS)}")


# ---------------------------------------------------------------------- policies


def _default_policy(new: Object) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    if spec.get("matchConstraints") is not None:
        _default_match(spec["matchConstraints"])


def _common_problems(new: Object, operations: Sequence[str]) -> Problems:
    spec = new["spec"]
    if spec["failurePolicy"] not in _FAILURE:
        yield not_supported("spec.failurePolicy", spec["failurePolicy"], _FAILURE)
    if spec.get("paramKind") is not None:
        yield from _param_kind_problems(spec["paramKind"], "spec.paramKind")
    match = spec.get("matchConstraints")
    if match is None:
        yield required("spec.matchConstraints")
    else:
        yield from _match_problems(match, "spec.matchConstraints", operations)
        if not match.get("resourceRules"):
            yield required("spec.matchConstraints.resourceRules")
    yield from _condition_problems(spec, "spec")
    for path, variable in items(spec, "variables", "spec"):
        name = (variable.get("name") or "").strip()
        if not name:
            yield required(f"{path}.name", "name is not specified")
        elif not _IDENTIFIER.fullmatch(variable["name"]):
            yield invalid_value(f"{path}.name", variable["name"], "must be a valid CEL identifier")
        if not (variable.get("expression") or "").strip():
            yield required(f"{path}.expression", "expression is not specified")


def _param_kind_problems(kind: Object, path: str) -> Problems:
    text, name = kind.get("apiVersion") or "", kind.get("kind") or ""
    group, _, version = text.rpartition("/")
    if not text:
        yield required(f"{path}.apiVersion")
    elif text.count("/") > 1:
        yield invalid_value(f"{path}.apiVersion", text, f"unexpected GroupVersion string: {text}")
    else:
        if group and (wrong := is_dns1123_subdomain(group)):
            yield invalid_value(f"{path}.apiVersion", group, ",".join(wrong))
        if not version:
            yield invalid_value(f"{path}.apiVersion", text, "version must be specified")
        elif wrong := is_dns1035_label(version):
            yield invalid_value(f"{path}.apiVersion", version, ",".join(wrong))
    if not name:
        yield required(f"{path}.kind")
    elif wrong := is_dns1035_label(name.lower()):
        why = f"may have mixed case, but should otherwise match: {','.join(wrong)}"
        yield invalid_value(f"{path}.kind", name, why)


def _validating_problems(new: Object) -> Problems:
    yield from _common_problems(new, _OPERATIONS)
    spec = new["spec"]
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for field in ("validations", "auditAnnotations"):
            why = "validations or auditAnnotations must contain at least one item"
            yield required(f"spec.{field}", why)
    for path, one in items(spec, "validations", "spec"):
        if not (one.get("expression") or "").strip():
            yield required(f"{path}.expression", "expression is not specified")
        for field in ("messageExpression", "message"):
            if one.get(field) and not one[field].strip():
                yield invalid_value(f"{path}.{field}", one[field], "must be non-empty if specified")
        if re.search(r"[\n\r]", (one.get("message") or "").strip()):
            yield invalid_value(f"{path}.message", one["message"], "must not contain line breaks")
        if one.get("reason") is not None and one["reason"] not in _REASONS:
            yield not_supported(f"{path}.reason", one["reason"], _REASONS)
    yield from _annotation_problems(new)


def _annotation_problems(new: Object) -> Problems:
    annotations = new["spec"].get("auditAnnotations") or ()
    if len(annotations) > _ANNOTATIONS_MAX:
        why = f"must not have more than {_ANNOTATIONS_MAX} auditAnnotations"
        yield invalid_value("spec.auditAnnotations", annotations, why)
    seen: set[str] = set()
    for path, one in items(new["spec"], "auditAnnotations", "spec"):
        key, text = one.get("key") or "", (one.get("valueExpression") or "").strip()
        yield from named(f"{name_of(new)}/{key}", f"{path}.key", is_qualified_name)
        if not text:
            yield required(f"{path}.valueExpression", "valueExpression is not specified")
        elif len(text.encode()) > _EXPRESSION_BYTES_MAX:
            why = f"must not exceed {_EXPRESSION_BYTES_MAX} bytes in length"
            yield required(f"{path}.valueExpression", why)
        if key in seen:
            yield duplicate(f"{path}.key", key)
        seen.add(key)


def _mutating_problems(new: Object) -> Problems:
    yield from _common_problems(new, _MUTABLE_OPERATIONS)
    spec = new["spec"]
    if not spec.get("mutations"):
        yield required("spec.mutations", "mutations must contain at least one item")
    if not spec.get("reinvocationPolicy"):
        yield required("spec.reinvocationPolicy")
    elif spec["reinvocationPolicy"] not in _REINVOCATION:
        yield not_supported("spec.reinvocationPolicy", spec["reinvocationPolicy"], _REINVOCATION)
    for path, one in items(spec, "mutations", "spec"):
        kind = one.get("patchType") or ""
        fields = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
        if kind not in fields:
            yield not_supported(f"{path}.patchType", kind, sorted(fields))
            continue
        for other, field in fields.items():
            if other == kind and one.get(field) is None:
                yield required(f"{path}.{field}", f"must be specified when patchType is {kind}")
            elif other == kind and not (one[field].get("expression") or "").strip():
                detail = "expression is not specified" if field == "jsonPatch" else ""
                yield required(f"{path}.{field}.expression", detail)
            elif other != kind and one.get(field) is not None:
                why = f"must not be specified when patchType is {kind}"
                yield invalid_value(f"{path}.{field}", f"{{{field}}}", why)


# ---------------------------------------------------------------------- bindings


def _default_binding(new: Object) -> None:
    spec = new.setdefault("spec", {})
    if spec.get("matchResources") is not None:
        _default_match(spec["matchResources"])


def _binding_problems(*, validating: bool) -> Callable[[Object], Problems]:
    operations = _OPERATIONS if validating else _MUTABLE_OPERATIONS

    def problems(new: Object) -> Problems:
        spec, declared = new["spec"], []
        if spec.get("policyName"):
            yield from named(spec["policyName"], "spec.policyName", is_dns1123_subdomain)
        else:
            declared.append(required("spec.policyName"))
        if spec.get("paramRef") is not None:
            yield from _reference_problems(spec["paramRef"], "spec.paramRef")
        if spec.get("matchResources") is not None:
            yield from _match_problems(spec["matchResources"], "spec.matchResources", operations)
        if validating:
            yield from _action_problems(spec.get("validationActions") or [], "spec.validationActions")
        yield from declared

    return problems


def _reference_problems(reference: Object, path: str) -> Problems:
    name, selector = reference.get("name") or "", reference.get("selector")
    if name:
        yield from named(name, f"{path}.name", is_path_segment_name)
        if selector is not None:
            yield forbidden_field(f"{path}.name", "name and selector are mutually exclusive")
    if selector is not None:
        yield from label_selector_problems(selector, f"{path}.selector")
        if name:
            yield forbidden_field(f"{path}.selector", "name and selector are mutually exclusive")
    if not name and selector is None:
        yield required(path, "one of name or selector must be specified")
    action = reference.get("parameterNotFoundAction")
    if not action:
        yield required(f"{path}.parameterNotFoundAction")
    elif action not in ("Allow", "Deny"):
        yield not_supported(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"))


def _action_problems(actions: list[str], path: str) -> Problems:
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            yield not_supported(f"{path}[{index}]", action, _ACTIONS)
        if action in actions[:index]:
            yield duplicate(f"{path}[{index}]", action)
    if {"Deny", "Warn"} <= set(actions):
        why = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
            "and headers serves no purpose)"
        )
        yield invalid_value(path, actions, why)
    if not actions:
        yield required(path)


# ---------------------------------------------------------------------- columns


def _count(*path: str) -> Callable[[Object, datetime], object]:
    cell = builtin.at(*path, absent=())

    def count(obj: Object, now: datetime) -> int:
        found = cell(obj, now)
        return len(found) if isinstance(found, list) else 0

    return count


def _param_kind(obj: Object, _now: datetime) -> str:
    kind = obj["spec"].get("paramKind")
    return "<unset>" if kind is None else f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}"


def _param_ref(obj: Object, _now: datetime) -> str:
    reference = obj["spec"].get("paramRef")
    if reference is None:
        return "<unset>"
    if reference.get("name"):
        return f"{reference.get('namespace') or '*'}/{reference['name']}"
    selector = reference.get("selector")
    return "<unset>" if selector is None else str(LabelSelector.from_object(selector))


_WEBHOOK_COLUMNS: Final = (NAME_COLUMN, Column("Webhooks", "integer", _count("webhooks")), builtin.AGE)
_BINDING_COLUMNS: Final = (
    NAME_COLUMN,
    Column("PolicyName", "string", builtin.at("spec", "policyName")),
    Column("ParamRef", "string", _param_ref),
    builtin.AGE,
)


def _policy_columns(heading: str, field: str) -> tuple[Column, ...]:
    return (
        NAME_COLUMN,
        Column(heading, "integer", _count("spec", field)),
        Column("ParamKind", "string", _param_kind),
        builtin.AGE,
    )


PACK: Final = Pack(
    "admissionregistration",
    (
        builtin.resource(
            GROUP,
            "v1",
            "mutatingadmissionpolicies",
            strategy=KeptStrategy(_default_policy, _mutating_problems),
            columns=_policy_columns("Mutations", "mutations"),
        ),
        builtin.resource(
            GROUP,
            "v1",
            "mutatingadmissionpolicybindings",
            strategy=KeptStrategy(_default_binding, _binding_problems(validating=False)),
            columns=_BINDING_COLUMNS,
        ),
        builtin.resource(
            GROUP,
            "v1",
            "mutatingwebhookconfigurations",
            strategy=KeptStrategy(_webhook_default(mutating=True), _webhooks_problems),
            columns=_WEBHOOK_COLUMNS,
        ),
        builtin.resource(
            GROUP,
            "v1",
            "validatingadmissionpolicies",
            strategy=KeptStrategy(_default_policy, _validating_problems, has_status=True),
            columns=_policy_columns("Validations", "validations"),
        ),
        builtin.resource(
            GROUP,
            "v1",
            "validatingadmissionpolicybindings",
            strategy=KeptStrategy(_default_binding, _binding_problems(validating=True)),
            columns=_BINDING_COLUMNS,
        ),
        builtin.resource(
            GROUP,
            "v1",
            "validatingwebhookconfigurations",
            strategy=KeptStrategy(_webhook_default(mutating=False), _webhooks_problems),
            columns=_WEBHOOK_COLUMNS,
        ),
    ),
)
