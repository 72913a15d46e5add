"""Reading and mending the machine: mounts, cgroups, kernel variables, packages, locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from inflight_cluster import cgroups, debian, mounts, sysctls
from inflight_cluster.errors import ClusterError
from inflight_cluster.locks import exclusive

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup rw
40 22 0:40 / /var/lib/a\\040b/c rw shared:5 - tmpfs tmpfs rw
"""


def test_mount_points_come_in_order_and_unescaped() -> None:
    assert mounts.parse(MOUNTINFO) == [Path("/"), Path("/sys/fs/cgroup"), Path("/var/lib/a b/c")]


@pytest.mark.parametrize(
    ("points", "hierarchies"),
    [
        pytest.param(["/", "/sys/fs/cgroup"], ["/sys/fs/cgroup"], id="v2: one tree"),
        pytest.param(
            ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"],
            ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"],
            id="v1 and hybrid: one tree for each controller",
        ),
        pytest.param(["/", "/proc"], [], id="none mounted"),
    ],
)
def test_cgroup_hierarchies_of_either_version(points: list[str], hierarchies: list[str]) -> None:
    assert cgroups.hierarchies([Path(p) for p in points]) == [Path(p) for p in hierarchies]


def kernel(root: Path, value: str) -> None:
    for name in sysctls.NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value)


def test_kernel_variables_go_back_to_what_they_were_before_the_first_cluster(tmp_path: Path) -> None:
    root, file = tmp_path / "sys", tmp_path / "sysctls.json"
    kernel(root, "0\n")
    sysctls.remember(file, root)
    kernel(root, "1\n")
    sysctls.remember(file, root)  # the second cluster finds what the first has changed
    sysctls.restore(file, root)
    assert {(root / name).read_text() for name in sysctls.NAMES} == {"0"}
    assert not file.exists()


@pytest.mark.parametrize("content", [pytest.param(None, id="no file"), pytest.param('{"vm', id="half a file")])
def test_nothing_is_restored_from_what_was_never_remembered(tmp_path: Path, content: str | None) -> None:
    root, file = tmp_path / "sys", tmp_path / "sysctls.json"
    kernel(root, "7")
    if content is not None:
        file.write_text(content)
    sysctls.restore(file, root)
    assert {(root / name).read_text() for name in sysctls.NAMES} == {"7"}
    assert not file.exists()


def test_the_package_list_names_a_sign_for_each_package() -> None:
    assert debian.parse("# text\n\nrunc  runc # why\ncni /usr/lib/cni/ptp\n") == {
        "runc": "runc",
        "cni": "/usr/lib/cni/ptp",
    }
    assert {"containerd", "runc", "etcd-server", "nftables"} <= set(debian.parse(debian.LIST.read_text()))


def test_a_lock_is_refused_with_a_reason_while_another_holds_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"), pytest.raises(ClusterError, match="wait"), exclusive(tmp_path / "lock", "wait"):
        pass
    with exclusive(tmp_path / "lock", "wait"):  # and given back at the end
        pass
