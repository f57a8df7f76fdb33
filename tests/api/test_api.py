"""The API as a user of the `kube` fixture meets it: a fresh cluster for every test, over the same code as the network's."""

from __future__ import annotations

import gzip
import json
import ssl
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.ports import ROOT_CA
from clusterling.testing.kube import Kube

MAPS = "/api/v1/namespaces/default/configmaps"

SHAPES: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "shapes.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "shapes", "kind": "Shape", "shortNames": ["shp"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "additionalPrinterColumns": [
                    {"name": "Corners", "type": "integer", "jsonPath": ".spec.corners"}
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "corners": {"type": "integer", "default": 4},
                                    "replicas": {"type": "integer", "minimum": 0},
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "selector": {"type": "string"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def fetch(kube: Kube, path: str, **headers: str) -> tuple[bytes, dict[str, str]]:
    """A GET over the network, with the kubeconfig's credential."""
    request = urllib.request.Request(
        kube.url + path, headers={"Authorization": f"Bearer {kube.token}", **headers}
    )
    context = ssl.create_default_context(cadata=kube.ca_pem)
    with urllib.request.urlopen(request, context=context) as answer:
        return answer.read(), dict(answer.headers)


def test_what_apply_makes_is_there_and_applies_again(kube: Kube) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    kube.apply(manifest)
    kube.apply(yaml.safe_dump({**manifest, "data": {"k": "2"}}))
    assert kube.client.get(f"{MAPS}/a")["data"] == {"k": "2"}


def test_clusters_of_one_session_share_nothing(kube_factory: Callable[[], Kube]) -> None:
    one, other = kube_factory(), kube_factory()
    one.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    assert [item["metadata"]["name"] for item in one.client.get(MAPS)["items"]] == ["a", ROOT_CA]
    assert [item["metadata"]["name"] for item in other.client.get(MAPS)["items"]] == [ROOT_CA]


@pytest.mark.parametrize(
    ("content_type", "patch", "data"),
    [
        ("application/merge-patch+json", {"data": {"a": None, "c": "3"}}, {"b": "2", "c": "3"}),
        ("application/strategic-merge-patch+json", {"data": {"a": "9"}}, {"a": "9", "b": "2"}),
        ("application/json-patch+json", [{"op": "remove", "path": "/data/b"}], {"a": "1"}),
    ],
)
def test_each_kind_of_patch_does_what_its_standard_says(
    kube: Kube, content_type: str, patch: Any, data: Object
) -> None:
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1", "b": "2"}}
    )
    assert kube.client.patch(f"{MAPS}/a", patch, content_type=content_type)["data"] == data


def test_a_custom_kind_has_defaults_columns_status_and_scale(kube: Kube) -> None:
    kube.apply(SHAPES)
    path = "/apis/example.com/v1/namespaces/default/shapes"
    made = kube.client.post(
        path, {"apiVersion": "example.com/v1", "kind": "Shape", "metadata": {"name": "s"}, "spec": {}}
    )
    assert made["spec"] == {"corners": 4}
    scaled = kube.client.patch(f"{path}/s/scale", {"spec": {"replicas": 3}})
    assert (scaled["kind"], scaled["spec"]) == ("Scale", {"replicas": 3})
    kube.client.patch(f"{path}/s/status", {"status": {"replicas": 2}})
    now = kube.client.get(f"{path}/s")
    assert (now["spec"]["replicas"], now["status"]) == (3, {"replicas": 2})
    body, _ = fetch(kube, path, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    table = json.loads(body)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Corners"]
    assert table["rows"][0]["cells"] == ["s", 4]


def test_answers_come_in_the_form_that_was_asked_for(kube: Kube) -> None:
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})
    body, headers = fetch(kube, f"{MAPS}/a", Accept="application/yaml")
    assert headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(body)["data"] == {"k": "v"}
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    body, _ = fetch(kube, MAPS, Accept=partial)
    found = json.loads(body)
    assert found["kind"] == "PartialObjectMetadataList"
    assert "data" not in found["items"][0]


def test_big_answers_are_compressed_for_those_who_take_it(kube: Kube) -> None:
    for number in range(3):
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"big-{number}"},
                "data": {"k": "v" * 60_000},
            }
        )
    body, headers = fetch(kube, MAPS, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(body))["items"]) == 3 + 1
    body, headers = fetch(kube, f"{MAPS}/big-1", **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in headers


def test_a_watch_tells_what_happens_in_order(kube: Kube) -> None:
    listed = kube.client.get(MAPS)["metadata"]["resourceVersion"]
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}})
    kube.client.patch(f"{MAPS}/a", {"data": {"k": "2"}})
    kube.client.delete(f"{MAPS}/a")
    body, _ = fetch(kube, f"{MAPS}?watch=1&resourceVersion={listed}&timeoutSeconds=1")
    events = [json.loads(line) for line in body.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert revisions == sorted(set(revisions))


def test_errors_are_statuses_that_name_every_cause(kube: Kube) -> None:
    with pytest.raises(ApiError) as refused:
        kube.client.post(
            MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_b"}, "data": {"!": "x"}}
        )
    status = refused.value.status()
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 422, "Invalid")
    assert [cause["field"] for cause in status["details"]["causes"]] == ["metadata.name", "data[!]"]
