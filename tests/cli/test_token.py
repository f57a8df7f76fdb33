"""`token`, against a real server, with real kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from clusterling.testing.kube import Kube, KubeServer
from tests.cli.test_verbs import Cli, cli

__all__ = ["cli"]  # A fixture.

PATIENCE_S = 60.0


def _kubectl(
    binary: Path, kube: Kube, directory: Path, token: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """kubectl with that token on the cluster."""
    config = kube.kubeconfig_dict
    (user,) = config["users"]
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump({**config, "users": [{**user, "user": {"token": token}}]}))
    command: list[str | Path] = [binary, "--kubeconfig", path, "--cache-dir", directory / "cache", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.mark.kubectl
def test_a_token_is_good_until_it_is_rotated_or_revoked(
    cli: Cli, kube_server: KubeServer, kubectl_binary: Path, tmp_path: Path
) -> None:
    with kube_server.cluster() as kube:
        first = cli("token", "create", kube.name, "ci", "--expires", "1h30m").strip()
        assert _kubectl(kubectl_binary, kube, tmp_path, first, "get", "namespaces").returncode == 0
        second = cli("token", "rotate", kube.name, "ci").strip()
        answers = {}
        for token in (first, second):
            answers[token] = _kubectl(kubectl_binary, kube, tmp_path, token, "get", "namespaces")
        assert "Unauthorized" in answers[first].stderr or "must be logged in" in answers[first].stderr
        assert answers[second].returncode == 0
        cli("token", "revoke", kube.name, "ci")
        assert _kubectl(kubectl_binary, kube, tmp_path, second, "get", "namespaces").returncode == 1
        assert first not in cli.err


@pytest.mark.kubectl
def test_kubectls_watch_ends_with_its_token(
    cli: Cli, kube_server: KubeServer, kubectl_binary: Path, tmp_path: Path
) -> None:
    with kube_server.cluster() as kube:
        token = cli("token", "create", kube.name, "ci").strip()
        config = kube.kubeconfig_dict
        path = tmp_path / "kubeconfig"
        user = {**config["users"][0], "user": {"token": token}}
        path.write_text(yaml.safe_dump({**config, "users": [user]}))
        command: list[str | Path] = [
            kubectl_binary,
            "--kubeconfig",
            path,
            "get",
            "namespaces",
            "--watch",
            "-o",
            "name",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            assert watch.stdout.readline() == "namespace/default\n"
            cli("token", "revoke", kube.name, "ci")
            watch.communicate(timeout=PATIENCE_S)


def test_tokens_are_listed_without_their_secrets(cli: Cli, kube_server: KubeServer) -> None:
    with kube_server.cluster() as kube:
        secrets = [
            cli("token", "create", kube.name, "ci", "--expires", "2d").strip(),
            json.loads(cli("token", "create", kube.name, "-o", "json"))["status"]["token"],
            yaml.safe_load(cli("kubeconfig", kube.name))["users"][0]["user"]["token"],
        ]
        heading, *rows = cli("token", "list", kube.name).splitlines()
        assert heading.split() == ["NAME", "USER", "EXPIRES", "CREATED"]
        by_name = {row.split()[0]: row.split()[1:] for row in rows}
        assert len(by_name) == 3
        assert by_name["ci"][0] == f"clusterling:admin:{kube.name}"
        assert sorted(row[1] == "never" for row in by_name.values()) == [False, True, True]
        for form in ("json", "yaml", "name"):
            listed = cli("token", "list", kube.name, "-o", form)
            assert not any(secret in listed for secret in secrets)
        names = cli("token", "list", kube.name, "-o", "name").split()
        cli("token", "revoke", kube.name, *(name.partition("/")[2] for name in names))
        assert cli("token", "list", kube.name, "-o", "name") == ""


def test_what_cannot_be_done_with_a_token_is_said(cli: Cli, kube_server: KubeServer) -> None:
    with kube_server.cluster() as kube:
        cli("token", "create", kube.name, "ci", "-o", "name")
        cli("token", "create", kube.name, "ci", code=4)
        assert "rotate it, or choose another name" in cli.err
        cli("token", "rotate", kube.name, "x", code=3)
        assert f"error: {kube.name} has no token x" in cli.err
        cli("token", "revoke", kube.name, "x", "ci", code=3)
        assert f"token ci of {kube.name} revoked" in cli.err
        cli("token", "list", "no-such-cluster", code=3)
        cli("token", "create", kube.name, "--expires", "soon", code=2)
        assert "this is no duration as in 90s, 1h30m or 30d" in cli.err
