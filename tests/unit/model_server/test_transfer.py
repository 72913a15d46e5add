"""How several workers share the pieces of files: order, failures, slow owners, bounds. The sources are made up."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.errors import LoadFailure
from model_server.storage import pieces
from model_server.storage import transfer as transferring
from model_server.storage.attempts import TransientError
from model_server.storage.pieces import AbandonedError, Piece, Plan, Wanted
from model_server.storage.remote import PIECE_BYTES, ChangedError
from model_server.storage.transfer import Budget, Transfer

Fault = Callable[[int], Exception | None]
"""Start of a read → what it fails with after one chunk."""


@dataclass
class Made:
    """A Remote whose content is made as it is read."""

    content: bytes
    ranges: bool = True
    known: bool = True
    chunk: int = 1_000_000
    fault: Fault = lambda _start: None
    reads: list[int] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int | None:
        return len(self.content) if self.known else None

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        self.reads.append(start)
        failure = self.fault(start)
        for position in range(start, len(self.content) if stop is None else stop, self.chunk):
            yield memoryview(self.content)[position : min(position + self.chunk, stop or len(self.content))]
            if failure:
                raise failure

    def close(self) -> None:
        self.closed.set()


def content(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


def transfer(tmp_path: Path, *files: Made, budget: Budget | None = None, connections: int = 3) -> list[str]:
    wanted = [Wanted(made, tmp_path / str(number)) for number, made in enumerate(files)]
    slept: list[float] = []
    hashes = Transfer(Plan(wanted), budget or Budget(2**40, 60), connections, slept.append).run()
    assert all(made.closed.is_set() for made in files)
    for wanting, made, found in zip(wanted, files, hashes, strict=True):
        assert wanting.path.read_bytes() == made.content
        assert found == hashlib.sha256(made.content).hexdigest()
    return hashes


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 2 * PIECE_BYTES + 3), min_size=1, max_size=3), connections=st.integers(1, 5))
def test_any_files_over_any_number_of_connections_are_whole(
    sizes: list[int], connections: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = [Made(content(PIECE_BYTES * 3)[:size]) for size in sizes]
    transfer(tmp_path_factory.mktemp("any"), *files, connections=connections)


def test_a_source_without_ranges_is_read_once_from_the_start(tmp_path: Path) -> None:
    made = Made(content(PIECE_BYTES * 2), ranges=False, known=False)
    transfer(tmp_path, made)
    assert made.reads == [0]


def test_a_cut_read_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    failures = iter([TransientError("cut")])
    made = Made(content(5_000_000), fault=lambda _start: next(failures, None))
    transfer(tmp_path, made)
    assert made.reads == [0, 1_000_000]


def test_without_ranges_a_cut_ends_the_attempt(tmp_path: Path) -> None:
    made = Made(content(5_000_000), ranges=False, fault=lambda _start: TransientError("cut"))
    with pytest.raises(TransientError, match="cut"):
        transfer(tmp_path, made)
    assert made.closed.is_set()


def test_a_change_at_the_source_ends_the_attempt(tmp_path: Path) -> None:
    made = Made(content(5_000_000), fault=lambda _start: ChangedError("another"))
    with pytest.raises(ChangedError, match="another"):
        transfer(tmp_path, made)


def test_a_source_that_brings_too_little_each_time_is_given_up(tmp_path: Path) -> None:
    made = Made(content(5_000_000), chunk=1000, fault=lambda _start: TransientError("cut"))
    with pytest.raises(LoadFailure, match="failed 4 times in a row, last: cut"):
        transfer(tmp_path, made)
    assert made.reads == [0, 1000, 2000, 3000]


def test_a_bug_in_a_worker_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        transfer(tmp_path, Made(content(10), fault=lambda _start: ZeroDivisionError()))


def test_more_than_was_asked_for_is_not_written(tmp_path: Path) -> None:
    class Generous(Made):
        def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
            yield memoryview(bytes((stop or 0) - start + 1))

    with pytest.raises(LoadFailure, match="more than it was asked for"):
        transfer(tmp_path, Generous(content(10)))


def test_a_piece_that_is_done_just_now_is_hashed_once(tmp_path: Path) -> None:
    """Between two looks at it: the end of the file was taken for its end, and what is behind it hashed with it."""

    class JustNow:
        position = stop = PIECE_BYTES
        looks = 0

        @property
        def done(self) -> bool:
            self.looks += 1
            return self.looks > 2

    made = Made(content(2 * PIECE_BYTES)[: 2 * PIECE_BYTES])
    wanted = Wanted(made, tmp_path / "0")
    wanted.path.write_bytes(made.content)
    found = Transfer(Plan([wanted]), Budget(2**40, 60), 1)._hashed(wanted, [JustNow()])
    assert found == hashlib.sha256(made.content[:PIECE_BYTES]).hexdigest()


def test_who_fetches_waits_for_who_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is hashed last would be read from the disk again, and hashing would go on long after the last byte."""
    may_hash = threading.Event()

    class Held:
        def __init__(self) -> None:
            self.hashed = hashlib.sha256()

        def update(self, data: bytes) -> None:
            may_hash.wait(30)
            self.hashed.update(data)

        def hexdigest(self) -> str:
            return self.hashed.hexdigest()

    class Hashing:
        sha256 = Held

    monkeypatch.setattr(transferring, "hashlib", Hashing)
    monkeypatch.setattr(transferring, "_LEAD_BYTES", 2 * PIECE_BYTES)
    made = Made(content(9 * PIECE_BYTES)[: 9 * PIECE_BYTES])
    running = threading.Thread(target=transfer, args=(tmp_path, made), kwargs={"connections": 2})
    running.start()
    deadline = time.monotonic() + 60
    while len(made.reads) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    assert len(made.reads) <= 2 + 1 + 2, (
        "the lead, the piece that exceeds it, and one more under way on each connection"
    )
    may_hash.set()
    running.join()
    assert len(made.reads) == 9


