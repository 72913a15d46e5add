"""JSON Web Key Sets (RFC 7517): the public keys by which an issuer's tokens are checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""What a public key of each kind consists of. With a symmetric one (oct), who can check can also sign: left out."""
_DESCRIBING: Final = ("kty", "kid", "alg", "use")
_MOST: Final = 16384
"""Characters of a set, as in the CRD: some twenty keys of 4096 bits. Each route of the ModelDeployment carries it."""


@dataclass(frozen=True)
class Keys:
    """A set as `public_keys` writes it, and whose it is where that is read along with it."""

    keys: str
    issuer: str = ""


def public_keys(text: str | bytes) -> str:
    """The set with nothing in it but public keys for signatures, always written the same way.

    Keys of other kinds and for other uses are left out, as RFC 7517 asks. ValueError: there is none, or it is no set.
    """
    try:
        found = json.loads(text)["keys"]
        kept = [_public(key) for key in found if _signs(key)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError('not a set of JSON Web Keys, {"keys": [...]}') from None
    if not kept:
        raise ValueError("no public key that checks signatures (RSA, EC or Ed25519)")
    written = json.dumps({"keys": kept}, sort_keys=True)
    if len(written) > _MOST:
        raise ValueError(f"too many or too large keys: {len(written)} characters, {_MOST} are the most")
    return written


def _signs(key: dict[str, Any]) -> bool:
    parts = _PUBLIC.get(key.get("kty", ""))
    return key.get("use", "sig") == "sig" and parts is not None and all(isinstance(key.get(p), str) for p in parts)


def _public(key: dict[str, Any]) -> dict[str, str]:
    """Without what isn't public, and what nobody reads (certificates are most of a set's size)."""
    parts = (*_DESCRIBING, *_PUBLIC[key["kty"]])
    return {part: key[part] for part in parts if isinstance(key.get(part), str)}
