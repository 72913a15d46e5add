"""Opening an object store: which one a URI means, and as whom it is asked. Reading from it is in `buckets`.

Identities, in this order: the mounted Secret's; the pod's own (a projected token, or Google's metadata service, which
obstore asks by itself and only for this); none, and requests are unsigned. A machine's own identity is never borrowed.

obstore follows redirects and can't be told not to. Over https it follows none to http, which metadata services speak;
over http a proxy that isn't there stands in the way to every host but those that are meant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from model_server.errors import LoadFailure, Reason, first_line
from model_server.settings import StorageSettings
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.uri import ModelUri

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

_KEYS: Final[dict[str, tuple[dict[str, str], ...]]] = {
    "s3": (
        {
            "AWS_ACCESS_KEY_ID": "access_key_id",
            "AWS_SECRET_ACCESS_KEY": "secret_access_key",  # nosec B105 # a name
        },
    ),
    "gs": ({"GOOGLE_SERVICE_ACCOUNT_KEY": "service_account_key"},),
    "az": (
        {"AZURE_STORAGE_ACCOUNT_KEY": "account_key"},
        {"AZURE_STORAGE_SAS_TOKEN": "sas_key"},  # nosec B105 # a name
    ),
}
"""Keys of the Secret, as obstore calls them; of several sets the first that is there."""
_IDENTITY_HOSTS: Final = {
    "s3": ("amazonaws.com", "amazonaws.com.cn", "169.254.170.23"),
    "gs": ("googleapis.com", "metadata.google.internal"),
    "az": ("microsoftonline.com", "microsoftonline.us", "partner.microsoftonline.cn"),
}
"""Where the pod's own identity is changed for the store's credentials."""
_SIGNED_FOR: Final = timedelta(minutes=30)
"""More than clocks may differ, which S3 allows 15 minutes for. Each request has a URL of its own."""
_NO_PROXY_THERE: Final = "http://127.0.0.1:9"
_OPTIONAL: Final = {"s3": {"AWS_SESSION_TOKEN": "session_token"}}  # nosec B105 # a name


@dataclass(frozen=True)
class Opened:
    """One bucket or container of a store."""

    store: S3Store | GCSStore | AzureStore
    where: str
    """What people call it."""
    prefix: str
    """Where in it the model lies."""
    identity: str
    """As whom it is asked, in words."""
    sign: Callable[[str], str] | None = None
    """Object → a URL that needs no more than itself; where such can be made without asking anybody."""
    any_address: bool = False
    """Whether its objects may lie on this machine."""


def opened(uri: ModelUri, settings: StorageSettings, *, local_files: bool) -> Opened:
    """The store of an s3, gs or az URI.

    LoadFailure: SecretNotFound; FetchFailed (no library, an endpoint that must not be fetched from).
    """
    _vet_endpoint(settings.endpoint, local_files)
    try:
        from obstore import store  # noqa: PLC0415 - only who fetches from a store needs it
        from obstore.exceptions import BaseError  # noqa: PLC0415
    except ImportError as error:
        raise LoadFailure(
            Reason.FETCH_FAILED, "this image has no obstore: install inflight-model-server[object-stores]"
        ) from error
    options, identity = _identity(uri.scheme, settings)
    how: dict[str, Any] = {
        "config": options,
        "client_options": _client(uri.scheme, settings, local_files),
        # Trying again is done in `attempts`, for all sources alike.
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=30)},
    }
    endpoint, bucket = settings.endpoint, f"bucket {uri.host!r}"
    try:
        if uri.scheme == "s3":
            options["region"] = settings.region or "us-east-1"
            options |= {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
            found = store.S3Store(uri.host, **how)
            sign = functools.partial(_signed, found) if "skip_signature" not in options and not getproxies() else None
            return Opened(found, bucket, uri.path, identity, sign, local_files)
        if uri.scheme == "gs":
            options |= {"base_url": endpoint} if endpoint else {}
            return Opened(store.GCSStore(uri.host, **how), bucket, uri.path, identity)
        container, _, prefix = uri.path.partition("/")
        options |= {"account_name": uri.host} | ({"endpoint": endpoint} if endpoint else {})
        where = f"container {container!r} of account {uri.host!r}"
        return Opened(store.AzureStore(container, **how), where, prefix.lstrip("/"), identity)
    except BaseError as error:  # its text may quote the Secret
        why = f"what is in the storage Secret can't be used as {_wanted(uri.scheme)}"
        raise LoadFailure(Reason.FETCH_FAILED, why if settings.secret_dir else first_line(error)) from None


def _signed(found: S3Store, path: str) -> str:
    from obstore import sign  # noqa: PLC0415

    return sign(found, "GET", path, _SIGNED_FOR)


def _client(scheme: str, settings: StorageSettings, local_files: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connect_timeout": "5s",
        "read_timeout": "30s",
        "timeout": f"{int(settings.timeout_seconds)}s",
    }
    parts = urlsplit(settings.endpoint)
    if parts.scheme == "http":
        options["allow_http"] = True
        if not local_files:
            own = not settings.secret_dir and scheme in settings.identities
            meant = (parts.hostname or "", *(_IDENTITY_HOSTS[scheme] if own else ()))
            options |= {"proxy_url": _NO_PROXY_THERE, "proxy_excludes": ",".join(meant)}
    return options


def _vet_endpoint(endpoint: str, local_files: bool) -> None:
    parts = urlsplit(endpoint)
    if not endpoint or local_files:
        return
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadFailure(Reason.INVALID_SETTINGS, f"storage endpoint {endpoint!r} is no http(s) URL")
    try:
        addresses.resolve(parts.hostname, parts.port or 443)
    except OSError as error:
        raise TransientError(f"storage endpoint {parts.hostname}: {first_line(error)}") from error


def _identity(scheme: str, settings: StorageSettings) -> tuple[dict[str, Any], str]:
    if settings.secret_dir:
        return _secret(settings.secret_dir, scheme), "the storage Secret's"
    if scheme in settings.identities:
        return {}, "the service account's"
    return {"skip_signature": True}, "none, requests are unsigned"


def _secret(directory: Path, scheme: str) -> dict[str, Any]:
    keys = next((keys for keys in _KEYS[scheme] if all((directory / file).exists() for file in keys)), None)
    if keys is None:
        # Mounted whether it is there or not, so that it is missed here, by name of what is needed, and not by the node.
        found = directory.is_dir() and any(not file.name.startswith("..") for file in directory.iterdir())
        missing = "the storage Secret lacks" if found else "the storage Secret isn't there, or is empty: it needs"
        raise LoadFailure(Reason.SECRET_NOT_FOUND, f"{missing} {_wanted(scheme)}")
    there = keys | {file: name for file, name in _OPTIONAL.get(scheme, {}).items() if (directory / file).exists()}
    try:
        return {option: (directory / file).read_text().strip() for file, option in there.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise LoadFailure(Reason.FETCH_FAILED, f"the storage Secret can't be read: {type(error).__name__}") from error


def _wanted(scheme: str) -> str:
    return f"{' or '.join(' and '.join(keys) for keys in _KEYS[scheme])}, which {scheme}:// needs"
