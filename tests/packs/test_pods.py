"""Pods over the API, as users, schedulers and whoever plays kubelet find them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.testing.kube import Kube, KubeServer, SyncClient
from tests.packs.conftest import causes

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


class Api:
    """The API of one cluster, with the words that these tests use."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client

    def make(self, name: str, metadata: Object | None = None, **spec: Any) -> Object:
        spec.setdefault("containers", [{"name": "c", "image": "nginx"}])
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **(metadata or {})},
            "spec": spec,
        }
        return self.client.post(PODS, body)

    def change(self, name: str, body: Object, part: str = "") -> Object:
        return self.client.patch(f"{PODS}/{name}{part}", body)

    def say(self, name: str, **status: Any) -> Object:
        return self.change(name, {"status": status}, "/status")

    def bind(self, name: str, node: str, **metadata: Any) -> Object:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, **metadata},
            "target": target,
        }
        return self.client.post(f"{PODS}/{name}/binding", body)

    def evict(self, name: str, version: str = "v1", **options: Any) -> Object:
        body = {"apiVersion": f"policy/{version}", "kind": "Eviction", "metadata": {"name": name}}
        return self.client.post(f"{PODS}/{name}/eviction", {**body, "deleteOptions": options})

    def delete(self, name: str, grace_s: int | None = None) -> Object:
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return self.client.delete(f"{PODS}/{name}", options)

    def pod(self, name: str) -> Object:
        return self.client.get(f"{PODS}/{name}")


@pytest.fixture(scope="module")
def server_with_pods(kube_server: KubeServer) -> Iterator[Api]:
    name = f"pods-{secrets.token_hex(4)}"
    clusters = kube_server.server.clusters
    kube_server.call(clusters.create(name, packs="all"))
    try:
        yield Api(Kube(kube_server, name).client)
    finally:
        with suppress(ApiError):
            kube_server.call(clusters.delete(name))


@pytest.fixture
def api(server_with_pods: Api) -> Iterator[Api]:
    client = server_with_pods.client
    yield server_with_pods
    for pod in client.get(PODS)["items"]:
        client.patch(f"{PODS}/{pod['metadata']['name']}", {"metadata": {"finalizers": None}})
        with suppress(ApiError):
            server_with_pods.delete(pod["metadata"]["name"], 0)
    for budget in client.get(BUDGETS)["items"]:
        client.delete(f"{BUDGETS}/{budget['metadata']['name']}")


