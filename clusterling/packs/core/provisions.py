"""What every namespace has from its first moment: an account for its pods, and whom clients of this server trust.

Upstream: kubernetes pkg/controller/serviceaccount, pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.meta import Object
from clusterling.registry.ports import ROOT_CA

# The namespaces that every cluster begins with.
FIRST: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
# The account of pods that name none.
ACCOUNT: Final = "default"
DESCRIPTION: Final = "kubernetes.io/description"

_TRUSTED: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def account(namespace: str) -> Object:
    """The ServiceAccount, without uid and creation time."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": namespace},
    }


def certificates(namespace: str, pem: str) -> Object:
    """The ConfigMap, without uid and creation time. `pem` empty: what its reader's system trusts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": {DESCRIPTION: _TRUSTED}},
        "data": {"ca.crt": pem},
    }


def tells(obj: Object, pem: str) -> bool:
    """A ConfigMap says what that of the certificates should."""
    annotations = obj["metadata"].get("annotations") or {}
    return obj.get("data") == {"ca.crt": pem} and bool(annotations.get(DESCRIPTION))
