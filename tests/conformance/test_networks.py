"""What kube-apiserver 1.37.2 was recorded to answer of services and networking, this server answers too."""

from __future__ import annotations

import pytest

from clusterling.testing.kube import Kube, KubeServer
from tests.conformance import exchange, networks
from tests.conformance.exchange import Json, Peer

ROWS = networks.table()


@pytest.fixture(scope="module")
def answers(kube_server: KubeServer) -> list[Json]:
    kube_server.call(kube_server.server.clusters.create("networks", packs="all"))
    kube = Kube(kube_server, "networks")
    return networks.tell(Peer(kube.url, kube.token, kube.ca_pem), networks.story(ROWS))


@pytest.mark.parametrize(
    "number", range(len(ROWS)), ids=[f"{number}-{row['request']}" for number, row in enumerate(ROWS)]
)
def test_services_answer_as_kube_apiserver_was_recorded_to(number: int, answers: list[Json]) -> None:
    wrong = exchange.judge(networks.story(ROWS)[number], ROWS[number], answers[number])
    assert not wrong, "\n".join(wrong)
