"""Containers of all three lists. Upstream: validateContainers, validateInitContainers, validateContainerCommon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import (
    is_config_map_key,
    is_dns1123_subdomain,
    is_port_name,
    is_port_number,
    mask_trailing_dash,
)
from clusterling.packs.core.podspec.internal import fields_set
from clusterling.packs.core.podspec.probes import lifecycle_problems, probe_problems
from clusterling.packs.core.podspec.references import ENVIRONMENT_FIELDS, field_problems, resource_problems
from clusterling.packs.core.podspec.resources import requirement_problems
from clusterling.packs.core.podspec.rules import (
    Problems,
    descending_path,
    items,
    label,
    named,
    needs,
    no_backsteps,
    one_of,
    one_of_needed,
    only,
)
from clusterling.packs.core.podspec.security import container_security_problems

_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES: Final = ("File", "FallbackToLogsOnError")
_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_RECURSIONS: Final = ("Disabled", "Enabled", "IfPossible")
_RESTARTS: Final = ("Always", "Never", "OnFailure")
_RULES_MAX: Final = 20
_RULES_OF_NONE: Final = "must specify restartPolicy when restart rules are used"
_EXIT_CODES_MAX: Final = 255
_SOURCES: Final = (
    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
)
_NO_VARIABLE: Final = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_NOT_SIDECAR: Final = "may not be set for init containers without restartPolicy=Always"
_EPHEMERAL_FIELDS: Final = frozenset(
    (
        "name", "image", "command", "args", "workingDir", "envFrom", "env", "volumeMounts", "volumeDevices",
        "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin",
        "stdinOnce", "tTY", "targetContainerName",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container's rules need to know of its pod. `volumes`: those that are right, by name."""

    volumes: Mapping[str, Object]
    claims: frozenset[str]
    grace: int | None
    restart_policy: str
    host_users: bool


def container_problems(spec: Object, path: str, around: Surroundings) -> Problems:
    """The containers of a pod spec, all three lists."""
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for here, one in items(spec, "containers", path):
        yield from _common_problems(one, here, around)
        yield from _unique(one, here, names)
        yield from lifecycle_problems(one, here, around.grace)
        yield from probe_problems(one, here)
        yield from _restart_problems(one, here)
    ports: set[str] = set()
    for here, one in items(spec, "containers", path):
        yield from _host_port_problems(one, here, ports)
    for here, one in items(spec, "initContainers", path):
        yield from _common_problems(one, here, around)
        yield from _init_problems(one, here, names, around)
    targets = frozenset(names)
    for here, one in items(spec, "ephemeralContainers", path):
        yield from _ephemeral_problems(one, here, around)
        yield from _unique(one, here, names)
        yield from _only_ephemeral_problems(one, here, targets)


def _unique(container: Object, path: str, names: set[str]) -> Problems:
    name = container.get("name") or ""
    if name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)


def _common_problems(container: Object, path: str, around: Surroundings) -> Problems:
    name = container.get("name")
    if not name:
        yield required(f"{path}.name")
    else:
        yield from label(name, f"{path}.name")
    yield from needs(container, path, "image")
    policy = container.get("terminationMessagePolicy")
    yield from one_of_needed(policy, f"{path}.terminationMessagePolicy", _MESSAGE_POLICIES)
    yield from _port_problems(container, path)
    yield from _environment_problems(container, path)
    yield from _mount_problems(container, path, around)
    yield from _device_problems(container, path, around)
    yield from one_of_needed(container.get("imagePullPolicy"), f"{path}.imagePullPolicy", PULL_POLICIES)
    yield from requirement_problems(container.get("resources") or {}, f"{path}.resources", around.claims)
    yield from _resize_problems(container, path, around.restart_policy)
    context = container.get("securityContext")
    yield from container_security_problems(context, f"{path}.securityContext", host_users=around.host_users)


def _init_problems(container: Object, path: str, names: set[str], around: Surroundings) -> Problems:
    sidecar = container.get("restartPolicy") == "Always"
    if container.get("restartPolicy") is None and container.get("restartPolicyRules"):
        yield required(f"{path}.restartPolicy", _RULES_OF_NONE)
    else:
        yield from _restart_problems(container, path)
    # Among these alone no name is not told twice, upstream either.
    nameless = "" in names
    yield from _unique(container, path, names)
    if not nameless:
        names.discard("")
    yield from _host_port_problems(container, path, set())
    if sidecar:
        yield from lifecycle_problems(container, path, around.grace)
        yield from probe_problems(container, path)
        return
    for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(field) is not None:
            yield forbidden_field(f"{path}.{field}", _NOT_SIDECAR)
    for here, policy in items(container, "resizePolicy", path):
        if policy.get("restartPolicy") == "RestartContainer":
            why = "must not be set to 'RestartContainer' for non-sidecar initContainers"
            yield invalid_value(f"{here}.restartPolicy", policy["restartPolicy"], why)


