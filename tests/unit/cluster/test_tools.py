"""Which tools there are, and when they are built anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inflight_cluster import tools
from inflight_cluster.components import GO_TOOLS
from inflight_cluster.errors import ClusterError
from inflight_cluster.images import BINARIES

GO_MOD = """module m

go 1.25.0

tool (
\texample.org/a/cmd/one
\texample.org/two
)

require (
\tk8s.io/kubernetes v1.34.4
)
"""


def test_a_tool_is_called_by_the_last_part_of_its_package() -> None:
    assert tools.packages(GO_MOD) == {"one": "example.org/a/cmd/one", "two": "example.org/two"}


def test_every_tool_that_is_used_is_pinned() -> None:
    assert {*GO_TOOLS, *BINARIES} <= set(tools.packages((tools.MODULE / "go.mod").read_text()))


def test_what_tests_need_is_pinned_apart_from_the_cluster() -> None:
    assert set(tools.packages((tools.STORES / "go.mod").read_text())) == {"fake-gcs-server"}
    assert tools.pins("fake-gcs-server") != tools.pins("kubectl")


def test_the_kubernetes_version_is_the_pinned_one() -> None:
    assert tools.kubernetes_version(GO_MOD) == "v1.34.4"
    with pytest.raises(ClusterError, match=r"does not require k8s\.io/kubernetes"):
        tools.kubernetes_version("module m\n")


def built(cache: Path, *, stamp: str) -> None:
    (cache / "bin").mkdir(parents=True)
    (cache / "bin" / "kubectl").write_text("")
    (cache / "bin" / "built.json").write_text(json.dumps({"kubectl": stamp, "kubelet": stamp}))


def test_a_tool_is_built_when_its_pins_changed_or_its_file_is_gone(tmp_path: Path) -> None:
    stamp = tools.pins("kubectl")
    assert tools.not_built(["kubectl"], tmp_path) == ["kubectl"]
    built(tmp_path / "new", stamp=stamp)
    assert tools.not_built(["kubectl", "kubelet"], tmp_path / "new") == ["kubelet"]
    built(tmp_path / "old", stamp="of another go.mod")
    assert tools.not_built(["kubectl"], tmp_path / "old") == ["kubectl"]


def test_what_is_built_is_found_without_building(tmp_path: Path) -> None:
    built(tmp_path, stamp=tools.pins("kubectl"))
    assert tools.ensure(["kubectl"], tmp_path) == {"kubectl": tmp_path / "bin" / "kubectl"}


def test_an_unknown_tool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="nonsense is not a tool"):
        tools.ensure(["nonsense"], tmp_path)
