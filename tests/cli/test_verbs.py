"""The verbs on logical clusters, against a real server."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from clusterling.cli import remote
from clusterling.cli.program import run
from clusterling.testing.kube import Kube, KubeServer
from tests.cli.processes import eventually


class Cli:
    """Runs the program in this process, as an administrator of a server."""

    def __init__(self, kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kubeconfig = kubeconfig
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints to stdout; `err` has the rest."""
        found = run([*arguments, "--kubeconfig", str(self.kubeconfig)])
        out, self.err = self._capsys.readouterr()
        assert (found, out, self.err) == (code, out, self.err)
        return out


@pytest.fixture
def cli(kube_server: KubeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    root = Kube(kube_server, "root")
    path = tmp_path / "root.kubeconfig"
    path.write_text(yaml.safe_dump(root.kubeconfig_dict))
    yield Cli(path, capsys)
    clusters = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"

    def left() -> list[str]:
        names = [item["metadata"]["name"] for item in root.client.get(clusters)["items"]]
        return [name for name in names if name.startswith("cli-")]

    for name in left():
        root.client.delete(f"{clusters}/{name}")
    assert eventually(lambda: not left()), "the next test may want one of that name"


def test_a_cluster_is_created_shown_and_deleted(cli: Cli) -> None:
    assert cli("create", "cli-a", "--display-name", "A") == ""
    assert cli.err.splitlines()[0] == "logical cluster cli-a created"
    assert f"next: clusterling kubeconfig cli-a --kubeconfig {cli.kubeconfig} > cli-a.yaml" in cli.err
    shown = json.loads(cli("get", "cli-a", "-o", "json"))
    assert shown["spec"]["displayName"] == "A"
    assert cli("get", "cli-a", "root", "-o", "name").splitlines() == [
        "logicalcluster.tenancy.clusterling.io/cli-a",
        "logicalcluster.tenancy.clusterling.io/root",
    ]
    heading, row = cli("get", "cli-a").splitlines()
    assert heading.split() == ["NAME", "PHASE", "OBJECTS", "STORAGE", "EXPIRES", "URL", "AGE"]
    assert row.split()[:5] == ["cli-a", "Ready", "<none>", "<none>", "<none>"]
    assert row.split()[5] == shown["status"]["url"]
    heading, row = cli("get", "cli-a", "-o", "wide").splitlines()
    assert heading.split()[7:] == ["LAST", "ACTIVITY", "QUOTA", "ID"]
    assert row.split()[7:] == ["<none>", "<none>", shown["status"]["id"]]
    assert cli("list", "-o", "wide").splitlines()[0].split() == heading.split()
    assert cli("delete", "cli-a", "--yes", "--wait") == ""
    cli("get", "cli-a", code=3)


def test_a_cluster_is_created_with_the_packs_it_is_to_serve(cli: Cli) -> None:
    cli("create", "cli-p", "--packs", "core, -secrets")
    assert json.loads(cli("get", "cli-p", "-o", "json"))["spec"] == {"packs": ["core", "-secrets"]}
    cli("create", "cli-q", "--packs", "nope", code=1)
    assert 'there is no "nope"; there are none, default, all, core (' in cli.err


@pytest.mark.parametrize("page", [500, 2])
def test_a_list_has_every_cluster_in_every_form(cli: Cli, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAGE", page)
    for name in ("cli-b", "cli-a"):
        cli("create", name, "--quiet")
        assert cli.err == ""
    lines = cli("list").splitlines()
    assert lines[0].split()[0] == "NAME"
    listed = [line.split()[0] for line in lines[1:]]
    assert listed == sorted(listed)
    assert {"cli-a", "cli-b", "root"} <= set(listed)
    # A column is as wide as what is in it, its heading included.
    rows, same = (
        [line.split()[:-1] for line in cli(*how).splitlines()] for how in (("ls", "--no-headers"), ("list",))
    )
    assert rows == same[1:]  # But for the age.
    assert [line.partition("/")[2] for line in cli("list", "-o", "name").splitlines()] == listed
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert [one["metadata"]["name"] for one in load(cli("list", "-o", form))["items"]] == listed


def test_create_prints_the_object_where_it_is_asked_to(cli: Cli) -> None:
    assert cli("create", "cli-a", "-o", "name") == "logicalcluster.tenancy.clusterling.io/cli-a\n"
    assert yaml.safe_load(cli("create", "cli-b", "-o", "yaml"))["status"]["phase"] == "Ready"
    assert cli("create", "cli-c", "-o", "table").splitlines()[1].split()[:2] == ["cli-c", "Ready"]


def test_the_variable_of_the_output_leaves_alone_who_prints_other_things(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLING_OUTPUT", "name")
    assert cli("create", "cli-a") == "logicalcluster.tenancy.clusterling.io/cli-a\n"
    assert yaml.safe_load(cli("kubeconfig", "cli-a"))["kind"] == "Config"
    assert run(["version"]) == 0


def test_what_exists_is_a_conflict_unless_that_is_accepted(cli: Cli) -> None:
    cli("create", "cli-a")
    cli("create", "cli-a", code=4)
    assert cli.err.splitlines() == [
        "error: there is a logical cluster cli-a already",
        "hint: add --if-not-exists to accept that",
    ]
    assert (
        cli("create", "cli-a", "--if-not-exists", "-o", "name")
        == "logicalcluster.tenancy.clusterling.io/cli-a\n"
    )
    assert "is there already" in cli.err


def test_what_is_not_there_exits_3(cli: Cli) -> None:
    for arguments in (("get", "cli-x"), ("delete", "cli-x", "--yes"), ("kubeconfig", "cli-x")):
        assert cli(*arguments, code=3) == ""
        assert cli.err.splitlines()[0] == "error: there is no logical cluster cli-x"
    cli("delete", "cli-x", "--yes", "--if-exists")


@pytest.mark.parametrize("name", ["../root", "a/b", "A", "", "a" * 64])
def test_what_can_be_no_cluster_is_not_there(cli: Cli, name: str) -> None:
    cli("get", name, code=3)
    assert cli.err.splitlines()[0] == f"error: there is no logical cluster {name!r}"


def test_no_cluster_is_made_whose_kubeconfig_could_not_be_written(cli: Cli, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    cli("create", "cli-a", "--kubeconfig-out", str(absent / "a.yaml"), code=1)
    assert cli.err == f"error: cannot write {absent / 'a.yaml'}: there is no directory {absent}\n"
    cli("get", "cli-a", code=3)


def test_without_a_terminal_delete_wants_yes(cli: Cli) -> None:
    cli("create", "cli-a")
    cli("delete", "cli-a", code=2)
    assert "add --yes" in cli.err
    cli("get", "cli-a")


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0)])
def test_at_a_terminal_delete_asks(cli: Cli, answer: str, code: int) -> None:
    cli("create", "cli-a")
    ours, its = os.openpty()
    command = [sys.executable, "-m", "clusterling", "delete", "cli-a", "--kubeconfig", str(cli.kubeconfig)]
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(command, stdin=its, stdout=subprocess.PIPE, stderr=its, check=False)
        said = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(its)
    assert "This removes cli-a and every object there, for good." in said
    assert ("nothing was deleted" in said, done.returncode, done.stdout) == (code == 1, code, b"")
    cli("get", "cli-a", code=3 if code == 0 else 0)


def test_root_stays(cli: Cli) -> None:
    cli("delete", "root", "--yes", code=1)
    assert "this logical cluster may not be deleted" in cli.err


def test_a_name_that_is_none_says_why_in_one_line(cli: Cli) -> None:
    cli("create", "Team_A", code=1)
    assert len(cli.err.splitlines()) == 1
    assert "RFC 1123" in cli.err


def test_a_kubeconfig_works_in_its_cluster_and_nowhere_else(cli: Cli, tmp_path: Path) -> None:
    cli("create", "cli-a", "--kubeconfig-out", str(tmp_path / "a.yaml"))
    assert stat.S_IMODE((tmp_path / "a.yaml").stat().st_mode) == 0o600
    printed = yaml.safe_load(cli("kubeconfig", "cli-a"))
    written = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert printed["users"][0]["user"]["token"] != written["users"][0]["user"]["token"]
    assert printed["clusters"] == written["clusters"]
    assert json.loads(cli("kubeconfig", "cli-a", "-o", "json"))["clusters"] == written["clusters"]
    tenant = Cli(tmp_path / "a.yaml", cli._capsys)
    tenant("list", code=3)
    assert "serves no logical clusters" in tenant.err


def test_a_credential_that_is_not_let_in_says_which_would_be(cli: Cli) -> None:
    document = yaml.safe_load(cli.kubeconfig.read_text())
    document["users"][0]["user"]["token"] = "wrong"
    cli.kubeconfig.write_text(yaml.safe_dump(document))
    cli("list", code=1)
    assert "is not let in by https://127.0.0.1:" in cli.err
    assert "hint: use the admin.kubeconfig" in cli.err


def test_a_certificate_that_is_not_trusted_is_told(cli: Cli) -> None:
    document = yaml.safe_load(cli.kubeconfig.read_text())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    cli.kubeconfig.write_text(yaml.safe_dump(document))
    cli("list", code=1)
    assert "shows a certificate that" in cli.err
    document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    cli.kubeconfig.write_text(yaml.safe_dump(document))
    cli("list")


def test_names_of_clusters_complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("create", "cli-complete")
    monkeypatch.setenv("CLUSTERLING_KUBECONFIG", str(cli.kubeconfig))
    monkeypatch.setenv("_CLUSTERLING_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "clusterling get cli-com")
    monkeypatch.setenv("COMP_CWORD", "2")
    from clusterling.cli.program import program

    with pytest.raises(SystemExit):
        program.main(prog_name="clusterling")
    assert cli._capsys.readouterr().out == "plain,cli-complete\n"


def test_a_suspended_or_read_only_cluster_is_resumed(cli: Cli) -> None:
    cli("create", "cli-a")
    for flags, phase in (((), "Suspended"), (("--read-only",), "ReadOnly")):
        cli("suspend", "cli-a", *flags)
        assert cli("get", "cli-a").splitlines()[1].split()[1] == phase
        cli("resume", "cli-a")
        assert cli("get", "cli-a").splitlines()[1].split()[1] == "Ready"
    cli("suspend", "cli-none", code=3)


def test_a_protected_cluster_is_deleted_by_force_alone(cli: Cli, kube_server: KubeServer) -> None:
    cli("create", "cli-a")
    Kube(kube_server, "root").client.patch(
        "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/cli-a",
        {"spec": {"deletionProtection": True}},
        content_type="application/merge-patch+json",
    )
    cli("delete", "cli-a", "--yes", code=1)
    assert "hint: add --force to lift that first" in cli.err
    cli("delete", "cli-a", "--yes", "--force", "--wait")
    cli("get", "cli-a", code=3)


def test_a_cluster_with_a_ttl_says_when_it_ends_and_is_renewed(cli: Cli) -> None:
    cli("create", "cli-a", "--ttl", "90m")
    before = json.loads(cli("get", "cli-a", "-o", "json"))
    assert before["spec"]["ttl"] == "1h30m0s"
    assert before["status"]["expiresAt"] in cli("list")
    cli("renew", "cli-a", "--ttl", "30d")
    after = json.loads(cli("get", "cli-a", "-o", "json"))
    assert after["spec"]["ttl"] == "720h0m0s"
    assert after["status"]["expiresAt"] > before["status"]["expiresAt"]
    assert cli.err == ""
    cli("renew", "cli-a")
    assert f"logical cluster cli-a is deleted at {after['status']['expiresAt'][:10]}" in cli.err
    cli("create", "cli-b")
    cli("renew", "cli-b", code=1)
    assert "hint: give it one with --ttl" in cli.err
