"""Section D, its first half: objects and what is said of them."""

from __future__ import annotations

import re
from typing import Final

from clusterling.conformity.row import Section, need, need_ok
from clusterling.conformity.scene import CRDS, Scene
from clusterling.conformity.wire import Answer
from clusterling.machinery.meta import Object

D: Final = Section("D", "Objects, errors, verbs")

APPLY: Final = "application/apply-patch+yaml"
FINALIZER: Final = "conformity.clusterling.io/hold"


def _path(scene: Scene, obj: Object) -> str:
    return f"{scene.configmaps}/{obj['metadata']['name']}"


def applied(scene: Scene, path: str, body: Object, manager: str, **query: object) -> Answer:
    """A server-side apply."""
    return scene.wire.patch(path, body, media_type=APPLY, fieldManager=manager, **query)


@D.row(
    1,
    "DELETE answers a Status where the object is gone at once, and the object where finalizers hold it",
    "clients with typed answers: Java's failed on the one or the other",
    "So for most kinds. Namespaces, pods, services, serviceaccounts, volumes and some more answer with the object in either case.",
)
def deletion_answers_by_what_is_left(scene: Scene) -> str:
    gone = need_ok(scene.wire.delete(_path(scene, scene.configmap())), "a delete")
    need(gone.get("kind") == "Status" and gone.get("status") == "Success", f"gone: a {gone.get('kind')}")
    held = scene.configmap(finalizers=[FINALIZER])
    answer = need_ok(scene.wire.delete(_path(scene, held)), "a delete of what is held")
    try:
        need(answer.get("kind") == "ConfigMap", f"held: a {answer.get('kind')}")
        need(answer["metadata"].get("deletionTimestamp"), "held: no deletionTimestamp")
    finally:
        scene.remove(_path(scene, held))
    return "Status for what is gone, the object for what is held"


@D.row(
    2,
    "That Status has `details.uid`, the uid of what was deleted",
    "kubectl delete, which waits for that object",
)
def deletion_tells_the_uid(scene: Scene) -> str:
    obj = scene.configmap()
    details = need_ok(scene.wire.delete(_path(scene, obj)), "a delete").get("details") or {}
    need(details.get("uid") == obj["metadata"]["uid"], "another uid, or none")
    need(details.get("name") == obj["metadata"]["name"], "another name, or none")
    need(details.get("kind") == "configmaps", f"kind {details.get('kind')}")
    return "uid, name, and the resource as kind"


