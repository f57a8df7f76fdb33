"""What pods are given when they are made, and what they are refused for: account, token, priority, tolerations, runtime.

Upstream: kubernetes plugin/pkg/admission/{serviceaccount,priority,defaulttolerationseconds,runtimeclass,podtopologylabels},
which kube-apiserver has enabled by default.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import orjson

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, meta, name_of, namespace_of
from clusterling.machinery.names import generate_name, is_path_segment_name
from clusterling.packs.core.pods_defaults import containers
from clusterling.registry.options import ListOptions
from clusterling.registry.strategy import Context

MIRROR: Final = "kubernetes.io/config.mirror"
TOKEN_MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
DEFAULT_ACCOUNT: Final = "default"

OVERHEAD_OF_NO_CLASS: Final = (
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
)
_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - a name
_ENFORCED: Final = "kubernetes.io/enforce-mountable-secrets"
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_TOPOLOGY: Final = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
_TOLERATED: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOLERATION_S: Final = 300
_TOKEN_SOURCES: Final = (
    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {
        "downwardAPI": {
            "items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
            ]
        }
    },
)


async def admit_pod(ctx: Context, pod: Object) -> None:
    """All of it, for a pod being made, in upstream's order. Raises ApiError 403."""
    await _admit_account(ctx, pod)
    await _admit_priority(ctx, pod)
    tolerate_lost_nodes(pod["spec"])
    await _admit_runtime(ctx, pod)
    await copy_topology(ctx, pod, pod["spec"].get("nodeName") or "")


def refused(pod: Object, why: str) -> ApiError:
    """403. Upstream refuses before it has generated a name."""
    metadata = meta(pod)
    base, name = metadata.get("generateName") or "", name_of(pod)
    generated = base and len(name) > len(base[:58]) and name.startswith(base[:58])
    return errors.forbidden("pods", "", base if generated else name, why)


async def _named(ctx: Context, group: str, plural: str, namespace: str, name: str) -> Object | None:
    served = ctx.catalog.find(group, "v1", plural)
    if served is None or is_path_segment_name(name):
        return None
    return await ctx.objects.read(served, namespace, name)


def _unnameable(name: str) -> str:
    """What upstream's client says of a name that no object can have; empty of one that may be."""
    wrong = is_path_segment_name(name)
    return f"invalid resource name {errors.go_quote(name)}: [{' '.join(wrong)}]" if wrong else ""


# ---------------------------------------------------------------------- service accounts


