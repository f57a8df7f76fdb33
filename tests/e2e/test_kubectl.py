"""kubectl's commands against one logical cluster, built-in kinds and a custom one. Expectations are the real server's."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clusters import Cluster
from tests.e2e.conftest import NewCluster

pytestmark = pytest.mark.kubectl

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.example.com
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList, shortNames: [wd], categories: [toys]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Size, type: string, jsonPath: .spec.size, description: How large}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Phase, type: string, jsonPath: .status.phase, priority: 1}
    schema:
      openAPIV3Schema:
        description: Widget is a thing to try things with.
        type: object
        properties:
          spec:
            description: What is wanted.
            type: object
            required: [size]
            properties:
              size: {type: string, enum: [small, large], description: How large it is.}
              replicas: {type: integer, minimum: 0, maximum: 9, default: 1}
              tags: {type: array, items: {type: string}}
          status:
            type: object
            properties:
              phase: {type: string}
              replicas: {type: integer}
"""


def widget(name: str, **spec: Any) -> str:
    return json.dumps(
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
    )


def configmap(name: str, data: dict[str, str], **metadata: Any) -> str:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data}
    )


@pytest.fixture(scope="module")
def shared(new_kubectl_cluster: NewCluster) -> Cluster:
    """A cluster for tests that each use names of their own."""
    made = new_kubectl_cluster("shared")
    made.kubectl("create", "-f", "-", stdin=WIDGETS)
    made.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    return made


@pytest.fixture
def w(k: Cluster) -> Cluster:
    """A fresh cluster that serves widgets."""
    k.kubectl("create", "-f", "-", stdin=WIDGETS)
    k.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    return k


def test_version_is_that_of_the_client(shared: Cluster) -> None:
    versions = json.loads(shared.kubectl("version", "-o", "json"))
    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"]


def test_a_fresh_cluster_has_the_four_namespaces(k: Cluster) -> None:
    listed = k.kubectl("get", "namespaces")
    header, *rows = listed.splitlines()
    assert header.split() == ["NAME", "STATUS", "AGE"]
    names = [row.split()[:2] for row in rows]
    assert names == [[n, "Active"] for n in ("default", "kube-node-lease", "kube-public", "kube-system")]


def test_create_makes_each_builtin_kind_that_it_has_a_command_for(k: Cluster) -> None:
    assert k.kubectl("create", "namespace", "made") == "namespace/made created\n"
    here = ("-n", "made")
    created = k.kubectl("create", "configmap", "settings", "--from-literal=a=1", *here)
    assert created == "configmap/settings created\n"
    created = k.kubectl("create", "secret", "generic", "password", "--from-literal=p=secret", *here)
    assert created == "secret/password created\n"
    assert k.kubectl("create", "serviceaccount", "robot", *here) == "serviceaccount/robot created\n"
    assert k.kubectl("get", "cm", "settings", *here, "-o", "jsonpath={.data.a}") == "1"
    assert (
        k.kubectl("get", "secret", "password", *here, "-o", "jsonpath={.type} {.data.p}") == "Opaque c2VjcmV0"
    )
    error = k.kubectl("create", "configmap", "settings", *here, code=1)
    assert error == 'error: failed to create configmap: configmaps "settings" already exists\n'


def test_create_in_a_namespace_that_is_not_there_is_refused(shared: Cluster) -> None:
    error = shared.kubectl("create", "configmap", "x", "-n", "nowhere", code=1)
    assert error == 'error: failed to create configmap: namespaces "nowhere" not found\n'


def test_a_namespace_takes_what_is_in_it_along(w: Cluster) -> None:
    w.kubectl("create", "namespace", "doomed")
    w.kubectl("create", "configmap", "settings", "-n", "doomed")
    w.kubectl("create", "-n", "doomed", "-f", "-", stdin=widget("thing", size="small"))
    assert w.kubectl("delete", "namespace", "doomed") == 'namespace "doomed" deleted\n'
    w.kubectl("create", "namespace", "doomed")
    left = w.kubectl("get", "configmaps,secrets,widgets", "-n", "doomed", "-o", "name").split()
    assert [name for name in left if name != "configmap/kube-root-ca.crt"] == []


