"""A real kube-apiserver and this checkout with all packs, beside one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import peers
from tests.conformance.exchange import Peer
from tests.e2e.clusters import Cluster, serving

NAME = "compared"


@contextmanager
def theirs(directory: Path, kubectl: Path | None = None) -> Iterator[Cluster]:
    """The real server, over an etcd of its own."""
    with peers.kube_apiserver(directory / "peer") as running:
        yield Cluster("theirs", running.kubeconfig(directory / "theirs.kubeconfig"), kubectl)


@contextmanager
def ours(directory: Path, kubectl: Path | None = None, packs: str = "all") -> Iterator[Cluster]:
    """A cluster of a server process with these packs, on its embedded store."""
    with serving(directory / "data", "--packs", packs) as server:
        kubeconfig = directory / "ours.kubeconfig"
        server.cli("create", NAME, "--kubeconfig-out", str(kubeconfig), "--quiet")
        yield Cluster("ours", kubeconfig, kubectl)


def as_peer(cluster: Cluster) -> Peer:
    """The same, for those who talk to it in plain HTTP."""
    entry = cluster.config["clusters"][0]["cluster"]
    if "certificate-authority" in entry:
        return Peer(cluster.url, cluster.token, Path(entry["certificate-authority"]).read_text())
    import base64

    return Peer(cluster.url, cluster.token, base64.b64decode(entry["certificate-authority-data"]).decode())