def refusal(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.code, error.value.message


# ---------------------------------------------------------------------- creating


def test_a_pod_is_given_all_that_upstream_gives_it(api: Api) -> None:
    pod = api.make("a")
    spec = pod["spec"]
    volume = spec["volumes"][0]
    mount = {
        "name": volume["name"],
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    assert spec["containers"] == [
        {
            "name": "c",
            "image": "nginx",
            "imagePullPolicy": "Always",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [mount],
        }
    ]
    assert volume["name"].startswith("kube-api-access-")
    assert [list(source) for source in volume["projected"]["sources"]] == [
        ["serviceAccountToken"],
        ["configMap"],
        ["downwardAPI"],
    ]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert [one["key"] for one in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert pod["metadata"]["generation"] == 1


def test_a_pod_needs_an_account_that_is_there(api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        api.make("a", serviceAccountName="nobody")
    assert refusal(caught) == (
        403,
        'pods "a" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found',
    )


def test_a_pod_may_go_without_a_token(api: Api) -> None:
    spec = api.make("a", automountServiceAccountToken=False)["spec"]
    assert "volumes" not in spec
    assert "volumeMounts" not in spec["containers"][0]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
        ({"requests": {"cpu": "100m"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_the_class_of_service_follows_from_resources(api: Api, resources: Object, expected: str) -> None:
    pod = api.make("a", containers=[{"name": "c", "image": "nginx", "resources": resources}])
    assert pod["status"]["qosClass"] == expected


def test_the_resources_of_a_pod_as_a_whole_are_filled_from_its_limits(api: Api) -> None:
    pod = api.make("a", resources={"limits": {"cpu": "1", "memory": "1Gi"}})
    assert pod["spec"]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert pod["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"priority": 5}, "the integer value of priority (5) must not be provided in pod spec"),
        ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        ({"overhead": {"cpu": "1"}}, "pod rejected: Pod Overhead set without corresponding RuntimeClass"),
    ],
)
def test_what_classes_do_not_say_is_refused(api: Api, spec: Object, told: str) -> None:
    with pytest.raises(ApiError) as caught:
        api.make("a", **spec)
    assert caught.value.code == 403
    assert told in caught.value.message


def test_a_null_in_a_list_is_read_as_an_empty_entry(api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        api.make("a", tolerations=[None])
    assert [field for field, _ in causes(caught.value)] == ["spec.tolerations[0].operator"]
    api.make("a")
    assert api.say("a", containerStatuses=[None])["status"]["containerStatuses"][0]["ready"] is False


def test_the_difference_that_is_told_is_bounded_whatever_changed(api: Api) -> None:
    aliases = [{"ip": "10.0.0.1", "hostnames": [f"h{n}" for n in range(3000)]}]
    api.make("a", hostAliases=aliases)
    changed = [{"ip": "10.0.0.1", "hostnames": [f"x{n}" for n in range(3000)]}]
    with pytest.raises(ApiError) as caught:
        api.change("a", {"spec": {"hostAliases": changed}})
    ((_, message),) = causes(caught.value)
    assert '-    "h0",' in message
    assert '"h2999"' not in message


def test_ephemeral_containers_cannot_be_there_from_the_start(api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        api.make("a", ephemeralContainers=[{"name": "e", "image": "busybox"}])
    assert causes(caught.value) == [("spec.ephemeralContainers", "Forbidden: cannot be set on create")]


def test_keys_of_labels_become_requirements_on_their_values(api: Api) -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}},
        "matchLabelKeys": ["app", "absent"],
    }
    pod = api.make("a", {"labels": {"app": "x"}}, topologySpreadConstraints=[constraint])
    assert pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"] == [
        {"key": "app", "operator": "In", "values": ["x"]}
    ]


def test_old_annotations_of_profiles_become_fields(api: Api) -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    pod = api.make("a", {"annotations": {key: "localhost/mine"}})
    assert pod["spec"]["containers"][0]["securityContext"] == {
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}
    }


def test_a_pods_image_has_no_space_around_it(api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        api.make("a", containers=[{"name": "c", "image": " x"}])
    assert causes(caught.value) == [
        (
            "spec.containers[0].image",
            'Invalid value: " x": must not have leading or trailing whitespace',
        )
    ]


# ---------------------------------------------------------------------- changing


def test_an_image_may_change_and_raises_the_generation_and_little_else_may(api: Api) -> None:
    api.make("a")
    containers = [{**api.pod("a")["spec"]["containers"][0], "image": "other"}]
    assert api.change("a", {"spec": {"containers": containers}})["metadata"]["generation"] == 2
    assert api.change("a", {"metadata": {"labels": {"l": "1"}}})["metadata"]["generation"] == 2
    with pytest.raises(ApiError) as caught:
        api.change("a", {"spec": {"restartPolicy": "Never"}})
    ((field, message),) = causes(caught.value)
    assert field == "spec"
    assert message.startswith(
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    )
    assert '- "RestartPolicy": "Always"' in message


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"containers": []}, "spec.containers", "Required value"),
        (
            {"activeDeadlineSeconds": 20},
            "spec.activeDeadlineSeconds",
            "Invalid value: 20: must be less than or equal to previous value",
        ),
        (
            {"activeDeadlineSeconds": None},
            "spec.activeDeadlineSeconds",
            "Invalid value: null: must not update from a positive integer to nil value",
        ),
        (
            {"schedulingGates": [{"name": "a.b/c"}]},
            "spec.schedulingGates[0].name",
            "Forbidden: only deletion is allowed, but found new scheduling gate 'a.b/c'",
        ),
    ],
)
def test_changes_that_no_pod_may_see_are_told(api: Api, change: Object, field: str, told: str) -> None:
    api.make("a", activeDeadlineSeconds=10)
    with pytest.raises(ApiError) as caught:
        api.change("a", {"spec": change})
    assert (field, told) in causes(caught.value)


