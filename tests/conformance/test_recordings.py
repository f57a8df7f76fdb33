"""What kube-apiserver 1.37.2 was recorded to answer of each group's kinds, this server answers too."""

from __future__ import annotations

import pytest

from clusterling.testing.kube import Kube, KubeServer
from tests.conformance import exchange, recordings
from tests.conformance.exchange import Peer


@pytest.mark.parametrize("name", recordings.names())
def test_kinds_answer_as_kube_apiserver_was_recorded_to(name: str, kube_server: KubeServer) -> None:
    cluster = name.replace("_", "-")
    kube_server.call(kube_server.server.clusters.create(cluster, packs="all"))
    kube = Kube(kube_server, cluster)
    rows = recordings.table(name)
    steps = recordings.story(rows)
    answers = recordings.teller(name)(Peer(kube.url, kube.token, kube.ca_pem), steps)
    wrong = [
        f"{number}: {text}"
        for number, (step, row, answer) in enumerate(zip(steps, rows, answers, strict=True))
        for text in exchange.judge(step, row, answer)
    ]
    assert not wrong, "\n".join(wrong)
