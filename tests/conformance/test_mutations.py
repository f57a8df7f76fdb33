"""What kube-apiserver 1.37.2 was recorded to say of specs with one field otherwise, this server says too."""

from __future__ import annotations

from clusterling.testing.kube import Kube, KubeServer
from tests.conformance import mutations
from tests.conformance.exchange import Peer


def test_specs_are_judged_as_kube_apiserver_was_recorded_to(kube_server: KubeServer) -> None:
    kube_server.call(kube_server.server.clusters.create("mutations", packs="all"))
    kube = Kube(kube_server, "mutations")
    themes = mutations.table()
    wrong = []
    for name, answer, cases in mutations.tell(Peer(kube.url, kube.token, kube.ca_pem), themes):
        recorded = themes[name]
        if answer != recorded["answer"]:
            wrong.append(f"{name}: {mutations.difference(recorded['answer'], answer)}")
        wrong += [
            f"{name} {ours[0]} {ours[1]!r}:\n  theirs: {theirs[2:]}\n  ours:   {ours[2:]}"
            for theirs, ours in zip(recorded["cases"], cases, strict=True)
            if theirs != ours
        ]
    assert not wrong, "\n".join(wrong)


def test_every_theme_has_what_is_right_and_what_is_not() -> None:
    for name, theme in mutations.table().items():
        assert theme["answer"].get("kind") == theme["object"]["kind"], name
        assert any(case[2] >= 400 for case in theme["cases"]), name