@D.row(
    3, "DeleteOptions are read from the body of a DELETE", "kubectl delete --cascade=orphan; all of client-go"
)
def delete_options_are_in_the_body(scene: Scene) -> str:
    obj = scene.configmap()
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    need_ok(scene.wire.delete(_path(scene, obj), {**options, "dryRun": ["All"]}), "a dry delete")
    need(scene.wire.get(_path(scene, obj)).ok, "dryRun in the body is ignored")
    other = {**options, "preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}}
    answer = scene.wire.delete(_path(scene, obj), other)
    need(answer.code == 409, f"another uid as precondition: {answer.told}")
    return "dryRun is heeded; another uid as precondition is a 409"


@D.row(
    4,
    "A CustomResourceDefinition's status has `conditions`, `acceptedNames` and `storedVersions`, none null",
    "the Python client: ValueError",
    "So once names are accepted; the POST itself is answered with `conditions: null` and empty names.",
)
def definitions_have_a_whole_status(scene: Scene) -> str:
    assert scene.widgets, "defines the kind"
    status = need_ok(scene.wire.get(f"{CRDS}/widgets.{scene.group}"), "a definition").get("status") or {}
    for name in ("conditions", "acceptedNames", "storedVersions"):
        need(status.get(name), f"{name}: {status.get(name)}")
    need(status["acceptedNames"].get("plural") == "widgets", "acceptedNames without the plural")
    need(status["storedVersions"] == ["v1"], f"storedVersions {status['storedVersions']}")
    return "all three, when it is served"


@D.row(
    5,
    "A definition is soon Established, and its kind then in discovery and OpenAPI",
    "helm, terraform, kapp, which wait for it or need the schema to plan",
    "Within about two seconds, not at once.",
)
def definitions_are_established(scene: Scene) -> str:
    scene.define("gadgets", "Gadget")
    group_version = f"apis/{scene.group}/v1"

    def established() -> bool:
        status = scene.wire.get(f"{CRDS}/gadgets.{scene.group}").document.get("status") or {}
        found = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        return found.get("Established") == "True" and found.get("NamesAccepted") == "True"

    def discovered() -> bool:
        listed = scene.wire.get(f"/{group_version}").document.get("resources") or ()
        return any(one.get("name") == "gadgets" for one in listed)

    def described() -> bool:
        paths = scene.wire.get(f"/openapi/v3/{group_version}").document.get("paths") or {}
        return any(path.endswith("/gadgets") for path in paths)

    need(scene.comes(established, scene.patience_s), "not Established")
    need(scene.comes(discovered, scene.patience_s), "not in discovery")
    need(scene.comes(described, scene.patience_s), "not in OpenAPI v3")
    return "Established, in discovery, in OpenAPI v3"


@D.row(
    6,
    "`renewTime` and `acquireTime` of a Lease have exactly six digits of a second",
    "leader election of other languages: a TypeScript client never elected anybody",
)
def leases_have_microseconds(scene: Scene) -> str:
    scene.requires("coordination.k8s.io/v1/leases")
    body: Object = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": scene.name("lease")},
        "spec": {"acquireTime": "2026-01-02T03:04:05.000000Z", "renewTime": "2026-01-02T03:04:05.120000Z"},
    }
    assert scene.home, "a namespace to be in"
    path = f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases"
    spec = scene.made(path, body)["spec"]
    need(spec == body["spec"], f"{spec.get('acquireTime')}, {spec.get('renewTime')}")
    return "six digits, zeros too"


@D.row(
    7,
    "`creationTimestamp` is RFC 3339 in seconds, with Z, in every object that is read",
    "the Python client, and all that parse it with one format",
)
def creation_has_a_time(scene: Scene) -> str:
    for obj in (scene.configmap(), scene.widget()):
        found = str(obj["metadata"].get("creationTimestamp"))
        need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found), found)
    return "seconds and Z"


@D.row(
    8,
    "`generation` rises with spec alone where `status` is a subresource; there, status is written by it alone",
    "controllers (observedGeneration), which loop otherwise",
)
def generation_counts_changes_of_spec(scene: Scene) -> str:
    obj = scene.widget(size=1)
    path = f"{scene.widgets}/{obj['metadata']['name']}"
    need(obj["metadata"].get("generation") == 1, f"at first {obj['metadata'].get('generation')}")
    told = need_ok(scene.wire.put(path, {**obj, "status": {"ready": True}}), "PUT with a status")
    need("status" not in told, "PUT of the object wrote its status")
    need(told["metadata"]["generation"] == 1, "a status in a PUT raised it")
    status = need_ok(
        scene.wire.put(f"{path}/status", {**told, "status": {"ready": True}, "spec": {"size": 5}}), "status"
    )
    need(status["spec"] == {"size": 1}, "PUT of the status wrote the spec")
    need(status.get("status") == {"ready": True}, "PUT of the status did not write it")
    need(status["metadata"]["generation"] == 1, "a write of the status raised it")
    spec = need_ok(scene.wire.patch(path, {"spec": {"size": 2}}), "a patch of the spec")
    need(spec["metadata"]["generation"] == 2, f"after a change of the spec {spec['metadata']['generation']}")
    return "1, and 2 after the spec changed"


