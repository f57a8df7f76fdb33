"""Volumes of a pod: each has one source, and each kind of source its rules, in one table.

Upstream: ValidateVolumes, validateVolumeSource and what they call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from clusterling.machinery.errors import (
    duplicate,
    forbidden_field,
    go_quote,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.claims import claim_template_problems
from clusterling.packs.core.podspec.projections import (
    downward_file_problems,
    key_problems,
    projected_problems,
)
from clusterling.packs.core.podspec.rules import (
    Problems,
    descending_path,
    file_mode,
    items,
    label,
    named,
    needs,
    no_backsteps,
    one_of,
    one_of_needed,
)

_PARTITION: Final = "must be between 1 and 255, inclusive"
_LUN: Final = "must be between 0 and 255, inclusive"
_EMPTY_DIR_MODE: Final = "must be a number between 0 and 01777 (octal), both inclusive"
_HOST_PATH_TYPES: Final = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_PORTAL_BYTES_MAX: Final = 64
_DRIVER_BYTES_MAX: Final = 63
_TENANT_BYTES_MAX: Final = 64
_is_iscsi_name: Final = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.[A-Za-z\d.-]+:[^,;*&$|\s]+").fullmatch,
    "eui": re.compile(r"eui.[a-zA-Z\d]{16}").fullmatch,
    "naa": re.compile(r"naa.[a-zA-Z\d]{32}").fullmatch,
}


def volume_problems(spec: Object, path: str, pod: str) -> tuple[dict[str, Object], Problems]:
    """(the volumes that are right, by name; what is wrong with the others). `pod`: its name, where it has one."""
    made = {
        f"{pod}-{one.get('name', '')}"
        for _, one in items(spec, "volumes", path)
        if pod and one.get("ephemeral") is not None
    }
    right: dict[str, Object] = {}
    found = []
    for here, volume in items(spec, "volumes", path):
        name = volume.get("name") or ""
        wrong = list(_source_problems(volume, name, here))
        if name and f"{pod}-{name}" in made and not volume.keys() & _BEFORE_EPHEMERAL:
            wrong += _claim_name_problems(name, f"{pod}-{name}", f"{here}.name")
        wrong += label(name, f"{here}.name") if name else [required(f"{here}.name")]
        if name in right:
            wrong.append(duplicate(f"{here}.name", name))
        if wrong:
            found += wrong
        else:
            right[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
        if claim in made:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            found.append(invalid_value(f"{here}.persistentVolumeClaim.claimName", claim, why))
    return right, iter(found)


def _source_problems(volume: Object, name: str, path: str) -> Problems:
    given = [source for source in _SOURCES if volume.get(source) is not None]
    if not given:
        yield required(path, "must specify a volume type")
        return
    first, *others = given
    place = _SAID_OTHERWISE.get(first, first)
    yield from _SOURCES[first](volume[first], f"{path}.{place}")
    for source in others:
        place = _SAID_OTHERWISE_AGAIN.get(source, source)
        yield forbidden_field(f"{path}.{place}", "may not specify more than 1 volume type")
    iscsi = volume.get("iscsi") or {}
    portal = f"{name}:{iscsi.get('targetPortal') or ''}"
    if iscsi.get("initiatorName") is not None and len(portal.encode()) > _PORTAL_BYTES_MAX:
        why = (
            "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters "
            "if iscsi.initiatorName is specified."
        )
        yield invalid_value(f"{path}.name", name, why)


def _claim_name_problems(volume: str, claim: str, path: str) -> Problems:
    for problem in is_dns1123_subdomain(claim):
        yield invalid_value(path, volume, f"PVC name {go_quote(claim)}: {problem}")


def _requiring(*fields: str) -> Callable[[Object, str], Problems]:
    """The rule of a source that has to have these fields."""

    def rule(source: Object, path: str) -> Problems:
        yield from needs(source, path, *fields)

    return rule


def _empty_dir(source: Object, path: str) -> Problems:
    if "sizeLimit" in source and Quantity.parse(source["sizeLimit"]) < Quantity(0):
        yield forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")
    mode = source.get("mode")
    if mode is not None and not 0 <= mode <= 0o1777:
        yield invalid_value(f"{path}.mode", mode, _EMPTY_DIR_MODE)


def _host_path(source: Object, path: str) -> Problems:
    if not source.get("path"):
        yield required(f"{path}.path")
        return
    yield from no_backsteps(source["path"], f"{path}.path")
    yield from one_of(source.get("type", ""), f"{path}.type", _HOST_PATH_TYPES)


def _git_repo(source: Object, path: str) -> Problems:
    yield from needs(source, path, "repository")
    yield from descending_path(source.get("directory") or "", f"{path}.directory")


def _disk(field: str) -> Callable[[Object, str], Problems]:
    def rule(source: Object, path: str) -> Problems:
        yield from needs(source, path, field)
        partition = source.get("partition") or 0
        if not 0 <= partition <= 255:
            yield invalid_value(f"{path}.partition", partition, _PARTITION)

    return rule


def _files(field: str) -> Callable[[Object, str], Problems]:
    """A Secret or a ConfigMap as files."""

    def rule(source: Object, path: str) -> Problems:
        yield from needs(source, path, field)
        yield from file_mode(source, path, "defaultMode")
        for here, item in items(source, "items", path):
            yield from key_problems(item, here)

    return rule


def _downward(source: Object, path: str) -> Problems:
    yield from file_mode(source, path, "defaultMode")
    for item in source.get("items") or ():
        yield from downward_file_problems(item or {}, path)


def _nfs(source: Object, path: str) -> Problems:
    yield from needs(source, path, "server", "path")
    where = source.get("path") or ""
    if not where.startswith("/"):
        yield invalid_value(f"{path}.path", where, "must be an absolute path")


def iscsi_problems(
    source: Object, path: str, odd: str = "must be valid format starting with iqn, eui, or naa"
) -> Problems:
    """`odd`: what is said of a name that is of no form."""
    yield from needs(source, path, "targetPortal", "iqn")
    if source.get("iqn"):
        yield from _iscsi_name(source["iqn"], f"{path}.iqn", odd)
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        yield invalid_value(f"{path}.lun", lun, _LUN)
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        yield required(f"{path}.secretRef")
    if source.get("initiatorName") is not None:
        yield from _iscsi_name(source["initiatorName"], f"{path}.initiatorname", odd)


def _iscsi_name(name: str, path: str, odd: str) -> Problems:
    form = _is_iscsi_name.get(name[:3])
    if form is None:
        yield invalid_value(path, name, odd)
    elif not form(name):
        yield invalid_value(path, name, "must be valid format")


def fibre_channel_problems(source: Object, path: str) -> Problems:
    targets, ids, lun = source.get("targetWWNs"), source.get("wwids"), source.get("lun")
    here = f"{path}.targetWWNs"
    if not targets and not ids:
        yield required(here, "must specify either targetWWNs or wwids, but not both")
    if targets and ids:
        yield invalid_value(here, targets, "targetWWNs and wwids can not be specified simultaneously")
    if targets and lun is None:
        yield required(f"{path}.lun", "lun is required if targetWWNs is specified")
    elif targets and lun is not None and not 0 <= lun <= 255:
        yield invalid_value(f"{path}.lun", lun, _LUN)


def _flocker(source: Object, path: str) -> Problems:
    name, uuid = source.get("datasetName") or "", source.get("datasetUUID") or ""
    if not name and not uuid:
        yield required(path, "one of datasetName and datasetUUID is required")
    if name and uuid:
        why = "datasetName and datasetUUID can not be specified simultaneously"
        yield invalid_value(path, "resource", why)
    if "/" in name:
        yield invalid_value(f"{path}.datasetName", name, "must not contain '/'")


def _with_secret(*fields: str) -> Callable[[Object, str], Problems]:
    """Required fields, and a name in `secretRef` where there is one."""

    def rule(source: Object, path: str) -> Problems:
        yield from needs(source, path, *fields)
        if source.get("secretRef") is not None:
            yield from needs(source["secretRef"], f"{path}.secretRef", "name")

    return rule


def _quobyte(source: Object, path: str) -> Problems:
    if not source.get("registry"):
        why = "must be a host:port pair or multiple pairs separated by commas"
        yield required(f"{path}.registry", why)
    elif len((source.get("tenant") or "").encode()) > _TENANT_BYTES_MAX:
        why = "must be a UUID and may not exceed a length of 64 characters"
        yield required(f"{path}.tenant", why)
    else:
        for pair in source["registry"].split(","):
            if ":" not in pair:
                why = "must be a host:port pair or multiple pairs separated by commas"
                yield invalid_value(f"{path}.registry", source["registry"], why)
    yield from needs(source, path, "volume")


def _flex(source: Object, path: str) -> Problems:
    yield from needs(source, path, "driver")
    for key in sorted(source.get("options") or ()):
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            why = "kubernetes.io and k8s.io namespaces are reserved"
            yield invalid_value(f"{path}.options[{key}]", key, why)


def _azure_disk(source: Object, path: str) -> Problems:
    yield from needs(source, path, "diskName", "diskURI")
    yield from one_of(source.get("cachingMode"), f"{path}.cachingMode", ("None", "ReadOnly", "ReadWrite"))
    kind, uri = source.get("kind"), source.get("diskURI") or ""
    yield from one_of(kind, f"{path}.kind", ("Dedicated", "Managed", "Shared"))
    managed = (
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
    )
    blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        yield not_supported(f"{path}.diskURI", uri, [managed])
    if kind != "Managed" and not uri.startswith("https://"):
        yield not_supported(f"{path}.diskURI", uri, [blob])


def _storage_os(source: Object, path: str) -> Problems:
    yield from needs(source, path, "volumeName")
    for field in ("volumeName", "volumeNamespace"):
        if source.get(field):
            yield from label(source[field], f"{path}.{field}")
    if source.get("secretRef") is not None:
        yield from needs(source["secretRef"], f"{path}.secretRef", "name")


def driver_name_problems(name: str, path: str) -> Problems:
    """The name of a CSI driver."""
    if not name:
        yield required(path)
        return
    if len(name.encode()) > _DRIVER_BYTES_MAX:
        yield too_long(path, _DRIVER_BYTES_MAX)
    for problem in is_dns1123_subdomain(name.lower()):
        yield invalid_value(path, name, problem)


def _csi(source: Object, path: str) -> Problems:
    yield from driver_name_problems(source.get("driver") or "", f"{path}.driver")
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        yield required(f"{path}.nodePublishSecretRef.name")
    elif secret is not None:
        yield from named(secret["name"], f"{path}.name", is_dns1123_subdomain)


def _ephemeral(source: Object, path: str) -> Problems:
    template, here = source.get("volumeClaimTemplate"), f"{path}.volumeClaimTemplate"
    if template is None:
        yield required(here)
    else:
        yield from claim_template_problems(template, here)


def _image(source: Object, path: str) -> Problems:
    yield from needs(source, path, "reference")
    yield from one_of_needed(
        source.get("pullPolicy"), f"{path}.pullPolicy", ("Always", "IfNotPresent", "Never")
    )


# In the order that upstream looks: the first is judged, the others are one too many.
_SOURCES: Final[dict[str, Callable[[Object, str], Problems]]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "gitRepo": _git_repo,
    "gcePersistentDisk": _disk("pdName"),
    "awsElasticBlockStore": _disk("volumeID"),
    "secret": _files("secretName"),
    "nfs": _nfs,
    "iscsi": iscsi_problems,
    "glusterfs": _requiring("endpoints", "path"),
    "flocker": _flocker,
    "persistentVolumeClaim": _requiring("claimName"),
    "rbd": _requiring("monitors", "image"),
    "cinder": _with_secret("volumeID"),
    "cephfs": _requiring("monitors"),
    "quobyte": _quobyte,
    "downwardAPI": _downward,
    "fc": fibre_channel_problems,
    "flexVolume": _flex,
    "configMap": _files("name"),
    "azureFile": _requiring("secretName", "shareName"),
    "vsphereVolume": _requiring("volumePath"),
    "photonPersistentDisk": _requiring("pdID"),
    "portworxVolume": _requiring("volumeID"),
    "azureDisk": _azure_disk,
    "storageos": _storage_os,
    "projected": projected_problems,
    "scaleIO": _requiring("gateway", "system", "volumeName"),
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
_BEFORE_EPHEMERAL: Final = _SOURCES.keys() - {"ephemeral", "image"}
# Paths that upstream spells otherwise than the field.
_SAID_OTHERWISE: Final = {"gcePersistentDisk": "persistentDisk"}
_SAID_OTHERWISE_AGAIN: Final = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}