def test_a_gated_pod_waits_may_be_held_to_more_and_is_not_bound(api: Api) -> None:
    pod = api.make("a", schedulingGates=[{"name": "a.b/c"}])
    (condition,) = pod["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "PodScheduled",
        "False",
        "SchedulingGated",
    )
    api.change("a", {"spec": {"nodeSelector": {"a": "b"}}})
    with pytest.raises(ApiError) as caught:
        api.bind("a", "n1")
    assert refusal(caught) == (
        409,
        'Operation cannot be fulfilled on pods/binding "a": pod a has non-empty .spec.schedulingGates',
    )
    api.change("a", {"spec": {"schedulingGates": []}})
    assert api.bind("a", "n1")["status"] == "Success"


def test_ephemeral_containers_come_and_neither_change_nor_go(api: Api) -> None:
    api.make("a")
    part = "/ephemeralcontainers"
    body = {"spec": {"ephemeralContainers": [{"name": "e", "image": "busybox"}], "restartPolicy": "Never"}}
    pod = api.change("a", body, part)
    assert pod["metadata"]["generation"] == 2
    assert pod["spec"]["restartPolicy"] == "Always"
    for changed in ([], [{"name": "e", "image": "other"}]):
        with pytest.raises(ApiError) as caught:
            api.change("a", {"spec": {"ephemeralContainers": changed}}, part)
        ((field, message),) = causes(caught.value)
        assert field == "spec.ephemeralContainers"
        assert message.startswith('Forbidden: existing ephemeral containers "e" may not be ')


def _sized(**requests: str) -> list[Object]:
    return [{"name": "c", "image": "nginx", "resources": {"requests": requests}}]


def test_a_resize_changes_cpu_and_memory_alone(api: Api) -> None:
    api.make("a", containers=_sized(cpu="100m", memory="10Mi"))
    pod = api.change("a", {"spec": {"containers": _sized(cpu="200m", memory="10Mi")}}, "/resize")
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m", "memory": "10Mi"}
    assert pod["metadata"]["generation"] == 2
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    with pytest.raises(ApiError) as caught:
        api.change("a", {"spec": {"containers": _sized(cpu="200m")}}, "/resize")
    assert causes(caught.value) == [
        ("spec.containers[0].resources.requests", "Forbidden: resource requests cannot be removed")
    ]
    limited = [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]
    with pytest.raises(ApiError) as caught:
        api.change("a", {"spec": {"containers": limited}}, "/resize")
    message = 'Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'
    assert ("spec", message) in causes(caught.value)


# ---------------------------------------------------------------------- status


