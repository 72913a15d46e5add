"""The journal of a fetch: what it says is either right or not believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.storage import journal
from model_server.storage.remote import PIECE_BYTES

SIZE = 2 * PIECE_BYTES + 100
STARTS = [start for start, _ in journal.cuts(SIZE)]
LINE = b'{"files": [["m", %d, "v1"]]}\n' % SIZE


@dataclass
class Source:
    """What a journal needs to know of a Remote."""

    size: int | None = SIZE
    ranges: bool = True
    version: str = "v1"


def described(*sources: Source, digest_known: bool = False, uri: str = "s3://models/m") -> bytes | None:
    remotes = {str(number): source for number, source in enumerate(sources)}
    return journal.described((uri, ""), remotes, digest_known=digest_known)  # type: ignore[arg-type]


def written(tmp_path: Path, positions: list[int]) -> Path:
    """A journal, and a file that is as long as the journal says."""
    with (tmp_path / "m").open("wb") as file:
        file.truncate(max(positions))
    made = journal.Journal(tmp_path / "journal", LINE, STARTS)
    for piece, position in enumerate(positions):
        made.note(piece, position)
    return tmp_path / "journal"


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    positions = [PIECE_BYTES, PIECE_BYTES + 5, 2 * PIECE_BYTES]
    path = written(tmp_path, positions)
    assert journal.read(path, LINE, {tmp_path / "m": SIZE}) == positions
    assert journal.missing(path) == (PIECE_BYTES + 5, 2 * PIECE_BYTES)


def test_where_nothing_is_missing_the_last_byte_is_asked_for(tmp_path: Path) -> None:
    assert journal.missing(written(tmp_path, [stop for _, stop in journal.cuts(SIZE)])) == (SIZE - 1, SIZE)


@pytest.mark.parametrize(
    ("positions", "line"),
    [
        pytest.param([PIECE_BYTES] * 2, LINE, id="fewer pieces"),
        pytest.param([*STARTS, SIZE], LINE, id="more pieces"),
        pytest.param([PIECE_BYTES + 1, *STARTS[1:]], LINE, id="past the piece's end"),
        pytest.param([0, 0, 2 * PIECE_BYTES], LINE, id="before its beginning"),
        pytest.param([0, PIECE_BYTES, SIZE], b'{"files": [["m", 5, "v2"]]}\n', id="of another version"),
    ],
)
def test_what_does_not_fit_is_not_believed(tmp_path: Path, positions: list[int], line: bytes) -> None:
    with (tmp_path / "m").open("wb") as file:
        file.truncate(SIZE)
    journal.Journal(tmp_path / "journal", LINE, positions)
    assert journal.read(tmp_path / "journal", line, {tmp_path / "m": SIZE}) is None


def test_a_file_that_is_shorter_than_the_journal_says_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path, [PIECE_BYTES, PIECE_BYTES + 5, 2 * PIECE_BYTES])
    with (tmp_path / "m").open("r+b") as file:
        file.truncate(PIECE_BYTES + 4)
    assert journal.read(path, LINE, {tmp_path / "m": SIZE}) is None


@settings(max_examples=200)
@given(data=st.binary(max_size=200) | st.binary(max_size=40).map(lambda tail: LINE + tail))
def test_no_bytes_make_it_fail(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    path.write_bytes(data)
    positions = journal.read(path, LINE, {path: SIZE})
    assert positions is None or all(s <= at <= e for (s, e), at in zip(journal.cuts(SIZE), positions, strict=True))
    found = journal.missing(path)
    assert found is None or 0 <= found[0] < found[1] <= SIZE


@pytest.mark.parametrize(
    ("source", "digest_known", "resumable"),
    [
        pytest.param(Source(), False, True, id="a version"),
        pytest.param(Source(version=""), False, False, id="no version"),
        pytest.param(Source(version=""), True, True, id="a sha256 instead"),
        pytest.param(Source(ranges=False), True, False, id="no ranges"),
    ],
)
def test_a_fetch_is_resumed_where_parts_surely_belong_together(
    source: Source, digest_known: bool, resumable: bool
) -> None:
    assert (described(source, digest_known=digest_known) is not None) is resumable
    assert (described(Source(), source, digest_known=digest_known) is not None) is resumable


def test_only_without_a_sha256_does_the_machines_start_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    boots = iter("abc")
    monkeypatch.setattr(journal, "_boot", lambda: next(boots))
    assert described(Source(), digest_known=True) == described(Source(), digest_known=True)
    assert described(Source()) != described(Source())


def test_another_source_is_another_fetch_and_its_signature_is_not_written_down() -> None:
    line = described(Source(), uri="https://models.example/m?signature=a-canary")
    assert line is not None
    assert line != described(Source())
    assert b"canary" not in line
