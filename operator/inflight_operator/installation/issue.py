"""X.509 certificates: a private authority and what it signs (RFC 5280), on P-256. Nothing here reads a clock.

By `cryptography`, the library that Python's own world uses for this: 15 MiB installed, see docs/adr/0012.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SKEW: Final = timedelta(minutes=5)
"""Good for a while before it was made: clocks differ."""
_USAGE: Final = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


def authority(now: datetime, seconds: float) -> Pair:
    """An authority that signs itself, good for `seconds`."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities in one bundle: the same name with another key would make chains ambiguous.
    name = _name(f"inflight {now:%Y-%m-%dT%H:%M:%S.%f}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = (
        _builder(name, name, key, now, now + timedelta(seconds=seconds))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, key_cert_sign=True, crl_sign=True, **_USAGE), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(made, key)


def leaf(signer: Pair, name: str, hosts: Sequence[str], now: datetime, seconds: float) -> Pair:
    """A certificate for a server with these `hosts`, without any for a client; good no longer than `signer`."""
    parent = x509.load_pem_x509_certificate(signer.certificate)
    signing = serialization.load_pem_private_key(signer.key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is none of ours")
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(seconds=seconds), parent.not_valid_after_utc)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    made = (
        _builder(_name(name), parent.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(True, key_cert_sign=False, crl_sign=False, **_USAGE),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if hosts:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
    return _pair(made.sign(signing, hashes.SHA256()), key)


def left(certificate: bytes | None, now: datetime) -> float | None:
    """Seconds until a PEM certificate expires; None when there is none, or nothing that can be read as one."""
    if not certificate:
        return None
    try:
        return (x509.load_pem_x509_certificate(certificate).not_valid_after_utc - now).total_seconds()
    except ValueError:
        return None


def signed_by(certificate: bytes | None, signer: Pair) -> bool:
    """Whether `signer` made the certificate."""
    if not certificate:
        return False
    try:
        found = x509.load_pem_x509_certificate(certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(signer.certificate))
    except Exception:
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pair(made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        made.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def utc_now() -> datetime:
    """Now."""
    return datetime.now(UTC)
