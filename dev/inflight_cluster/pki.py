"""Certificates for one cluster, made by the openssl command: the standard library cannot sign.

Every private key stays in the given directory, readable by its owner only. Nothing here outlives the cluster.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inflight_cluster.errors import ClusterError

_DAYS = 3650
# The distribution's openssl.cnf would mark every certificate of `req -x509` as a CA.
_CONFIG = "[req]\ndistinguished_name = dn\n[dn]\n"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


def authority(directory: Path, name: str) -> Pair:
    """A new self-signed CA in `directory`/`name`.{crt,key}."""
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
    return _make(directory, name, f"/CN={name}", extensions)


def issue(
    directory: Path,
    name: str,
    ca: Pair,
    *,
    user: str,
    groups: Iterable[str] = (),
    hosts: Iterable[str] = (),
    days: int = _DAYS,
) -> Pair:
    """A certificate signed by `ca` for the Kubernetes user and groups, valid as a server for `hosts`."""
    subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
    extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
    names = ",".join(_alternative_name(host) for host in hosts)
    if names:
        extensions.append(f"subjectAltName={names}")
    return _make(directory, name, subject, extensions, "-CA", str(ca.certificate), "-CAkey", str(ca.key), days=days)


def _alternative_name(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _make(directory: Path, name: str, subject: str, extensions: Iterable[str], *signer: str, days: int = _DAYS) -> Pair:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pair = Pair(directory / f"{name}.crt", directory / f"{name}.key")
    config = directory / "openssl.cnf"
    config.write_text(_CONFIG)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    command += ["-config", str(config), "-days", str(days), "-subj", subject]
    command += ["-keyout", str(pair.key), "-out", str(pair.certificate), *signer]
    for extension in extensions:
        command += ["-addext", extension]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ClusterError("openssl is missing: install it with 'apt-get install openssl'") from None
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"openssl could not make the certificate {name}: {error.stderr.strip()}") from error
    pair.key.chmod(0o600)
    return pair
