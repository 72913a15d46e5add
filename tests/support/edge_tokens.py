"""Issuers of tokens, and certificates of a router: made here, so that every way to spoil one can be tried."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

CLUSTER = "https://kubernetes.default.svc"


def encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass
class Issuer:
    """Signs tokens with an RSA key, as the API server does."""

    name: str = CLUSTER
    kid: str = "one"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        modulus = encoded(numbers.n.to_bytes(256, "big"))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": modulus, "e": "AQAB"}

    @property
    def keys(self) -> str:
        return json.dumps({"keys": [self.jwk]})

    def token(self, subject: str = "system:serviceaccount:demo:client", **claims: Any) -> str:
        """A token that is good for an hour, but for what `claims` say otherwise; None leaves a claim out."""
        return self.signed(self.payload(subject, **claims), "RS256")

    def payload(self, subject: str, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {"iss": self.name, "aud": ["inflight"], "sub": subject, "iat": now, "nbf": now, "exp": now + 3600}
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def signed(self, payload: dict[str, Any], algorithm: str) -> str:
        """By RS256; or as those do who have the public key only: HS256 with it for a secret, or none."""
        header = {"alg": algorithm, "kid": self.kid, "typ": "JWT"}
        body = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(payload).encode())}"
        return f"{body}.{encoded(self._signature(body.encode(), algorithm))}"

    def _signature(self, body: bytes, algorithm: str) -> bytes:
        if algorithm == "none":
            return b""
        if algorithm == "HS256":
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            return hmac.digest(
                self.key.public_key().public_bytes(serialization.Encoding.PEM, form), body, hashlib.sha256
            )
        return self.key.sign(body, padding.PKCS1v15(), hashes.SHA256())


def certificate(directory: Path, name: str) -> Path:
    """A certificate of its own for `name`, as a Secret of type kubernetes.io/tls is mounted; returns its file.

    Written as the kubelet does: into a new folder, to which a link is moved.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = directory / f"..{made.serial_number}"
    folder.mkdir(parents=True)
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    (directory / "..new").symlink_to(folder.name)
    os.replace(directory / "..new", directory / "..data")
    for file in ("tls.crt", "tls.key"):
        if not (directory / file).is_symlink():
            (directory / file).symlink_to(f"..data/{file}")
    return directory / "tls.crt"