async def _admit_account(ctx: Context, pod: Object) -> None:
    if MIRROR in (meta(pod).get("annotations") or {}):
        _check_mirror(pod)
        return
    # Where no accounts are served there are none to be had.
    if ctx.catalog.find("", "v1", "serviceaccounts") is None:
        return
    spec = pod["spec"]
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"] = DEFAULT_ACCOUNT
    account = await _account_of(ctx, pod)
    if _wants_token(account, spec):
        _mount_token(spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": one.get("name", "")} for one in account["imagePullSecrets"]]
    if (meta(account).get("annotations") or {}).get(_ENFORCED) in _TRUE:
        _check_secrets(account, pod)


async def check_ephemeral_secrets(ctx: Context, pod: Object) -> None:
    """What ephemeral containers may refer to. Raises ApiError 403."""
    mirror = MIRROR in (meta(pod).get("annotations") or {})
    if mirror or ctx.catalog.find("", "v1", "serviceaccounts") is None:
        return
    spec, name = pod["spec"], name_of(pod)
    if not spec.get("serviceAccountName"):
        raise refused(pod, f"no service account specified for pod {namespace_of(pod)}/{name}")
    account = await _account_of(ctx, pod)
    if (meta(account).get("annotations") or {}).get(_ENFORCED) in _TRUE:
        allowed = {one.get("name") for one in account.get("secrets") or ()}
        for container in spec.get("ephemeralContainers") or ():
            _check_container_secrets("ephemeral container", container, allowed, pod, name_of(account))


async def _account_of(ctx: Context, pod: Object) -> Object:
    name, namespace = pod["spec"]["serviceAccountName"], namespace_of(pod)
    account = await _named(ctx, "", "serviceaccounts", namespace, name)
    if account is None:
        missing = _unnameable(name) or f"serviceaccount {errors.go_quote(name)} not found"
        raise refused(pod, f"error looking up service account {namespace}/{name}: {missing}")
    return account


def _wants_token(account: Object, spec: Object) -> bool:
    for one in (spec, account):
        said = one.get("automountServiceAccountToken")
        if said is not None:
            return bool(said)
    return True


def _mount_token(spec: Object) -> None:
    volumes: list[Object] = spec.setdefault("volumes", [])
    known = [one["name"] for one in volumes if one.get("name", "").startswith(_TOKEN_VOLUME)]
    name = known[0] if known else generate_name(_TOKEN_VOLUME, secrets.randbelow)
    needed = False
    for container in containers(spec):
        mounts: list[Object] = container.get("volumeMounts") or []
        if any(one.get("mountPath") == TOKEN_MOUNT_PATH for one in mounts):
            continue
        mount = {"name": name, "readOnly": True, "mountPath": TOKEN_MOUNT_PATH}
        container["volumeMounts"] = [*mounts, mount]
        needed = True
    if needed and not known:
        sources = orjson.loads(orjson.dumps(_TOKEN_SOURCES))
        volumes.append({"name": name, "projected": {"sources": sources, "defaultMode": 0o644}})
    if not volumes:
        del spec["volumes"]


def _check_mirror(pod: Object) -> None:
    spec = pod["spec"]
    if spec.get("serviceAccountName"):
        raise refused(pod, "a mirror pod may not reference service accounts")
    volumes = spec.get("volumes") or ()
    if any("secret" in one for one in volumes) or any(_secrets_of(one) for one in containers(spec)):
        raise refused(pod, "a mirror pod may not reference secrets")
    sources = [one for volume in volumes for one in (volume.get("projected") or {}).get("sources") or ()]
    if any("secret" in one for one in sources):
        raise refused(pod, "a mirror pod may not reference secrets")
    if any("serviceAccountToken" in one for one in sources):
        raise refused(pod, "a mirror pod may not use ServiceAccountToken volume projections")


def _secrets_of(container: Object) -> list[tuple[str, str]]:
    """(where, name) of each Secret that a container refers to."""
    found = []
    for one in container.get("env") or ():
        reference = (one.get("valueFrom") or {}).get("secretKeyRef")
        if reference is not None:
            found.append((f"envVar {one.get('name', '')}", reference.get("name", "")))
    references = [
        one["secretRef"] for one in container.get("envFrom") or () if one.get("secretRef") is not None
    ]
    return found + [("envFrom", one.get("name", "")) for one in references]


def _check_secrets(account: Object, pod: Object) -> None:
    spec, name = pod["spec"], name_of(account)
    allowed = {one.get("name") for one in account.get("secrets") or ()}
    for volume in spec.get("volumes") or ():
        used = (volume.get("secret") or {}).get("secretName", "")
        if "secret" in volume and used not in allowed:
            raise refused(
                pod,
                f'volume with secret.secretName="{used}" is not allowed because service account {name} '
                "does not reference that secret",
            )
    for field, what in (("initContainers", "init container"), ("containers", "container")):
        for container in spec.get(field) or ():
            _check_container_secrets(what, container, allowed, pod, name)
    pulled = {one.get("name") for one in account.get("imagePullSecrets") or ()}
    for index, one in enumerate(spec.get("imagePullSecrets") or ()):
        if one.get("name") not in pulled:
            raise refused(
                pod,
                f'imagePullSecrets[{index}].name="{one.get("name", "")}" is not allowed because service account '
                f"{name} does not reference that imagePullSecret",
            )


def _check_container_secrets(
    what: str, container: Object, allowed: set[Any], pod: Object, account: str
) -> None:
    for where, secret in _secrets_of(container):
        if secret not in allowed:
            raise refused(
                pod,
                f'{what} {container.get("name", "")} with {where} referencing secret.secretName="{secret}" is not '
                f"allowed because service account {account} does not reference that secret",
            )


# ---------------------------------------------------------------------- priority


async def _admit_priority(ctx: Context, pod: Object) -> None:
    spec = pod["spec"]
    name, value, policy = await _priority_of(ctx, pod)
    given = spec.get("priority")
    if given is not None and given != value:
        raise refused(
            pod,
            f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller "
            f"computed {value} from the given PriorityClass name",
        )
    if name:
        spec["priorityClassName"] = name
    spec["priority"] = value
    if policy is None:
        return
    said = spec.get("preemptionPolicy")
    if said is not None and said != policy:
        raise refused(
            pod,
            f"the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission "
            f"controller computed {policy} from the given PriorityClass name",
        )
    spec["preemptionPolicy"] = policy


async def _priority_of(ctx: Context, pod: Object) -> tuple[str, int, str | None]:
    name = pod["spec"].get("priorityClassName") or ""
    if name:
        found = await _named(ctx, "scheduling.k8s.io", "priorityclasses", "", name)
        if found is None:
            raise refused(pod, f"no PriorityClass with name {name} was found")
    else:
        found = await default_priority_class(ctx)
        if found is None:
            return "", 0, "PreemptLowerPriority"
    return name_of(found), found.get("value", 0), found.get("preemptionPolicy")


async def default_priority_class(ctx: Context) -> Object | None:
    """The class of pods that name none: of several (a race of two creates) the lowest."""
    served = ctx.catalog.find("scheduling.k8s.io", "v1", "priorityclasses")
    if served is None:
        return None
    listing = await ctx.objects.list(served, "", ListOptions())
    # Most are not, and reading them all would cost each pod that is made.
    likely = (value for value in listing.values if b'"globalDefault":true' in value)
    found = [one for one in map(orjson.loads, likely) if one.get("globalDefault")]
    return min(found, key=lambda one: one.get("value", 0), default=None)


# ---------------------------------------------------------------------- nodes and runtimes


def tolerate_lost_nodes(spec: Object) -> None:
    """Five minutes on a node that is not ready or cannot be reached, unless the pod says something of that."""
    tolerations: Sequence[Object] = spec.get("tolerations") or ()
    for key in _TOLERATED:
        if not any(
            one.get("key", "") in ("", key) and one.get("effect", "") in ("", "NoExecute")
            for one in tolerations
        ):
            added = {
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": _TOLERATION_S,
            }
            tolerations = [*tolerations, added]
    if tolerations:
        spec["tolerations"] = tolerations


async def _admit_runtime(ctx: Context, pod: Object) -> None:
    spec = pod["spec"]
    name = spec.get("runtimeClassName")
    found: Object = {}
    if name is not None:
        wrong = _unnameable(name) if name else "resource name may not be empty"
        if wrong:
            raise ApiError(500, "", wrong)
        found = await _named(ctx, "node.k8s.io", "runtimeclasses", "", name) or {}
        if not found:
            raise refused(pod, f"pod rejected: RuntimeClass {errors.go_quote(name)} not found")
    overhead = (found.get("overhead") or {}).get("podFixed")
    if found.get("overhead") is None:
        # Where no class is named, what is wrong with the pod itself is told first.
        if spec.get("overhead") and name is not None:
            raise refused(pod, OVERHEAD_OF_NO_CLASS)
    elif spec.get("overhead") and spec["overhead"] != overhead:
        raise refused(pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    elif overhead:
        spec["overhead"] = overhead
    if found.get("scheduling") is not None:
        _schedule_as(pod, found["scheduling"])


def _schedule_as(pod: Object, scheduling: Object) -> None:
    spec = pod["spec"]
    selector = dict(spec.get("nodeSelector") or {})
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if selector.get(key, value) != value:
            raise refused(
                pod,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {selector[key]}",
            )
        selector[key] = value
    if selector:
        spec["nodeSelector"] = selector
    own: list[Object] = list(spec.get("tolerations") or ())
    known = {tuple(sorted(one.items())) for one in own}
    own += [one for one in scheduling.get("tolerations") or () if tuple(sorted(one.items())) not in known]
    if own:
        spec["tolerations"] = own


async def copy_topology(ctx: Context, obj: Object, node_name: str) -> None:
    """Where a node says in which zone and region it is, what runs on it is labelled so."""
    node = await _named(ctx, "", "nodes", "", node_name) if node_name else None
    labels = {} if node is None else meta(node).get("labels") or {}
    copied = {key: labels[key] for key in _TOPOLOGY if key in labels}
    if copied:
        meta(obj)["labels"] = {**(meta(obj).get("labels") or {}), **copied}
