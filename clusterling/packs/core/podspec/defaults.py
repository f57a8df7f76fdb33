"""What a pod spec gets where it says nothing, whether it is a pod's or a template's; quantities in their one form.

What upstream gives to pods alone (requests from limits, host ports, `enableServiceLinks`) is with pods: templates keep
what their authors wrote. Upstream: kubernetes pkg/apis/core/v1/{defaults,zz_generated.defaults}.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from clusterling.machinery.meta import Object
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.timestamps import normal_rfc3339
from clusterling.packs.core.podspec.images import tag_of
from clusterling.packs.core.podspec.omitting import write_as_go
from clusterling.registry.receiving import Undecodable

CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")

_POD: Final = {
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
}
_CONTAINER: Final = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE: Final = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_HTTP_GET: Final = {"path": "/", "scheme": "HTTP"}

# Fields whose Go type is no pointer get their default in place of a zero, too; pointers only where they are absent.
_VOLUME_ZERO: Final[dict[str, dict[str, object]]] = {
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}
_VOLUME_ABSENT: Final[dict[str, dict[str, object]]] = {
    "hostPath": {"type": ""},
    "secret": {"defaultMode": 0o644},
    "configMap": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644},
    "projected": {"defaultMode": 0o644},
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
}
_TOKEN_SECONDS: Final = 3600
_GRACE_SECONDS: Final = 30
_MILLI: Final = -3


@contextmanager
def reading(obj: Object) -> Iterator[None]:
    """Inside, a ValueError is something in `obj` that Go could not decode: it becomes an ApiError 400."""
    try:
        yield
    except ValueError as error:
        raise Undecodable(obj["kind"], obj["apiVersion"], str(error)) from error


def default_pod_template(template: Object) -> None:
    """Defaults a PodTemplateSpec in place. Raises ValueError as `default_pod_spec` does."""
    read_metadata(template.setdefault("metadata", {}))
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Object) -> None:
    """Defaults a PodSpec in place (the part that pods and templates share) and writes quantities as Go does.

    Raises ValueError, in Go's words, for a quantity that is none: see `reading`.
    """
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    for field in ("serviceAccountName", "serviceAccount"):
        if account:
            spec[field] = account
        else:
            spec.pop(field, None)
    _fill(spec, _POD)
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", _GRACE_SECONDS)
    for volume in entries(spec, "volumes"):
        _default_volume(volume)
    for field in CONTAINER_LISTS:
        for container in entries(spec, field):
            _default_container(container)
    read_resources(spec, "overhead")
    if "resources" in spec:
        read_requirements(spec["resources"])
    write_as_go(spec)


def read_metadata(metadata: Object) -> None:
    """Of metadata that is no object's own: writes times as Go does. Raises ValueError, in Go's words, for one that is none."""
    for field in ("creationTimestamp", "deletionTimestamp"):
        text = metadata.pop(field, None)
        # Go's zero time is left out.
        if text is not None and (normal := normal_rfc3339(text)):
            metadata[field] = normal


def entries(part: Object, field: str) -> list[Object]:
    """The list of objects in a field, empty where there is none; a null among them becomes the empty object it is in Go."""
    found: list[Any] = part.get(field) or []
    if None in found:
        found[:] = [{} if one is None else one for one in found]
    return found


def read_quantity(part: Object, field: str) -> None:
    """Rewrites `part[field]` in its canonical form, if it is there. Raises ValueError where it is no quantity."""
    if field in part:
        part[field] = Quantity.parse(part[field]).canonical


def read_resources(part: Object, field: str) -> None:
    """A map of quantities, rounded up to thousandths (upstream: SetDefaults_ResourceList). Raises ValueError."""
    for name, value in (part.get(field) or {}).items():
        part[field][name] = _in_thousandths(Quantity.parse(value)).canonical


def read_requirements(requirements: Object) -> None:
    """The quantities of a ResourceRequirements (or a claim's). Raises ValueError."""
    read_resources(requirements, "limits")
    read_resources(requirements, "requests")


def _in_thousandths(quantity: Quantity) -> Quantity:
    if quantity.exponent >= _MILLI:
        return quantity
    power = int(10 ** (_MILLI - quantity.exponent))
    size = -(-abs(quantity.unscaled) // power)
    if size * power == abs(quantity.unscaled):
        return quantity
    return Quantity(size if quantity.unscaled >= 0 else -size, _MILLI, quantity.format)


def _fill(part: Object, defaults: dict[str, Any]) -> None:
    for field, value in defaults.items():
        if not part.get(field):
            part[field] = value


def _fill_absent(part: Object, defaults: dict[str, Any]) -> None:
    for field, value in defaults.items():
        part.setdefault(field, value)


def _default_container(container: Object) -> None:
    container.setdefault("resources", {})
    read_requirements(container["resources"])
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(container.get("image", ""))
    _fill(container, _CONTAINER)
    for port in entries(container, "ports"):
        _fill(port, {"protocol": "TCP"})
    for variable in entries(container, "env"):
        source = variable.get("valueFrom") or {}
        _default_references(source)
        if "fileKeyRef" in source:
            source["fileKeyRef"].setdefault("optional", False)
    for field in PROBES:
        if field in container:
            _default_probe(container[field])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _fill(hook["httpGet"], _HTTP_GET)


def _pull_policy(image: str) -> str:
    return "Always" if tag_of(image) == "latest" else "IfNotPresent"


def _default_probe(probe: Object) -> None:
    _fill(probe, _PROBE)
    if "httpGet" in probe:
        _fill(probe["httpGet"], _HTTP_GET)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_references(source: Object) -> None:
    """The two selectors that an environment variable and a downward API file share."""
    if "fieldRef" in source:
        _fill(source["fieldRef"], {"apiVersion": "v1"})
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")
        read_quantity(source["resourceFieldRef"], "divisor")


def _default_volume(volume: Object) -> None:
    if not volume.keys() - {"name"}:
        volume["emptyDir"] = {}
    for source, defaults in _VOLUME_ZERO.items():
        if source in volume:
            _fill(volume[source], defaults)
    for source, defaults in _VOLUME_ABSENT.items():
        if source in volume:
            _fill_absent(volume[source], defaults)
    if "emptyDir" in volume:
        read_quantity(volume["emptyDir"], "sizeLimit")
    if "image" in volume and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = _pull_policy(volume["image"].get("reference", ""))
    for item in entries(volume.get("downwardAPI") or {}, "items"):
        _default_references(item)
    for projection in entries(volume.get("projected") or {}, "sources"):
        for item in entries(projection.get("downwardAPI") or {}, "items"):
            _default_references(item)
        if "serviceAccountToken" in projection:
            projection["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        read_metadata(claim.setdefault("metadata", {}))
        default_claim_spec(claim.setdefault("spec", {}))


def default_claim_spec(spec: Object) -> None:
    """Defaults a PersistentVolumeClaimSpec in place. Raises ValueError for a quantity that is none."""
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})
    read_requirements(spec["resources"])
