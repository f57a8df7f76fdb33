"""Section B: where a cluster is found, and what is in it from the start."""

from __future__ import annotations

import re
from typing import Final

from clusterling.conformity.row import DoesNotApply, Section, need, need_ok
from clusterling.conformity.scene import Scene

B: Final = Section("B", "Addressing and naming")

# What is there a moment after a namespace, where anything makes it at all.
_FURNISH_S: Final = 5.0


@B.row(
    1,
    "Two clusters' URLs differ after all but letters, digits, `_`, `/` and `.` became `_`",
    "kubectl, helm, k9s: that is the directory of their discovery cache, kept for 6 h",
    "A matter of the names a host gives; it holds where at most one other character, as `-`, occurs in a path, and no `_`.",
)
def urls_stay_apart_in_the_discovery_cache(scene: Scene) -> str:
    if not scene.wire.path:
        return "no path in the URL"
    others = set(re.findall(r"[^A-Za-z0-9/.]", scene.wire.path))
    need(len(others) < 2, f"the path has {' '.join(sorted(others))}, which become one")
    return "the path has one character at most that becomes `_`"


@B.row(
    2,
    "The same URL serves the same API for hours: answers of discovery must be asked for again to be found changed",
    "kubectl's and helm's caches (6 h; 10 min in copies)",
    "Aggregated discovery is `public`, with an ETag to ask again by; the plain one `no-cache, private`.",
)
def discovery_is_asked_for_again(scene: Scene) -> str:
    told = []
    kinds = {
        "plain": "application/json",
        "aggregated": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    }
    for name, accept in kinds.items():
        answer = scene.wire.get("/apis", accept=accept)
        if answer.code == 406:
            continue
        control = answer.headers.get("cache-control", "")
        need("max-age" not in control and "immutable" not in control, f"{name}: {control}")
        need("no-cache" in control or answer.headers.get("etag"), f"{name}: {control or 'no Cache-Control'}")
        told.append(f"{name}: {control or 'ETag'}")
    return "; ".join(told)


@B.row(
    3,
    "The server is at `/`: who drops the path of a URL reaches the same cluster, or is refused",
    "linkerd, kubeclient, kots, Lens, k9s, kubectl proxy",
    "The URL has no path there. Where it has one, such tools need an address of their own for the cluster.",
)
def who_drops_the_path_reaches_no_other_cluster(scene: Scene) -> str:
    if not scene.wire.path:
        return "no path in the URL"
    path = "/api/v1/namespaces/kube-system"
    ours = scene.wire.get(path).document.get("metadata", {}).get("uid")
    answer = scene.wire.request("GET", path, at_root=True)
    if answer.code in (401, 403, 404):
        return "refused at `/`"
    need(answer.ok, f"at `/`: {answer.told}")
    same = answer.document.get("metadata", {}).get("uid") == ours
    need(same, "another cluster answers at `/`, to the same credentials")
    return "the same cluster at `/`"


@B.row(
    4,
    "`serverRelativeURL` in `/openapi/v3` begins at the cluster, without the path of its URL",
    "client-go adds the path itself; crossplane's Kubernetes provider does not",
)
def links_in_openapi_v3_have_no_prefix(scene: Scene) -> str:
    paths = need_ok(scene.wire.get("/openapi/v3"), "/openapi/v3").get("paths") or {}
    need(paths, "/openapi/v3 has no paths")
    for name, entry in paths.items():
        link = str(entry.get("serverRelativeURL"))
        need(link.startswith(f"/openapi/v3/{name}"), f"{name}: {link.partition('?')[0]}")
    one = paths.get("api/v1") or next(iter(paths.values()))
    link = one["serverRelativeURL"]
    need(scene.wire.get(link).code == 200, "a link that leads nowhere")
    return "all begin with /openapi/v3/"


