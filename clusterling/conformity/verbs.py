"""Section D, its second half: verbs, and what tools need of several at once."""

from __future__ import annotations

import re
from typing import Final

from clusterling.conformity.objects import D, applied
from clusterling.conformity.row import Failed, need, need_ok
from clusterling.conformity.scene import Scene
from clusterling.machinery.meta import Object

__all__ = ["D"]  # Whole with the rows of this half.

_REVIEWS: Final = "/apis/authorization.k8s.io/v1"
_BODY_BYTES: Final = 3 * 1024 * 1024
_COLLECT_S: Final = 10.0
# More kinds than this are not gone through.
_KINDS_MAX: Final = 400


@D.row(
    14,
    "What is not served is a 404, not a 403, and a list of it is the sign to look at discovery again",
    "kubectl, helm, controller-runtime's mapper",
)
def what_is_not_served_is_not_found(scene: Scene) -> str:
    paths = {
        "a group": "/apis/nobody.example.com/v1/things",
        "a version": "/apis/apps/v9/deployments",
        "a resource": "/api/v1/things",
    }
    found = {what: scene.wire.get(path).code for what, path in paths.items()}
    need(set(found.values()) == {404}, ", ".join(f"{what}: {code}" for what, code in found.items()))
    return "404 for a group, a version, a resource"


@D.row(
    15,
    "`/version` has a gitVersion in the form of semantic versions, and major and minor",
    "kubectl version; helm's kubeVersion; operators that switch by it",
)
def the_version_can_be_parsed(scene: Scene) -> str:
    found = need_ok(scene.wire.get("/version"), "/version")
    text = str(found.get("gitVersion"))
    matched = re.fullmatch(r"v(\d+)\.(\d+)\.\d+([-+][0-9A-Za-z.+-]+)?", text)
    if matched is None:
        raise Failed(text)
    need(found.get("major") == matched[1], f"{text}, but major {found.get('major')!r}")
    minor = str(found.get("minor")).rstrip("+")
    need(minor == matched[2], f"{text}, but minor {found.get('minor')!r}")
    return text


@D.row(
    16,
    "Who one is, what one may do, and tokens for accounts can be asked for",
    "kubectl auth whoami, auth can-i --list, create token",
)
def reviews_are_answered(scene: Scene) -> str:
    for name in ("authentication.k8s.io/v1/selfsubjectreviews", "v1/serviceaccounts"):
        scene.requires(name)
    who: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    me = need_ok(
        scene.wire.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", who), "SelfSubjectReview"
    )
    need(me["status"]["userInfo"].get("username"), "no username")
    rules = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"},
    }
    may = need_ok(scene.wire.post(f"{_REVIEWS}/selfsubjectrulesreviews", rules), "SelfSubjectRulesReview")
    need(isinstance(may["status"].get("resourceRules"), list), "no resourceRules")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": scene.name("account")}}
    accounts = f"{scene.home}/serviceaccounts"
    scene.made(accounts, account)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = scene.wire.post(f"{accounts}/{account['metadata']['name']}/token", asked)  # type: ignore[index]
    need(need_ok(token, "TokenRequest")["status"].get("token"), "no token")
    return "SelfSubjectReview, SelfSubjectRulesReview, TokenRequest"


@D.row(
    17,
    "Secrets can be listed and watched by labels, and discovery is whole: no group of it fails",
    "helm, which keeps releases in secrets and reads all of discovery for .Capabilities",
)
def helm_finds_what_it_needs(scene: Scene) -> str:
    scene.requires("v1/secrets")
    labels = {"owner": "helm", "name": scene.run, "status": "deployed"}
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {"name": scene.name("sh.helm.release.v1.x"), "labels": labels},
    }
    path = f"{scene.home}/secrets"
    made = scene.made(path, secret)
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    items = need_ok(scene.wire.get(path, labelSelector=selector), "secrets by labels")["items"]
    need(len(items) == 1, f"{len(items)} of 1 secret selected")
    with scene.wire.watch(path, labelSelector=selector, timeoutSeconds="5") as stream:
        events = stream.until(lambda _: True, 5)
    need(
        events and events[0]["object"]["metadata"]["uid"] == made["metadata"]["uid"], "the watch sent another"
    )
    for group in need_ok(scene.wire.get("/apis"), "/apis")["groups"]:
        for version in group["versions"]:
            found = scene.wire.get(f"/apis/{version['groupVersion']}")
            need(found.ok, f"discovery of {version['groupVersion']}: {found.told}")
    return "listed, watched; every group answers"


