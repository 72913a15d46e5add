"""Who is asking: the API server's front proxy says so in headers, and only its client certificate makes them true.

Pure. The rules are those of the ConfigMap kube-system/extension-apiserver-authentication, which every API server with
an aggregation layer publishes. The certificate's chain was verified by TLS (certificates.py); here its name is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from multidict import CIMultiDict, CIMultiDictProxy

from inflight_operator.errors import InflightError

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


@dataclass(frozen=True)
class User:
    """A user as the API server authenticated it."""

    name: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class FrontProxy:
    """How to recognise the API server's front proxy and to read what it says."""

    ca: str
    """PEM of the authority that signs its client certificate."""
    allowed_names: tuple[str, ...]
    """Common names that its certificate may have; empty: any that `ca` signed."""
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    @classmethod
    def from_config_map(cls, data: Mapping[str, str]) -> FrontProxy:
        """From the data of kube-system/extension-apiserver-authentication. InflightError names what is missing."""

        def names(key: str) -> tuple[str, ...]:
            try:
                found = json.loads(data.get(key) or "[]")
            except ValueError as error:
                raise InflightError(f"extension-apiserver-authentication: {key} is not JSON: {error}") from error
            return tuple(str(name) for name in found)

        ca = data.get("requestheader-client-ca-file", "")
        if not ca:
            raise InflightError(
                "extension-apiserver-authentication has no requestheader-client-ca-file: the API server's aggregation "
                "layer is off (start it with --requestheader-client-ca-file), or use metricsApi.mode none"
            )
        return cls(
            ca=ca,
            allowed_names=names("requestheader-allowed-names"),
            username_headers=names("requestheader-username-headers") or cls.username_headers,
            group_headers=names("requestheader-group-headers") or cls.group_headers,
            extra_prefixes=names("requestheader-extra-headers-prefix") or cls.extra_prefixes,
        )

    def vouches(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a verified peer certificate (as ssl.getpeercert() gives it) is the front proxy's."""
        if not certificate:
            return False
        return not self.allowed_names or any(name in self.allowed_names for name in _common_names(certificate))

    def user(self, headers: Headers) -> User | None:
        """The user in the headers of a request that the front proxy sent; None if it names nobody."""
        name = next((value for header in self.username_headers if (value := headers.get(header))), None)
        if name is None:
            return None
        groups = tuple(value for header in self.group_headers for value in headers.getall(header, ()))
        return User(name, groups, self._extra(headers))

    def _extra(self, headers: Headers) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for header, value in headers.items():
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    key = unquote(header[len(prefix) :].lower())
                    found[key] = (*found.get(key, ()), value)
        return found


def _common_names(certificate: Mapping[str, Any]) -> list[str]:
    return [value for rdn in certificate.get("subject", ()) for attribute, value in rdn if attribute == "commonName"]