@pytest.mark.parametrize(
    ("known", "bounds", "says"),
    [
        pytest.param(True, (99, 60), "larger than 99 bytes", id="too large, as told"),
        pytest.param(False, (99, 60), "larger than 99 bytes", id="too large, as it turns out"),
        pytest.param(True, (2**40, -1), "did not arrive within", id="too late"),
    ],
)
def test_a_model_has_bounds_in_size_and_time(tmp_path: Path, known: bool, bounds: tuple[int, float], says: str) -> None:
    with pytest.raises(LoadFailure, match=says):
        transfer(tmp_path, Made(content(100), known=known, ranges=known), budget=Budget(*bounds))


def test_the_bound_counts_all_files_together(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="larger than 5 bytes"):
        transfer(tmp_path, Made(b"abc"), Made(b"def"), budget=Budget(5, 60))


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        real = pieces.os.pwrite
        monkeypatch.setattr(pieces.os, "pwrite", lambda _file, data, at: real(full.fileno(), data, at))
        with pytest.raises(LoadFailure, match="writing '0' failed: No space left on device"):
            transfer(tmp_path, Made(b"abc"))


# Who gets which piece ------------------------------------------------------------------------------------------------


def plan(count: int) -> Plan:
    return Plan([Wanted(Sized(count), Path("nowhere"))])


class Sized(Made):
    """As many pieces as wanted, without content."""

    def __init__(self, count: int) -> None:
        super().__init__(b"")
        self._count = count

    @property
    def size(self) -> int:
        return self._count * PIECE_BYTES


def taken(plan: Plan, worker: int, now: float) -> Piece:
    piece = plan.take(worker, now)
    assert piece is not None
    return piece


def test_pieces_are_handed_out_in_the_order_of_hashing() -> None:
    shared = plan(3)
    assert [taken(shared, worker, 0).position for worker in range(3)] == [0, PIECE_BYTES, 2 * PIECE_BYTES]
    assert shared.take(3, 0) is None
    assert not shared.over


def test_a_piece_given_back_is_the_next_one() -> None:
    shared = plan(3)
    first = taken(shared, 1, 0)
    shared.give_back(first, 1)
    assert taken(shared, 2, 0) is first


@pytest.mark.parametrize(
    ("others_took", "held", "yields"),
    [(1.0, 3.9, False), (1.0, 4.1, True), (0.01, 1.9, False), (0.01, 2.1, True)],
    ids=["not slow yet", "four times the others'", "two seconds are nothing", "more than two seconds are"],
)
def test_only_a_slow_piece_is_taken_over(others_took: float, held: float, yields: bool) -> None:
    shared = plan(2)
    slow, quick = taken(shared, 1, 0), taken(shared, 2, 0)
    shared.finish(quick, 2, others_took)
    assert (shared.take(2, held) is slow) is yields


def test_with_nothing_to_compare_with_no_piece_is_slow() -> None:
    shared = plan(1)
    taken(shared, 1, 0)
    assert shared.take(2, 1000) is None


def test_a_piece_is_taken_over_three_times_at_most() -> None:
    shared = plan(2)
    slow, quick = taken(shared, 0, 0), taken(shared, 9, 0)
    shared.finish(quick, 9, 1)
    takers = [shared.take(worker, 100 * worker) for worker in range(1, 6)]
    assert takers == [slow, slow, slow, None, None]


def test_whoever_lost_a_piece_can_neither_write_nor_finish_nor_return_it(tmp_path: Path) -> None:
    shared = plan(2)
    slow, quick = taken(shared, 1, 0), taken(shared, 2, 0)
    shared.finish(quick, 2, 0.1)
    assert shared.take(2, 10) is slow
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for late in (
            lambda: slow.write(1, file.fileno(), memoryview(b"late")),
            lambda: shared.finish(slow, 1, 11),
            lambda: shared.give_back(slow, 1),
        ):
            with pytest.raises(AbandonedError):
                late()
        slow.write(2, file.fileno(), memoryview(b"mine"))
    assert (tmp_path / "file").read_bytes() == b"mine"
    shared.finish(slow, 2, 11)
    assert shared.over


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pieces.os.pwrite
    monkeypatch.setattr(pieces.os, "pwrite", lambda file, data, at: real(file, data[:2], at))
    transfer(tmp_path, Made(b"abcdefg"))
