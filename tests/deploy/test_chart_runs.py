"""The pods that the chart renders, really run: their command lines, variables and files, on real stores."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from clusterling.tenancy import pki
from tests.deploy import postgres_over_tls
from tests.deploy.charts import Helm, Manifest, flag, only, parsed, pod_specs
from tests.deploy.pods import Node, Running, publish, running, stop
from tests.storage import etcd_server
from tests.storage.certificates import certificates
from tests.storage.postgres_server import PostgresServer

pytestmark = pytest.mark.helm

# Long enough to be seen by who asks over TLS on a busy machine, short enough for a test.
QUICK = flag("shutdown", {"delaySeconds": 4, "spreadSeconds": 1, "gracePeriodSeconds": 60})
CLUSTERS = flag("clusters", [{"name": "team-a", "spec": {"displayName": "Team A"}}, {"name": "team-b"}])
SETTINGS = [
    *flag("limits", {"tenant.lists": 50, "watches": 20000}),
    *flag("trustedProxies", ["192.0.2.0/24", "2001:db8::7"]),
    *flag("proxyProtocol", True),
    *flag("workers", 1),
    *flag("logFormat", "json"),
    *flag("tracing", {"endpoint": "http://127.0.0.1:1", "sampling": 0}),
]
_CLUSTERS = "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
MADE = {"root", "default", "team-a", "team-b"}  # At the start; what a slow store refuses then, soon after.


@pytest.fixture
def tls() -> dict[str, bytes]:
    """What a Secret of `tls` holds; the certificate is for localhost."""
    made = pki.ephemeral(datetime.now(UTC))
    return {"tls.crt": made.certificate_pem, "tls.key": made.key_pem, "ca.crt": made.ca_pem}


def _token(manifests: list[Manifest]) -> str:
    return base64.b64decode(only(manifests, "Secret")["data"]["token"]).decode()


def _pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def _stops_in_order(server: Running, spec: Manifest) -> bool:
    return stop(server, spec["terminationGracePeriodSeconds"])


def test_one_on_a_volume_starts_follows_its_clusters_and_finds_all_again(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.manifests(*QUICK, *CLUSTERS, *SETTINGS)
    workload = only(manifests, "StatefulSet")
    claims = workload["spec"]["volumeClaimTemplates"]
    token, node = _token(manifests), Node(tmp_path, manifests)
    with running(node, "r-clusterling-0", _pod(workload), claims) as server:
        assert server.passes("livenessProbe")
        clusters = server.clusters(token)
        assert clusters.keys() == MADE
        assert clusters["team-a"]["spec"]["displayName"] == "Team A"
        assert clusters["team-a"]["status"]["url"] == "https://r-clusterling.there.svc/clusters/team-a"

        changed = helm.manifests(*QUICK, *SETTINGS, *flag("clusters", [{"name": "team-c"}]))
        assert _pod(only(changed, "StatefulSet")) == _pod(workload), "no pod restarts for that"
        made = next(one for one in changed if one["metadata"]["name"].endswith("-clusters"))
        publish(server.volumes["clusters"], {k: v.encode() for k, v in made["data"].items()})
        server.eventually(lambda: "team-c" in server.clusters(token))
        assert server.clusters(token)["team-a"]["metadata"]["uid"] == clusters["team-a"]["metadata"]["uid"]
        assert _stops_in_order(server, _pod(workload))

    shutil.rmtree(tmp_path / "r-clusterling-0")
    with running(node, "r-clusterling-0", _pod(workload), claims) as server:
        assert server.clusters(token).keys() == {"root", "default", "team-a", "team-b", "team-c"}
        assert server.clusters(token)["team-a"]["metadata"]["uid"] == clusters["team-a"]["metadata"]["uid"]


def _postgres_values(url: str) -> list[str]:
    return [
        *flag("store", {"type": "postgres", "url": url, "existingSecret": "store", "passwordKey": "pw"}),
        *flag("tls", {"mode": "existingSecret", "existingSecret": "api-tls"}),
        *flag("externalUrl", "https://api.example.com"),
    ]


def test_two_over_postgresql_are_one_service_and_one_leaves_in_order(
    helm: Helm, tls: dict[str, bytes], postgres_url: str, tmp_path: Path
) -> None:
    limits = flag("defaultQuota", {"hard": {"objects": 1_000_000, "bytes": "1Gi"}})
    scraping = flag("metrics.token", {"existingSecret": "scrape", "key": "t"})
    manifests = helm.manifests(*QUICK, *CLUSTERS, *limits, *scraping, *_postgres_values(postgres_url))
    spec, token = _pod(only(manifests, "Deployment")), _token(manifests)
    scrapers = "s" * 40
    node = Node(
        tmp_path,
        manifests,
        {"store": {"pw": b"secret\n"}, "api-tls": tls, "scrape": {"t": scrapers.encode()}},
    )
    ca = tmp_path / "ca"
    ca.write_bytes(tls["ca.crt"])
    with ExitStack() as stack:
        first, second = (stack.enter_context(running(node, f"pod-{n}", spec)) for n in (1, 2))
        for server in (first, second):
            assert server.get("/readyz", ca=ca)[0] == 200, "by the certificate of the Secret"
            server.eventually_has(MADE, token)
            assert server.get("/metrics", scrapers, ca)[0] == 200
            assert server.get("/clusters/root/api", scrapers, ca)[0] == 401
            status, usage = server.get(f"{_CLUSTERS}/team-a/usage", token, ca)
            assert (status, json.loads(usage)["hard"]) == (200, {"bytes": 1 << 30, "objects": 1_000_000})
        assert first.clusters(token) == second.clusters(token)
        assert _stops_in_order(first, spec)
        assert second.passes("readinessProbe")
        # As cert-manager renews it.
        renewed = pki.ephemeral(datetime.now(UTC))
        publish(
            second.volumes["tls"],
            {"tls.crt": renewed.certificate_pem, "tls.key": renewed.key_pem, "ca.crt": renewed.ca_pem},
        )
        ca.write_bytes(renewed.ca_pem)
        second.eventually(lambda: _trusts(second, ca))
        assert _stops_in_order(second, spec)


def _trusts(server: Running, ca: Path) -> bool:
    try:
        return server.get("/readyz", ca=ca)[0] == 200
    except OSError:
        return False


def test_a_url_from_a_secret_is_a_variable_and_a_changed_token_is_the_only_one(
    helm: Helm, postgres_url: str, tmp_path: Path
) -> None:
    store = flag("store", {"type": "postgres", "existingSecret": "store", "urlKey": "url"})
    manifests = helm.manifests(*QUICK, *store, *flag("adminToken.existingSecret", "mine"))
    spec = _pod(only(manifests, "Deployment"))
    tokens = [f"{letter}{'0123456789' * 4}" for letter in "ab"]
    for number, token in enumerate(tokens):
        node = Node(
            tmp_path / str(number),
            manifests,
            {"store": {"url": postgres_url.encode()}, "mine": {"token": token.encode()}},
        )
        with running(node, "pod", spec) as server:
            assert not any(postgres_url in argument for argument in server.container["args"])
            answers = [server.get("/clusters/root/api/v1/namespaces", one)[0] for one in tokens]
            assert answers == [200 if one == token else 401 for one in tokens]


@pytest.fixture
def guarded_port(postgres: PostgresServer, tls: dict[str, bytes]) -> Iterator[int]:
    """Where a PostgreSQL speaks TLS, with the role `locked`, which needs the password `opensesame`."""

    async def make_role() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'opensesame'")
        await connection.close()

    asyncio.run(make_role())
    made = pki.Credentials(tls["ca.crt"], tls["tls.crt"], tls["tls.key"])
    with postgres_over_tls.ending(postgres.port, pki.server_context(made)) as port:
        yield port


def test_the_databases_password_and_ca_come_from_its_secret(
    helm: Helm, tls: dict[str, bytes], guarded_port: int, tmp_path: Path
) -> None:
    store = {
        "type": "postgres",
        "url": f"postgres://locked@127.0.0.1:{guarded_port}/postgres?sslmode=verify-full",
        "existingSecret": "store",
        "passwordKey": "pw",
        "caKey": "root",
    }
    manifests = helm.manifests(*QUICK, *flag("store", store))
    spec, token = _pod(only(manifests, "Deployment")), _token(manifests)
    secret = {"pw": b"opensesame\n", "root": tls["ca.crt"]}
    with running(Node(tmp_path / "a", manifests, {"store": secret}), "pod", spec) as server:
        server.eventually_has({"root", "default"}, token)
    other = pki.ephemeral(datetime.now(UTC)).ca_pem
    for name, wrong in (("b", {"pw": b"guessed"}), ("c", {"root": other})):
        node = Node(tmp_path / name, manifests, {"store": {**secret, **wrong}})
        with pytest.raises(AssertionError, match="it ended with 1"), running(node, "pod", spec):
            pass


def test_the_certificates_to_show_to_etcd_come_from_its_secret(helm: Helm, tmp_path: Path) -> None:
    made = certificates(tmp_path / "pki")
    options = [
        f"--cert-file={made['etcd.test']}",
        f"--key-file={made['etcd.test-key']}",
        f"--trusted-ca-file={made['ca']}",
        "--client-cert-auth",
    ]
    secret = {"a": made["ca"], "b": made["client"], "c": made["client-key"]}
    try:
        etcd_server.binary()
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))
    with etcd_server.running(tmp_path / "etcd", 1, options) as etcd:
        url = etcd.url("prod", server_name="etcd.test").replace("etcd://", "etcds://")
        store = {"type": "etcd", "url": url, "existingSecret": "etcd-client"}
        manifests = helm.manifests(
            *QUICK, *CLUSTERS, *flag("store", {**store, "caKey": "a", "certKey": "b", "keyKey": "c"})
        )
        spec, token = _pod(only(manifests, "Deployment")), _token(manifests)
        read = {name: path.read_bytes() for name, path in secret.items()}
        with running(Node(tmp_path / "node", manifests, {"etcd-client": read}), "pod", spec) as server:
            server.eventually_has(MADE, token)
            assert _stops_in_order(server, spec)


@pytest.fixture
def asking_pod(helm: Helm) -> Iterator[tuple[list[str], Manifest]]:
    """Values, and the pod of `helm test` that they render."""
    values = flag("tls", {"mode": "existingSecret", "existingSecret": "api-tls"})
    pod = only(list(parsed(helm.template(*QUICK, *values))), "Pod")
    yield [*QUICK, *values], pod["spec"]


def test_helms_test_passes_where_the_server_is_ready_and_is_who_it_says(
    helm: Helm, asking_pod: tuple[list[str], Manifest], tls: dict[str, bytes], tmp_path: Path
) -> None:
    values, spec = asking_pod
    manifests = helm.manifests(*values)
    workload = only(manifests, "StatefulSet")
    node = Node(tmp_path, manifests, {"api-tls": tls})
    (asking,) = spec["containers"]
    with running(node, "server-0", _pod(workload), workload["spec"]["volumeClaimTemplates"]) as server:
        script, _, *rest = asking["args"]
        here = {**asking, "args": [script, f"https://localhost:{server.port}", *rest]}
        said = node.run("asking", here, node.volumes("asking", spec))
        assert "[+]ping ok" in said
        assert '"gitVersion"' in said
        other = pki.ephemeral(datetime.now(UTC))
        impostor = Node(tmp_path / "other", manifests, {"api-tls": {**tls, "ca.crt": other.ca_pem}})
        with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
            impostor.run("asking", here, impostor.volumes("asking", spec))


def test_backups_are_copied_while_the_server_runs_and_the_oldest_go(helm: Helm, tmp_path: Path) -> None:
    backup = {"enabled": True, "keep": 2, "volume": {"persistentVolumeClaim": {"claimName": "backups"}}}
    manifests = helm.manifests(
        *QUICK, *CLUSTERS, *flag("backup", backup), *flag("adminToken.existingSecret", "mine")
    )
    workload = only(manifests, "StatefulSet")
    (spec,) = (spec for what, spec in pod_specs(manifests) if what.startswith("CronJob/"))
    token = "t" * 40
    node = Node(tmp_path, manifests, {"mine": {"token": token.encode()}})
    copies = tmp_path / "claims" / "backups"
    pods = [f"r-clusterling-backup-2938{n}000-x{n}yz" for n in range(4)]
    with running(node, "r-clusterling-0", _pod(workload), workload["spec"]["volumeClaimTemplates"]) as server:
        uids = {name: one["metadata"]["uid"] for name, one in server.clusters(token).items()}
        for pod in pods:
            volumes = node.volumes(pod, spec)
            assert volumes["data"] == server.volumes["data"]
            if pod == pods[2]:
                (copies / pod).mkdir()  # Cut short: it never was finished.
                (copies / pod / "state.db.part").touch()
                continue
            for container in (*spec["initContainers"], *spec["containers"]):
                node.run(pod, container, volumes)
        assert {path.name for path in copies.iterdir()} == {pods[1], pods[3]}
        assert _stops_in_order(server, _pod(workload))

    # What is restored from the newest is the same service, trusted by the same kubeconfigs.
    restored = Node(tmp_path / "restored", manifests, {"mine": {"token": token.encode()}})
    directory = restored.root / "claims" / "data-r-clusterling-0" / "data"
    directory.parent.mkdir(parents=True)
    shutil.copytree(copies / pods[3], directory)
    ca = server.volumes["data"] / "data" / "pki" / "ca.crt"
    with running(
        restored, "r-clusterling-0", _pod(workload), workload["spec"]["volumeClaimTemplates"]
    ) as server:
        assert {name: one["metadata"]["uid"] for name, one in server.clusters(token).items()} == uids
        assert server.get("/readyz", ca=ca)[0] == 200
