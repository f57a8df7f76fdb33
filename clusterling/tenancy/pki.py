"""The server's own certificate authority, and the leaf it serves with.

Two certificates, never one: rustls refuses a server certificate that is its own CA (`CaUsedAsEndEntity`), though Go and
OpenSSL would take it. Kubeconfigs embed the CA, so the leaf may be renewed at any start and no client notices.

`cryptography` costs 0.1 s to import, a sixth of what a server may take to start. So what must be known of the leaf (its
hosts, its end) is noted beside it, and the library is imported only when something has to be made.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

LOCAL_HOSTS: Final = ("127.0.0.1", "::1", "localhost")

CA_LIFE: Final = timedelta(days=3650)
# Some platforms trust no leaf that lives longer than 825 days.
LEAF_LIFE: Final = timedelta(days=820)
# A leaf with less left is renewed at start, so that a server may run this long without one.
LEAF_LEFT_MIN: Final = timedelta(days=410)
CA_LEFT_MIN: Final = timedelta(days=30)

# Clients whose clock is behind must not find a new certificate "not yet valid".
_BACKDATE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A CA's certificate, and a leaf below it with its key; PEM."""

    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate and key; PEM."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ephemeral(now: datetime, hosts: Iterable[str] = ()) -> Credentials:
    """A CA and a leaf for a server that lives for one run. The CA's key is thrown away."""
    return _leaf(_new_authority(now), _all_hosts(hosts), now)


def ensure(directory: Path, now: datetime, hosts: Iterable[str] = ()) -> Credentials:
    """The credentials kept in `directory`, made or renewed where they are missing, ending, or for other hosts.

    The leaf is for 127.0.0.1, ::1, localhost and `hosts`. A CA that is there and lasts is kept: kubeconfigs
    trust it. Raises OSError where the directory cannot be read or written, ValueError where what is in it
    is not what this function writes.
    """
    wanted = _all_hosts(hosts)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = _read(directory, wanted, now)
    if known is not None:
        return known
    authority = _read_authority(directory, now)
    if authority is None:
        authority = _new_authority(now)
        _write(directory / "ca.key", _key_pem(authority.key))
        _write(directory / "ca.crt", _certificate_pem(authority.certificate))
    made = _leaf(authority, wanted, now)
    # The note goes away first and comes last: a leaf without a note is made again.
    (directory / "tls.json").unlink(missing_ok=True)
    _write(directory / "tls.key", made.key_pem)
    _write(directory / "tls.crt", made.certificate_pem)
    _write(directory / "tls.json", _note(made, authority, wanted, now))
    return made


def authority(directory: Path) -> Authority | None:
    """The CA kept in `directory`, if there is one. Raises OSError."""
    try:
        return Authority((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
    except FileNotFoundError:
        return None


def adopt(directory: Path, authority: Authority) -> None:
    """Puts this CA in the place of any that is kept in `directory`; `ensure` makes the leaf. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "tls.json").unlink(missing_ok=True)
    _write(directory / "ca.key", authority.key_pem)
    _write(directory / "ca.crt", authority.certificate_pem)


def server_context(credentials: Credentials, within: Path | None = None) -> ssl.SSLContext:
    """What a listener needs. The key touches the disk only in a private directory that is gone on return.

    `within`: where that directory is made; None where temporary files are.
    """
    with tempfile.TemporaryDirectory(prefix="clusterling-tls-", dir=within) as name:
        certificate, key = Path(name, "tls.crt"), Path(name, "tls.key")
        _write(certificate, credentials.certificate_pem)
        _write(key, credentials.key_pem)
        return server_context_from_files(certificate, key)


def server_context_from_files(certificate: Path, key: Path) -> ssl.SSLContext:
    """A listener's context from PEM files. Raises OSError, ssl.SSLError (they do not fit, or are no PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # All suites on offer are sound, so the client may choose: Go's clients take the one with less work for both ends.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    # Without ALPN some clients try HTTP/2 by prior knowledge.
    context.set_alpn_protocols(["http/1.1"])
    # An encrypted key would stop the start to ask a terminal that is not there.
    context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one that is not")


def _all_hosts(hosts: Iterable[str]) -> list[str]:
    return [*LOCAL_HOSTS, *sorted(set(hosts) - set(LOCAL_HOSTS))]


def _read(directory: Path, wanted: Sequence[str], now: datetime) -> Credentials | None:
    """What is kept, if its note says that it still serves."""
    try:
        note = json.loads((directory / "tls.json").read_bytes())
        known = Credentials(
            *((directory / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")),
        )
        lasts = datetime.fromisoformat(note["leaf_until"]) - now >= LEAF_LEFT_MIN
        lasts = lasts and datetime.fromisoformat(note["ca_until"]) - now >= CA_LEFT_MIN
        fits = note["hosts"] == list(wanted) and note["of"] == _fingerprint(known)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return known if lasts and fits else None


def _fingerprint(credentials: Credentials) -> str:
    """Ties a note to the files it speaks of, so that a replaced file is noticed."""
    return hashlib.sha256(credentials.ca_pem + credentials.certificate_pem).hexdigest()


def _note(made: Credentials, authority: _Authority, hosts: Sequence[str], now: datetime) -> bytes:
    ends = authority.certificate.not_valid_after_utc
    note = {
        "hosts": list(hosts),
        "leaf_until": min(now + LEAF_LIFE, ends).isoformat(),
        "ca_until": ends.isoformat(),
        "of": _fingerprint(made),
    }
    return json.dumps(note, indent=1).encode() + b"\n"


def _read_authority(directory: Path, now: datetime) -> _Authority | None:
    """The kept CA; None where there is none or its end is near."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        certificate_pem = (directory / "ca.crt").read_bytes()
        key_pem = (directory / "ca.key").read_bytes()
    except FileNotFoundError:
        return None
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError(f"{directory / 'ca.key'} is not the key of {directory / 'ca.crt'}")
    lasts = certificate.not_valid_after_utc - now >= CA_LEFT_MIN
    return _Authority(certificate, key) if lasts else None


def _new_authority(now: datetime) -> _Authority:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # The name differs for each CA: OpenSSL finds an issuer by name, and would try the wrong one of two.
    name = _name(f"clusterling-ca@{int(now.timestamp())}-{os.urandom(4).hex()}")
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _leaf(authority: _Authority, hosts: Sequence[str], now: datetime) -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("clusterling"))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .add_extension(
            x509.SubjectAlternativeName([_alternative_name(host) for host in hosts]), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    return Credentials(_certificate_pem(authority.certificate), _certificate_pem(certificate), _key_pem(key))


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """Writes a file that only its owner reads, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
