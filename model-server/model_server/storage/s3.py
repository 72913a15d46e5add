"""Objects of an S3-compatible store: one, or all below a prefix. Reads only."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from model_server.errors import LoadFailure, Reason, first_line
from model_server.settings import StorageSettings
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.remote import ChangedError
from model_server.storage.uri import ModelUri

if TYPE_CHECKING:
    from obstore.store import S3Store

_CHUNK: Final = 1024 * 1024
_STATUS: Final = re.compile(r"status code: (4\d\d)")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_PASSING: Final = frozenset((408, 425, 429))
_CHANGED: Final = frozenset(("412", "416"))
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",  # nosec B105 # a name
    "AWS_SESSION_TOKEN": "session_token",  # nosec B105 # a name
}


class Bucket:
    """One bucket, with the endpoint and identity that the settings give."""

    def __init__(self, uri: ModelUri, settings: StorageSettings, *, local_files: bool) -> None:
        """LoadFailure(FetchFailed): no library, no key in the Secret, an endpoint that must not be fetched from."""
        self._where = f"bucket {uri.host!r}"
        self._settings = settings
        self._vet_endpoint(local_files)
        self._store = self._opened(uri.host)

    def files(self, path: str) -> dict[str, Object]:
        """What to fetch for `path`: relative file name → object. LoadFailure when nothing is there."""
        if not path.endswith("/"):
            try:
                found = self._store.head(path)
            except FileNotFoundError:
                pass  # not an object: perhaps the objects below it
            except Exception as error:
                raise self._failure(error, path) from error
            else:
                return {path.rsplit("/", 1)[-1]: Object(self, path, int(found["size"]), found["e_tag"])}
        prefix = path.rstrip("/")
        try:
            listed = [item for page in self._store.list(prefix) for item in page]
        except Exception as error:
            raise self._failure(error, path) from error
        objects = {}
        for item in listed:
            if name := str(item["path"]).removeprefix(prefix).strip("/"):
                objects[name] = Object(self, str(item["path"]), int(item["size"]), item["e_tag"])
        if not objects:
            raise LoadFailure(Reason.FETCH_FAILED, f"{self._where} has no object {path!r} and none below it")
        return objects

    def read(self, wanted: Object, start: int, stop: int) -> Generator[memoryview, None, None]:
        """Bytes of an object. See Remote."""
        options: dict[str, Any] = {"if_match": wanted.etag} if wanted.etag else {}
        if (start, stop) != (0, wanted.size):
            options["range"] = (start, stop)
        try:
            result = self._store.get(wanted.key, options=options)  # type: ignore[arg-type]
            if int(result.meta["size"]) != wanted.size:
                raise ChangedError(f"{self._where} has another {wanted.key!r} now than when fetching it began")
            for chunk in result.stream(min_chunk_size=_CHUNK):
                yield memoryview(chunk)
        except Exception as error:
            raise self._failure(error, wanted.key) from error

    def _failure(self, error: Exception, path: str) -> Exception:
        """obstore's error as ours: what is absent or forbidden stays so, the rest may pass."""
        if isinstance(error, TransientError):
            return error
        if isinstance(error, FileNotFoundError):
            return LoadFailure(Reason.FETCH_FAILED, f"{self._where} has no object {path!r}")
        status = _STATUS.search(str(error))
        if type(error).__name__ == "PreconditionError" or (status and status[1] in _CHANGED):
            return ChangedError(f"{self._where} has another {path!r} now than when fetching it began")
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


@dataclass(frozen=True)
class Object:
    """See Remote. One object, in the version that it had when the bucket was asked for it."""

    bucket: Bucket
    key: str
    size: int
    etag: str | None
    ranges: bool = True

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        """See Remote."""
        return self.bucket.read(self, start, self.size if stop is None else stop)

    def close(self) -> None:
        """Nothing: obstore's reads can't be ended from outside, only waited for (30 s at most)."""


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
