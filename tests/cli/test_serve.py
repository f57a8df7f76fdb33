from __future__ import annotations

import json
import signal
import socket
import ssl
import stat
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from clusterling.cli.target import read_kubeconfig
from clusterling.tenancy import pki
from tests.cli.processes import PATIENCE_S, PROGRAM, clusterling, eventually, serving
from tests.ports import free_port
from tests.storage import postgres_server


def _get(url: str, ca: Path | None = None, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=ca) if ca else None
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: int, tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert server.stop(number) == 0


def test_what_it_keeps_is_for_its_owner_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert server.data_dir == tmp_path / "data"
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
        assert {path.name for path in server.data_dir.iterdir()} >= {
            "FORMAT",
            "admin.kubeconfig",
            "lock",
            "pki",
            "state.db",
        }
        files = [path for path in server.data_dir.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_it_is_let_in_by_its_own_ca_and_admin_kubeconfig(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        ca = tmp_path / "data" / "pki" / "ca.crt"
        target = read_kubeconfig(server.data_dir / "admin.kubeconfig")
        assert target.server == f"{server.url}/clusters/root"
        assert _get(f"{server.url}/readyz", ca) == 200
        assert _get(f"{server.url}/clusters/default/api/v1/namespaces", ca) == 401
        assert _get(f"{server.url}/clusters/default/api/v1/namespaces", ca, target.token) == 200
        assert _get(f"{server.url}/api/v1/namespaces", ca, target.token) == 200


def test_a_restart_keeps_clusters_credentials_and_ca(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        assert clusterling("create", "kept", "--data-dir", str(data)).returncode == 0
        tenant = yaml.safe_load(clusterling("kubeconfig", "kept", "--data-dir", str(data)).stdout)
        admin = read_kubeconfig(data / "admin.kubeconfig")
        server.stop()
    with serving(data) as server:
        again = read_kubeconfig(data / "admin.kubeconfig")
        assert (again.token, again.ca_pem) == (admin.token, admin.ca_pem)
        assert again.server == f"{server.url}/clusters/root"
        token = tenant["users"][0]["user"]["token"]
        assert _get(f"{server.url}/clusters/kept/api/v1/namespaces", data / "pki" / "ca.crt", token) == 200
        shown = yaml.safe_load(clusterling("get", "kept", "-o", "yaml", "--data-dir", str(data)).stdout)
        assert shown["status"]["url"] == f"{server.url}/clusters/kept"


def test_a_second_server_on_a_directory_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        refused = clusterling("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert f"in use by process {server.process.pid}" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert server.process.poll() is None


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = clusterling("serve", "--data-dir", str(tmp_path), "--listen", address)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"error: cannot listen on {address}: Address already in use",
        "hint: name another address with --listen",
    ]


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"something else entirely" * 1000)
    refused = clusterling("serve", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / "state.db").read_bytes() == b"something else entirely" * 1000


def test_http_is_served_on_loopback_where_it_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, "--insecure-http") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert _get(f"{server.url}/readyz") == 200
        assert not (tmp_path / "pki").exists()


def test_a_certificate_of_ones_own_is_served(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    made = pki.ephemeral(datetime.now(UTC))
    for name, content in (("crt", made.certificate_pem), ("key", made.key_pem), ("ca", made.ca_pem)):
        (tmp_path / name).write_bytes(content)
    flags = (
        "--tls-cert",
        str(tmp_path / "crt"),
        "--tls-key",
        str(tmp_path / "key"),
        "--tls-ca",
        str(tmp_path / "ca"),
    )
    with serving(tmp_path / "data", *flags) as server:
        assert _get(f"{server.url}/readyz", tmp_path / "ca") == 200
        assert clusterling("list", "--data-dir", str(server.data_dir)).returncode == 0
    refused = clusterling(
        "serve",
        "--data-dir",
        str(tmp_path / "data"),
        "--tls-cert",
        str(tmp_path / "crt"),
        "--tls-key",
        str(tmp_path / "ca"),
    )
    assert refused.returncode == 1
    assert "hint: both must be PEM and belong together" in refused.stderr


def test_no_default_cluster_leaves_the_root_of_the_address_empty(tmp_path: Path) -> None:
    with serving(tmp_path, "--default-cluster", "") as server:
        token = read_kubeconfig(tmp_path / "admin.kubeconfig").token
        assert _get(f"{server.url}/api/v1/namespaces", tmp_path / "pki" / "ca.crt", token) == 403
        listed = clusterling("list", "-o", "name", "--data-dir", str(tmp_path)).stdout
        assert listed == "logicalcluster.tenancy.clusterling.io/root\n"


def test_an_external_url_is_what_clients_are_told(tmp_path: Path) -> None:
    with serving(tmp_path, "--external-url", "https://api.example.com:8443", "--tls-san", "alt.example.com"):
        assert (
            read_kubeconfig(tmp_path / "admin.kubeconfig").server
            == "https://api.example.com:8443/clusters/root"
        )
        note = yaml.safe_load((tmp_path / "pki" / "tls.json").read_text())
        assert {"api.example.com", "alt.example.com"} <= set(note["hosts"])


def test_a_pack_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    refused = clusterling("serve", "--data-dir", str(tmp_path / "data"), "--packs", "nonsense")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --packs nonsense: ")
    assert not (tmp_path / "data").exists()


def test_a_stop_ends_watches_cleanly(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        token = read_kubeconfig(tmp_path / "admin.kubeconfig").token
        request = urllib.request.Request(
            f"{server.url}/api/v1/namespaces?watch=true", headers={"Authorization": f"Bearer {token}"}
        )
        context = ssl.create_default_context(cafile=tmp_path / "pki" / "ca.crt")
        with urllib.request.urlopen(request, context=context, timeout=30) as response:
            first = json.loads(response.readline())
            assert first["type"] == "ADDED"
            server.process.terminate()
            # Cut off in the middle, this would raise IncompleteRead.
            rest = [json.loads(line)["type"] for line in response.read().splitlines()]
            assert set(rest) == {"ADDED"}
        assert server.process.wait(PATIENCE_S) == 0


def test_before_it_stops_a_server_is_unready_and_serves_on_until_a_second_signal(tmp_path: Path) -> None:
    with serving(tmp_path, "--shutdown-delay", "3600") as server:
        token, ca = read_kubeconfig(tmp_path / "admin.kubeconfig").token, tmp_path / "pki" / "ca.crt"
        assert _get(f"{server.url}/readyz", ca, token) == 200
        server.process.terminate()
        assert eventually(lambda: _get(f"{server.url}/readyz", ca, token) == 500)
        assert _get(f"{server.url}/livez", ca, token) == 200
        assert _get(f"{server.url}/clusters/root/api/v1/namespaces", ca, token) == 200
        assert server.stop() == -signal.SIGTERM


def test_a_directory_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.stop()
    (tmp_path / "FORMAT").write_text("1000\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused = clusterling("serve", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert "was written by a newer Clusterling (format 1000" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_two_servers_over_one_postgres_are_one_service(tmp_path: Path) -> None:
    try:
        with postgres_server.running() as database:
            password = tmp_path / "password"
            password.write_text("not asked for here\n")
            store = ("--store", database.url, "--store-password-file", str(password))
            with serving(tmp_path / "one", *store) as one, serving(tmp_path / "two", *store) as two:
                made = clusterling("create", "team", "--data-dir", str(one.data_dir))
                assert made.returncode == 0, made.stderr
                listed = clusterling("list", "--no-headers", "--data-dir", str(two.data_dir))
                assert "team" in [line.split()[0] for line in listed.stdout.splitlines()]
                assert not (one.data_dir / "state.db").exists()
                assert stat.S_IMODE(one.data_dir.stat().st_mode) == 0o700
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://db/x", "no store is known by the scheme 'mysql'"),
        ("sqlite://state.db", "three slashes"),
        ("postgres://127.0.0.1:1/db", "cannot be reached"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_in_a_line(url: str, complaint: str, tmp_path: Path) -> None:
    ended = clusterling(
        "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--store", url
    )
    assert ended.returncode == 1 and complaint in ended.stderr, ended.stderr


def _shown_until(server_url: str, ca: Path) -> bool:
    """Whether the certificate that is shown now is one that this CA signed."""
    try:
        return _get(f"{server_url}/readyz", ca) == 200
    except urllib.error.URLError:
        return False


def test_a_renewed_certificate_is_shown_without_a_restart_and_one_that_does_not_fit_is_not(
    tmp_path: Path,
) -> None:
    from datetime import UTC, datetime

    old, new = (pki.ephemeral(datetime.now(UTC)) for _ in range(2))
    for name, made in (("old", old), ("new", new)):
        (tmp_path / f"{name}.ca").write_bytes(made.ca_pem)
    (tmp_path / "crt").write_bytes(old.certificate_pem)
    (tmp_path / "key").write_bytes(old.key_pem)
    flags = ["--tls-cert", str(tmp_path / "crt"), "--tls-key", str(tmp_path / "key")]
    log = tmp_path / "log"
    with serving(tmp_path / "data", *flags, stderr=log) as server:
        assert _get(f"{server.url}/readyz", tmp_path / "old.ca") == 200
        (tmp_path / "crt").write_bytes(new.certificate_pem)
        assert eventually(lambda: "change-not-taken-over" in log.read_text())
        assert _get(f"{server.url}/readyz", tmp_path / "old.ca") == 200
        (tmp_path / "key").write_bytes(new.key_pem)
        assert eventually(lambda: _shown_until(server.url, tmp_path / "new.ca"))
        assert server.stop() == 0


CLUSTERS = """
apiVersion: tenancy.clusterling.io/v1alpha1
kind: LogicalCluster
metadata: {name: team-a, labels: {tier: one}}
spec: {displayName: Team A}
---
apiVersion: tenancy.clusterling.io/v1alpha1
kind: LogicalCluster
metadata: {name: team-b}
"""


def test_clusters_of_a_file_are_there_and_follow_it(tmp_path: Path) -> None:
    file, data = tmp_path / "clusters.yaml", tmp_path / "data"
    file.write_text(CLUSTERS)

    def shown(name: str) -> dict[str, object]:
        done = clusterling("get", name, "-o", "json", "--data-dir", str(data))
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    with serving(data, "--clusters", str(file)) as server:
        made = shown("team-a")
        assert made["spec"] == {"displayName": "Team A"}
        assert shown("team-b")["metadata"]
        file.write_text(CLUSTERS.replace("Team A", "The A-Team").replace("team-b", "team-c"))
        assert eventually(lambda: shown("team-a")["spec"] == {"displayName": "The A-Team"})
        assert shown("team-b")["metadata"], "what the file names no more is somebody's data"
        assert shown("team-c")["metadata"]
        assert server.stop() == 0
    with serving(data, "--clusters", str(file)) as server:
        assert shown("team-a")["metadata"]["uid"] == made["metadata"]["uid"]  # type: ignore[index]
        assert server.stop() == 0


def test_a_server_is_ready_when_the_clusters_are_there_that_are_to_be(tmp_path: Path) -> None:
    names = [f"team-{number}" for number in range(200)]
    file, token, data = tmp_path / "clusters.yaml", tmp_path / "token", tmp_path / "data"
    token.write_text("t" * 32)
    kind = {"apiVersion": "tenancy.clusterling.io/v1alpha1", "kind": "LogicalCluster"}
    file.write_text(yaml.safe_dump_all([{**kind, "metadata": {"name": name}} for name in names]))
    address = f"127.0.0.1:{free_port()}"
    flags = [
        "--listen",
        address,
        "--insecure-http",
        "--clusters",
        str(file),
        "--admin-token-file",
        str(token),
    ]
    with subprocess.Popen([*PROGRAM, "serve", "--data-dir", str(data), *flags]) as process:
        try:
            assert eventually(lambda: _ready(f"http://{address}"))
            path = "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
            request = urllib.request.Request(
                f"http://{address}{path}", headers={"Authorization": f"Bearer {'t' * 32}"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                found = {one["metadata"]["name"] for one in json.load(response)["items"]}
            assert found == {"root", "default", *names}
        finally:
            process.kill()


def _ready(url: str) -> bool:
    try:
        return _get(f"{url}/readyz") == 200
    except urllib.error.URLError:
        return False


def test_a_cluster_that_cannot_be_keeps_no_other_waiting(tmp_path: Path) -> None:
    file, data, log = tmp_path / "clusters.yaml", tmp_path / "data", tmp_path / "log"
    file.write_text(CLUSTERS.replace("displayName", "displayNam"))
    with serving(data, "--clusters", str(file), stderr=log) as server:
        assert eventually(lambda: "not applied: team-a: " in log.read_text())
        listed = clusterling("list", "-o", "name", "--data-dir", str(data)).stdout
        assert ("/team-a" in listed, "/team-b" in listed) == (False, True)
        file.write_text(CLUSTERS)
        assert eventually(
            lambda: "/team-a" in clusterling("list", "-o", "name", "--data-dir", str(data)).stdout
        )
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is not YAML"),
        (CLUSTERS.replace("team-b", "Team B"), "document 2 is no LogicalCluster"),
        ("kind: ConfigMap\n", "document 1 is no LogicalCluster"),
    ],
)
def test_a_file_of_something_else_than_clusters_stops_the_start(
    text: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "clusters.yaml").write_text(text)
    refused = clusterling(
        *("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"),
        *("--clusters", str(tmp_path / "clusters.yaml")),
    )
    assert refused.returncode == 1
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) <= 2


def test_an_administrators_token_that_was_given_is_good_while_it_is_given(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "token"
    ca = data / "pki" / "ca.crt"
    tokens = ["a" * 32, "b" * 32]
    for token in tokens:
        file.write_text(f"{token}\n")
        with serving(data, "--admin-token-file", str(file)) as server:
            answers = [_get(f"{server.url}/clusters/root/api/v1/namespaces", ca, one) for one in tokens]
            assert answers == [200 if one == token else 401 for one in tokens]
            assert clusterling("list", "--data-dir", str(data)).returncode == 0
            assert server.stop() == 0


@pytest.mark.parametrize("token", ["", "short", "has a blank in it, which is no token", "ü" * 40])
def test_what_is_no_token_is_wrong_usage(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)
    refused = clusterling(
        *("serve", "--data-dir", str(tmp_path / "data"), "--admin-token-file", str(tmp_path / "token"))
    )
    assert refused.returncode == 2
    assert "--admin-token-file" in refused.stderr
    assert token == "" or token not in refused.stderr