@D.row(
    18,
    "Every resource that discovery says can be listed or watched, can be",
    "Argo CD and Velero, which go through all of them: one 403, 404 or 405 spoils the cluster's cache",
)
def what_is_advertised_is_served(scene: Scene) -> str:
    scene.__dict__.pop("served", None)
    kinds = [one for name, one in scene.served.items() if "/" not in one["name"]]
    need(kinds, "discovery lists nothing")
    need(len(kinds) <= _KINDS_MAX, f"more than {_KINDS_MAX} kinds")
    lacking = []
    for one in kinds:
        path = f"{one['root']}/{one['name']}"
        if "list" in one["verbs"]:
            answer = scene.wire.get(path, limit=1)
            if not answer.ok:
                lacking.append(f"list of {path}: {answer.told}")
        if "watch" in one["verbs"]:
            with scene.wire.watch(path, timeoutSeconds="1") as stream:
                if stream.code != 200:
                    lacking.append(f"watch of {path}: {stream.code}")
    need(not lacking, "; ".join(lacking))
    return "all of them"


@D.row(
    19,
    "Deletions cascade: `foregroundDeletion` and `orphan` hold the owner, dependents go with it in the background",
    "controllers that leave cleaning up to the garbage collector; tests of them",
    "The finalizers are the API's; collecting is kube-controller-manager's, and does not happen without it.",
)
def deletions_cascade(scene: Scene) -> str:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        held = _delete(scene, scene.configmap(finalizers=["conformity.clusterling.io/hold"]), policy)
        try:
            need(
                finalizer in (held["metadata"].get("finalizers") or ()), f"{policy}: no finalizer {finalizer}"
            )
        finally:
            scene.remove(f"{scene.configmaps}/{held['metadata']['name']}")
    owner = scene.configmap()
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    dependent = scene.configmap(ownerReferences=[reference])
    _delete(scene, owner, "Background")
    path = f"{scene.configmaps}/{dependent['metadata']['name']}"
    if not scene.controlled:
        return "finalizers by policy; nothing here collects dependents"
    need(scene.comes(lambda: scene.wire.get(path).code == 404, _COLLECT_S), "dependents are not collected")
    return "finalizers by policy; dependents are collected"


def _delete(scene: Scene, obj: Object, policy: str) -> Object:
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    return need_ok(scene.wire.delete(f"{scene.configmaps}/{obj['metadata']['name']}", options), policy)


@D.row(
    20,
    "`dryRun=All` answers as the write would, and nothing is kept",
    "kubectl diff and --dry-run=server; Terraform's and Argo CD's plans",
)
def dry_runs_keep_nothing(scene: Scene) -> str:
    body: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": scene.name("dry")},
        "data": {"k": "v"},
    }
    path = f"{scene.configmaps}/{body['metadata']['name']}"
    dry = need_ok(scene.wire.post(scene.configmaps, body, dryRun="All"), "a dry create")
    need(
        dry["metadata"].get("uid") and dry["metadata"].get("creationTimestamp"),
        "it answers no finished object",
    )
    need(scene.wire.get(path).code == 404, "a dry create was kept")
    invalid = scene.wire.post(scene.configmaps, {**body, "metadata": {"name": "Not_A_Name"}}, dryRun="All")
    need(invalid.code == 422, f"a dry create of what is invalid: {invalid.told}")
    stored = scene.made(scene.configmaps, body)
    changed = need_ok(
        applied(scene, path, {**body, "data": {"k": "2"}}, "dry", dryRun="All", force="true"), "a dry apply"
    )
    need(changed["data"] == {"k": "2"}, "a dry apply does not show the change")
    kept = need_ok(scene.wire.get(path), "what is there")
    need(kept == stored, "a dry apply was kept")
    return "a finished object, nothing kept, 422 for what is invalid"


@D.row(
    21, "A body of more than 3 MiB is a 413", "kubectl apply of large ConfigMaps; helm, which then says why"
)
def large_bodies_are_refused(scene: Scene) -> str:
    body: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": scene.name("large")},
        "data": {"k": "x" * _BODY_BYTES},
    }
    answer = scene.wire.post(scene.configmaps, body, dryRun="All")
    need(answer.code == 413, answer.told)
    return answer.told


@D.row(
    22,
    "`managedFields` are in what is read; clients hide them, servers do not",
    "kubectl --show-managed-fields, migrations of field managers",
)
def managed_fields_are_sent(scene: Scene) -> str:
    obj = scene.configmap()
    got = need_ok(scene.wire.get(f"{scene.configmaps}/{obj['metadata']['name']}"), "a get")
    need(got["metadata"].get("managedFields"), "get does not have them")
    items = need_ok(scene.wire.get(scene.configmaps), "a list")["items"]
    found = next(one for one in items if one["metadata"]["uid"] == obj["metadata"]["uid"])
    need(found["metadata"].get("managedFields"), "a list does not have them")
    return "in get and list"
