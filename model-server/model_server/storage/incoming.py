"""Where a model lies while it comes: in sight only when it is complete, and resumed after a kill."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from model_server.errors import LoadFailure, Reason
from model_server.storage import journal
from model_server.storage.attempts import InterruptedFetch, TransientError
from model_server.storage.files import DiskFailure, remove, single, writing
from model_server.storage.journal import Journal
from model_server.storage.remote import ChangedError, Remote

_PART: Final = ".incoming"
_JOURNAL: Final = "journal"
_FILES: Final = "files"


class Incoming:
    """A directory that is filled under a temporary name and renamed when it is complete.

    Left otherwise, it is gone, unless only the source has failed: then, as after a kill, whoever comes next finds it.
    """

    def __init__(self, directory: Path) -> None:
        """It becomes `directory`/fetched; what earlier attempts left is removed, unless it has a journal."""
        self._final = directory / "fetched"
        self.resumed = False
        """Whether some of it came earlier."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            found = sorted(directory.glob(f"{_PART}*"))
            kept = next((part for part in found if not part.is_symlink() and (part / _JOURNAL).is_file()), None)
            for left_over in (*found, self._final):
                if left_over != kept:
                    remove(left_over)
            self._part = kept or Path(tempfile.mkdtemp(prefix=_PART, dir=directory))
            self._files.mkdir(exist_ok=True)
        except OSError as error:
            raise DiskFailure(f"can't write to the model directory: {error.strerror}") from error

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        source_failed = isinstance(error, TransientError | InterruptedFetch) and not isinstance(error, ChangedError)
        if not source_failed or not (self._part / _JOURNAL).exists():
            remove(self._part)

    @property
    def _files(self) -> Path:
        return self._part / _FILES

    def missing(self) -> tuple[int, int] | None:
        """[start, stop) of what is to be asked for first, going by what lies here and not by what the source has."""
        return journal.missing(self._part / _JOURNAL)

    def follow(self, remotes: Mapping[str, Remote], source: Sequence[str], *, digest_known: bool) -> Journal | None:
        """The journal of what came earlier, if that is still what the source has; else one from the beginning.

        None where a fetch can't be resumed. LoadFailure(FetchFailed).
        """
        path = self._part / _JOURNAL
        line = journal.described(source, remotes, digest_known=digest_known)
        sizes = {self._files / name: remote.size or 0 for name, remote in remotes.items()}
        positions = None if line is None else journal.read(path, line, sizes)
        self.resumed = positions is not None
        with writing(path):
            if positions is None:
                path.unlink(missing_ok=True)
                remove(self._files)
                self._files.mkdir()
                positions = [start for size in sizes.values() for start, _ in journal.cuts(size)]
            return None if line is None else Journal(path, line, positions)

    def place(self, name: str) -> Path:
        """Where the file with the relative `name` is to be written. LoadFailure(FetchFailed) for an unsafe name."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts or not name.isprintable():
            raise LoadFailure(Reason.FETCH_FAILED, f"a file named {name[:200]!r} can't be stored safely")
        target = self._files / relative
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def commit(self) -> Path:
        """The finished directory, or the only file in it."""
        with writing(self._final):
            self._files.chmod(0o755)
            self._files.rename(self._final)
        return single(self._final)