def test_get_prints_tables_in_every_width(w: Cluster) -> None:
    w.kubectl("create", "-f", "-", stdin=widget("one", size="small"))
    w.kubectl(
        "patch", "widget", "one", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Ready"}}'
    )
    header, row = w.kubectl("get", "widgets").splitlines()
    assert header.split() == ["NAME", "SIZE", "REPLICAS"]
    assert row.split() == ["one", "small", "1"]
    header, row = w.kubectl("get", "wd", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "SIZE", "REPLICAS", "PHASE"]
    assert row.split() == ["one", "small", "1", "Ready"]
    header, row = w.kubectl("get", "toys", "-A", "--show-labels").splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "SIZE", "REPLICAS", "LABELS"]
    assert row.split() == ["default", "one", "small", "1", "<none>"]
    assert (
        w.kubectl("get", "widgets", "--no-headers", "-o", "custom-columns=N:.metadata.name").strip() == "one"
    )


def test_get_prints_objects_in_every_format(shared: Cluster) -> None:
    shared.kubectl("create", "configmap", "formats", "--from-literal=key=value")
    assert shared.kubectl("get", "configmap", "formats", "-o", "name") == "configmap/formats\n"
    assert "\ndata:\n  key: value\nkind: ConfigMap\n" in shared.kubectl("get", "cm", "formats", "-o", "yaml")
    found = json.loads(shared.kubectl("get", "cm", "formats", "-o", "json"))
    assert found["metadata"]["namespace"] == "default"
    assert re.fullmatch(r"[0-9]+", found["metadata"]["resourceVersion"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["metadata"]["uid"])
    assert shared.kubectl("get", "cm", "formats", "-o", "jsonpath={.data.key}") == "value"
    assert shared.kubectl("get", "cm", "formats", "-o", "go-template={{.data.key}}") == "value"


def test_get_of_what_is_not_there_says_so(shared: Cluster) -> None:
    missing = shared.kubectl("get", "configmap", "missing", code=1)
    assert missing == 'Error from server (NotFound): configmaps "missing" not found\n'
    missing = shared.kubectl("get", "widget", "missing", code=1)
    assert missing == 'Error from server (NotFound): widgets.example.com "missing" not found\n'
    missing = shared.kubectl("get", "gadgets", code=1)
    assert missing == 'error: the server doesn\'t have a resource type "gadgets"\n'


def test_lists_are_filtered_by_selectors_and_read_in_chunks(k: Cluster) -> None:
    for number in range(7):
        labels = {"parity": "even" if number % 2 == 0 else "odd", "number": str(number)}
        k.kubectl("create", "-f", "-", stdin=configmap(f"n{number}", {}, labels=labels))
    names = ("get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}")
    assert k.kubectl(*names, "-l", "parity=even") == "n0 n2 n4 n6"
    assert k.kubectl(*names, "-l", "parity=odd,number notin (1,5)") == "n3"
    assert k.kubectl(*names, "-l", "number,!missing,number in (1,2)") == "n1 n2"
    assert k.kubectl(*names, "--field-selector=metadata.name=n5") == "n5"
    chunked = k.kubectl("get", "configmaps", "-l", "number", "--chunk-size=2", "-o", "name").split()
    assert chunked == [f"configmap/n{number}" for number in range(7)]
    error = k.kubectl("get", "configmaps", "--field-selector=data.x=1", code=1)
    assert '"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"' in error


def test_watching_prints_each_change(k: Cluster) -> None:
    k.kubectl("create", "-f", "-", stdin=configmap("watched", {"a": "1"}, labels={"seen": "yes"}))
    with k.kubectl_started(
        "get", "cm", "-l", "seen=yes", "-w", "--output-watch-events", "--no-headers"
    ) as lines:
        assert lines.next().split()[:3] == ["ADDED", "watched", "1"]
        k.kubectl("patch", "cm", "watched", "--type=merge", "-p", '{"data":{"b":"2"}}')
        assert lines.next().split()[:3] == ["MODIFIED", "watched", "2"]
        k.kubectl("label", "cm", "watched", "seen-")
        assert lines.next().split()[:2] == ["DELETED", "watched"]
        k.kubectl("label", "cm", "watched", "seen=yes")
        assert lines.next().split()[:2] == ["ADDED", "watched"]
        k.kubectl("delete", "cm", "watched")
        assert lines.next().split()[:2] == ["DELETED", "watched"]


def test_describe_shows_an_object_and_its_events(w: Cluster) -> None:
    w.kubectl("create", "-f", "-", stdin=widget("described", size="large"))
    uid = w.kubectl("get", "widget", "described", "-o", "jsonpath={.metadata.uid}")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "described.1"},
        "involvedObject": {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "name": "described",
            "namespace": "default",
            "uid": uid,
        },
        "reason": "Painted",
        "message": "it is blue now",
        "type": "Normal",
        "source": {"component": "painter"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 3,
    }
    w.kubectl("create", "-f", "-", stdin=json.dumps(event))
    described = w.kubectl("describe", "widget", "described")
    assert re.search(r"^Name: +described$", described, re.MULTILINE)
    assert re.search(r"^ +Size: +large$", described, re.MULTILINE)
    assert re.search(r"Normal +Painted .* painter +it is blue now", described)
    assert "Painted" in w.kubectl("events", "--for", "widget/described")
    listed = w.kubectl("get", "events", "--field-selector=reason=Painted,involvedObject.name=described")
    header, row = listed.splitlines()
    assert header.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert row.split()[1:4] == ["Normal", "Painted", "widget/described"]
    assert "No resources found" in w.kubectl_both("get", "events", "--field-selector=reason=Other")[1]


