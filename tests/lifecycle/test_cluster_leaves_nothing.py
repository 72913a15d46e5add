"""`dev/cluster down` leaves the machine as it was, whatever happened before. On an instance of its own, as root.

What is left is looked for with our own eyes here (/proc, mounts, cgroups), not with the tool's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

NAME = "lifecycle"
MARK = f"inflight-{NAME}"
STATE = Path("/var/lib/inflight") / NAME
CLUSTER = Path(__file__).resolve().parents[2] / "dev" / "cluster"
ENVIRONMENT = {**os.environ, "INFLIGHT_CLUSTER_NAME": NAME}
POD = """
apiVersion: v1
kind: Pod
metadata: {name: store}
spec:
  containers:
    - name: store
      image: inflight/versitygw:0.1.0
      args: [--access, a, --secret, b, posix, /data]
      securityContext: {runAsUser: 65532}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {medium: Memory}}]
"""

pytestmark = [
    pytest.mark.cluster_lifecycle,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(300),
]


@pytest.fixture(autouse=True)
def _nothing_before_and_after() -> Iterator[None]:
    cluster("down")
    yield
    cluster("down")


def cluster(*arguments: str, stdin: str = "") -> str:
    command = [str(CLUSTER), *arguments]
    ran = subprocess.run(command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def living() -> Iterator[Path]:
    """/proc/PID of every process that is not a zombie."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes():
                yield entry
        except OSError:
            continue


def mentions(entry: Path, *, files: tuple[str, ...] = ("cmdline", "environ", "cgroup")) -> bool:
    try:
        return any(MARK.encode() in (entry / name).read_bytes() for name in files)
    except OSError:
        return False


def inside(namespaces: set[int]) -> list[str]:
    """Processes in one of the network namespaces, which are given as inodes."""
    found = []
    for entry in living():
        try:
            if (entry / "ns" / "net").stat().st_ino in namespaces:
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def mount_points() -> list[str]:
    """Without those of other instances, which come and go on a developer's machine."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    others = [str(path) for path in STATE.parent.glob("*") if path != STATE]
    return [p for p in points if not p.startswith(tuple(others))]


def network_namespaces() -> set[int]:
    """Those that the cluster has mounted somewhere: its own and its pods'."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {Path(f[4]).stat().st_ino for f in lines if "nsfs" in f and f[4].startswith(str(STATE))}


def left_on_the_machine(namespaces: set[int]) -> list[str]:
    own = {os.getpid(), os.getppid()}
    processes = [(e / "cmdline").read_text() for e in living() if int(e.name) not in own and mentions(e)]
    mounts = [point for point in mount_points() if point.startswith(str(STATE))]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{MARK}*")]
    files = [str(path) for path in (STATE, STATE.with_suffix(".lock")) if path.exists()]
    links = [str(p) for p in Path("/var/log/containers").glob("*") if str(STATE) in str(p.readlink())]
    return processes + mounts + cgroups + files + links + inside(namespaces)


def sysctls() -> dict[str, str]:
    names = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
    return {name: (Path("/proc/sys") / name).read_text() for name in names}


def up_killed_after(step: str) -> None:
    """Start `up` and kill it with -9 as soon as it has told of the step."""
    started = subprocess.Popen([str(CLUSTER), "up"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    seen = next((line for line in started.stderr if step in line), None)
    started.send_signal(signal.SIGKILL)
    started.stderr.close()
    assert started.wait() == -signal.SIGKILL
    assert seen, f"'up' never came to {step!r}"


def start_pod() -> None:
    cluster("images", "versitygw")
    cluster("kubectl", "apply", "-f", "-", stdin=POD)
    cluster("kubectl", "wait", "--for=condition=Ready", "pod/store", "--timeout=60s")


@pytest.mark.parametrize("step", ["network namespace", "containerd", "kube-apiserver", "access for DNS", "kubelet"])
def test_down_leaves_nothing_of_an_up_that_was_killed_half_way(step: str) -> None:
    before = mount_points(), sysctls()
    up_killed_after(step)
    namespaces = network_namespaces()
    assert namespaces, "the killed 'up' left nothing to clean: this test would prove nothing"

    cluster("down")

    assert left_on_the_machine(namespaces) == []
    assert (mount_points(), sysctls()) == before


def test_down_leaves_nothing_of_running_pods_and_of_commands_inside() -> None:
    before = mount_points(), sysctls()
    cluster("up")
    start_pod()
    command = [str(CLUSTER), "exec", "--", "sleep", "600"]
    with subprocess.Popen(command, env=ENVIRONMENT) as inside_command:
        namespaces = network_namespaces()
        assert len(namespaces) == 2, "its own and the pod's"

        cluster("down")

        assert inside_command.wait(10) == -signal.SIGKILL
    assert left_on_the_machine(namespaces) == []
    assert (mount_points(), sysctls()) == before


def test_down_leaves_nothing_of_pods_whose_containerd_and_kubelet_were_killed() -> None:
    cluster("up")
    start_pod()
    namespaces = network_namespaces()
    daemons = [e for e in living() if mentions(e, files=("environ",)) and b"shim" not in (e / "cmdline").read_bytes()]
    assert len(daemons) >= 8
    for entry in daemons:
        os.kill(int(entry.name), signal.SIGKILL)

    cluster("down")

    assert left_on_the_machine(namespaces) == []


def test_up_mends_what_a_killed_up_began_and_repeats_in_place() -> None:
    up_killed_after("kube-apiserver")
    cluster("up")
    first = cluster("status")
    cluster("up")
    assert cluster("status") == first, "the second 'up' restarted something"
    assert "BAD" not in first


def test_up_restarts_a_component_that_was_killed() -> None:
    cluster("up")
    (scheduler,) = [e for e in living() if b"/kube-scheduler\0" in (e / "cmdline").read_bytes() and mentions(e)]
    os.kill(int(scheduler.name), signal.SIGKILL)
    cluster("up")
    assert "BAD" not in cluster("status")


def test_nothing_inside_has_a_way_out() -> None:
    cluster("up")
    assert "default" not in cluster("exec", "--", "ip", "route")
