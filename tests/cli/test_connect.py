"""`connect`, `use` and `disconnect`, on kubeconfigs as people have them, with real kubectl beside."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clusterling.cli import kubeconfigs
from clusterling.cli.errors import CliError
from clusterling.cli.program import run
from clusterling.machinery.meta import Object
from clusterling.testing.kube import Kube, KubeServer
from tests.cli.test_verbs import Cli, cli

__all__ = ["cli"]  # A fixture.

PATIENCE_S = 180.0
PROCESSES = 20

THEIRS = """\
# Mine. Do not touch!
apiVersion: v1
kind: Config
preferences: {}   # none
clusters:
# the one at work
- name: work
  cluster:
    server: https://work.example.com   # behind the VPN
    x-unknown: [1, 2]
contexts:
  - context:
      cluster: work
      user: me
      namespace: "007"
    name: work

# who I am
users:
- name: me
  user: {token: "s3cret"}
current-context: work
# the end
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's kubeconfig, not there yet."""
    path = tmp_path / "kube" / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def theirs(home: Path) -> Path:
    home.parent.mkdir()
    home.write_text(THEIRS)
    home.chmod(0o644)
    return home


def _config(name: str, key: str = "t") -> Object:
    return {
        "clusters": [{"name": name, "cluster": {"server": f"https://h/clusters/{name}"}}],
        "users": [{"name": name, "user": {"token": key}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def _merge(path: Path, config: Object) -> None:
    with kubeconfigs.locked([path]) as found:
        found.merge(config)
        found.switch(config["current-context"])
        found.write()


def _names(path: Path, section: str = "contexts") -> list[str]:
    return [one["name"] for one in yaml.safe_load(path.read_text())[section]]


@pytest.mark.kubectl
def test_connect_makes_kubectl_speak_with_the_cluster_and_disconnect_goes_back(
    cli: Cli, kube_server: KubeServer, theirs: Path, kubectl_binary: Path
) -> None:
    with kube_server.cluster() as kube:
        cli("connect", kube.name)
        command: list[str | Path] = [kubectl_binary, "get", "namespace", "default", "-o", "name"]
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        assert asked.stdout == "namespace/default\n"
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o600
        assert run(["disconnect"]) == 0
        assert yaml.safe_load(theirs.read_text())["current-context"] == "work"
        assert run(["use", "-"]) == 0
        assert yaml.safe_load(theirs.read_text())["current-context"].endswith(kube.name)
        assert run(["use", "-"]) == run(["use", kube.name]) == run(["disconnect"]) == run(["disconnect"]) == 0
        assert yaml.safe_load(theirs.read_text())["current-context"] == "work"
        assert run(["use", "no-such-cluster"]) == 3


def test_what_is_anothers_stays_to_the_letter(theirs: Path) -> None:
    _merge(theirs, _config("one"))
    _merge(theirs, _config("two"))
    _merge(theirs, _config("one", key="another"))
    text = theirs.read_text()
    assert [line for line in THEIRS.splitlines() if line not in text.splitlines()] == [
        "current-context: work"
    ]
    document = yaml.safe_load(text)
    assert {one["name"]: one["user"]["token"] for one in document["users"]} == {
        "me": "s3cret",
        "one": "another",
        "two": "t",
    }
    assert document["current-context"] == "one"
    with kubeconfigs.locked([theirs]) as found:
        found.switch("work")
        found.write()
    assert yaml.safe_load(theirs.read_text())["contexts"][0]["context"]["namespace"] == "007"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# nothing\n",
        "apiVersion: v1\nkind: Config",
        "apiVersion: v1\nclusters: []\nusers:\ncontexts: []  # none\ncurrent-context:\n",
        "apiVersion: v1\nclusters: null\nusers: null\ncontexts: null\ncurrent-context: ''\n",
        json.dumps({"apiVersion": "v1", "clusters": [{"name": "a", "cluster": {"server": "x"}}]}),
        "clusters: [{name: a, cluster: {server: x}}]\n",
        "clusters:\n-\n  name: a\n  cluster: {}\n",
        THEIRS.replace("\n", "\r\n"),
        "---\n" + THEIRS,
    ],
)
def test_every_form_of_a_kubeconfig_takes_entries_and_loses_nothing(home: Path, text: str) -> None:
    home.parent.mkdir()
    home.write_text(text, newline="")
    before = yaml.safe_load(text) or {}
    for _ in range(2):
        _merge(home, _config("one"))
        _merge(home, _config("two"))
    after = yaml.safe_load(home.read_text())
    for section in ("clusters", "users", "contexts"):
        there = [one["name"] for one in before.get(section) or ()]
        assert [one["name"] for one in after[section]] == [*there, "one", "two"]
        assert [one for one in after[section] if one["name"] in there] == (before.get(section) or [])
    others = {key: value for key, value in before.items() if key not in {*_config("x")}}
    assert others.items() <= after.items()
    assert [
        line for line in text.splitlines() if "#" in line and line not in home.read_text().splitlines()
    ] in (
        [],
        ["contexts: []  # none"],
    )


def test_a_file_that_cannot_be_changed_without_loss_is_left_alone(home: Path) -> None:
    home.parent.mkdir()
    texts = (
        "clusters: [{name: a, cluster: {server: x}}]  # mine\n",
        "x: &x {name: a, cluster: {}}\nclusters:\n- *x\n",
        "- a list\n",
        "a: b: c\n",
        "clusters: 5\n",
    )
    for text in texts:
        home.write_text(text)
        with pytest.raises(CliError):
            _merge(home, _config("one"))
        assert home.read_text() == text
        assert not home.with_name("config.lock").exists()


def test_of_several_files_each_keeps_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("missing", "a", "b")]
    paths[1].write_text("contexts: []\n")
    paths[2].write_text(THEIRS)
    with kubeconfigs.locked(paths) as found:
        assert found.current == "work"
        found.merge(_config("one"))
        found.merge({**_config("work"), "clusters": [], "users": []})
        found.switch("one")
        found.write()
    assert not paths[0].exists()
    assert _names(paths[1]) == ["one"]
    assert yaml.safe_load(paths[2].read_text())["current-context"] == "one"
    assert yaml.safe_load(paths[2].read_text())["contexts"][0]["context"]["cluster"] == "work"
    assert "current-context" not in yaml.safe_load(paths[1].read_text())


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text(THEIRS)
    link.symlink_to(real)
    _merge(link, _config("one"))
    assert link.is_symlink()
    assert _names(real) == ["work", "one"]


