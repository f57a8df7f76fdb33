"""CRDs as they are published: two releases of the Gateway API, from its Go module (fetched, not kept here)."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterling.machinery.meta import Object
from clusterling.packs.apiextensions import CUSTOM_RESOURCE_DEFINITIONS
from clusterling.registry.crd import (
    CustomResourceStrategy,
    crd_warnings,
    default_crd,
    resource_of,
    storage_version,
    validate_crd,
)
from clusterling.registry.resource import Resource

RELEASES = ("v1.2.1", "v1.5.1")


@cache
def published(release: str) -> dict[str, Object]:
    """The standard channel's CRDs by plural. Skips where there is no Go to fetch them."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("the Gateway API's CRDs come from its Go module, and Go is not installed")
    command = [go, "mod", "download", "-json", f"sigs.k8s.io/gateway-api@{release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        pytest.skip(f"the Gateway API {release} could not be fetched: {done.stdout}{done.stderr}")
    folder = Path(json.loads(done.stdout)["Dir"], "config/crd/standard")
    documents = [
        one
        for file in sorted(folder.glob("*.yaml"))
        for one in yaml.load_all(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    ]
    return {
        one["spec"]["names"]["plural"]: one
        for one in documents
        if one and one["kind"] == "CustomResourceDefinition"
    }


@cache
def resource(release: str, plural: str) -> Resource:
    crd = copy.deepcopy(published(release)[plural])
    default_crd(crd)
    return resource_of(crd, schema_revision=1, guard_key="", strategy=CustomResourceStrategy())


def wrong(release: str, plural: str, obj: Object, version: str = "v1") -> list[str]:
    schema = resource(release, plural).version(version).schema
    made = copy.deepcopy(obj)
    unknown = [f"unknown {path}" for path in schema.prune(made)]
    schema.default(made)
    return unknown + [str(error) for error in schema.validate(made)]


@pytest.mark.parametrize("release", RELEASES)
def test_every_crd_of_a_release_is_accepted_whole(release: str) -> None:
    for plural, crd in published(release).items():
        made = copy.deepcopy(crd)
        schema = CUSTOM_RESOURCE_DEFINITIONS.versions[0].schema
        assert schema.prune(made) == [], plural
        assert schema.mismatch(made, "CustomResourceDefinition") is None, plural
        default_crd(made)
        made["status"] = {"storedVersions": [storage_version(made)]}
        assert validate_crd(made) == [], plural
        assert len(crd_warnings(made)) <= 1, plural
        assert resource(release, plural).versions, plural


GATEWAY: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "web"},
    "spec": {
        "gatewayClassName": "internal",
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
    },
}
ROUTE: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "web"},
    "spec": {
        "parentRefs": [{"name": "web"}],
        "hostnames": ["www.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "method": "GET"}],
                "backendRefs": [{"name": "app", "port": 8080}],
            }
        ],
    },
}


@pytest.mark.parametrize("release", RELEASES)
def test_good_objects_pass(release: str) -> None:
    assert wrong(release, "gateways", GATEWAY) == []
    assert wrong(release, "httproutes", ROUTE) == []


def changed(obj: Object, *path: str | int, to: Any = None) -> Object:
    made = copy.deepcopy(obj)
    here: Any = made
    for step in path[:-1]:
        here = here[step]
    if to is None:
        del here[path[-1]]
    else:
        here[path[-1]] = to
    return made


@pytest.mark.parametrize("release", RELEASES)
def test_bad_objects_are_refused_by_what_is_wrong_with_them(release: str) -> None:
    match = ("spec", "rules", 0, "matches", 0)
    assert wrong(release, "gateways", changed(GATEWAY, "spec", "gatewayClassName")) == [
        "spec.gatewayClassName: Required value"
    ]
    assert wrong(release, "gateways", changed(GATEWAY, "spec", "listeners", 0, "port", to=70000)) == [
        "spec.listeners[0].port: Invalid value: 70000: "
        "spec.listeners[0].port in body should be less than or equal to 65535"
    ]
    two = [GATEWAY["spec"]["listeners"][0]] * 2
    assert wrong(release, "gateways", changed(GATEWAY, "spec", "listeners", to=two)) == [
        'spec.listeners[1]: Duplicate value: {"name":"http"}'
    ]
    [method] = wrong(release, "httproutes", changed(ROUTE, *match, "method", to="FETCH"))
    assert method.startswith(
        'spec.rules[0].matches[0].method: Unsupported value: "FETCH": supported values: "GET", "HEAD"'
    )
    [host] = wrong(release, "httproutes", changed(ROUTE, "spec", "hostnames", 0, to="not a host"))
    assert host.startswith(
        'spec.hostnames[0]: Invalid value: "not a host": spec.hostnames[0] in body should match'
    )
    assert wrong(release, "httproutes", changed(ROUTE, "spec", "colour", to="red")) == ["unknown spec.colour"]


@pytest.mark.parametrize("release", RELEASES)
def test_defaults_are_filled_in_all_the_way_down(release: str) -> None:
    made = copy.deepcopy(ROUTE)
    del made["spec"]["rules"][0]["matches"]
    resource(release, "httproutes").version("v1").schema.default(made)
    rule = made["spec"]["rules"][0]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["backendRefs"][0] == {
        "name": "app",
        "port": 8080,
        "group": "",
        "kind": "Service",
        "weight": 1,
    }
    assert made["spec"]["parentRefs"][0]["kind"] == "Gateway"


def test_the_releases_differ_in_what_they_serve() -> None:
    old, new = (set(published(release)) for release in RELEASES)
    assert {"gateways", "httproutes", "gatewayclasses", "grpcroutes", "referencegrants"} <= old
    assert new > old