@D.row(
    9,
    "An update without resourceVersion is unconditional, with an old one a 409 `Conflict`; a create with one is refused",
    "leader election; controller-runtime",
    "Kinds may forbid the unconditional update, as Leases and custom kinds do: 422 there, `must be specified for an update`.",
)
def updates_are_conditional_when_they_say_so(scene: Scene) -> str:
    obj = scene.configmap()
    bare: Object = {**obj, "metadata": {"name": obj["metadata"]["name"]}}
    need_ok(
        scene.wire.put(_path(scene, obj), {**bare, "data": {"k": "2"}}), "an update without resourceVersion"
    )
    stale = scene.wire.put(_path(scene, obj), {**obj, "data": {"k": "3"}})
    need(stale.told == "409 Conflict", f"an update with an old resourceVersion: {stale.told}")
    new = {**bare, "metadata": {"name": scene.name(), "resourceVersion": "1"}}
    created = scene.wire.post(scene.configmaps, new)
    need(created.code >= 400, "a create with resourceVersion is taken")
    widget = scene.widget()
    unversioned = {**widget, "metadata": {"name": widget["metadata"]["name"]}}
    custom = scene.wire.put(f"{scene.widgets}/{widget['metadata']['name']}", unversioned)
    return f"unconditional; 409 Conflict; a create: {created.told}; a custom kind without: {custom.told}"


@D.row(
    10,
    "What is invalid is a 422 with `details.causes[].field` and `reason`; a patch of an unknown type is a 415",
    "kubectl apply and patch, which go by the code; terraform",
)
def what_is_invalid_is_explained(scene: Scene) -> str:
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not_A_Name"}}
    for path, wrong, field in (
        (scene.configmaps, body, "metadata.name"),
        (scene.widgets, scene.widget_body(size=-1), "spec.size"),
    ):
        answer = scene.wire.post(path, wrong)
        need(answer.told == "422 Invalid", f"{field}: {answer.told}")
        causes = (answer.document.get("details") or {}).get("causes") or ()
        need(
            any(one.get("field") == field and one.get("reason") for one in causes), f"no cause names {field}"
        )
    path = _path(scene, scene.configmap())
    unknown = scene.wire.patch(path, {}, media_type="application/unknown-patch+json")
    need(unknown.code == 415, f"a patch of an unknown type: {unknown.told}")
    return "422 with causes; 415"


@D.row(
    11,
    "A conflict of server-side apply is a 409 whose causes are `FieldManagerConflict`, each with its field",
    "kubectl apply --server-side, which then explains; Argo CD, Flux",
)
def conflicts_of_apply_name_fields(scene: Scene) -> str:
    body: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": scene.name("ssa")},
        "data": {"k": "1"},
    }
    path = _path(scene, body)
    need_ok(applied(scene, path, body, "one"), "an apply that creates")
    other = {**body, "data": {"k": "2"}}
    answer = applied(scene, path, other, "two")
    need(answer.told == "409 Conflict", f"a conflict: {answer.told}")
    causes = (answer.document.get("details") or {}).get("causes") or ()
    found = [(one.get("reason"), one.get("field")) for one in causes]
    need(found == [("FieldManagerConflict", ".data.k")], f"causes {found}")
    need_ok(applied(scene, path, other, "two", force="true"), "an apply by force")
    return "409, FieldManagerConflict of .data.k; force takes it"


@D.row(
    12,
    "Who names no field manager is called by the user agent, up to its first `/`",
    "migration from client-side to server-side apply (kubectl), which looks for names in managedFields",
)
def managers_are_named_by_user_agents(scene: Scene) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": scene.name("agent")},
        "data": {"k": "v"},
    }
    headers = {"user-agent": "some-agent/v1.2 (linux/amd64)"}
    obj = need_ok(scene.wire.request("POST", scene.configmaps, body, headers=headers), "a create")
    managers = [one.get("manager") for one in obj["metadata"].get("managedFields") or ()]
    need(managers == ["some-agent"], f"managers {managers}")
    return "some-agent"


@D.row(13, "Each namespace has the label `kubernetes.io/metadata.name`", "selectors of policies and webhooks")
def namespaces_are_labelled_with_their_names(scene: Scene) -> str:
    labels = need_ok(scene.wire.get(scene.home), "the namespace")["metadata"].get("labels") or {}
    need(labels.get("kubernetes.io/metadata.name") == scene.namespace, f"labels {sorted(labels)}")
    return "labelled"
