"""Security contexts of pods and containers. Upstream: ValidateSecurityContext, validatePodSpecSecurityContext."""

from __future__ import annotations

import re
from typing import Final

from clusterling.machinery.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import (
    Problems,
    descending_path,
    items,
    named,
    one_of,
    unix_id,
)

_PROFILE_TYPES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_APPARMOR_BYTES_MAX: Final = 4095
_SYSCTL: Final = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_BYTES_MAX: Final = 253
_is_sysctl = re.compile(_SYSCTL.replace("(", "(?:")).fullmatch
_IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}"
    for name in (
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
        "shm",
        "msgmax",
        "msgmnb",
        "msgmni",
        "msg",
    )
)

_GMSA_BYTES_MAX: Final = 64 * 1024
_DOMAIN_BYTES_MAX: Final = 256
_USER_BYTES_MAX: Final = 104
_has_controls = re.compile(r"[\x00-\x1f\x7f]").search
_is_netbios = re.compile(r"""[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}""").fullmatch
_DNS_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_is_dns_domain = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*").fullmatch
_has_forbidden = re.compile(r"""["/\\:;|=,+*?<>@\[\]]""").search
_is_dots = re.compile(r"[. ]+").fullmatch


def container_security_problems(context: Object | None, path: str, *, host_users: bool) -> Problems:
    if context is None:
        return
    yield from unix_id(context.get("runAsUser"), f"{path}.runAsUser")
    yield from unix_id(context.get("runAsGroup"), f"{path}.runAsGroup")
    mount = context.get("procMount")
    if mount is not None:
        yield from one_of(mount, f"{path}.procMount", ("Default", "Unmasked"))
        if host_users and mount == "Unmasked":
            yield invalid_value(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`")
    yield from seccomp_problems(context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        shown = as_internal("SecurityContext", context)
        if context.get("privileged"):
            yield invalid_value(
                path, shown, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            )
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid_value(path, shown, why)
    yield from _windows_problems(context.get("windowsOptions"), f"{path}.windowsOptions")
    yield from apparmor_problems(context.get("appArmorProfile"), f"{path}.appArmorProfile")


def pod_security_problems(spec: Object, path: str) -> Problems:
    """`path` is that of the security context."""
    context: Object = spec.get("securityContext") or {}
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        yield from unix_id(context.get(field), f"{path}.{field}")
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        yield from unix_id(group, f"{path}.supplementalGroups[{index}]")
    yield from _sysctl_problems(spec, context, path)
    closed = {
        "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
        "supplementalGroupsPolicy": ("Merge", "Strict"),
        "seLinuxChangePolicy": ("MountOption", "Recursive"),
    }
    if context.get("fsGroupChangePolicy") is not None:
        yield from one_of(
            context["fsGroupChangePolicy"], f"{path}.fsGroupChangePolicy", closed["fsGroupChangePolicy"]
        )
    yield from seccomp_problems(context.get("seccompProfile"), f"{path}.seccompProfile")
    yield from _windows_problems(context.get("windowsOptions"), f"{path}.windowsOptions")
    yield from apparmor_problems(context.get("appArmorProfile"), f"{path}.appArmorProfile")
    for field in ("supplementalGroupsPolicy", "seLinuxChangePolicy"):
        if context.get(field) is not None:
            yield from one_of(context[field], f"{path}.{field}", closed[field])


def seccomp_problems(profile: Object | None, path: str) -> Problems:
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        yield required(f"{path}.type", "type is required when seccompProfile is set")
    elif kind not in _PROFILE_TYPES:
        yield not_supported(f"{path}.type", kind, _PROFILE_TYPES)
    if kind == "Localhost":
        if local is None:
            yield required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
        else:
            yield from descending_path(local, f"{path}.localhostProfile")
    elif local is not None:
        shown = as_internal("SeccompProfile", profile)
        yield invalid_value(
            f"{path}.localhostProfile", shown, "can only be set when seccomp type is Localhost"
        )


def apparmor_problems(profile: Object | None, path: str) -> Problems:
    if profile is None:
        return
    kind, local, here = profile.get("type"), profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        yield required(f"{path}.type", "type is required when appArmorProfile is set")
    elif kind not in _PROFILE_TYPES:
        yield not_supported(f"{path}.type", kind, _PROFILE_TYPES)
    elif kind != "Localhost":
        if local is not None:
            yield invalid_value(here, local, "can only be set when AppArmor type is Localhost")
    elif local is None:
        yield required(here, "must be set when AppArmor type is Localhost")
    else:
        if local.strip() != local:
            yield invalid_value(here, local, "must not be padded with whitespace")
        elif not local:
            yield required(here, "must be set when AppArmor type is Localhost")
        if len(local.encode()) > _APPARMOR_BYTES_MAX:
            yield too_long(here, _APPARMOR_BYTES_MAX)


def _sysctl_problems(spec: Object, context: Object, path: str) -> Problems:
    seen: set[str] = set()
    for here, one in items(context, "sysctls", path):
        name = one.get("name") or ""
        if not name:
            yield required(f"{here}.name")
        elif len(name.encode()) > _SYSCTL_BYTES_MAX or not _is_sysctl(name):
            yield invalid_value(
                f"{here}.name",
                name,
                f"must have at most {_SYSCTL_BYTES_MAX} characters and match regex ^{_SYSCTL}$",
            )
        elif name in seen:
            yield duplicate(f"{here}.name", name)
        dotted = _dotted(name)
        if spec.get("hostNetwork") and dotted.startswith("net."):
            yield invalid_value(f"{here}.name", name, "may not be specified when 'hostNetwork' is true")
        elif spec.get("hostIPC") and (dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue.")):
            yield invalid_value(f"{here}.name", name, "may not be specified when 'hostIPC' is true")
        seen.add(name)


def _dotted(name: str) -> str:
    """A sysctl's name with dots between its parts; where slashes come first, dots were part of a name."""
    first = next((char for char in name if char in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def _windows_problems(options: Object | None, path: str) -> Problems:
    options = options or {}
    name = options.get("gmsaCredentialSpecName")
    if name is not None:
        yield from named(name, f"{path}.gmsaCredentialSpecName", is_dns1123_subdomain)
    spec, here = options.get("gmsaCredentialSpec"), f"{path}.gmsaCredentialSpec"
    if spec == "":
        yield invalid_value(here, spec, "gmsaCredentialSpec cannot be an empty string")
    elif spec is not None and len(spec.encode()) > _GMSA_BYTES_MAX:
        yield invalid_value(here, spec, "gmsaCredentialSpec size must be under 64 KiB")
    if options.get("runAsUserName") is not None:
        for problem in _user_name_problems(options["runAsUserName"]):
            yield invalid_value(f"{path}.runAsUserName", options["runAsUserName"], f"runAsUserName{problem}")


def _user_name_problems(name: str) -> list[str]:
    domain, backslash, user = name.rpartition("\\")
    if not name:
        return [" cannot be an empty string"]
    if _has_controls(name):
        return [" cannot contain control characters"]
    if "\\" in domain:
        return [" cannot contain more than one backslash"]
    found = []
    if len(domain.encode()) >= _DOMAIN_BYTES_MAX:
        found.append(f"'s Domain length must be under {_DOMAIN_BYTES_MAX} characters")
    if backslash and not (_is_netbios(domain) or _is_dns_domain(domain)):
        found.append("'s Domain doesn't match the NetBios nor the DNS format")
    if not user:
        found.append("'s User cannot be empty")
    elif len(user.encode()) > _USER_BYTES_MAX:
        found.append(f"'s User length must not be longer than {_USER_BYTES_MAX} characters")
    if _is_dots(user):
        found.append("'s User cannot contain only periods or spaces")
    if _has_forbidden(user):
        found.append("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return found


# What a pod for Windows may not set, in the order upstream looks: of its security context, then of a container's.
_NOT_ON_WINDOWS: Final = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
)  # fmt: skip
_NOT_IN_WINDOWS_CONTAINERS: Final = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip


def os_problems(spec: Object, path: str, containers: list[tuple[str, Object]]) -> Problems:
    """What does not go with `spec.os`; `containers` are all of the pod with their paths."""
    system = spec.get("os")
    if system is None:
        return
    name = system.get("name")
    if not name:
        yield required(f"{path}.os.name")
    elif name == "linux":
        yield from _linux_problems(spec, path, containers)
    elif name == "windows":
        yield from _windows_pod_problems(spec, path, containers)
    else:
        yield not_supported(f"{path}.os", name, ("linux", "windows"))


def _linux_problems(spec: Object, path: str, containers: list[tuple[str, Object]]) -> Problems:
    for here, owner in [(path, spec), *containers]:
        if (owner.get("securityContext") or {}).get("windowsOptions") is not None:
            yield forbidden_field(
                f"{here}.securityContext.windowsOptions", "windows options cannot be set for a linux pod"
            )


def _windows_pod_problems(spec: Object, path: str, containers: list[tuple[str, Object]]) -> Problems:
    def refused(owner: Object, here: str, fields: tuple[str, ...]) -> Problems:
        for field in fields:
            if owner.get(field) is not None:
                yield forbidden_field(f"{here}.{field}", "cannot be set for a windows pod")

    yield from refused(spec.get("securityContext") or {}, f"{path}.securityContext", _NOT_ON_WINDOWS)
    host = {field: spec.get(field) or None for field in ("hostPID", "hostIPC")}
    yield from refused(spec, path, ("hostUsers",))
    yield from refused(host, path, ("hostPID", "hostIPC"))
    yield from refused(spec, path, ("shareProcessNamespace",))
    for here, container in containers:
        context = container.get("securityContext") or {}
        yield from refused(context, f"{here}.securityContext", _NOT_IN_WINDOWS_CONTAINERS)


def host_process_problems(spec: Object, path: str, containers: list[tuple[str, Object]]) -> Problems:
    """All containers of a Windows pod are HostProcess containers, or none is."""
    of_pod = _host_process(spec)
    running = 0
    for here, container in containers:
        own = _host_process(container)
        if of_pod is not None and own is not None and of_pod != own:
            was = "true" if of_pod else "false"
            yield invalid_value(
                f"{here}.securityContext.windowsOptions.hostProcess",
                own,
                f"pod hostProcess value must be identical if both are specified, was {was}",
            )
        running += bool(of_pod if own is None else own)
    if not running:
        return
    if running != len(containers):
        why = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        yield invalid_value(path, "", why)
    if not spec.get("hostNetwork"):
        why = "hostNetwork must be true if pod contains any hostProcess containers"
        yield invalid_value(f"{path}.hostNetwork", False, why)


def _host_process(owner: Object) -> bool | None:
    found: bool | None = ((owner.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    return found