def test_status_is_written_by_itself_and_completed_as_upstream_does(api: Api) -> None:
    api.make("a")
    assert api.change("a", {"status": {"phase": "Running"}})["status"]["phase"] == "Pending"
    pod = api.say(
        "a",
        phase="Running",
        podIP="10.1.1.1",
        conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[{"name": "c", "state": {"terminated": {}}}],
    )
    assert pod["status"] == {
        "phase": "Running",
        "podIP": "10.1.1.1",
        "podIPs": [{"ip": "10.1.1.1"}],
        "qosClass": "BestEffort",
        "conditions": [
            {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
        ],
        "containerStatuses": [
            {
                "name": "c",
                "ready": False,
                "restartCount": 0,
                "image": "",
                "imageID": "",
                "state": {"terminated": {"exitCode": 0, "startedAt": None, "finishedAt": None}},
                "lastState": {},
            }
        ],
    }
    assert pod["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"qosClass": "Guaranteed"}, ("status.qosClass", 'Invalid value: "Guaranteed": field is immutable')),
        (
            {"podIP": "x", "podIPs": [{"ip": "x"}]},
            (
                "status.podIPs[0]",
                'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
            ),
        ),
        (
            {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
            (
                "status.podIPs",
                'Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more than one IP for each IP family',
            ),
        ),
        (
            {"containerStatuses": [{"name": "c", "state": {"running": {}}}]},
            (
                "status.containerStatuses[0].state",
                "Forbidden: may not be transitioned to non-terminated state",
            ),
        ),
    ],
)
def test_a_status_that_cannot_be_is_refused(api: Api, status: Object, expected: tuple[str, str]) -> None:
    api.make("a", restartPolicy="Never")
    api.say("a", containerStatuses=[{"name": "c", "state": {"terminated": {"exitCode": 1}}}])
    with pytest.raises(ApiError) as caught:
        api.say("a", **status)
    assert causes(caught.value) == [expected]


# ---------------------------------------------------------------------- a kubelet and its scheduler


def test_whoever_plays_kubelet_finds_its_pods_runs_them_and_lets_them_go(api: Api) -> None:
    pod = api.make("a", terminationGracePeriodSeconds=7)
    version = pod["metadata"]["resourceVersion"]
    waiting = api.client.get(PODS, fieldSelector="spec.nodeName=")
    assert [one["metadata"]["name"] for one in waiting["items"]] == ["a"]
    assert api.bind("a", "n1", annotations={"by": "me"}, uid=pod["metadata"]["uid"])["code"] == 201
    mine = api.client.get(PODS, fieldSelector="spec.nodeName=n1,status.phase=Pending")
    (bound,) = mine["items"]
    assert bound["metadata"]["annotations"] == {"by": "me"}
    assert bound["metadata"]["generation"] == 1
    assert [one["type"] for one in bound["status"]["conditions"]] == ["PodScheduled"]
    api.say("a", phase="Running")
    leaving = api.delete("a")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 7
    assert leaving["metadata"]["generation"] == 2
    assert api.delete("a", 60)["metadata"]["deletionGracePeriodSeconds"] == 7
    assert api.delete("a", 3)["metadata"]["deletionGracePeriodSeconds"] == 3
    with pytest.raises(ApiError) as caught:
        api.bind("a", "n2")
    assert caught.value.message.endswith("pod a is being deleted, cannot be assigned to a host")
    assert api.delete("a", 0)["metadata"]["deletionGracePeriodSeconds"] == 0
    with pytest.raises(ApiError) as caught:
        api.pod("a")
    assert refusal(caught) == (404, 'pods "a" not found')
    assert int(version) < int(leaving["metadata"]["resourceVersion"])


def test_a_pod_without_a_node_or_with_nothing_left_to_end_goes_at_once(api: Api) -> None:
    api.make("a")
    assert api.delete("a", 60)["metadata"]["deletionGracePeriodSeconds"] == 0
    api.make("b", nodeName="n1")
    api.say("b", phase="Succeeded")
    api.delete("b")
    assert api.client.get(PODS)["items"] == []


def test_finalizers_keep_a_pod_beyond_its_grace(api: Api) -> None:
    api.make("a", {"finalizers": ["example.com/wait"]}, nodeName="n1")
    api.delete("a")
    assert api.delete("a", 0)["metadata"]["deletionGracePeriodSeconds"] == 0
    api.change("a", {"metadata": {"finalizers": None}})
    with pytest.raises(ApiError) as caught:
        api.pod("a")
    assert caught.value.code == 404


def test_a_pod_is_bound_once(api: Api) -> None:
    api.make("a")
    api.bind("a", "n1")
    with pytest.raises(ApiError) as caught:
        api.bind("a", "n2")
    assert refusal(caught) == (
        409,
        'Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1"',
    )


def test_the_old_way_to_bind_names_the_pod_in_its_body(api: Api) -> None:
    api.make("a")
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n1"},
    }
    api.client.post("/api/v1/namespaces/default/bindings", body)
    assert api.pod("a")["spec"]["nodeName"] == "n1"


def test_a_pod_takes_the_zone_of_its_node(api: Api) -> None:
    zone = {"topology.kubernetes.io/zone": "z1", "other": "x"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "zoned", "labels": zone}}
    api.client.post("/api/v1/nodes", node)
    api.make("a")
    api.bind("a", "zoned")
    assert api.pod("a")["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z1"}
    api.client.delete("/api/v1/nodes/zoned")


# ---------------------------------------------------------------------- evictions


def _budget(api: Api, *, least: int, healthy: int) -> None:
    """One that has been counted."""
    spec = {"minAvailable": least, "selector": {"matchLabels": {"app": "a"}}}
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"},
        "spec": spec,
    }
    api.client.post(BUDGETS, body)
    until = time.monotonic() + 30
    while True:
        status = api.client.get(f"{BUDGETS}/b")["status"]
        if status.get("observedGeneration") == 1 and status["currentHealthy"] == healthy:
            break
        assert time.monotonic() < until, status
        time.sleep(0.01)
    assert status["disruptionsAllowed"] == max(healthy - least, 0)


