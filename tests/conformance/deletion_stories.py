"""The stories of deletion: what is made, how it is deleted, and where one waits for the controllers (deletions.py)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.conformance.exchange import Json, Step

LABEL: Final = "story"
HOLD: Final = "example.com/hold"


@dataclass(frozen=True)
class Rest:
    """Until nothing moves. `slow`: the real server waits by itself here, as it does for namespaces.

    `differs`: paths below which what is said differs, with the reason.
    """

    slow: bool = False
    differs: Mapping[str, str] = field(default_factory=dict)


Item = Step | Rest
REST: Final = Rest()
SLOW: Final = Rest(slow=True)

# kind → (apiVersion, the collection of a story's namespace, "" for cluster-scoped)
_PLACES: Final = {
    "ConfigMap": ("v1", "/api/v1/namespaces/${ns}/configmaps"),
    "Secret": ("v1", "/api/v1/namespaces/${ns}/secrets"),
    "Pod": ("v1", "/api/v1/namespaces/${ns}/pods"),
    "Part": ("${group}/v1", "/apis/${group}/v1/namespaces/${ns}/parts"),
    "Whole": ("${group}/v1", "/apis/${group}/v1/wholes"),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    "Namespace": ("v1", "/api/v1/namespaces"),
    "Event": ("v1", "/api/v1/namespaces/${ns}/events"),
}
_CLUSTER_SCOPED: Final = frozenset({"Whole", "ClusterRole", "Namespace"})
ABSENT: Final = "11111111-2222-3333-4444-555555555555"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _definition(plural: str, kind: str, scope: str) -> Json:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.${{group}}"},
        "spec": {
            "group": "${group}",
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }


DEFINITIONS: Final = [_definition("parts", "Part", "Namespaced"), _definition("wholes", "Whole", "Cluster")]

# ---------------------------------------------------------------------- requests


def _name(name: str, kind: str) -> str:
    return f"${{ns}}-{name}" if kind in _CLUSTER_SCOPED else name


def path(name: str, kind: str = "ConfigMap", namespace: str = "${ns}") -> str:
    return f"{_PLACES[kind][1].replace('${ns}', namespace)}/{_name(name, kind)}"


def ref(
    name: str,
    kind: str = "ConfigMap",
    *,
    block: bool | None = None,
    uid: str = "",
    called: str = "",
    version: str = "",
) -> Json:
    """A reference to the owner of that name, as it was created; `called` and `uid` say something else of it."""
    found: Json = {
        "apiVersion": version or _PLACES[kind][0],
        "kind": kind,
        "name": _name(called or name, kind),
        "uid": uid or f"${{{name}.metadata.uid}}",
    }
    if block is not None:
        found["blockOwnerDeletion"] = block
    return found


def make(
    name: str,
    kind: str = "ConfigMap",
    *,
    owners: Sequence[Json] = (),
    finalizers: Sequence[str] = (),
    namespace: str = "${ns}",
    **fields: Json,
) -> Step:
    metadata: Json = {"name": _name(name, kind), "labels": {LABEL: "${ns}"}}
    if owners:
        metadata["ownerReferences"] = list(owners)
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    collection = path(name, kind, namespace).rpartition("/")[0]
    body = {"apiVersion": _PLACES[kind][0], "kind": kind, "metadata": metadata, **fields}
    return Step("POST", collection, body, save=name)


def delete(
    name: str, policy: str = "", kind: str = "ConfigMap", namespace: str = "${ns}", **options: Json
) -> Step:
    body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
    if policy:
        body["propagationPolicy"] = policy
    return Step("DELETE", path(name, kind, namespace), body)


def delete_all(policy: str, kind: str = "ConfigMap") -> Step:
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    return Step("DELETE", f"{path('', kind)[:-1]}?labelSelector={LABEL}", body)


def patch(name: str, kind: str = "ConfigMap", namespace: str = "${ns}", **metadata: Json) -> Step:
    return Step(
        "PATCH",
        path(name, kind, namespace),
        {"metadata": metadata},
        {"Content-Type": "application/merge-patch+json"},
    )


def get(name: str, kind: str = "ConfigMap") -> Step:
    return Step("GET", path(name, kind), save=name)


def release(name: str, kind: str = "ConfigMap", namespace: str = "${ns}") -> Step:
    return patch(name, kind, namespace, finalizers=None)


# ---------------------------------------------------------------------- owners and dependents


def _chain(policy: str) -> list[Item]:
    return [
        make("a"),
        make("b", "Secret", owners=[ref("a", block=True)]),
        make("c", owners=[ref("b", "Secret")]),
        make("d", "Part", owners=[ref("c", block=True)]),
        make("e", owners=[ref("d", "Part", block=True)]),
        make("f"),
        REST,
        delete("a", policy),
        REST,
    ]


def _diamond(policy: str) -> list[Item]:
    return [
        make("top"),
        make("left", owners=[ref("top", block=True)]),
        make("right", "Part", owners=[ref("top", block=True)]),
        make("bottom", owners=[ref("left", block=True), ref("right", "Part", block=True)]),
        REST,
        delete("top", policy),
        REST,
    ]


def _circle(policy: str, kind: str, *, block: bool) -> list[Item]:
    names = ("a", "b", "c")
    made: list[Item] = [make(name, kind) for name in names]
    owned = [
        patch(one, kind, ownerReferences=[ref(by, kind, block=block)])
        for one, by in zip(names, "cab", strict=True)
    ]
    return [*made, *owned, REST, delete("a", policy, kind), REST]


def _two_owners(policy: str, *, finalizers: Sequence[str] = ()) -> list[Item]:
    return [
        make("one", finalizers=finalizers),
        make("other"),
        make("child", owners=[ref("one", block=True), ref("other", block=True)]),
        make("custom", "Part", owners=[ref("one"), ref("other")]),
        REST,
        delete("one", policy),
        REST,
        delete("other", policy),
        REST,
    ]


def _held(block: bool | None) -> list[Item]:
    """A dependent that somebody else's finalizer holds."""
    return [
        make("owner"),
        make("child", owners=[ref("owner", block=block)], finalizers=[HOLD]),
        make("grandchild", owners=[ref("child", block=True)]),
        REST,
        delete("owner", "Foreground"),
        REST,
        release("child"),
        REST,
    ]


