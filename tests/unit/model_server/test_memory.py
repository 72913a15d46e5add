"""How much memory is left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from model_server import memory
from model_server.memory import Memory

MIB = 2**20


def cgroup(directory: Path, *, most: str, file: int = 0, shmem: int = 0, slab: int = 0) -> Path:
    """One that uses 100 MiB."""
    (directory / "memory.max").write_text(f"{most}\n")
    (directory / "memory.current").write_text(f"{100 * MIB}\n")
    (directory / "memory.stat").write_text(f"anon 1\nfile {file}\nshmem {shmem}\nslab_reclaimable {slab}\n")
    return directory


@pytest.mark.parametrize(
    ("limit", "others", "room"),
    [
        pytest.param(150, {}, 50, id="what isn't used"),
        pytest.param(150, {"file": 70 * MIB, "slab": 5 * MIB}, 125, id="files and the kernel's caches make way"),
        pytest.param(150, {"file": 70 * MIB, "shmem": 70 * MIB}, 50, id="shared memory doesn't"),
        pytest.param(90, {}, 0, id="less than none is none"),
    ],
)
def test_what_is_left(tmp_path: Path, limit: int, others: dict[str, int], room: int) -> None:
    found = memory.now(cgroup(tmp_path, most=str(limit * MIB), **others))
    assert found == Memory(limit * MIB, room * MIB)


@pytest.mark.parametrize("most", ["max", "", "nonsense"])
def test_where_there_is_no_limit_nothing_is_said(tmp_path: Path, most: str) -> None:
    assert memory.now(cgroup(tmp_path, most=most)) is None


def test_without_cgroup_v2_nothing_is_known(tmp_path: Path) -> None:
    assert memory.now(tmp_path) is None


@pytest.mark.parametrize(
    ("now", "fits"),
    [
        pytest.param(None, True, id="no limit"),
        pytest.param(Memory(2**40, 2**40), True, id="plenty"),
        pytest.param(Memory(2**40, MIB), False, id="a little"),
    ],
)
def test_whether_another_process_fits(monkeypatch: pytest.MonkeyPatch, now: Memory | None, fits: bool) -> None:
    monkeypatch.setattr(memory, "now", lambda: now)
    assert memory.left_for_another() is fits


def test_what_a_process_has_taken_for_itself() -> None:
    before = memory.anonymous(os.getpid())
    held = np.ones(8 * MIB)
    assert held.nbytes <= memory.anonymous(os.getpid()) - before < 2 * held.nbytes
    assert memory.anonymous(2**22) == 0, "it has ended"