def _running(api: Api, name: str) -> None:
    api.make(name, {"labels": {"app": "a"}}, nodeName="n1")
    api.say(name, phase="Running", conditions=[{"type": "Ready", "status": "True"}])


def test_an_eviction_takes_a_disruption_from_the_budget_until_there_is_none(api: Api) -> None:
    for name in ("a", "b"):
        _running(api, name)
    _budget(api, least=1, healthy=2)
    assert api.evict("a", "v1beta1", gracePeriodSeconds=9)["status"] == "Success"
    gone = api.pod("a")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 9
    condition = gone["status"]["conditions"][-1]
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "EvictionByEvictionAPI")
    assert api.client.get(f"{BUDGETS}/b")["status"]["disruptionsAllowed"] == 0
    with pytest.raises(ApiError) as caught:
        api.evict("b")
    assert refusal(caught) == (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    assert "deletionTimestamp" not in api.pod("b")["metadata"]


def test_of_evictions_at_once_no_more_go_through_than_the_budget_allows(api: Api) -> None:
    names = [f"p{number}" for number in range(8)]
    for name in names:
        _running(api, name)
    _budget(api, least=5, healthy=8)

    def tried(name: str) -> int:
        try:
            return int(api.evict(name)["code"])
        except ApiError as error:
            return error.code

    with ThreadPoolExecutor(len(names)) as pool:
        codes = sorted(pool.map(tried, names))
    assert codes == [201] * 3 + [429] * 5
    assert api.client.get(f"{BUDGETS}/b")["status"]["disruptionsAllowed"] == 0


def test_a_dry_eviction_changes_nothing(api: Api) -> None:
    for name in ("a", "b"):
        _running(api, name)
    _budget(api, least=1, healthy=2)
    before = api.pod("a"), api.client.get(f"{BUDGETS}/b")
    assert api.evict("a", dryRun=["All"])["status"] == "Success"
    assert before == (api.pod("a"), api.client.get(f"{BUDGETS}/b"))


def test_a_pod_that_does_not_run_is_evicted_whatever_budgets_say(api: Api) -> None:
    api.make("a", {"labels": {"app": "a"}})
    _budget(api, least=1, healthy=0)
    api.evict("a")
    with pytest.raises(ApiError) as caught:
        api.pod("a")
    assert caught.value.code == 404


def test_an_eviction_is_of_the_pod_that_it_names(api: Api) -> None:
    _running(api, "a")
    with pytest.raises(ApiError) as caught:
        api.evict("a", preconditions={"uid": "another"})
    assert caught.value.reason == "Conflict"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}}
    with pytest.raises(ApiError) as caught:
        api.client.post(f"{PODS}/a/eviction", body)
    assert refusal(caught) == (400, "name in URL does not match name in Eviction object")


# ---------------------------------------------------------------------- what there is nobody for


@pytest.mark.parametrize("path", ["log", "exec?command=ls", "attach", "portforward", "proxy", "proxy/a/b"])
def test_what_needs_a_node_is_told_that_there_are_none(api: Api, path: str) -> None:
    api.make("a")
    part, _, _ = path.partition("?")
    with pytest.raises(ApiError) as caught:
        api.client.get(f"{PODS}/a/{part}")
    assert refusal(caught) == (400, "this cluster has no nodes")
    with pytest.raises(ApiError) as caught:
        api.client.get(f"{PODS}/missing/{part}")
    assert refusal(caught) == (404, 'pods "missing" not found')


def test_a_log_is_of_a_container_that_the_pod_has(api: Api) -> None:
    api.make("a", containers=[{"name": "c", "image": "x"}, {"name": "d", "image": "x"}])
    for parameters, told in (
        ({"container": "e"}, "container e is not valid for pod a"),
        ({}, "a container name must be specified for pod a, choose one of: [c d]"),
    ):
        with pytest.raises(ApiError) as caught:
            api.client.get(f"{PODS}/a/log", **parameters)
        assert refusal(caught) == (400, told)