def test_describe_shows_a_configmap_and_a_secret(shared: Cluster) -> None:
    shared.kubectl("create", "configmap", "told", "--from-literal=key=value")
    assert "Data\n====\nkey:\n----\nvalue\n" in shared.kubectl("describe", "configmap", "told")
    shared.kubectl("create", "secret", "generic", "hidden", "--from-literal=key=value")
    assert "key:  5 bytes" in shared.kubectl("describe", "secret", "hidden")
    assert "Status:       Active" in shared.kubectl("describe", "namespace", "default")


def test_explain_tells_of_builtin_and_custom_kinds(shared: Cluster) -> None:
    explained = shared.kubectl("explain", "widget.spec.size")
    assert "GROUP:      example.com" in explained
    assert "FIELD: size <string>" in explained
    assert re.search(r"ENUM:\s+small\s+large", explained)
    assert "How large it is." in explained
    assert "What is wanted." in shared.kubectl("explain", "widgets")
    assert "replicas" in shared.kubectl("explain", "widget", "--recursive")
    explained = shared.kubectl("explain", "configmap.data")
    assert "FIELD: data <map[string]string>" in explained
    assert 'field "nonsense" does not exist' in shared.kubectl("explain", "configmap.nonsense", code=1)


def test_apply_merges_three_ways_for_a_builtin_kind(shared: Cluster) -> None:
    before = configmap("merged", {"ours": "1", "dropped": "1"})
    assert shared.kubectl("apply", "-f", "-", stdin=before) == "configmap/merged created\n"
    shared.kubectl("patch", "cm", "merged", "--type=merge", "-p", '{"data":{"theirs":"1"}}')
    after = configmap("merged", {"ours": "2"})
    assert shared.kubectl("apply", "-f", "-", stdin=after) == "configmap/merged configured\n"
    found = json.loads(shared.kubectl("get", "cm", "merged", "-o", "json"))
    assert found["data"] == {"ours": "2", "theirs": "1"}
    assert shared.kubectl("apply", "-f", "-", stdin=after) == "configmap/merged unchanged\n"
    again = json.loads(shared.kubectl("get", "cm", "merged", "-o", "json"))
    assert again["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


def test_apply_merges_three_ways_for_a_custom_resource(shared: Cluster) -> None:
    before = widget("merged", size="small", tags=["a", "b"])
    assert shared.kubectl("apply", "-f", "-", stdin=before) == "widget.example.com/merged created\n"
    shared.kubectl("scale", "widget/merged", "--replicas=4")
    after = widget("merged", size="large")
    assert shared.kubectl("apply", "-f", "-", stdin=after) == "widget.example.com/merged configured\n"
    spec = json.loads(shared.kubectl("get", "widget", "merged", "-o", "json"))["spec"]
    assert spec == {"size": "large", "replicas": 4}


def test_apply_merges_lists_of_a_builtin_kind_by_key(shared: Cluster) -> None:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "puller"},
        "secrets": [{"name": "ours"}],
    }
    shared.kubectl("apply", "-f", "-", stdin=json.dumps(account))
    added = '{"secrets":[{"name":"theirs"}]}'
    shared.kubectl("patch", "serviceaccount", "puller", "--type=strategic", "-p", added)
    secrets = ("get", "serviceaccount", "puller", "-o", "jsonpath={.secrets[*].name}")
    assert set(shared.kubectl(*secrets).split()) == {"ours", "theirs"}
    account["secrets"] = [{"name": "newer"}]
    shared.kubectl("apply", "-f", "-", stdin=json.dumps(account))
    assert set(shared.kubectl(*secrets).split()) == {"newer", "theirs"}


