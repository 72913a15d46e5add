"""Objects of a store: one, or all below a prefix. Reads only.

Where URLs can be signed without asking anybody (S3), objects are read from those like any file over http: with half the
processor's time, over connections to vetted addresses, that can be ended. What isn't had so is asked for once more in
the store's own way, which also knows how to say why: there are buckets that refuse what is signed in a URL.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from model_server.errors import LoadFailure, Reason, first_line
from model_server.storage.attempts import TransientError
from model_server.storage.connections import Pool
from model_server.storage.files import MAX_FILES
from model_server.storage.http import HttpFile
from model_server.storage.remote import ChangedError
from model_server.storage.stores import Opened
from model_server.storage.uri import ModelUri

_CHUNK: Final = 256 * 1024
"""Of a megabyte each, memory would be mapped and unmapped for every one, which took twice the system's time."""
_QUOTE: Final = '"'
_STATUS: Final = re.compile(r"status code: (4\d\d)")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_PASSING: Final = frozenset((408, 425, 429))
_CHANGED: Final = frozenset(("412", "416"))


class Bucket:
    """One bucket or container."""

    def __init__(self, opened: Opened) -> None:
        self._store, self._where, self._identity = opened.store, opened.where, opened.identity
        self._sign, self._pool = opened.sign, Pool(any_address=opened.any_address)

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
                return {path.rsplit("/", 1)[-1]: Object(self, path, int(found["size"]), found["e_tag"] or "")}
        prefix = path.rstrip("/")
        try:
            # One more than there may be is enough to know.
            listed = list(islice((item for page in self._store.list(prefix) for item in page), MAX_FILES + 2))
        except Exception as error:
            raise self._failure(error, path) from error
        objects = {}
        for item in listed:
            if name := str(item["path"]).removeprefix(prefix).strip("/"):
                objects[name] = Object(self, str(item["path"]), int(item["size"]), item["e_tag"] or "")
        if not objects:
            raise LoadFailure(Reason.FETCH_FAILED, f"{self._where} has no object {path!r} and none below it")
        return objects

    def read(self, wanted: Object, start: int, stop: int) -> Generator[memoryview, None, None]:
        """Bytes of an object. See Remote."""
        if (sign := self._sign) is not None:
            file = HttpFile(functools.partial(self._signed, sign, wanted.key), self._where, self._pool)
            try:
                yield from file.known(wanted.size, _quoted(wanted.version)).read(start, stop)
            except LoadFailure:
                self._sign = None
            else:
                return
        yield from self._read(wanted, start, stop)

    def close(self) -> None:
        """End every read from signed URLs. obstore's can't be ended from outside, only waited for (30 s at most)."""
        self._pool.close()

    def _signed(self, sign: Callable[[str], str], key: str) -> ModelUri:
        try:
            text = sign(key)
        except Exception as error:
            raise self._failure(error, key) from error
        parts = urlsplit(text)
        return ModelUri(parts.scheme, text, parts.hostname or "", parts.path)

    def _read(self, wanted: Object, start: int, stop: int) -> Generator[memoryview, None, None]:
        options: dict[str, Any] = {"if_match": wanted.version} if wanted.version else {}
        if (start, stop) != (0, wanted.size):
            options["range"] = (start, stop)
        try:
            result = self._store.get(wanted.key, options=options)  # type: ignore[arg-type]
            # Not every store heeds if_match; and lists give tags without the quotes.
            tag = (result.meta["e_tag"] or "").strip(_QUOTE)
            if int(result.meta["size"]) != wanted.size or tag != wanted.version.strip(_QUOTE):
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
                f"asked with this identity: {self._identity}",
            )
        return TransientError(f"{self._where}: {first_line(error)}")


def _quoted(tag: str) -> str:
    """As answers have it: lists leave the quotes out."""
    return tag if not tag or tag.startswith("W/") else f'"{tag.strip(_QUOTE)}"'


@dataclass(frozen=True)
class Object:
    """See Remote. One object, in the version that it had when the bucket was asked for it."""

    bucket: Bucket
    key: str
    size: int
    version: str
    ranges: bool = True

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        """See Remote."""
        return self.bucket.read(self, start, self.size if stop is None else stop)

    def close(self) -> None:
        """See Remote."""
        self.bucket.close()
