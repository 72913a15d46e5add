"""Models that lie on this machine already, and are served from where they lie: files, an image's, a mounted claim's."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model_server.errors import LoadFailure, Reason
from model_server.settings import StorageSettings
from model_server.storage.files import digest, regular_files, single
from model_server.storage.transfer import Budget
from model_server.storage.uri import ModelUri

_Stamp = tuple[int, int, int, int]
"""What the system changes with a file: inode, bytes, times of the last change to content and to the rest."""


@dataclass(frozen=True)
class InPlace:
    """A model as it was when its digest was made."""

    path: Path
    digest: str
    stamps: dict[Path, _Stamp]

    def require_unchanged(self) -> None:
        """LoadFailure(DigestMismatch) when somebody has written to it since; files that were added don't count."""
        for file, stamp in self.stamps.items():
            try:
                same = _stamp(file) == stamp
            except OSError:
                same = False
            if not same:
                raise LoadFailure(
                    Reason.DIGEST_MISMATCH, f"{file} was changed while the model was loaded: keep models as they are"
                )


def present(uri: ModelUri, storage: StorageSettings, model_dir: Path, budget: Budget) -> InPlace:
    """The model of a file, image or pvc URI. LoadFailure."""
    path = _path(uri, storage, model_dir)
    try:
        if path.is_dir():
            path = single(path)
        files = regular_files(path) if path.is_dir() else [path]
        stamps = {file: _stamp(file) for file in files}
        if not stamps:
            raise LoadFailure(Reason.FETCH_FAILED, f"{uri.text[:500]}: there are no files in {path}")
        budget.check(sum(size for _, size, _, _ in stamps.values()))
        return InPlace(path, digest(path), stamps)
    except OSError as error:
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.text[:500]} can't be read: {error.strerror}") from error


def _path(uri: ModelUri, storage: StorageSettings, model_dir: Path) -> Path:
    if uri.scheme == "pvc":
        return _claimed(uri, storage.claim_dir)
    path = model_dir if uri.scheme == "image" else Path(uri.path)
    if not path.exists():
        raise LoadFailure(Reason.FETCH_FAILED, f"{path} does not exist")
    return path


def _claimed(uri: ModelUri, claim_dir: Path | None) -> Path:
    """Step by step, because no link on the way may lead out of the claim, to a Secret for instance."""
    if claim_dir is None:
        raise LoadFailure(Reason.INVALID_SETTINGS, "pvc:// needs a cluster, where the operator mounts the claim")
    path = claim_dir
    for part in PurePosixPath(uri.path).parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise LoadFailure(
                Reason.FETCH_FAILED, f"claim {uri.host!r}: {uri.path[:500]!r}: {part[:200]!r}: {error.strerror}"
            ) from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise LoadFailure(Reason.UNSAFE_FORMAT, f"claim {uri.host!r}: {part[:200]!r} is a link or a device")
    return path


def _stamp(file: Path) -> _Stamp:
    found = file.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