def _ephemeral_problems(container: Object, path: str, around: Surroundings) -> Problems:
    yield from _common_problems(container, path, around)
    image = container.get("image") or ""
    if image.strip() != image:
        yield invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")


def _only_ephemeral_problems(container: Object, path: str, targets: frozenset[str]) -> Problems:
    target = container.get("targetContainerName") or ""
    if target and target not in targets:
        yield FieldError(FieldErrorType.NOT_FOUND, f"{path}.targetContainerName", target)
    given = fields_set("EphemeralContainer", container)
    yield from only(given, path, _EPHEMERAL_FIELDS, "cannot be set for an Ephemeral Container")
    for here, mount in items(container, "volumeMounts", path):
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                yield forbidden_field(f"{here}.{field}", "cannot be set for an Ephemeral Container")


def _port_problems(container: Object, path: str) -> Problems:
    names: set[str] = set()
    for here, port in items(container, "ports", path):
        name = port.get("name") or ""
        problems = is_port_name(name) if name else ()
        for problem in problems:
            yield invalid_value(f"{here}.name", name, problem)
        if name and not problems:
            if name in names:
                yield duplicate(f"{here}.name", name)
            names.add(name)
        number = port.get("containerPort") or 0
        if not number:
            yield required(f"{here}.containerPort")
        for field in ("containerPort", "hostPort"):
            if port.get(field):
                for problem in is_port_number(port[field]):
                    yield invalid_value(f"{here}.{field}", port[field], problem)
        yield from one_of_needed(port.get("protocol"), f"{here}.protocol", _PROTOCOLS)


def _host_port_problems(container: Object, path: str, taken: set[str]) -> Problems:
    for here, port in items(container, "ports", path):
        if not port.get("hostPort"):
            continue
        text = f"{port.get('protocol', '')}/{port.get('hostIP') or ''}/{port['hostPort']}"
        if text in taken:
            yield duplicate(f"{here}.hostPort", text)
        taken.add(text)


