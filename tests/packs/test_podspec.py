"""Pod templates: what they get, what they lose, what is wrong with them, what is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.meta import Object
from clusterling.packs.core.podspec import (
    default_pod_spec,
    default_pod_template,
    drop_disabled_fields,
    pod_spec_problems,
    pod_template_problems,
    pod_template_warnings,
)
from clusterling.packs.core.podspec.images import tag_of


def template(*, labels: dict[str, str] | None = None, **pod: Any) -> Object:
    found: Object = {
        "metadata": {"labels": labels or {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], **pod},
    }
    default_pod_template(found)
    return found


def container(**fields: Any) -> list[Object]:
    return [{"name": "c", "image": "nginx", **fields}]


def wrong(**pod: Any) -> list[tuple[str, str]]:
    spec = template(**pod)["spec"]
    return [(error.field, error.body()) for error in pod_spec_problems(spec, "spec", template=True)]


def test_a_template_gets_what_it_does_not_say() -> None:
    assert template()["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


def test_defaulting_twice_changes_nothing() -> None:
    once = template(volumes=[{"name": "v"}], serviceAccount="a")
    again = template(**once["spec"])
    assert again["spec"] == once["spec"]
    assert once["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert once["spec"]["serviceAccountName"] == "a"


def test_quantities_are_written_in_their_one_form_and_rounded_up_to_thousandths() -> None:
    limits = {"cpu": "0.5", "memory": 1000, "ephemeral-storage": "0.0001"}
    spec = template(containers=container(resources={"limits": limits}))["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {
        "cpu": "500m",
        "memory": "1k",
        "ephemeral-storage": "1m",
    }


def test_what_is_no_quantity_is_told_in_the_words_of_the_decoder() -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        default_pod_spec({"containers": container(resources={"limits": {"cpu": "many"}})})


def test_what_go_does_not_write_when_it_is_empty_is_not_kept() -> None:
    pod = template(
        containers=container(
            stdin=False, securityContext={"privileged": False}, env=[{"name": "A", "value": ""}]
        ),
        hostNetwork=False,
        tolerations=[],
    )["spec"]
    assert "hostNetwork" not in pod
    assert "tolerations" not in pod
    assert "stdin" not in pod["containers"][0]
    assert pod["containers"][0]["env"] == [{"name": "A"}]
    assert pod["containers"][0]["securityContext"] == {"privileged": False}


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("nginx", "latest"),
        ("nginx:1.2", "1.2"),
        ("example.com:5000/a/b", "latest"),
        ("example.com:5000/a/b:c", "c"),
        ("a@sha256:" + "0" * 64, ""),
        ("Host/a", "latest"),
        ("a/UPPER", ""),
        ("0" * 64, ""),
        ("", ""),
        ("a" * 5000, ""),
    ],
)
def test_the_tag_of_an_image_decides_when_it_is_pulled(image: str, tag: str) -> None:
    assert tag_of(image) == tag


def test_a_null_in_a_list_is_an_empty_object() -> None:
    spec: Object = {"containers": [None], "volumes": [None]}
    default_pod_spec(spec)
    fields = [error.field for error in pod_spec_problems(spec, "spec", template=True)]
    assert fields == ["spec.volumes[0].name", "spec.containers[0].name", "spec.containers[0].image"]


def test_fields_of_gates_that_are_off_are_dropped() -> None:
    found = template(
        containers=container(
            lifecycle={"stopSignal": "SIGTERM"}, livenessProbe={"httpGet": {"port": 1, "protocol": "HTTP2"}}
        ),
        schedulingGroup={"podGroupName": "g"},
    )
    drop_disabled_fields(found)
    assert "schedulingGroup" not in found["spec"]
    assert "lifecycle" not in found["spec"]["containers"][0]
    assert "protocol" not in found["spec"]["containers"][0]["livenessProbe"]["httpGet"]


def test_containers_need_names_images_and_the_volumes_they_mount() -> None:
    mounts = [
        {"name": "v", "mountPath": "/a"},
        {"name": "v", "mountPath": "/a"},
        {"name": "w", "mountPath": ""},
    ]
    assert wrong(volumes=[{"name": "v"}], containers=[{"name": "A", "volumeMounts": mounts}])[1:] == [
        ("spec.containers[0].image", "Required value"),
        ("spec.containers[0].volumeMounts[1].mountPath", 'Invalid value: "/a": must be unique'),
        ("spec.containers[0].volumeMounts[2].name", 'Not found: "w"'),
        ("spec.containers[0].volumeMounts[2].mountPath", "Required value"),
    ]


def test_a_volume_has_one_source() -> None:
    volumes = [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}, {"name": "w", "configMap": {}}]
    assert wrong(volumes=volumes) == [
        ("spec.volumes[0].secret", "Forbidden: may not specify more than 1 volume type"),
        ("spec.volumes[1].configMap.name", "Required value"),
    ]


def test_requests_do_not_exceed_limits() -> None:
    resources = {
        "limits": {"cpu": "1", "hugepages-2Mi": "3Mi"},
        "requests": {"cpu": "2", "example.com/gpu": "1"},
    }
    assert wrong(containers=container(resources=resources)) == [
        (
            "spec.containers[0].resources.limits[hugepages-2Mi]",
            'Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
        ),
        (
            "spec.containers[0].resources.requests",
            'Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            "spec.containers[0].resources.limits",
            "Required value: Limit must be set for non overcommitable resources",
        ),
    ]


def test_probes_have_one_handler_and_liveness_succeeds_at_once() -> None:
    probe = {"successThreshold": 2, "exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}
    assert wrong(containers=container(livenessProbe=probe)) == [
        ("spec.containers[0].livenessProbe.tcpSocket", "Forbidden: may not specify more than 1 handler type"),
        ("spec.containers[0].livenessProbe.successThreshold", "Invalid value: 2: must be 1"),
    ]


def test_init_containers_have_no_probes_unless_they_stay() -> None:
    init = {"name": "i", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}}}
    why = "Forbidden: may not be set for init containers without restartPolicy=Always"
    assert wrong(initContainers=[dict(init)]) == [("spec.initContainers[0].livenessProbe", why)]
    assert wrong(initContainers=[{**init, "restartPolicy": "Always"}]) == []


def test_constraints_that_repeat_are_told_once_each() -> None:
    one = {"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    fields = [field for field, _ in wrong(topologySpreadConstraints=[one] * 3)]
    here = "spec.topologySpreadConstraints[{}].{{topologyKey, whenUnsatisfiable}}"
    assert fields == [here.format(0), here.format(1)]


def test_ephemeral_containers_are_no_part_of_a_template() -> None:
    found = template(ephemeralContainers=[{"name": "e", "image": "x"}])
    fields = [error.field for error in pod_template_problems(found, "spec.template")]
    assert fields == ["spec.template.spec.ephemeralContainers"]


def test_host_ports_of_a_template_may_wait_for_the_pod() -> None:
    pod = template(hostNetwork=True, containers=container(ports=[{"containerPort": 80}]))["spec"]
    assert pod_spec_problems(pod, "spec", template=True) == []
    assert [error.field for error in pod_spec_problems(pod, "spec", template=False)] == [
        "spec.containers[0].ports[0].hostPort"
    ]


def test_what_is_deprecated_or_ambiguous_is_warned_of() -> None:
    found = template(
        nodeSelector={"beta.kubernetes.io/os": "linux"},
        containers=container(
            env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
            ports=[{"containerPort": 1}, {"containerPort": 1}],
        ),
    )
    assert pod_template_warnings(found, "spec.template") == [
        'spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
        'spec.template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
        "spec.template.spec.containers[0].ports[1]: duplicate port definition with spec.template.spec.containers[0].ports[0]",
    ]


def test_a_pod_has_room_for_what_its_containers_ask_for_at_once() -> None:
    def asking(name: str, cpu: str, **fields: Any) -> Object:
        return {"name": name, "image": "x", "resources": {"requests": {"cpu": cpu}}, **fields}

    pod: dict[str, Any] = {
        "containers": [asking("a", "1"), asking("b", "1")],
        "initContainers": [asking("i", "3"), asking("s", "500m", restartPolicy="Always")],
    }
    assert wrong(**pod, resources={"requests": {"cpu": "3"}}) == []
    assert wrong(**pod, resources={"requests": {"cpu": "2"}}) == [
        (
            "spec.resources.requests[cpu]",
            'Invalid value: "2": must be greater than or equal to aggregate container requests of 3',
        )
    ]
