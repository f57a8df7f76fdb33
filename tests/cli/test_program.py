"""The program as a whole: help, usage errors, exit codes, completion; without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clusterling.cli.program import VERBS, run
from clusterling.version import KUBERNETES, __version__


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CLUSTERLING_DATA_DIR", "CLUSTERLING_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_teaches_itself_by_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: clusterling {verb}" in out
    assert f"clusterling {verb}" in out.partition("Examples:")[2]
    assert err == ""


def test_the_list_of_verbs_has_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for _, text in VERBS.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["lst"], "No such command 'lst'"),
        (["creat", "a"], "No such command 'creat'. Did you mean create?"),
        (["dev", "--nope"], "No such option"),
        (["create"], "Missing argument 'NAME'"),
        (["list", "--nope"], "No such option"),
        (["list", "-o", "xml"], "'xml' is not one of"),
        (["serve", "--listen", "6443"], "this is not HOST:PORT"),
        (["serve", "--listen", "::1:6443"], "write an IPv6 address in brackets"),
        (["serve", "--insecure-http", "--listen", "0.0.0.0:1"], "loopback addresses only"),
        (["serve", "--tls-cert", __file__], "--tls-cert and --tls-key go together"),
        (["serve", "--tls-ca", __file__], "--tls-ca is the CA of --tls-cert"),
        (["serve", "--external-url", "api.example.com"], "this is no URL"),
        (["serve", "--default-cluster", "A"], "lowercase RFC 1123 label"),
        (["serve", "--config", "absent.yaml"], "'absent.yaml' does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint_and_exits_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert complaint in first
    assert second.startswith("hint: see clusterling")


def test_without_a_server_it_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: .clusterling/admin.kubeconfig: no such file" in err
    assert "hint: start a server with `clusterling serve`" in err


@pytest.mark.parametrize(
    "content", ["", "a", "[", "apiVersion: v1", "current-context: x\ncontexts: [{name: x}]"]
)
def test_what_is_no_kubeconfig_is_called_so(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    assert run(["list", "--kubeconfig", str(path)]) == 1
    assert "is not a kubeconfig with a current context" in capsys.readouterr().err


def test_nothing_listening_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "k.yaml"
    path.write_text(
        "current-context: x\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
        "clusters: [{name: x, cluster: {server: 'https://127.0.0.1:9'}}]\n"
        "users: [{name: x, user: {token: t}}]\n"
    )
    assert run(["list", "--kubeconfig", str(path)]) == 1
    assert "error: nothing listens at https://127.0.0.1:9" in capsys.readouterr().err


def test_the_versions_are_those_of_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert (
        capsys.readouterr().out == f"clusterling {__version__}, serving the API of Kubernetes {KUBERNETES}\n"
    )
    assert run(["version", "-o", "json"]) == 0
    assert f'"kubernetes": "{KUBERNETES}"' in capsys.readouterr().out


def test_the_flag_that_people_try_first_tells_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"clusterling {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_CLUSTERLING_COMPLETE" in capsys.readouterr().out


def test_the_shell_completes_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clusterling"],
        env={"_CLUSTERLING_COMPLETE": "bash_complete", "COMP_WORDS": "clusterling de", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"dev", "delete"}


def test_help_imports_neither_the_server_nor_its_libraries() -> None:
    heavy = (
        "httptools",
        "apsw",
        "asyncio",
        "clusterling.server",
        "cryptography",
        "google",
        "ssl",
        "uvloop",
        "yaml",
    )
    program = f"""
import sys
from clusterling.cli.program import run
run(["--help"])
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
