"""How much memory is left, and that a process which was told so takes no more."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from model_server import memory

MIB = 2**20


def cgroup(directory: Path, *, most: str, current: int = 100 * MIB, file: int = 0, shmem: int = 0) -> Path:
    (directory / "memory.max").write_text(f"{most}\n")
    (directory / "memory.current").write_text(f"{current}\n")
    (directory / "memory.stat").write_text(f"anon 1\nfile {file}\nshmem {shmem}\n")
    return directory


def test_what_is_left_is_the_limit_without_what_can_not_make_way(tmp_path: Path) -> None:
    assert memory.headroom(cgroup(tmp_path, most=str(150 * MIB))) == 50 * MIB
    assert memory.headroom(cgroup(tmp_path, most=str(150 * MIB), file=70 * MIB)) == 120 * MIB, "a file makes way"
    assert memory.headroom(cgroup(tmp_path, most=str(150 * MIB), file=70 * MIB, shmem=70 * MIB)) == 50 * MIB
    assert memory.headroom(cgroup(tmp_path, most=str(90 * MIB))) == 0


@pytest.mark.parametrize("most", ["max", "", "nonsense"])
def test_where_there_is_no_limit_anything_is_left(tmp_path: Path, most: str) -> None:
    assert memory.headroom(cgroup(tmp_path, most=most)) is None
    assert memory.left_for_another(tmp_path)


def test_without_cgroup_v2_nothing_is_known(tmp_path: Path) -> None:
    assert memory.headroom(tmp_path) is None


def test_a_second_process_needs_half_as_much_again_as_this_one(tmp_path: Path) -> None:
    assert not memory.left_for_another(cgroup(tmp_path, most=str(101 * MIB)))
    assert memory.left_for_another(cgroup(tmp_path, most=str(2**40)))


def test_a_process_that_may_take_no_more_gets_an_error() -> None:
    pid = os.fork()
    if not pid:
        memory.take_no_more_than(64 * MIB)
        small = np.ones(4 * MIB)  # 32 MiB
        try:
            np.ones(16 * MIB)
        except MemoryError:
            os._exit(7 if small[0] else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