def _collection(policy: str) -> list[Item]:
    return [
        make("a"),
        make("b"),
        make("held", finalizers=[HOLD]),
        make("child", "Secret", owners=[ref("a", block=True), ref("b", block=True)]),
        make("part", "Part", owners=[ref("held", block=True)]),
        REST,
        delete_all(policy),
        REST,
        release("held"),
        REST,
    ]


OWNERS: Final[dict[str, list[Item]]] = {
    **{f"chain {policy}": _chain(policy) for policy in ("Background", "Foreground", "Orphan", "")},
    **{f"diamond {policy}": _diamond(policy) for policy in ("Background", "Foreground", "Orphan")},
    **{
        f"circle {policy} {kind}{' blocking' if block else ''}": _circle(policy, kind, block=block)
        for policy in ("Background", "Foreground")
        for kind in ("ConfigMap", "Part")
        for block in (True, False)
    },
    "circle Orphan": _circle("Orphan", "ConfigMap", block=True),
    "itself": [
        make("a"),
        patch("a", ownerReferences=[ref("a", block=True)]),
        REST,
        delete("a", "Foreground"),
        REST,
    ],
    **{f"two owners {policy}": _two_owners(policy) for policy in ("Background", "Foreground", "Orphan")},
    "two owners, one waits": [
        make("one"),
        make("other"),
        make("brake", owners=[ref("one", block=True)], finalizers=[HOLD]),
        make("child", owners=[ref("one", block=True), ref("other", block=True)]),
        make("custom", "Part", owners=[ref("one", block=True), ref("other")]),
        REST,
        delete("one", "Foreground"),
        REST,
        release("brake"),
        REST,
    ],
    "two owners, both wait": [
        make("one"),
        make("other"),
        make("brake", owners=[ref("one", block=True), ref("other", block=True)], finalizers=[HOLD]),
        REST,
        delete("one", "Foreground"),
        REST,
        delete("other", "Foreground"),
        REST,
        release("brake"),
        REST,
    ],
    **{f"held, blocking {block}": _held(block) for block in (True, False, None)},
    "the owner is held by another finalizer": [
        make("owner", finalizers=[HOLD]),
        make("child", owners=[ref("owner", block=True)]),
        make("custom", "Part", owners=[ref("owner")]),
        REST,
        delete("owner", "Background"),
        REST,
        release("owner"),
        REST,
    ],
    "the owner is held by another finalizer, foreground": [
        make("owner", finalizers=[HOLD]),
        make("child", owners=[ref("owner", block=True)]),
        REST,
        delete("owner", "Foreground"),
        REST,
        release("owner"),
        REST,
    ],
    "the owner is held by another finalizer, orphan": [
        make("owner", finalizers=[HOLD]),
        make("child", owners=[ref("owner", block=True)]),
        REST,
        delete("owner", "Orphan"),
        REST,
        release("owner"),
        REST,
    ],
    "another policy, later": [
        make("owner", finalizers=[HOLD]),
        make("child", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Background"),
        REST,
        delete("owner", "Foreground"),
        REST,
        delete("owner", "Orphan"),
        REST,
        delete("owner"),
        REST,
        release("owner"),
        release("child"),
        REST,
    ],
    "from foreground to orphan": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Foreground"),
        REST,
        delete("owner", "Orphan"),
        REST,
        release("child"),
        REST,
    ],
    "from foreground to background": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Foreground"),
        REST,
        delete("owner", "Background"),
        REST,
        release("child"),
        REST,
    ],
    "finalizers written before": [
        make("orphans", finalizers=["orphan"]),
        make("waits", finalizers=["foregroundDeletion"]),
        make("both", finalizers=["orphan", "foregroundDeletion"]),
        make("a", owners=[ref("orphans", block=True)]),
        make("b", owners=[ref("waits", block=True)]),
        REST,
        delete("orphans"),
        delete("waits"),
        REST,
    ],
    "finalizers written before, and another policy": [
        make("orphans", finalizers=["orphan"]),
        make("waits", finalizers=["foregroundDeletion"]),
        make("a", owners=[ref("orphans", block=True)]),
        make("b", owners=[ref("waits", block=True)]),
        REST,
        delete("orphans", "Background"),
        delete("waits", "Orphan"),
        REST,
    ],
    "a dependent that orphans its own": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=["orphan"]),
        make("grandchild", owners=[ref("child", block=True)]),
        REST,
        delete("owner", "Background"),
        REST,
    ],
    "a dependent that waits for its own": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=["foregroundDeletion"]),
        make("grandchild", owners=[ref("child", block=True)]),
        REST,
        delete("owner", "Background"),
        REST,
    ],
    "orphan finalizer below a foreground deletion": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=["orphan"]),
        make("grandchild", owners=[ref("child", block=True)]),
        REST,
        delete("owner", "Foreground"),
        REST,
    ],
    "made while the owner waits": [
        make("owner"),
        make("brake", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Foreground"),
        REST,
        make("late", owners=[ref("owner", block=True)]),
        make("later", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        release("brake"),
        REST,
        release("later"),
        REST,
    ],
    "a reference that is taken back": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Foreground"),
        REST,
        patch("child", ownerReferences=None),
        REST,
    ],
    "a reference that blocks no more": [
        make("owner"),
        make("child", owners=[ref("owner", block=True)], finalizers=[HOLD]),
        REST,
        delete("owner", "Foreground"),
        REST,
        patch("child", ownerReferences=[ref("owner", block=False)]),
        REST,
        release("child"),
        REST,
    ],
    "the legacy field": [
        make("a"),
        make("b"),
        make("x", owners=[ref("a")]),
        make("y", owners=[ref("b")]),
        REST,
        delete("a", orphanDependents=True),
        delete("b", orphanDependents=False),
        REST,
        delete("x", "Foreground", orphanDependents=True),
        delete("x", "Sideways"),
        delete("x", gracePeriodSeconds=-1),
        delete("x", gracePeriodSeconds=30),
    ],
    "preconditions": [
        make("a", finalizers=[HOLD]),
        delete("a", preconditions={"uid": ABSENT}),
        delete("a", preconditions={"resourceVersion": "1"}),
        delete("a", preconditions={"uid": ABSENT, "resourceVersion": "1"}),
        delete(
            "a",
            "Foreground",
            preconditions={"uid": "${a.metadata.uid}", "resourceVersion": "${a.metadata.resourceVersion}"},
        ),
        delete("a", preconditions={"uid": ABSENT}),
        make("p", "Part"),
        delete("p", "", "Part", preconditions={"uid": ABSENT}),
        delete("p", "", "Part", preconditions={"resourceVersion": "1"}),
        delete("p", "", "Part", preconditions={"uid": "${p.metadata.uid}"}),
        delete("p", "", "Part"),
        REST,
        release("a"),
        REST,
    ],
    **{f"collection {policy}": _collection(policy) for policy in ("Background", "Foreground", "Orphan")},
    "a dry run": [
        make("a"),
        make("b", owners=[ref("a")]),
        delete("a", "Foreground", dryRun=["All"]),
        delete("a", "Orphan", dryRun=["All"]),
        delete("a", dryRun=["All"]),
        REST,
    ],
    "added while it is being deleted": [
        make("a", finalizers=[HOLD]),
        delete("a"),
        patch("a", finalizers=[HOLD, "example.com/more"]),
        patch("a", finalizers=["example.com/more"]),
        patch("a", finalizers=["orphan"]),
        patch("a", labels={"x": "y"}),
        release("a"),
        REST,
        make("p", "Part", finalizers=[HOLD]),
        delete("p", "", "Part"),
        patch("p", "Part", finalizers=[HOLD, "example.com/more"]),
        patch("p", "Part", finalizers=["foregroundDeletion", HOLD]),
        release("p", "Part"),
        REST,
    ],
    # ---------------------------------------------------------------- owners that are not there
    "an owner that never was": [
        make("a", owners=[ref("x", uid=ABSENT)]),
        make("b", "Part", owners=[ref("x", uid=ABSENT, block=True)]),
        make("c", owners=[ref("x", "Part", uid=ABSENT)], finalizers=[HOLD]),
        REST,
        release("c"),
        REST,
    ],
    "an owner with another uid": [
        make("owner"),
        make("a", owners=[ref("owner", uid=ABSENT)]),
        make("b", owners=[ref("owner", uid=ABSENT), ref("owner")]),
        REST,
    ],
    "an owner with another name": [
        make("owner"),
        make("a", owners=[ref("owner", called="other")]),
        make("b", owners=[ref("owner", "Secret")]),
        make("c", owners=[ref("owner", called="other"), ref("owner")]),
        REST,
    ],
    "an owner of another version": [
        make("owner", "ClusterRole", rules=[]),
        make("a", owners=[ref("owner", "ClusterRole", version="rbac.authorization.k8s.io/v1beta1")]),
        make("b", owners=[ref("owner", "ClusterRole", version="rbac.authorization.k8s.io/v1")]),
        REST,
        delete("owner", "", "ClusterRole"),
        REST,
    ],
    "an owner of a kind that nobody knows": [
        make("known"),
        make("a", owners=[ref("x", uid=ABSENT, version="nowhere.example.com/v1")]),
        make("b", owners=[ref("x", uid=ABSENT, version="nowhere.example.com/v1"), ref("known")]),
        make(
            "c",
            owners=[
                ref("x", "Secret", uid=ABSENT),
                ref("x", uid="99999999-2222-3333-4444-555555555555", version="nowhere.example.com/v1"),
            ],
        ),
        REST,
        delete("known"),
        REST,
    ],
    "an owner with a name that was given again": [
        make("owner"),
        make("a", owners=[ref("owner")]),
        REST,
        delete("owner", "Orphan"),
        REST,
        patch("a", ownerReferences=[ref("owner")]),
        make("owner"),
        REST,
        make("b", owners=[ref("owner")]),
        REST,
        delete("owner"),
        make("owner"),
        REST,
    ],
    "an owner in another namespace": [
        make("b", "Namespace"),
        make("owner"),
        make("custom", "Part"),
        make("a", owners=[ref("owner", block=True)], namespace="${ns}-b"),
        make("c", "Part", owners=[ref("custom", "Part")], namespace="${ns}-b"),
        make(
            "d",
            owners=[ref("owner", block=True), ref("custom", "Part")],
            namespace="${ns}-b",
            finalizers=[HOLD],
        ),
        REST,
        delete("owner", "Foreground"),
        REST,
        release("d", namespace="${ns}-b"),
        REST,
    ],
    "an owner in another namespace with a namesake": [
        make("b", "Namespace"),
        make("owner"),
        make("first", owners=[ref("owner")]),
        make("namesake", namespace="${ns}-b"),
        make("a", owners=[ref("owner", called="namesake")], namespace="${ns}-b"),
        make("c", owners=[ref("owner", called="namesake"), ref("namesake")], namespace="${ns}-b"),
        REST,
    ],
    "a namespaced owner of what is cluster-scoped": [
        make("owner"),
        make("custom", "Part"),
        make("a", "ClusterRole", owners=[ref("owner", block=True)], rules=[]),
        make("b", "Whole", owners=[ref("custom", "Part", block=True)]),
        make("c", "ClusterRole", owners=[ref("owner", uid=ABSENT)], rules=[]),
        REST,
        delete("custom", "Background", "Part"),
        REST,
        delete("owner", "Foreground"),
        REST,
        delete("a", "", "ClusterRole"),
        REST,
        delete("b", "", "Whole"),
        delete("c", "", "ClusterRole"),
        REST,
    ],
    "a cluster-scoped owner": [
        make("owner", "Whole"),
        make("role", "ClusterRole", rules=[]),
        make("b", "Namespace"),
        make("a", owners=[ref("owner", "Whole", block=True)]),
        make("c", "Part", owners=[ref("role", "ClusterRole", block=True)], namespace="${ns}-b"),
        make("d", "Whole", owners=[ref("role", "ClusterRole", block=True)]),
        make("e", owners=[ref("role", "ClusterRole", uid=ABSENT)]),
        REST,
        delete("owner", "Foreground", "Whole"),
        delete("role", "Foreground", "ClusterRole"),
        REST,
    ],
    "an event belongs to nobody": [
        make("owner"),
        make(
            "news",
            "Event",
            owners=[ref("owner")],
            involvedObject={"namespace": "${ns}", "name": "owner"},
            reason="News",
            source={"component": "us"},
            type="Normal",
        ),
        make("a", owners=[ref("news", "Event")]),
        REST,
        delete("owner"),
        REST,
        get("news", "Event"),
        delete("news", "Orphan", "Event"),
        REST,
    ],
    "a pod has time": [
        make("owner"),
        make(
            "pod",
            "Pod",
            owners=[ref("owner", block=True)],
            spec={"containers": [{"name": "c", "image": "i"}], "nodeName": "nowhere"},
        ),
        REST,
        delete("owner", "Foreground"),
        REST,
        delete("pod", "", "Pod", gracePeriodSeconds=0),
        REST,
    ],
}

