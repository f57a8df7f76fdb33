from __future__ import annotations

import base64

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.tenancy.kubeconfig import Endpoint, context_name


def test_everything_in_it_goes_by_one_name_of_host_and_cluster() -> None:
    document = Endpoint("https://api.example.com:8443/", b"PEM").kubeconfig("team-a", "secret")
    name = "clusterling-api.example.com-team-a"
    assert document["current-context"] == name
    assert document["contexts"] == [{"name": name, "context": {"cluster": name, "user": name}}]
    assert document["users"] == [{"name": name, "user": {"token": "secret"}}]
    (cluster,) = document["clusters"]
    assert cluster["name"] == name
    assert cluster["cluster"]["server"] == "https://api.example.com:8443/clusters/team-a"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"PEM"


def test_without_a_ca_clients_trust_their_systems() -> None:
    (cluster,) = Endpoint("https://api.example.com").kubeconfig("team-a", "secret")["clusters"]
    assert cluster["cluster"] == {"server": "https://api.example.com/clusters/team-a"}


def test_an_address_makes_a_name_that_needs_no_quoting() -> None:
    assert context_name("https://[::1]:6443", "a") == "clusterling-1-a"
    assert context_name("https://127.0.0.1:6443", "a") == "clusterling-127.0.0.1-a"


def test_a_server_that_listens_nowhere_gives_no_kubeconfig() -> None:
    endpoint = Endpoint()
    assert endpoint.url("team-a") == ""
    with pytest.raises(ApiError) as refused:
        endpoint.kubeconfig("team-a", "secret")
    assert refused.value.code == 503
