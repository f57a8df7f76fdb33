"""The real server to stand beside: etcd and kube-apiserver on loopback ports, where they are built.

`PEERS` names the directory whose `bin/` has both (default `~/.cache/clusterling-peers`). They run as a
production server does (TLS, RBAC really evaluated, etcd syncing every commit), with static tokens.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.ports import free_port

PEERS = Path(os.environ.get("PEERS") or Path.home() / ".cache" / "clusterling-peers")
ETCD = PEERS / "bin" / "etcd"
KUBE_APISERVER = PEERS / "bin" / "kube-apiserver"
KUBE_CONTROLLER_MANAGER = PEERS / "bin" / "kube-controller-manager"

ADMIN_TOKEN = "admin-token"
BENCH_TOKEN = "bench-token"
START_S = 60


def built() -> bool:
    return ETCD.is_file() and KUBE_APISERVER.is_file()


@dataclass(frozen=True, slots=True)
class Peer:
    """A running kube-apiserver, or several over one etcd. `admin` may do all by group, `bench` by a role binding."""

    urls: tuple[str, ...]
    ca: Path
    start_s: float
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.urls[0]

    def kubeconfig(self, path: Path) -> Path:
        path.write_text(
            f"""apiVersion: v1
kind: Config
current-context: peer
clusters: [{{name: peer, cluster: {{server: "{self.url}", certificate-authority: "{self.ca}"}}}}]
users: [{{name: admin, user: {{token: {ADMIN_TOKEN}}}}}]
contexts: [{{name: peer, context: {{cluster: peer, user: admin}}}}]
"""
        )
        return path


def _signing_key(directory: Path) -> Path:
    path = directory / "sa.key"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def _start_etcd(binary: Path, directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    port, peer_port = free_port(), free_port()
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(binary),
                f"--data-dir={directory / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--quota-backend-bytes=8589934592",
                "--log-level=warn",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return process, port


def _start_apiserver(
    directory: Path, etcd_port: int, key: Path, log: Path
) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    tokens = directory / "tokens.csv"
    tokens.write_text(f"{ADMIN_TOKEN},admin,admin,system:masters\n{BENCH_TOKEN},bench,bench,\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(KUBE_APISERVER),
                "--bind-address=127.0.0.1",
                "--advertise-address=192.0.2.1",
                f"--secure-port={port}",
                f"--cert-dir={directory}",
                f"--etcd-servers=http://127.0.0.1:{etcd_port}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return process, port


def wait_ready(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when `/readyz` answers ok. Raises RuntimeError with the log's end if the process ends first."""
    context = ssl._create_unverified_context()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/readyz", headers=headers)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(request, context=context, timeout=2) as answer:
                if answer.read() == b"ok":
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    raise RuntimeError(f"not ready:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _bind_bench(url: str) -> None:
    """Where the etcd has had a server before, it is there."""
    body = (
        b'{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"bench"},'
        b'"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},'
        b'"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"bench"}]}'
    )
    request = urllib.request.Request(
        f"{url}/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        data=body,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, context=ssl._create_unverified_context()):
            return
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


@dataclass(frozen=True, slots=True)
class Etcd:
    """A running etcd of one member."""

    port: int
    pid: int


@contextmanager
def etcd(directory: Path, binary: Path = ETCD) -> Iterator[Etcd]:
    """An etcd with its data in `directory`, stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    process, port = _start_etcd(binary, directory)
    try:
        yield Etcd(port, process.pid)
    finally:
        stop(process)


@contextmanager
def kube_apiserver(directory: Path, over: Etcd | None = None, count: int = 1) -> Iterator[Peer]:
    """So many real servers with one certificate, their keys below /registry of the etcd `over`, or of one of their own;
    stopped at the end. `start_s` is the first one's."""
    directory.mkdir(parents=True, exist_ok=True)
    key = _signing_key(directory)
    started = time.monotonic()
    with ExitStack() as stack:
        store = over or stack.enter_context(etcd(directory))
        pids = {"store": store.pid}
        urls: list[str] = []
        start_s = 0.0
        for number in range(count):
            log = directory / f"apiserver-{number}.log"
            process, port = _start_apiserver(directory, store.port, key, log)
            stack.callback(stop, process)
            urls.append(f"https://127.0.0.1:{port}")
            pids[f"apiserver{number}"] = process.pid
            wait_ready(urls[-1], ADMIN_TOKEN, process, log)
            if not number:
                start_s = time.monotonic() - started
                _bind_bench(urls[0])
        yield Peer(tuple(urls), directory / "apiserver.crt", start_s, pids)


@contextmanager
def controllers(directory: Path, peer: Peer, *names: str) -> Iterator[None]:
    """These controllers of kube-controller-manager beside a real server, as its administrator; stopped at the end."""
    kubeconfig = peer.kubeconfig(directory / "controllers.kubeconfig")
    with (directory / "controllers.log").open("wb") as output:
        process = subprocess.Popen(
            [
                str(KUBE_CONTROLLER_MANAGER),
                f"--kubeconfig={kubeconfig}",
                f"--controllers={','.join(names)}",
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        stop(process)