# ---------------------------------------------------------------------- namespaces and definitions

_SPACE: Final = "${ns}-b"
_POD: Final = {"containers": [{"name": "c", "image": "i"}]}


def _space(*items: Item) -> list[Item]:
    return [make("b", "Namespace"), *items, REST]


def _post(name: str, namespace: str) -> Step:
    return make(name, namespace=namespace)


SPACES: Final[dict[str, list[Item]]] = {
    "an empty namespace": [*_space(), delete("b", "", "Namespace"), SLOW],
    "a namespace and what is in it": [
        *_space(make("a", namespace=_SPACE), make("p", "Part", namespace=_SPACE)),
        delete("b", "Foreground", "Namespace"),
        SLOW,
    ],
    "a namespace that is orphaned from": [
        *_space(make("a", namespace=_SPACE)),
        delete("b", "Orphan", "Namespace"),
        SLOW,
    ],
    "a namespace with a finalizer in it": [
        *_space(
            make("a", namespace=_SPACE, finalizers=[HOLD]),
            make("c", namespace=_SPACE, finalizers=[HOLD, "example.com/more"]),
            make("d", namespace=_SPACE),
            make("p", "Part", namespace=_SPACE, finalizers=["example.com/more"]),
        ),
        delete("b", "", "Namespace"),
        SLOW,
        make("late", namespace=_SPACE),
        make("late", "Part", namespace=_SPACE),
        Step("POST", f"/api/v1/namespaces/{_SPACE}/configmaps?dryRun=All", {"metadata": {"name": "late"}}),
        Step(
            "PUT",
            f"/api/v1/namespaces/{_SPACE}/configmaps/a",
            {"metadata": {"name": "a", "labels": {LABEL: "${ns}", "x": "y"}, "finalizers": [HOLD]}},
        ),
        delete("b", "", "Namespace"),
        release("a", namespace=_SPACE),
        release("p", "Part", namespace=_SPACE),
        SLOW,
        release("c", namespace=_SPACE),
        SLOW,
    ],
    "a namespace with pods": [
        *_space(
            make("c", namespace=_SPACE, finalizers=[HOLD]),
            make("d", namespace=_SPACE),
            make(
                "pod",
                "Pod",
                namespace=_SPACE,
                finalizers=[HOLD],
                spec={"containers": [{"name": "c", "image": "i"}]},
            ),
        ),
        delete("b", "", "Namespace"),
        SLOW,
        release("pod", "Pod", namespace=_SPACE),
        SLOW,
        release("c", namespace=_SPACE),
        SLOW,
    ],
    "a namespace with a finalizer of its own": [
        *_space(),
        patch("b", "Namespace", finalizers=[HOLD]),
        delete("b", "", "Namespace"),
        SLOW,
        make("late", namespace=_SPACE),
        release("b", "Namespace"),
        SLOW,
    ],
    "a namespace with a finalizer in its spec": [
        Step(
            "POST",
            "/api/v1/namespaces",
            {
                "metadata": {"name": _SPACE, "labels": {LABEL: "${ns}"}},
                "spec": {"finalizers": ["example.com/mine"]},
            },
            save="b",
        ),
        make("a", namespace=_SPACE),
        REST,
        delete("b", "", "Namespace"),
        SLOW,
        Step(
            "PUT",
            f"/api/v1/namespaces/{_SPACE}/finalize",
            {"metadata": {"name": _SPACE}, "spec": {"finalizers": ["notqualified"]}},
        ),
        Step(
            "PUT",
            f"/api/v1/namespaces/{_SPACE}/finalize",
            {"metadata": {"name": _SPACE, "labels": {LABEL: "${ns}"}}, "spec": {}},
        ),
        SLOW,
    ],
    "a namespace finalized by force": [
        *_space(make("a", namespace=_SPACE, finalizers=[HOLD])),
        Step(
            "PUT",
            f"/api/v1/namespaces/{_SPACE}/finalize",
            {"metadata": {"name": _SPACE, "labels": {LABEL: "${ns}"}}, "spec": {"finalizers": []}},
        ),
        delete("b", "", "Namespace"),
        SLOW,
        release("a", namespace=_SPACE),
        SLOW,
    ],
    "a namespace that owns": [
        *_space(make("owned", "Whole", owners=[ref("b", "Namespace", block=True)])),
        delete("b", "Foreground", "Namespace"),
        SLOW,
    ],
    "a namespace whose owner goes": [
        make("owner", "Whole"),
        make("b", "Namespace", owners=[ref("owner", "Whole", block=True)]),
        make("a", namespace=_SPACE),
        REST,
        delete("owner", "Foreground", "Whole"),
        SLOW,
    ],
}