def _environment_problems(container: Object, path: str) -> Problems:
    for here, variable in items(container, "env", path):
        name = variable.get("name") or ""
        if not name:
            yield required(f"{here}.name")
        else:
            yield from _variable_name(name, f"{here}.name")
        source = variable.get("valueFrom")
        if source is not None:
            yield from _source_problems(source, f"{here}.valueFrom", bool(variable.get("value")))
    for here, one in items(container, "envFrom", path):
        if one.get("prefix"):
            yield from _variable_name(one["prefix"], f"{here}.prefix")
        given = [field for field in ("configMapRef", "secretRef") if one.get(field) is not None]
        for field in given:
            name = one[field].get("name") or ""
            if not name:
                yield required(f"{here}.{field}.name")
            else:
                yield from named(mask_trailing_dash(name), f"{here}.{field}.name", is_dns1123_subdomain)
        if not given:
            yield invalid_value(f"{path}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid_value(f"{path}.envFrom", "", "may not have more than one field specified at a time")


def _variable_name(name: str, path: str) -> Problems:
    if not name.isascii() or not name.isprintable() or "=" in name:
        yield invalid_value(path, name, _NO_VARIABLE)


def _source_problems(source: Object, path: str, has_value: bool) -> Problems:
    sources = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
    given = [field for field in sources if source.get(field) is not None]
    for field in given:
        here, reference = f"{path}.{field}", source[field]
        if field == "fieldRef":
            yield from field_problems(reference, here, ENVIRONMENT_FIELDS)
        elif field == "resourceFieldRef":
            yield from resource_problems(reference, here, of_container=False)
        elif field == "fileKeyRef":
            yield from _file_key_problems(reference, here)
        else:
            yield from named(reference.get("name") or "", f"{here}.name", is_dns1123_subdomain)
            if not reference.get("key"):
                yield required(f"{here}.key")
            else:
                yield from named(reference["key"], f"{here}.key", is_config_map_key)
    if not given:
        yield invalid_value(path, "", _SOURCES)
    elif has_value:
        yield invalid_value(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid_value(path, "", "may not have more than one field specified at a time")


def _file_key_problems(reference: Object, path: str) -> Problems:
    yield from needs(reference, path, "key")
    if reference.get("key"):
        yield from _variable_name(reference["key"], f"{path}.key")
    yield from needs(reference, path, "volumeName")
    if reference.get("volumeName"):
        yield from label(reference["volumeName"], f"{path}.volumeName")
    yield from needs(reference, path, "path")
    yield from no_backsteps(reference.get("path") or "", f"{path}.path")


def _mount_problems(container: Object, path: str, around: Surroundings) -> Problems:
    devices = {one.get("name"): one.get("devicePath") for _, one in items(container, "volumeDevices", path)}
    device_paths = set(devices.values())
    taken: set[str] = set()
    for here, mount in items(container, "volumeMounts", path):
        name, point = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield required(f"{here}.name")
        if name not in around.volumes:
            yield FieldError(FieldErrorType.NOT_FOUND, f"{here}.name", name)
        if not point:
            yield required(f"{here}.mountPath")
        if point in taken:
            yield invalid_value(f"{here}.mountPath", point, "must be unique")
        taken.add(point)
        if name in devices:
            yield invalid_value(f"{here}.name", name, "must not already exist in volumeDevices")
        if point in device_paths:
            why = "must not already exist as a path in volumeDevices"
            yield invalid_value(f"{here}.mountPath", point, why)
        yield from _mount_option_problems(container, mount, here, f"{path}.volumeMounts")


def _mount_option_problems(container: Object, mount: Object, here: str, path: str) -> Problems:
    """`path` is that of the list, which upstream names for some."""
    sub, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    yield from descending_path(sub, f"{path}.subPath")
    if expression and sub:
        why = "subPathExpr and subPath are mutually exclusive"
        yield invalid_value(f"{here}.subPathExpr", expression, why)
    yield from descending_path(expression, f"{path}.subPathExpr")
    propagation, there = mount.get("mountPropagation"), f"{path}.mountPropagation"
    if propagation is not None:
        yield from one_of(propagation, there, _PROPAGATIONS)
        if propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            why = "Bidirectional mount propagation is available only to privileged containers"
            yield forbidden_field(there, why)
    recursion, there = mount.get("recursiveReadOnly"), f"{path}.recursiveReadOnly"
    if recursion in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            yield forbidden_field(there, "may only be specified when readOnly is true")
        if propagation not in (None, "None"):
            why = "may only be specified when mountPropagation is None or not specified"
            yield forbidden_field(there, why)
    elif recursion is not None:
        yield from one_of(recursion, there, _RECURSIONS)


def _device_problems(container: Object, path: str, around: Surroundings) -> Problems:
    mounts = {one.get("name"): one.get("mountPath") for _, one in items(container, "volumeMounts", path)}
    mount_paths = set(mounts.values())
    names: set[str] = set()
    paths: set[str] = set()
    for here, device in items(container, "volumeDevices", path):
        name, point = device.get("name") or "", device.get("devicePath") or ""
        source = around.volumes.get(name)
        if not name:
            yield required(f"{here}.name")
        if name in names:
            yield invalid_value(f"{here}.name", name, "must be unique")
        if source is None:
            yield FieldError(FieldErrorType.NOT_FOUND, f"{here}.name", name)
        elif not source.keys() & {"persistentVolumeClaim", "ephemeral"}:
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            yield invalid_value(f"{here}.name", name, why)
        if not point:
            yield required(f"{here}.devicePath")
        if point in paths:
            yield invalid_value(f"{here}.devicePath", point, "must be unique")
        if ".." in point.split("/"):
            yield invalid_value(f"{here}.devicePath", point, "can not contain backsteps ('..')")
        else:
            paths.add(point)
        if name in mounts:
            yield invalid_value(f"{here}.name", name, "must not already exist in volumeMounts")
        if point in mount_paths:
            why = "must not already exist as a path in volumeMounts"
            yield invalid_value(f"{here}.devicePath", point, why)
        if name:
            names.add(name)


def _resize_problems(container: Object, path: str, restart_policy: str) -> Problems:
    there, seen = f"{path}.resizePolicy", set()
    for here, policy in items(container, "resizePolicy", path):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            yield duplicate(here, name)
        seen.add(name)
        yield from one_of_needed(name, there, ("cpu", "memory"))
        yield from one_of_needed(restart, there, ("NotRequired", "RestartContainer"))
        if restart_policy == "Never" and restart != "NotRequired":
            why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            yield invalid_value(there, restart, why)


def _restart_problems(container: Object, path: str) -> Problems:
    """A container's own restart policy and the rules that make exceptions from it."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None and rules:
        yield required(f"{path}.restartPolicy", _RULES_OF_NONE)
    elif policy is not None and policy not in _RESTARTS:
        yield not_supported(f"{path}.restartPolicy", policy, _RESTARTS)
    if len(rules) > _RULES_MAX:
        yield too_many(f"{path}.restartPolicyRules", len(rules), _RULES_MAX)
    for here, rule in items(container, "restartPolicyRules", path):
        yield from one_of(rule.get("action", ""), f"{here}.action", ("Restart", "RestartAllContainers"))
        codes = rule.get("exitCodes")
        if codes is None:
            yield required(f"{here}.exitCodes", "must be specified")
            continue
        yield from one_of(codes.get("operator", ""), f"{here}.exitCodes.operator", ("In", "NotIn"))
        if len(codes.get("values") or ()) > _EXIT_CODES_MAX:
            yield too_many(f"{here}.exitCodes.values", len(codes["values"]), _EXIT_CODES_MAX)
