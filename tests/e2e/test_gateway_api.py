"""Two logical clusters, two releases of the Gateway API: what upstream publishes, driven by an unmodified kubectl."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.e2e.clusters import Cluster
from tests.e2e.conftest import NewCluster

pytestmark = pytest.mark.kubectl

OLD, NEW = "v1.2.1", "v1.5.1"
SUMS = {
    OLD: "h1:fZZ/+RyRb+Y5tGkwxFKuYuSRQHu9dZtbjenblleOLHM=",
    NEW: "h1:RqVRIlkhLhUO8wOHKTLnTJA6o/1un4po4/6M1nRzdd0=",
}


def _definitions(version: str) -> list[Path]:
    """The release's standard CRDs, file by file, from its Go module."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("the Gateway API's CRDs come from its Go module, and Go is not installed")
    done = subprocess.run(
        [go, "mod", "download", "-json", f"sigs.k8s.io/gateway-api@{version}"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    module = json.loads(done.stdout)
    assert module["Sum"] == SUMS[version]
    files = sorted(Path(module["Dir"], "config/crd/standard").glob("*.yaml"))
    return [file for file in files if _kind(file) == "CustomResourceDefinition"]


def _kind(file: Path) -> str:
    return str(next(d for d in yaml.safe_load_all(file.read_text()) if d)["kind"])


class Releases(NamedTuple):
    old: Cluster
    new: Cluster


@pytest.fixture(scope="module")
def releases(new_kubectl_cluster: NewCluster) -> Releases:
    made = Releases(new_kubectl_cluster("gateway-old"), new_kubectl_cluster("gateway-new"))
    for cluster, version in zip(made, (OLD, NEW), strict=True):
        for file in _definitions(version):
            assert "created" in cluster.kubectl("create", "-f", str(file))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
    return made


def _object(kind: str, name: str, spec: object, version: str = "v1") -> str:
    metadata = {"name": name, "namespace": "default"}
    manifest = {"apiVersion": f"gateway.networking.k8s.io/{version}", "kind": kind, "metadata": metadata}
    return json.dumps(manifest | ({} if spec is None else {"spec": spec}))


def _redirect(status: int) -> object:
    return {"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": status}}]}]}


LISTENER = {"name": "http", "port": 80, "protocol": "HTTP"}
GRANT = {
    "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
    "to": [{"group": "", "kind": "Service"}],
}

