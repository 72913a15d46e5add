"""Which processes are ours: told by the kernel's own record of them, on a made-up /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from inflight_cluster.processes import MARK, alive, marked, parse_environment, running


def process(proc: Path, pid: int, environ: str, *, session: int, state: str = "S", threads: int = 1) -> None:
    entry = proc / str(pid)
    for thread in range(threads):
        (entry / "task" / str(pid + thread)).mkdir(parents=True)
    (entry / "environ").write_bytes(environ.encode())
    (entry / "cmdline").write_bytes(f"/bin/program-{pid}\0--flag\0".encode())
    (entry / "stat").write_text(f"{pid} (a) strange) name) {state} 1 {pid} {session} 0 -1")


def test_ours_are_those_that_carry_the_mark_of_this_cluster(tmp_path: Path) -> None:
    process(tmp_path, 10, f"A=1\0{MARK}=inflight-a/etcd\0", session=10)
    process(tmp_path, 11, f"{MARK}=inflight-a/containerd\0", session=11)
    process(tmp_path, 12, f"{MARK}=inflight-a/containerd\0", session=11)
    process(tmp_path, 20, f"{MARK}=inflight-ab/etcd\0", session=20)
    process(tmp_path, 21, f"OTHER={MARK}=inflight-a/etcd\0", session=21)
    process(tmp_path, 22, "", session=22)
    (tmp_path / "self").mkdir()

    assert {p.pid for p in marked("inflight-a", tmp_path)} == {10, 11, 12}
    assert {name: p.pid for name, p in running("inflight-a", tmp_path).items()} == {"etcd": 10, "containerd": 11}
    assert running("inflight-a", tmp_path)["etcd"].arguments == ("/bin/program-10", "--flag")


def test_a_process_that_ends_while_we_look_is_none(tmp_path: Path) -> None:
    (tmp_path / "30").mkdir()
    assert marked("inflight-a", tmp_path) == []


@pytest.mark.parametrize(
    ("state", "threads", "lives"),
    [
        pytest.param("S", 1, True, id="sleeping"),
        pytest.param("Z", 1, False, id="a zombie: only its parent can bury it"),
        pytest.param("Z", 2, True, id="its first thread ended, another still holds its files"),
    ],
)
def test_what_counts_as_alive(tmp_path: Path, state: str, threads: int, *, lives: bool) -> None:
    process(tmp_path, 40, "", session=40, state=state, threads=threads)
    assert alive(40, tmp_path) is lives


def test_a_pid_that_nobody_has_is_not_alive(tmp_path: Path) -> None:
    assert not alive(41, tmp_path)


def test_values_of_an_environment_may_hold_anything() -> None:
    assert parse_environment(b"A=1=2\0B=\0C\0\xff=x\0") == {"A": "1=2", "B": "", "C": "", "\ufffd": "x"}
