"""Fields that Go does not write where they are empty (`omitempty`): whoever sends them so reads them back nowhere.

Only fields whose Go type is no pointer: `privileged: false` stays, `stdin: false` goes. Upstream: k8s.io/api/core/v1/types.go.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.meta import Object

_POD: Final = (
    "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostname",
    "imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "overhead", "priorityClassName",
    "readinessGates", "resourceClaims", "schedulingGates", "subdomain", "tolerations", "topologySpreadConstraints",
    "volumes",
)  # fmt: skip
_CONTAINER: Final = (
    "args", "command", "env", "envFrom", "image", "ports", "resizePolicy", "restartPolicyRules", "stdin", "stdinOnce",
    "targetContainerName", "tty", "volumeDevices", "volumeMounts", "workingDir",
)  # fmt: skip
_RESOURCES: Final = ("claims", "limits", "requests")
# List of a container or a pod → what its entries leave out.
_ENTRIES: Final = {
    "env": ("value",),
    "envFrom": ("prefix",),
    "ports": ("hostIP", "hostPort", "name"),
    "volumeMounts": ("readOnly", "subPath", "subPathExpr"),
    "tolerations": ("effect", "key", "operator", "value"),
    "imagePullSecrets": ("name",),
    "hostAliases": ("hostnames",),
}
_PROBE: Final = ("initialDelaySeconds",)
_HTTP_GET: Final = ("host", "httpHeaders")
_POD_SECURITY: Final = ("supplementalGroups", "sysctls")
# Source of a volume → what it leaves out.
_VOLUMES: Final = {
    "emptyDir": ("medium",),
    "persistentVolumeClaim": ("readOnly",),
    "nfs": ("readOnly",),
    "secret": ("items", "secretName"),
    "configMap": ("items", "name"),
    "downwardAPI": ("items",),
    "iscsi": ("chapAuthDiscovery", "chapAuthSession", "fsType", "portals", "readOnly"),
    "image": ("reference",),
}


def omit_empty(part: Object | None, fields: tuple[str, ...]) -> None:
    """Drops those of the fields that hold nothing."""
    if part:
        for field in fields:
            if field in part and not part[field]:
                del part[field]


def omit_of_pod(spec: Object) -> None:
    """Of a PodSpec, what no theme below it does."""
    _omit_of_entries(spec)
    omit_empty(spec, _POD)
    omit_empty(spec.get("securityContext"), _POD_SECURITY)
    omit_empty(spec.get("resources"), _RESOURCES)


def omit_of_container(container: Object, probes: tuple[str, ...]) -> None:
    _omit_of_entries(container)
    omit_empty(container, _CONTAINER)
    omit_empty(container.get("resources"), _RESOURCES)
    hooks = container.get("lifecycle") or {}
    for field in probes:
        omit_empty(container.get(field), _PROBE)
    for action in (container.get(field) or {} for field in probes):
        omit_empty(action.get("httpGet"), _HTTP_GET)
    for action in (hooks.get(field) or {} for field in ("postStart", "preStop")):
        omit_empty(action.get("httpGet"), _HTTP_GET)


def omit_of_volume(volume: Object) -> None:
    for source, fields in _VOLUMES.items():
        omit_empty(volume.get(source), fields)


def _omit_of_entries(part: Object) -> None:
    for field, fields in _ENTRIES.items():
        for one in part.get(field) or ():
            omit_empty(one, fields)
