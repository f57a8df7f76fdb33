"""What kube-apiserver 1.37.2 was recorded to answer, this server answers too, over a real socket.

The table is `recorded.json`; `python -m tests.conformance.differential` records it anew beside the real server.
"""

from __future__ import annotations

import pytest

from clusterling.testing.kube import KubeServer
from tests.conformance import differential, exchange
from tests.conformance.exchange import Json, Peer
from tests.conformance.stories import STORIES


@pytest.fixture(scope="module")
def table() -> dict[str, list[Json]]:
    return differential.recorded()


@pytest.fixture(scope="module")
def answers(kube_server: KubeServer) -> dict[str, list[Json]]:
    with kube_server.cluster() as kube:
        return differential.tell(Peer(kube.url, kube.token, kube.ca_pem), list(STORIES))


@pytest.mark.parametrize("name", STORIES)
def test_answers_as_kube_apiserver_was_recorded_to(
    name: str, table: dict[str, list[Json]], answers: dict[str, list[Json]]
) -> None:
    told = zip(STORIES[name], table[name], answers[name], strict=True)
    wrong = [text for step, row, answer in told for text in exchange.judge(step, row, answer)]
    assert not wrong, "\n".join(wrong)


def test_the_table_holds_no_story_that_is_not_told(table: dict[str, list[Json]]) -> None:
    assert list(table) == list(STORIES)
