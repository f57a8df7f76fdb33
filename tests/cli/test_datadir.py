from __future__ import annotations

import stat
from pathlib import Path

import pytest

from clusterling.cli.datadir import FORMAT, DataDirectory
from clusterling.cli.errors import CliError
from clusterling.tenancy.kubeconfig import kubeconfig


def test_a_directory_says_its_format(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.check_format()
    directory.write_format()
    directory.check_format()
    assert (tmp_path / "FORMAT").read_text() == f"{FORMAT}\n"
    assert stat.S_IMODE((tmp_path / "FORMAT").stat().st_mode) == 0o600


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(CliError, match="written by a newer Clusterling"):
        DataDirectory(tmp_path).check_format()
    assert (tmp_path / "FORMAT").read_text() == f"{FORMAT + 1}\n"


def test_another_programs_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("parquet")
    with pytest.raises(CliError, match="which is no format"):
        DataDirectory(tmp_path).check_format()


def test_the_administrators_token_stays_while_the_kubeconfig_does(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    assert directory.admin_token() == ""
    document = kubeconfig("https://127.0.0.1:1", "root", "secret", b"")
    directory.write_admin_kubeconfig(document)
    assert stat.S_IMODE(directory.admin_kubeconfig.stat().st_mode) == 0o600
    assert directory.admin_token() == "secret"
    written = directory.admin_kubeconfig.stat()
    directory.write_admin_kubeconfig(document)
    assert directory.admin_kubeconfig.stat().st_ino == written.st_ino


def test_a_broken_kubeconfig_is_kept_aside(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.admin_kubeconfig.write_text("mine, by hand: [")
    assert directory.admin_token() == ""
    (kept,) = tmp_path.glob("admin.broken-*")
    assert kept.read_text() == "mine, by hand: ["