def test_a_file_that_another_program_has_locked_is_not_written(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfigs, "LOCK_S", 0.05)
    lock = theirs.with_name("config.lock")
    lock.touch()
    with pytest.raises(CliError, match="locked by another program"):
        _merge(theirs, _config("one"))
    assert lock.exists()
    assert theirs.read_text() == THEIRS


@pytest.mark.kubectl
def test_twenty_at_once_lose_nothing_and_kubectl_reads_what_they_leave(
    cli: Cli, kube_server: KubeServer, theirs: Path, kubectl_binary: Path
) -> None:
    # kubectl itself does not write beside them: it reads before it locks, and takes away what came in between.
    with kube_server.cluster() as one, kube_server.cluster() as two:
        programs = [["-c", _merging(theirs), str(number)] for number in range(PROCESSES)]
        at = ["--kubeconfig", str(cli.kubeconfig)]
        programs += [["-m", "clusterling", "connect", kube.name, *at] for kube in (one, two)]
        running = [
            subprocess.Popen([sys.executable, *program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for program in programs
        ]
        assert [process.wait(PATIENCE_S) for process in running] == [0] * len(programs)
        command = [str(kubectl_binary), "config", "get-contexts", "-o", "name"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        names = listed.stdout.split()
        assert {f"p{number}" for number in range(PROCESSES)} | {"work"} <= set(names)
        assert sum(name.endswith((one.name, two.name)) for name in names) == 2
        assert len(names) == len(set(names)) == PROCESSES + 3
        assert THEIRS.splitlines()[0] in theirs.read_text()


def _merging(path: Path) -> str:
    """A program that puts in an entry of the number it is given."""
    return f"""
import sys
from pathlib import Path
from clusterling.cli import kubeconfigs
name = "p" + sys.argv[1]
with kubeconfigs.locked([Path({str(path)!r})]) as found:
    found.merge(dict(clusters=[], users=[], contexts=[dict(name=name, context=dict(user="me"))]))
    found.switch(name)
    found.write()
"""


@pytest.mark.kubectl
def test_a_command_runs_with_a_kubeconfig_of_its_own_whose_credential_ends_with_it(
    cli: Cli, kube_server: KubeServer, theirs: Path, tmp_path: Path, kubectl_binary: Path
) -> None:
    with kube_server.cluster() as kube:
        kept = tmp_path / "kept"
        script = f'cp "$KUBECONFIG" {kept}; {kubectl_binary} get namespaces > {tmp_path}/out; exit 7'
        before = ["connect", kube.name, "--kubeconfig", str(cli.kubeconfig)]
        assert run([*before, "--", "sh", "-c", script]) == 7
        assert "default" in (tmp_path / "out").read_text()
        env = {**os.environ, "KUBECONFIG": str(kept)}
        command = [str(kubectl_binary), "get", "namespaces"]
        assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == 1
        assert theirs.read_text() == THEIRS
        assert run([*before, "--", "no-such-program"]) == 127
        assert (
            Kube(kube_server, "root").client.get(
                f"/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/{kube.name}/tokens"
            )["items"]
            == []
        )