def _crd(plural: str, kind: str) -> Step:
    body = _definition(plural, kind, "Namespaced")
    group = "x${ns}.example.com"
    body["metadata"] = {"name": f"{plural}.{group}", "labels": {LABEL: "${ns}"}}
    body["spec"]["group"] = group
    return Step("POST", CRDS, body, save=plural)


def _thing(name: str, **metadata: Json) -> Step:
    body = {
        "apiVersion": "x${ns}.example.com/v1",
        "kind": "Thing",
        "metadata": {"name": name, "labels": {LABEL: "${ns}"}, **metadata},
    }
    return Step("POST", "/apis/x${ns}.example.com/v1/namespaces/${ns}/things", body, save=name)


def _of_thing(method: str, name: str, body: Json = None) -> Step:
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    return Step(method, f"/apis/x${{ns}}.example.com/v1/namespaces/${{ns}}/things/{name}", body, headers)


_THINGS: Final = f"{CRDS}/things.x${{ns}}.example.com"

DEFINED: Final[dict[str, list[Item]]] = {
    "a definition": [_crd("things", "Thing"), SLOW, _thing("a"), Step("DELETE", _THINGS), SLOW],
    "a definition with a finalizer on an instance": [
        _crd("things", "Thing"),
        SLOW,
        _thing("a", finalizers=[HOLD]),
        _thing("b"),
        Step("DELETE", _THINGS),
        SLOW,
        _thing("late"),
        _of_thing("GET", "a"),
        _of_thing("GET", "b"),
        _of_thing("PATCH", "a", {"metadata": {"labels": {"x": "y"}}}),
        _of_thing("PATCH", "late", {"metadata": {"labels": {"x": "y"}}}),
        _of_thing("PATCH", "a", {"metadata": {"finalizers": None}}),
        SLOW,
    ],
    "a definition with a finalizer of its own": [
        _crd("things", "Thing"),
        SLOW,
        Step(
            "PATCH",
            _THINGS,
            [
                {
                    "op": "add",
                    "path": "/metadata/finalizers",
                    "value": [HOLD, "customresourcecleanup.apiextensions.k8s.io"],
                }
            ],
            {"Content-Type": "application/json-patch+json"},
        ),
        _thing("a"),
        Step("DELETE", _THINGS),
        SLOW,
        _thing("late"),
        Step(
            "PATCH",
            _THINGS,
            {"metadata": {"finalizers": None}},
            {"Content-Type": "application/merge-patch+json"},
        ),
        SLOW,
    ],
    "a definition whose instances own": [
        _crd("things", "Thing"),
        SLOW,
        _thing("a"),
        Step(
            "POST",
            "/api/v1/namespaces/${ns}/configmaps",
            {
                "metadata": {
                    "name": "child",
                    "labels": {LABEL: "${ns}"},
                    "ownerReferences": [
                        {
                            "apiVersion": "x${ns}.example.com/v1",
                            "kind": "Thing",
                            "name": "a",
                            "uid": "${a.metadata.uid}",
                        }
                    ],
                }
            },
        ),
        REST,
        Step("DELETE", _THINGS),
        SLOW,
    ],
}

