"""`clusterling check-server` as docs/howto/check-server.md shows it: where it finds its server, what it prints, how it ends."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clusterling.cli.program import run
from clusterling.cli.target import read_kubeconfig
from clusterling.testing.kube import Kube

ONE = "D15"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "NO_COLOR", "CLUSTERLING_COLOR", "CLUSTERLING_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def flags(kube: Kube, tmp_path: Path) -> list[str]:
    """The server by URL, with what it takes to be let in."""
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(f"{kube.token}\n")
    ca.write_text(kube.ca_pem)
    return [kube.url, "--token-file", str(token), "--ca", str(ca)]


def test_a_row_is_a_line_on_what_is_assumed_and_one_on_what_was_seen(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-server", *flags, "--only", "D15,B5"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line[:10] for line in lines] == ["B5   pass ", " " * 10, "D15  pass ", " " * 10]
    assert lines[3].strip().startswith("v1.")
    assert err.endswith(": 0 failed, 0 did not apply\n")


def test_a_row_that_fails_makes_the_exit_code(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-server", f"{flags[0]}/api", *flags[1:], "--only", ONE]) == 1
    assert "D15  FAIL " in capsys.readouterr().out


def test_json_is_a_document_and_nothing_else(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-server", *flags, "--json", "--quiet", "--only", ONE]) == 0
    out, err = capsys.readouterr()
    assert [(row["id"], row["outcome"]) for row in json.loads(out)["rows"]] == [(ONE, "pass")]
    assert err == ""


def test_another_servers_report_is_a_column_of_the_page(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"rows": [{"id": ONE, "outcome": "fail", "seen": "a | b"}]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    beside = ["--beside", "theirs=other.json"]
    assert run(["check-server", *flags, "-o", "markdown", *beside, "--only", ONE]) == 0
    out = capsys.readouterr().out
    assert "| on theirs | here |" in out
    assert "| **fail**: a &#124; b | v1." in out


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [{}]}'])
def test_what_is_no_report_is_not_put_beside(
    content: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text(content)
    assert run(["check-server", *flags, "-o", "markdown", "--beside", "theirs=other.json"]) == 2
    assert "is no report as -o json prints it" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "coloured"), [("always", True), ("never", False), ("auto", False)])
def test_colours_are_for_terminals_or_for_who_asks(
    flag: str, coloured: bool, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-server", *flags, "--color", flag, "--only", ONE]) == 0
    assert ("\x1b[" in capsys.readouterr().out) == coloured


def test_without_a_url_it_is_the_cluster_that_kubectl_speaks_with(
    kube: Kube, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{kube.kubeconfig}:/nowhere")
    assert run(["check-server", "--only", "B5"]) == 0
    assert "B5   pass" in capsys.readouterr().out


def test_a_kubeconfig_of_the_environment_lends_no_credentials_to_a_url(
    kube: Kube, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    assert run(["check-server", kube.url, *flags[3:], "--only", "B9"]) in (0, 1)
    assert "B9   pass" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "E1"], "no row is called E1"),
        (["--color", "some"], "'some' is not one of"),
        (["--timeout", "0"], "not in the range"),
        (["-o", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked_of_a_server(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-server", "http://127.0.0.1:1", *arguments]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://127.0.0.1:1", "refused"),
        ("ftp://example.com", "no http or https URL"),
        ("nonsense", "no http or"),
    ],
)
def test_a_server_that_is_not_there_is_one_line(
    url: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-server", url]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("error: ")
    assert complaint in err.splitlines()[0]


def test_a_certificate_that_is_not_trusted_is_named_as_the_reason(
    kube: Kube, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-server", *flags[:3], "--only", ONE]) == 1
    assert "certificate is not trusted" in capsys.readouterr().err
    assert run(["check-server", *flags[:3], "--insecure-skip-tls-verify", "--only", ONE]) == 0


def test_a_kubeconfigs_client_certificate_is_read_inline_or_from_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("key\n")
    user = {"client-certificate-data": base64.b64encode(b"certificate\n").decode(), "client-key": "key.pem"}
    document = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://a"}}],
        "users": [{"name": "a", "user": user}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    assert read_kubeconfig(tmp_path / "config").client_pem.split() == ["certificate", "key"]


@pytest.mark.parametrize(("sound", "code"), [(True, 0), (False, 1)])
def test_a_client_certificate_is_used_if_it_is_one(
    sound: bool, code: int, kube: Kube, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "somebody")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) if sound else b"no key"
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(pem)
    document = kube.kubeconfig_dict
    user = {**document["users"][0]["user"], "client-certificate": "tls.crt", "client-key": "tls.key"}
    users = [{**document["users"][0], "user": user}]
    (tmp_path / "config").write_text(yaml.safe_dump({**document, "users": users}))
    assert run(["check-server", "--kubeconfig", "config", "--only", ONE]) == code
    assert capsys.readouterr().err.startswith("1 row on" if sound else "error: config: ")
