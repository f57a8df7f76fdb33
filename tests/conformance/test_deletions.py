"""What kube-apiserver 1.37.2 and its controllers were recorded to make of deletions, this server makes of them."""

from __future__ import annotations

from clusterling.testing.kube import Kube, KubeServer
from tests.conformance import deletions
from tests.conformance.exchange import Peer


def test_deletions_end_as_kube_controller_manager_was_recorded_to_end_them(kube_server: KubeServer) -> None:
    kube_server.call(kube_server.server.clusters.create("deletions", packs="all"))
    kube = Kube(kube_server, "deletions")
    recorded = deletions.recorded()
    stories = {name: deletions.story(name) for name in recorded}
    told = deletions.tell_all(
        Peer(kube.url, kube.token, kube.ca_pem),
        stories,
        deletions.PATIENT,
        wanted=recorded,
        idle=lambda: kube_server.server._runtime.idle,
    )
    wrong = [
        f"[{name}] {text}"
        for name, items in stories.items()
        for text in deletions.wrong(items, recorded[name], told[name], states=deletions.tells_states(name))
    ]
    assert not wrong, "\n".join(wrong)
