from __future__ import annotations

import asyncio
import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from clusterling.tenancy import pki

NOW = datetime.now(UTC)


def _leaf(credentials: pki.Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate_pem)


def test_the_ca_and_the_leaf_are_two_certificates() -> None:
    made = pki.ephemeral(NOW, ["api.example.com", "10.0.0.7"])
    ca, leaf = x509.load_pem_x509_certificate(made.ca_pem), _leaf(made)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is True
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "api.example.com"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(one) for one in ("127.0.0.1", "::1", "10.0.0.7")
    ]
    leaf.verify_directly_issued_by(ca)


async def test_a_client_that_trusts_the_ca_alone_gets_through() -> None:
    made = pki.ephemeral(NOW)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=pki.server_context(made))
    async with server:
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cadata=made.ca_pem.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        assert await reader.read() == b"hello"
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger = ssl.create_default_context(cadata=pki.ephemeral(NOW).ca_pem.decode())
            await asyncio.open_connection("127.0.0.1", port, ssl=stranger)


def test_what_was_made_is_kept_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    first = pki.ensure(directory, NOW)
    assert pki.ensure(directory, NOW + timedelta(days=100)) == first
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_a_leaf_is_renewed_under_the_same_ca(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, NOW)
    other_hosts = pki.ensure(tmp_path, NOW, ["api.example.com"])
    later = NOW + pki.LEAF_LIFE - pki.LEAF_LEFT_MIN + timedelta(days=1)
    ending = pki.ensure(tmp_path, later, ["api.example.com"])
    assert first.ca_pem == other_hosts.ca_pem == ending.ca_pem
    serials = {_leaf(one).serial_number for one in (first, other_hosts, ending)}
    assert len(serials) == 3
    assert pki.ensure(tmp_path, later, ["api.example.com"]) == ending


def test_a_ca_at_its_end_is_replaced(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, NOW)
    second = pki.ensure(tmp_path, NOW + pki.CA_LIFE - timedelta(days=1))
    assert first.ca_pem != second.ca_pem


def test_a_start_that_was_cut_short_is_made_good(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, NOW)
    (tmp_path / "tls.crt").write_bytes(pki.ephemeral(NOW).certificate_pem)
    second = pki.ensure(tmp_path, NOW)
    assert second.ca_pem == first.ca_pem
    _leaf(second).verify_directly_issued_by(x509.load_pem_x509_certificate(first.ca_pem))
    (tmp_path / "tls.json").write_text("{")
    assert pki.ensure(tmp_path, NOW).ca_pem == first.ca_pem


def test_a_ca_with_anothers_key_is_refused(tmp_path: Path) -> None:
    pki.ensure(tmp_path, NOW)
    (tmp_path / "tls.json").unlink()
    (tmp_path / "ca.key").write_bytes(pki.ephemeral(NOW).key_pem)
    with pytest.raises(ValueError, match="is not the key of"):
        pki.ensure(tmp_path, NOW)
