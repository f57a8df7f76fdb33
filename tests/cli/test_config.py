"""Where `serve` gets its settings from: a flag goes before its variable, the variable before the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from clusterling.cli.serve import parse_listen, serve_command


def _settings(arguments: list[str]) -> dict[str, Any]:
    return serve_command.make_context("serve", arguments).params


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "listen: 127.0.0.1:1\n"
        "packs: [core, rbac, -events]\n"
        "tls-san: [a.example.com, b.example.com]\n"
        "insecure-http: true\n"
        "default-cluster: ''\n"
    )
    return path


def test_a_file_gives_what_nobody_else_does(config: Path) -> None:
    settings = _settings(["--config", str(config)])
    assert settings["listen"] == "127.0.0.1:1"
    assert settings["packs"] == "core,rbac,-events"
    assert settings["tls_sans"] == ("a.example.com", "b.example.com")
    assert settings["insecure_http"] is True
    assert settings["default_cluster"] == ""
    assert settings["log_level"] == "warning"


def test_a_variable_goes_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLING_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("CLUSTERLING_CONFIG", str(config))
    settings = _settings([])
    assert (settings["listen"], settings["packs"]) == ("127.0.0.1:2", "core,rbac,-events")


def test_a_flag_goes_before_the_variable(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLING_LISTEN", "127.0.0.1:2")
    assert _settings(["--listen", "127.0.0.1:3", "--config", str(config)])["listen"] == "127.0.0.1:3"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("listn: x", "listn is no flag of serve; there are data-dir, store"),
        ("config: x", "config is no flag of serve"),
        ("- a", "must be a map"),
        ("{", "is not YAML"),
        ("log-level: loud", "'loud' is not one of"),
    ],
)
def test_a_file_with_anything_else_is_refused(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(click.UsageError, match=complaint):
        _settings(["--config", str(path)])


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert _settings(["--config", str(path)])["listen"] == "127.0.0.1:6443"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:6443", "127.0.0.1", 6443),
        ("[::1]:0", "::1", 0),
        (":8080", "0.0.0.0", 8080),  # noqa: S104 - what is parsed, not bound
        ("localhost:1", "localhost", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == (host, port)
