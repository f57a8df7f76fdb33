"""Fields whose feature gate is off in the version of Kubernetes that is served: dropped, as upstream drops them.

Nothing stored can have them, so what upstream lets an old object keep need not be told apart. Upstream:
kubernetes pkg/api/pod/util.go (dropDisabledFields), pkg/features/kube_features.go.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.meta import Object
from clusterling.packs.core.podspec.defaults import CONTAINER_LISTS, PROBES, entries

# Gates GenericWorkload and EvictionRequestAPI.
_OF_POD: Final = ("schedulingGroup", "evictionResponders")
_INIT_ANNOTATIONS: Final = (
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
)
_FILE_SOURCES: Final = ("secret", "configMap", "downwardAPI", "projected")


def drop_disabled_fields(owner: Object) -> None:
    """Of a pod or a pod template that has been defaulted, in place."""
    annotations = (owner.get("metadata") or {}).get("annotations") or {}
    for key in _INIT_ANNOTATIONS:
        annotations.pop(key, None)
    spec = owner.get("spec") or {}
    for field in _OF_POD:
        spec.pop(field, None)
    for field in CONTAINER_LISTS:
        for container in entries(spec, field):
            _of_container(container)
    for volume in entries(spec, "volumes"):
        _of_volume(volume)


def _of_container(container: Object) -> None:
    for mount in entries(container, "volumeMounts"):
        mount.pop("bindMountOptions", None)  # VolumeBindMountOptions
    lifecycle = container.get("lifecycle") or {}
    if lifecycle.pop("stopSignal", None) is not None and not lifecycle:  # ContainerStopSignals
        del container["lifecycle"]
    hooks = [lifecycle.get(field) or {} for field in ("postStart", "preStop")]
    probes = [container.get(field) or {} for field in PROBES]
    for action in (*hooks, *probes):
        (action.get("httpGet") or {}).pop("protocol", None)  # H2CContainerProbe
        (action.get("grpc") or {}).pop("mode", None)  # GRPCContainerProbeTLS


def _of_volume(volume: Object) -> None:
    (volume.get("emptyDir") or {}).pop("mode", None)  # EmptyDirVolumeMode
    # AtomicWriteVolumeUserFields
    for kind in _FILE_SOURCES:
        source = volume.get(kind) or {}
        source.pop("defaultUser", None)
        for item in entries(source, "items"):
            item.pop("user", None)
        for projection in entries(source, "sources"):
            for one in projection.values():
                if isinstance(one, dict):
                    one.pop("user", None)
                    for item in entries(one, "items"):
                        item.pop("user", None)
