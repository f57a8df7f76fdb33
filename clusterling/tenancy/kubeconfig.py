"""The kubeconfig of a tenant, and where clients find this server. Pure, but for the address that listening fills in."""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import urlsplit

from clusterling.machinery.errors import service_unavailable
from clusterling.machinery.meta import Object

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9.]+")


def context_name(url: str, cluster: str) -> str:
    """`clusterling-<host>-<name>`: so that several servers' clusters fit in one file beside other contexts."""
    host = urlsplit(url).hostname or "local"
    return f"clusterling-{_NOT_A_NAME.sub('-', host).strip('-')}-{cluster}"


def cluster_url(base_url: str, cluster: str) -> str:
    """The server URL of a logical cluster; `base_url` as in `https://127.0.0.1:6443`."""
    return f"{base_url.rstrip('/')}/clusters/{cluster}"


def kubeconfig(base_url: str, cluster: str, token: str, ca_pem: bytes) -> Object:
    """A `v1 Config` with one context. `ca_pem` empty: clients trust what their system trusts."""
    name = context_name(base_url, cluster)
    server: Object = {"server": cluster_url(base_url, cluster)}
    if ca_pem:
        server["certificate-authority-data"] = base64.b64encode(ca_pem).decode("ascii")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    }


class Endpoint:
    """How clients reach this server. Implements `registry.ports.KubeconfigMaker`.

    `base_url` is the external URL where one is configured, else that of the first listener; "" until there is one.
    """

    def __init__(self, base_url: str = "", ca_pem: bytes = b"") -> None:
        self.base_url = base_url.rstrip("/")
        self.ca_pem = ca_pem

    def url(self, cluster: str) -> str:
        """Where that logical cluster is served, or "" where no socket serves it."""
        return cluster_url(self.base_url, cluster) if self.base_url else ""

    def kubeconfig(self, cluster: str, token: str) -> Object:
        """Raises ApiError 503 where no socket is served: a kubeconfig would lead nowhere."""
        if not self.base_url:
            raise service_unavailable("this server listens on no address: a kubeconfig would lead nowhere")
        return kubeconfig(self.base_url, cluster, token, self.ca_pem)
