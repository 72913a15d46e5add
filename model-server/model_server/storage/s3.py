"""Objects of an S3-compatible store: one, or all below a prefix. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from model_server.errors import LoadFailure, Reason, first_line
from model_server.settings import StorageSettings
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.uri import ModelUri

if TYPE_CHECKING:
    from obstore.store import S3Store

_CHUNK: Final = 1024 * 1024
_STATUS: Final = re.compile(r"status code: (4\d\d)")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_PASSING: Final = frozenset((408, 425, 429))
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}


class Bucket:
    """One bucket, with the endpoint and identity that the settings give."""

    def __init__(self, uri: ModelUri, settings: StorageSettings, *, local_files: bool) -> None:
        """LoadFailure(FetchFailed): no library, no key in the Secret, an endpoint that must not be fetched from."""
        self._where = f"bucket {uri.host!r}"
        self._settings = settings
        self._vet_endpoint(local_files)
        self._store = self._opened(uri.host)

    def names(self, path: str) -> dict[str, str]:
        """What to fetch for `path`: object key → relative file name. LoadFailure when nothing is there."""
        if not path.endswith("/"):
            try:
                self._store.head(path)
            except FileNotFoundError:
                pass  # not an object: perhaps the objects below it
            except Exception as error:
                raise self._failure(error, path) from error
            else:
                return {path: path.rsplit("/", 1)[-1]}
        prefix = path.rstrip("/")
        try:
            keys = [str(item["path"]) for page in self._store.list(prefix) for item in page]
        except Exception as error:
            raise self._failure(error, path) from error
        found = {key: key.removeprefix(prefix).strip("/") for key in keys}
        found = {key: name for key, name in found.items() if name}
        if not found:
            raise LoadFailure(Reason.FETCH_FAILED, f"{self._where} has no object {path!r} and none below it")
        return found

    def chunks(self, key: str) -> Iterator[bytes]:
        """The bytes of one object, complete or TransientError."""
        try:
            result = self._store.get(key)
            size, received = int(result.meta["size"]), 0
            for chunk in result.stream(min_chunk_size=_CHUNK):
                received += len(chunk)
                yield memoryview(chunk)  # type: ignore[misc]
        except Exception as error:
            raise self._failure(error, key) from error
        if received != size:
            raise TransientError(f"{self._where} sent {received} of {size} bytes of {key!r}")

    def _failure(self, error: Exception, path: str) -> Exception:
        """obstore's error as ours: what is absent or forbidden stays so, the rest may pass."""
        if isinstance(error, LoadFailure | GeneratorExit):
            return error
        if isinstance(error, FileNotFoundError):
            return LoadFailure(Reason.FETCH_FAILED, f"{self._where} has no object {path!r}")
        status = _STATUS.search(str(error))
        if status and int(status[1]) not in _PASSING:
            code = _CODE.search(str(error))
            return LoadFailure(
                Reason.FETCH_FAILED,
                f"{self._where} answered {status[1]} {code[1] if code else ''} for {path!r}, "
                f"asked with this identity: {self._identity()}",
            )
        return TransientError(f"{self._where}: {first_line(error)}")

    def _identity(self) -> str:
        if self._settings.secret_dir:
            return "the storage Secret's"
        return "the service account's" if self._settings.ambient_identity else "none, requests are unsigned"

    def _vet_endpoint(self, local_files: bool) -> None:
        parts = urlsplit(self._settings.endpoint)
        if not self._settings.endpoint or local_files:
            return
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LoadFailure(
                Reason.INVALID_SETTINGS, f"storage endpoint {self._settings.endpoint!r} is no http(s) URL"
            )
        try:
            addresses.resolve(parts.hostname, parts.port or 443)
        except OSError as error:
            raise TransientError(f"storage endpoint {parts.hostname}: {first_line(error)}") from error

    def _opened(self, bucket: str) -> S3Store:
        try:
            from obstore.store import S3Store  # noqa: PLC0415 - only who fetches from a store needs it
        except ImportError as error:
            raise LoadFailure(
                Reason.FETCH_FAILED, "this image has no obstore: install inflight-model-server[object-stores]"
            ) from error
        options: dict[str, Any] = {"region": self._settings.region or "us-east-1"}
        if self._settings.endpoint:
            options |= {"endpoint": self._settings.endpoint, "virtual_hosted_style_request": False}
        if self._settings.secret_dir:
            options |= _keys(self._settings.secret_dir)
        elif not self._settings.ambient_identity:
            options["skip_signature"] = True
        return S3Store(
            bucket,
            config=options,  # type: ignore[arg-type]
            client_options={
                "allow_http": self._settings.endpoint.startswith("http://"),
                "connect_timeout": "5s",
                "read_timeout": "30s",
                "timeout": f"{int(self._settings.timeout_seconds)}s",
            },
            # Trying again is done in `attempts`, for all sources alike.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=30)},
        )


def _keys(directory: Path) -> dict[str, str]:
    keys = {}
    for file, option in _KEYS.items():
        try:
            keys[option] = (directory / file).read_text().strip()
        except FileNotFoundError:
            if file != "AWS_SESSION_TOKEN":
                raise LoadFailure(Reason.FETCH_FAILED, f"the storage Secret has no key {file}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise LoadFailure(Reason.FETCH_FAILED, f"the storage Secret's {file} can't be read") from error
    return keys