STORIES: Final[Mapping[str, Sequence[Item]]] = {**OWNERS, **SPACES, **DEFINED}

# ---------------------------------------------------------------------- at random

# Not 3: of what an owner that waits does not wait for, some go before it there, and some after it.
RECORDED_AT_RANDOM: Final = (1, 2, 4, 5, 6, 7, 8)
OBJECTS: Final = 20
DELETIONS: Final = 4
_RANDOM_KINDS: Final = ("ConfigMap", "Secret", "Part", "Whole")


def at_random(number: int) -> list[Item]:
    """A graph of owners, and deletions in it, that follow from the number."""
    r = random.Random(number)
    kinds = {f"o{n}": r.choices(_RANDOM_KINDS, (5, 3, 4, 1))[0] for n in range(OBJECTS)}
    items: list[Item] = []
    made: list[str] = []
    held: set[str] = set()

    def owners(name: str, among: Sequence[str]) -> list[Json]:
        fit = [one for one in among if kinds[one] in _CLUSTER_SCOPED or kinds[name] not in _CLUSTER_SCOPED]
        picked = r.sample(fit, min(len(fit), r.choices((0, 1, 2, 3), (3, 5, 3, 1))[0]))
        return [ref(one, kinds[one], block=r.choice((True, True, False, None))) for one in picked]

    for name, kind in kinds.items():
        finalizers = r.choices(([], [HOLD], ["orphan"], ["foregroundDeletion"]), (14, 3, 1, 1))[0]
        if HOLD in finalizers:
            held.add(name)
        items.append(make(name, kind, owners=owners(name, made), finalizers=finalizers))
        made.append(name)
    for name in r.sample(made, 3):  # Circles, now and then.
        found = owners(name, [one for one in made if one != name])
        if found:
            items.append(patch(name, kinds[name], ownerReferences=found))
    items.append(REST)
    for name in r.sample(made, DELETIONS):
        policy = r.choice(("Background", "Foreground", "Foreground", "Orphan", ""))
        items += [delete(name, policy, kinds[name]), REST]
    for name in r.sample(sorted(held), len(held)):
        items += [release(name, kinds[name]), REST]
    return items