REFUSED = {
    "a status code that only the new enum has": (
        "old",
        _object("HTTPRoute", "redirect", _redirect(308)),
        'spec.rules[0].filters[0].requestRedirect.statusCode: Unsupported value: 308: supported values: "301", "302"',
    ),
    "an address without the value that the old release requires": (
        "old",
        _object(
            "Gateway",
            "address",
            {"gatewayClassName": "c", "listeners": [LISTENER], "addresses": [{"type": "IPAddress"}]},
        ),
        "spec.addresses[0].value: Required value",
    ),
    "a route without the spec that the new release requires": (
        "new",
        _object("GRPCRoute", "bare", None),
        "spec: Required value",
    ),
    "rules that may no longer be empty": (
        "new",
        _object("HTTPRoute", "empty", {"rules": []}),
        "spec.rules: Invalid value: 0: spec.rules in body should have at least 1 items",
    ),
    "a version that only the new release serves": (
        "old",
        _object("ReferenceGrant", "grant", GRANT, "v1"),
        'no matches for kind "ReferenceGrant" in version "gateway.networking.k8s.io/v1"',
    ),
    "a field that only the new release has": (
        "old",
        _object("HTTPRoute", "named", {"rules": [{"name": "first"}]}),
        'strict decoding error: unknown field "spec.rules[0].name"',
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_an_object_right_in_one_release_is_refused_in_the_other(releases: Releases, which: str) -> None:
    refusing, manifest, text = REFUSED[which]
    wrong, right = releases if refusing == "old" else reversed(releases)
    error = wrong.kubectl("create", "-f", "-", stdin=manifest, code=1)
    assert text in error
    assert "created" in right.kubectl("create", "-f", "-", stdin=manifest)


def test_one_object_is_served_at_every_version_of_its_kind(releases: Releases) -> None:
    manifest = _object("ReferenceGrant", "either", GRANT, "v1beta1")
    for cluster in releases:
        cluster.kubectl("create", "-f", "-", stdin=manifest)
    kind = ("get", "-o", "jsonpath={.apiVersion} {.spec.to[0].kind}")
    served = releases.new.kubectl(*kind, "referencegrants.v1.gateway.networking.k8s.io/either")
    assert served == "gateway.networking.k8s.io/v1 Service"
    served = releases.new.kubectl(*kind, "referencegrants.v1beta1.gateway.networking.k8s.io/either")
    assert served == "gateway.networking.k8s.io/v1beta1 Service"
    error = releases.old.kubectl(*kind, "referencegrants.v1.gateway.networking.k8s.io/either", code=1)
    assert "the server doesn't have a resource type" in error


def test_defaults_are_those_of_the_release(releases: Releases) -> None:
    for cluster in releases:
        spec = {"gatewayClassName": "c", "listeners": [LISTENER]}
        cluster.kubectl("create", "-f", "-", stdin=_object("Gateway", "defaulted", spec))
        listener = json.loads(cluster.kubectl("get", "gateway", "defaulted", "-o", "json"))["spec"][
            "listeners"
        ][0]
        assert listener == LISTENER | {"allowedRoutes": {"namespaces": {"from": "Same"}}}


def test_tables_show_the_columns_that_the_release_declares(releases: Releases) -> None:
    for cluster in releases:
        spec = {"gatewayClassName": "example", "listeners": [LISTENER]}
        cluster.kubectl("create", "-f", "-", stdin=_object("Gateway", "shown", spec))
        header, row = cluster.kubectl("get", "gtw", "shown", "-o", "wide").splitlines()
        assert header.split() == ["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]
        assert row.split()[:2] == ["shown", "example"]


def test_discovery_shows_each_cluster_its_own_release(releases: Releases) -> None:
    group = ("api-resources", "--api-group=gateway.networking.k8s.io", "-o", "name")
    shared = {"gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants"}
    added = {"backendtlspolicies", "listenersets", "tlsroutes"}
    expected = [{f"{name}.gateway.networking.k8s.io" for name in names} for names in (shared, shared | added)]
    assert [set(cluster.kubectl(*group).split()) for cluster in releases] == expected
    for cluster in releases:
        versions = cluster.kubectl("api-versions").splitlines()
        assert {v for v in versions if v.startswith("gateway.")} == {
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        }


def test_explain_reads_each_cluster_its_own_schema(releases: Releases) -> None:
    explained = releases.new.kubectl("explain", "httproute.spec.rules.name")
    assert "FIELD: name <string>" in explained
    assert "Name is the name of the route rule." in explained
    error = releases.old.kubectl("explain", "httproute.spec.rules.name", code=1)
    assert 'field "name" does not exist' in error
    assert "statusCode" in releases.old.kubectl("explain", "httproute.spec.rules", "--recursive")


def test_a_name_in_one_cluster_says_nothing_of_the_same_name_in_the_other(releases: Releases) -> None:
    for cluster, host in zip(releases, ("old.example", "new.example"), strict=True):
        spec = {"hostnames": [host], "rules": [{"matches": [{"path": {"value": "/"}}]}]}
        cluster.kubectl("create", "-f", "-", stdin=_object("HTTPRoute", "same", spec))
    hosts = ("get", "httproutes", "same", "-o", "jsonpath={.spec.hostnames[0]}")
    assert [cluster.kubectl(*hosts) for cluster in releases] == ["old.example", "new.example"]
    releases.old.kubectl("delete", "httproute", "same")
    assert releases.new.kubectl(*hosts) == "new.example"


def test_describe_prints_a_custom_resource(releases: Releases) -> None:
    spec = {"controllerName": "example.com/controller", "description": "for the test"}
    for cluster in releases:
        manifest = json.loads(_object("GatewayClass", "described", spec))
        del manifest["metadata"]["namespace"]
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        described = cluster.kubectl("describe", "gatewayclass", "described")
        assert "Controller Name:  example.com/controller" in described
        assert "Type:                  Accepted" in described
        assert "Events:" in described
