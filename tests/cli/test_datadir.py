from __future__ import annotations

import stat
from pathlib import Path

import pytest

from clusterling.cli.datadir import FORMAT, DataDirectory
from clusterling.cli.errors import CliError, Exit
from clusterling.tenancy.kubeconfig import kubeconfig


def test_a_new_directory_is_private_and_says_its_format(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "data") as directory:
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        assert (directory.path / "FORMAT").read_text() == f"{FORMAT}\n"
        assert stat.S_IMODE((directory.path / "FORMAT").stat().st_mode) == 0o600


def test_a_second_server_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with DataDirectory(tmp_path), pytest.raises(CliError, match="another server runs on") as refused:
        DataDirectory(tmp_path).__enter__()
    assert refused.value.code == Exit.CONFLICT
    assert "(process " in refused.value.message
    with DataDirectory(tmp_path):
        pass


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(CliError, match="written by a newer Clusterling"):
        DataDirectory(tmp_path).__enter__()
    assert (tmp_path / "FORMAT").read_text() == f"{FORMAT + 1}\n"
    (tmp_path / "FORMAT").write_text(f"{FORMAT}\n")
    with DataDirectory(tmp_path):
        pass


def test_another_programs_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("parquet")
    with pytest.raises(CliError, match="which is no format"):
        DataDirectory(tmp_path).__enter__()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CliError, match=r"cannot use .* as data directory: (Not a directory|File exists)"):
        DataDirectory(tmp_path / "file").__enter__()


def test_the_administrators_token_stays_while_the_kubeconfig_does(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        assert directory.admin_token() == ""
        document = kubeconfig("https://127.0.0.1:1", "root", "secret", b"")
        directory.write_admin_kubeconfig(document)
        assert stat.S_IMODE(directory.admin_kubeconfig.stat().st_mode) == 0o600
        assert directory.admin_token() == "secret"
        written = directory.admin_kubeconfig.stat()
        directory.write_admin_kubeconfig(document)
        assert directory.admin_kubeconfig.stat().st_ino == written.st_ino


def test_a_broken_kubeconfig_is_kept_aside(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        directory.admin_kubeconfig.write_text("mine, by hand: [")
        assert directory.admin_token() == ""
        (kept,) = tmp_path.glob("admin.broken-*")
        assert kept.read_text() == "mine, by hand: ["
