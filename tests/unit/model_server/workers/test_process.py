"""Processes below this one: how they ended, and whose they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_server.workers.process import Child, NotOurChildError, out_of_memory_kills, reap_orphans


def forked(run: Callable[[], object]) -> Child:
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        run()
        os._exit(0)
    return Child(pid)


@pytest.mark.parametrize(
    ("run", "how"),
    [
        pytest.param(lambda: os._exit(3), "exit code 3", id="an exit"),
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL", id="a kill"),
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGRTMIN + 1), "signal 35", id="a signal without a name"),
    ],
)
def test_how_a_child_ended_is_told(run: Callable[[], object], how: str) -> None:
    child = forked(run)
    assert child.ended(5) == how
    assert child.ended() == how
    child.close()


def test_a_child_that_lives_has_not_ended_until_it_is_killed() -> None:
    child = forked(signal.pause)
    assert child.ended() is None
    child.kill()
    assert child.ended(5) == "SIGKILL"
    child.kill()  # nothing happens: its number may be somebody else's by now
    child.close()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(os.getppid, id="the parent"),
        pytest.param(os.getpid, id="this process"),
        pytest.param(lambda: 2**22, id="nobody"),
        pytest.param(lambda: -1, id="everybody"),
    ],
)
def test_no_number_but_that_of_a_child_is_taken(number: Callable[[], int]) -> None:
    with pytest.raises(NotOurChildError):
        Child(number())


def test_a_grandchild_is_no_child() -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '9']).pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with pytest.raises(NotOurChildError):
            Child(pid)
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("low 0\nhigh 0\nmax 12\noom 5\noom_kill 3\noom_group_kill 0\n", 3, id="cgroup v2"),
        pytest.param("", 0, id="nothing"),
        pytest.param("oom_kill many\n", 0, id="no number"),
    ],
)
def test_out_of_memory_kills_are_counted_by_the_kernel(tmp_path: Path, text: str, count: int) -> None:
    events = tmp_path / "memory.events"
    events.write_text(text)
    assert out_of_memory_kills(events) == count
    assert out_of_memory_kills(tmp_path / "absent") == 0


def test_orphans_of_other_sessions_are_reaped_and_nobody_elses_children() -> None:
    def ended(new_session: bool) -> int:
        pid = os.fork()
        if not pid:
            if new_session:
                os.setsid()
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    orphan, other = ended(True), ended(False)
    held = Child(ended(True))
    reap_orphans()
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan, 0)
    assert os.waitpid(other, 0) == (other, 0)
    assert held.ended() == "exit code 0"
    held.close()