@B.row(
    5,
    "The namespace `kube-system` exists, and its uid is the cluster's",
    "OpenTelemetry (k8s.cluster.uid), Prefect, KubeSphere, jetstack, Kuadrant",
)
def kube_system_identifies_the_cluster(scene: Scene) -> str:
    assert scene.home, "namespaces are served"
    first = scene.wire.get("/api/v1/namespaces/kube-system")
    need_ok(first, "kube-system")
    uid = first.document["metadata"].get("uid", "")
    need(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uid), "its uid is no UUID")
    again = scene.wire.get("/api/v1/namespaces/kube-system").document["metadata"]["uid"]
    need(again == uid, "its uid changes")
    return "there, with a uid"


@B.row(
    6,
    "The namespace `default` cannot be deleted; each namespace has the account `default` and `kube-root-ca.crt`",
    "kubectl; pods that trust the API",
    "Accounts and certificates are made by kube-controller-manager: without it the second half does not apply.",
)
def default_is_there_to_stay(scene: Scene) -> str:
    assert scene.home, "namespaces are served"
    # A dry run, for servers that would do it.
    refused = scene.wire.delete("/api/v1/namespaces/default", dryRun="All")
    need(refused.code == 403, f"deleting default, dry: {refused.told}")
    account, root = f"{scene.home}/serviceaccounts/default", f"{scene.configmaps}/kube-root-ca.crt"
    if not scene.controlled:
        return "default stays; nothing here makes accounts"
    need(scene.comes(lambda: scene.wire.get(account).ok, _FURNISH_S), "no account `default`")
    need(scene.comes(lambda: scene.wire.get(root).ok, _FURNISH_S), "no kube-root-ca.crt")
    return "default stays; account and certificate are there"


@B.row(
    7, "Services can be listed, if there are none", "kubectl cluster-info fails where the kind is not served"
)
def services_can_be_listed(scene: Scene) -> str:
    scene.requires("v1/services")
    selector = "kubernetes.io/cluster-service=true"
    answer = scene.wire.get("/api/v1/namespaces/kube-system/services", labelSelector=selector)
    need_ok(answer, "listing services")
    need(answer.document.get("items") is not None, "items are null")
    return "a list"


@B.row(
    8,
    "A custom kind may be called `clusters` or `namespaces`, and its paths mean it",
    "Cluster API, Rancher; proxies that look for such words in paths",
)
def custom_kinds_may_have_the_words_of_paths(scene: Scene) -> str:
    assert scene.home, "a namespace to be in"
    for plural, kind in (("clusters", "Cluster"), ("namespaces", "Namespace")):
        scene.define(plural, kind)
        api_version = f"{scene.group}/v1"
        path = f"/apis/{api_version}/namespaces/{scene.namespace}/{plural}"
        body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "clusters"}}
        scene.made(path, body)
        got = need_ok(scene.wire.get(f"{path}/clusters"), f"reading {plural}/clusters")
        need(got.get("apiVersion") == api_version, f"{plural}: answered with {got.get('apiVersion')}")
        listed = need_ok(scene.wire.get(f"/apis/{api_version}/{plural}"), f"listing {plural}")
        need(len(listed["items"]) == 1, f"{plural}: {len(listed['items'])} listed of 1")
        need_ok(scene.wire.delete(f"{path}/clusters"), f"deleting {plural}/clusters")
    return "both are created, read, listed and deleted"


@B.row(
    9,
    "Discovery has short names, singular names and the category `all`",
    "kubectl get cm, get configmap, get all; helm's waiting",
)
def discovery_has_the_names_people_type(scene: Scene) -> str:
    entry = scene.served.get("v1/configmaps")
    if entry is None:
        raise DoesNotApply("configmaps are not served")
    need("cm" in (entry.get("shortNames") or ()), "configmaps have no short name cm")
    need(entry.get("singularName") == "configmap", f"its singular is {entry.get('singularName')!r}")
    # https://kubernetes.io/docs/reference/kubectl/: what `get all` shows of the core group and of apps.
    wanted = ("v1/pods", "v1/services", "apps/v1/deployments")
    served = [one for one in wanted if one in scene.served]
    lacking = [one for one in served if "all" not in (scene.served[one].get("categories") or ())]
    need(not lacking, f"not in `all`: {', '.join(lacking)}")
    return f"cm, configmap; `all` has {', '.join(served) or 'nothing, for its kinds are not served'}"