def test_apply_prunes_what_a_selector_names(k: Cluster) -> None:
    first, second = (configmap(name, {"a": "1"}, labels={"set": "one"}) for name in ("first", "second"))
    k.kubectl("apply", "-f", "-", stdin=f"{first}\n---\n{second}")
    prune = ("--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap")
    pruned = k.kubectl("apply", "-f", "-", *prune, stdin=second)
    assert pruned.splitlines() == ["configmap/second unchanged", "configmap/first pruned"]


def test_edit_writes_what_the_editor_left(shared: Cluster, tmp_path: Path) -> None:
    shared.kubectl("create", "-f", "-", stdin=widget("edited", size="small"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/size: small/size: large/" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    env = {"KUBE_EDITOR": str(editor)}
    assert shared.kubectl("edit", "widget", "edited", env=env) == "widget.example.com/edited edited\n"
    assert shared.kubectl("get", "widget", "edited", "-o", "jsonpath={.spec.size}") == "large"
    unchanged = shared.kubectl("edit", "widget", "edited", env={"KUBE_EDITOR": "true"}, code=None)
    assert unchanged == "Edit cancelled, no changes made.\n"


def test_patch_has_three_types(shared: Cluster) -> None:
    shared.kubectl("create", "configmap", "patched", "--from-literal=a=1")
    data = ("get", "cm", "patched", "-o", "jsonpath={.data}")
    operations = '[{"op":"test","path":"/data/a","value":"1"},{"op":"replace","path":"/data/a","value":"2"}]'
    assert (
        shared.kubectl("patch", "cm", "patched", "--type=json", "-p", operations)
        == "configmap/patched patched\n"
    )
    assert json.loads(shared.kubectl(*data)) == {"a": "2"}
    shared.kubectl("patch", "cm", "patched", "--type=merge", "-p", '{"data":{"a":null,"b":"3"}}')
    assert json.loads(shared.kubectl(*data)) == {"b": "3"}
    shared.kubectl(
        "patch", "cm", "patched", "--type=strategic", "-p", '{"data":{"$patch":"replace","c":"4"}}'
    )
    assert json.loads(shared.kubectl(*data)) == {"c": "4"}
    unchanged = shared.kubectl("patch", "cm", "patched", "--type=merge", "-p", '{"data":{"c":"4"}}')
    assert unchanged == "configmap/patched patched (no change)\n"
    error = shared.kubectl("patch", "cm", "patched", "--type=json", "-p", operations, code=1)
    assert "the server rejected our request due to an error in our request" in error


def test_a_custom_resource_takes_no_strategic_patch(shared: Cluster) -> None:
    shared.kubectl("create", "-f", "-", stdin=widget("patched", size="small"))
    patch = ("patch", "widget", "patched", "-p", '{"spec":{"size":"large"}}')
    error = shared.kubectl(*patch, "--type=strategic", code=1)
    assert "application/strategic-merge-patch+json is not supported by" in error
    assert shared.kubectl(*patch, "--type=merge") == "widget.example.com/patched patched\n"
    error = shared.kubectl(
        "patch", "widget", "patched", "--type=merge", "-p", '{"spec":{"replicas":10}}', code=1
    )
    assert error == (
        'The Widget "patched" is invalid: spec.replicas: Invalid value: 10: '
        "spec.replicas in body should be less than or equal to 9\n"
    )


def test_diff_shows_what_apply_would_change_and_changes_nothing(shared: Cluster) -> None:
    shared.kubectl("apply", "-f", "-", stdin=configmap("compared", {"a": "1"}))
    done = shared.kubectl_both("diff", "-f", "-", stdin=configmap("compared", {"a": "2"}), code=1)[0]
    assert '-  a: "1"' in done
    assert '+  a: "2"' in done
    assert shared.kubectl("diff", "-f", "-", stdin=configmap("compared", {"a": "1"})) == ""
    assert "+kind: ConfigMap" in shared.kubectl_both("diff", "-f", "-", stdin=configmap("new", {}), code=1)[0]
    assert shared.kubectl("get", "cm", "compared", "-o", "jsonpath={.data.a}") == "1"


def test_replace_is_unconditional_or_held_to_the_version_it_read(shared: Cluster) -> None:
    shared.kubectl("create", "-f", "-", stdin=configmap("replaced", {"a": "1"}))
    read = json.loads(shared.kubectl("get", "cm", "replaced", "-o", "json"))
    replaced = shared.kubectl("replace", "-f", "-", stdin=configmap("replaced", {"b": "2"}))
    assert replaced == "configmap/replaced replaced\n"
    assert json.loads(shared.kubectl("get", "cm", "replaced", "-o", "jsonpath={.data}")) == {"b": "2"}
    error = shared.kubectl("replace", "-f", "-", stdin=json.dumps(read), code=1)
    assert error == (
        'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on '
        'configmaps "replaced": the object has been modified; please apply your changes to the latest version '
        "and try again\n"
    )
    error = shared.kubectl("replace", "-f", "-", stdin=configmap("absent", {}), code=1)
    assert (
        error == 'Error from server (NotFound): error when replacing "STDIN": configmaps "absent" not found\n'
    )


def test_labels_and_annotations_are_set_kept_and_removed(shared: Cluster) -> None:
    shared.kubectl("create", "configmap", "labelled")
    for command, field in (("label", "labels"), ("annotate", "annotations")):
        past = {"label": "labeled", "annotate": "annotated"}[command]
        assert shared.kubectl(command, "cm", "labelled", "team=a") == f"configmap/labelled {past}\n"
        error = shared.kubectl(command, "cm", "labelled", "team=b", code=1)
        assert "'team' already has a value (a)" in error
        shared.kubectl(command, "cm", "labelled", "team=b", "--overwrite")
        where = ("get", "cm", "labelled", "-o", f"jsonpath={{.metadata.{field}}}")
        assert json.loads(shared.kubectl(*where)) == {"team": "b"}
        shared.kubectl(command, "cm", "labelled", "team-")
        assert shared.kubectl(*where) == ""
    error = shared.kubectl("label", "cm", "labelled", "--all=false", "team=not valid", code=1)
    assert "a valid label must be an empty string or consist of alphanumeric characters" in error


def test_wait_ends_when_the_condition_holds(w: Cluster) -> None:
    w.kubectl("create", "-f", "-", stdin=widget("awaited", size="small"))
    phase = ("wait", "--for=jsonpath={.status.phase}=Ready", "widget/awaited", "--timeout=50s")
    with w.kubectl_started(*phase) as lines:
        status = '{"status":{"phase":"Ready"}}'
        w.kubectl("patch", "widget", "awaited", "--subresource=status", "--type=merge", "-p", status)
        assert lines.next() == "widget.example.com/awaited condition met"
    w.kubectl("delete", "widget", "awaited", "--wait=false")
    w.kubectl("wait", "--for=delete", "widget/awaited", "--timeout=50s")
    late = w.kubectl("wait", "--for=create", "widget/never", "--timeout=1s", code=1)
    assert "timed out waiting for the condition" in late


def _owned(name: str, owner: str, uid: str) -> str:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner,
        "uid": uid,
        "blockOwnerDeletion": True,
    }
    return configmap(name, {}, ownerReferences=[reference])


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_delete_treats_dependents_as_told(k: Cluster, cascade: str) -> None:
    k.kubectl("create", "configmap", "owner")
    uid = k.kubectl("get", "cm", "owner", "-o", "jsonpath={.metadata.uid}")
    k.kubectl("create", "-f", "-", stdin=_owned("dependent", "owner", uid))
    assert (
        k.kubectl("delete", "cm", "owner", f"--cascade={cascade}")
        == 'configmap "owner" deleted from default namespace\n'
    )
    k.kubectl("get", "cm", "owner", code=1)
    if cascade == "background":
        k.kubectl("wait", "--for=delete", "cm/dependent", "--timeout=50s")
    left = k.kubectl(
        "get",
        "cm",
        "dependent",
        "--ignore-not-found",
        "-o",
        "jsonpath={.metadata.name}{.metadata.ownerReferences}",
    )
    assert left == ("dependent" if cascade == "orphan" else "")


def test_delete_waits_for_finalizers(shared: Cluster) -> None:
    shared.kubectl("create", "-f", "-", stdin=configmap("kept", {}, finalizers=["example.com/hold"]))
    shared.kubectl("delete", "cm", "kept", "--wait=false")
    assert shared.kubectl("get", "cm", "kept", "-o", "jsonpath={.metadata.deletionTimestamp}") != ""
    with shared.kubectl_started("delete", "cm", "kept") as lines:
        assert lines.next() == 'configmap "kept" deleted from default namespace'
        shared.kubectl("patch", "cm", "kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    shared.kubectl("wait", "--for=delete", "cm/kept", "--timeout=50s")


def test_delete_takes_selectors_and_everything(k: Cluster) -> None:
    for name, team in (("a", "red"), ("b", "red"), ("c", "blue")):
        k.kubectl("create", "-f", "-", stdin=configmap(name, {}, labels={"team": team}))
    k.kubectl("delete", "configmaps", "-l", "team=red")
    assert k.kubectl("get", "configmaps", "-l", "team", "-o", "name") == "configmap/c\n"
    k.kubectl("delete", "configmaps", "--all")
    assert "configmap/c" not in k.kubectl("get", "configmaps", "-o", "name")


def test_a_deleted_definition_takes_its_objects_and_its_api_along(w: Cluster) -> None:
    w.kubectl("create", "-f", "-", stdin=widget("gone", size="small"))
    w.kubectl("delete", "crd", "widgets.example.com")
    assert w.kubectl("get", "widgets", code=1) == (
        'Error from server (NotFound): Unable to list "example.com/v1, Resource=widgets": '
        "the server could not find the requested resource (get widgets.example.com)\n"
    )
    w.kubectl("create", "-f", "-", stdin=WIDGETS)
    w.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    assert w.kubectl("get", "widgets", "-o", "name") == ""


def test_scale_and_status_are_parts_of_their_own(shared: Cluster) -> None:
    shared.kubectl("create", "-f", "-", stdin=widget("scaled", size="small"))
    scaled = shared.kubectl("scale", "widget/scaled", "--replicas=3", "--current-replicas=1")
    assert scaled == "widget.example.com/scaled scaled\n"
    assert shared.kubectl("get", "widget", "scaled", "-o", "jsonpath={.spec.replicas}") == "3"
    status = '{"spec":{"size":"large"},"status":{"phase":"Ready"}}'
    shared.kubectl("patch", "widget", "scaled", "--type=merge", "-p", status)
    found = json.loads(shared.kubectl("get", "widget", "scaled", "-o", "json"))
    assert (found["spec"]["size"], found.get("status")) == ("large", None)
    status = '{"spec":{"size":"small"},"status":{"phase":"Ready"}}'
    shared.kubectl("patch", "widget", "scaled", "--subresource=status", "--type=merge", "-p", status)
    found = json.loads(shared.kubectl("get", "widget", "scaled", "-o", "json"))
    assert (found["spec"]["size"], found["status"]) == ("large", {"phase": "Ready"})
    assert found["metadata"]["generation"] == 3


def test_dry_run_answers_and_writes_nothing(shared: Cluster) -> None:
    for mode in ("server", "client"):
        made = shared.kubectl("create", "configmap", "imagined", f"--dry-run={mode}", "-o", "yaml")
        assert "name: imagined" in made
    created = shared.kubectl("create", "-f", "-", "--dry-run=server", stdin=widget("imagined", size="small"))
    assert created == "widget.example.com/imagined created (server dry run)\n"
    shared.kubectl("get", "cm/imagined", code=1)
    shared.kubectl("get", "widget/imagined", code=1)


def test_unknown_fields_are_an_error_a_warning_or_dropped_as_told(shared: Cluster) -> None:
    manifest = widget("strict", size="small", colour="blue")
    error = shared.kubectl("create", "-f", "-", stdin=manifest, code=1)
    assert 'strict decoding error: unknown field "spec.colour"' in error
    out, err = shared.kubectl_both("create", "-f", "-", "--validate=warn", stdin=manifest)
    assert (out, err) == ("widget.example.com/strict created\n", 'Warning: unknown field "spec.colour"\n')
    assert shared.kubectl("get", "widget", "strict", "-o", "jsonpath={.spec.colour}") == ""


def test_invalid_objects_are_refused_with_every_reason(shared: Cluster) -> None:
    error = shared.kubectl("create", "-f", "-", stdin=widget("wrong", size="huge", replicas=-1), code=1)
    assert error == (
        'The Widget "wrong" is invalid: \n'
        "* spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0\n"
        '* spec.size: Unsupported value: "huge": supported values: "small", "large"\n'
        "* .spec.replicas: Invalid value: -1: should be a non-negative integer\n"
    )
    error = shared.kubectl("create", "-f", "-", stdin=configmap("Wrong_Name", {}), code=1)
    assert error.startswith(
        'The ConfigMap "Wrong_Name" is invalid: metadata.name: Invalid value: "Wrong_Name": a lowercase RFC 1123 subdomain'
    )


def test_api_resources_and_versions_list_what_is_served(shared: Cluster) -> None:
    listed = shared.kubectl("api-resources", "-o", "wide").splitlines()
    rows = {row.split()[0]: row for row in listed[1:]}
    assert re.search(
        r"^widgets +wd +example.com/v1 +true +Widget +"
        r"delete,deletecollection,get,list,patch,create,update,watch +toys$",
        rows["widgets"],
    )
    assert re.search(r"^configmaps +cm +v1 +true +ConfigMap ", rows["configmaps"])
    assert re.search(r"^namespaces +ns +v1 +false +Namespace ", rows["namespaces"])
    namespaced = shared.kubectl("api-resources", "--namespaced=false", "-o", "name").split()
    assert {"namespaces", "customresourcedefinitions.apiextensions.k8s.io"} <= set(namespaced)
    versions = shared.kubectl("api-versions").split()
    assert {
        "v1",
        "apiextensions.k8s.io/v1",
        "coordination.k8s.io/v1",
        "events.k8s.io/v1",
        "example.com/v1",
    } <= set(versions)
    assert versions == sorted(versions)


def test_generated_names_are_made_by_the_server(shared: Cluster) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
    made = [shared.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(manifest)) for _ in range(2)]
    assert all(re.fullmatch(r"configmap/made-[bcdfghjklmnpqrstvwxz2456789]{5}\n", name) for name in made)
    assert made[0] != made[1]


def test_leases_and_raw_paths_are_reached(shared: Cluster) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader"},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }
    shared.kubectl("create", "-f", "-", stdin=json.dumps(lease))
    header, row = shared.kubectl("get", "leases").splitlines()
    assert header.split() == ["NAME", "HOLDER", "AGE"]
    assert row.split()[:2] == ["leader", "me"]
    assert shared.kubectl("get", "--raw", "/readyz") == "ok"
    assert json.loads(shared.kubectl("get", "--raw", "/api"))["versions"] == ["v1"]
