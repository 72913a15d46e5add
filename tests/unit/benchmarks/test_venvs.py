"""When a server's environment is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.server import venvs


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What uv was asked to do; installs nothing."""
    asked: list[tuple[str, ...]] = []

    def uv(*arguments: str) -> str:
        asked.append(arguments)
        if arguments[0] == "venv":
            Path(arguments[-1]).mkdir(parents=True)
        return ""

    monkeypatch.setattr(venvs, "home", lambda: tmp_path)
    monkeypatch.setattr(venvs, "_uv", uv)
    return asked


@pytest.mark.parametrize("name", ["ours", "plain"])
def test_an_environment_is_made_once(made: list[tuple[str, ...]], name: str) -> None:
    assert [venvs.ensure(name), venvs.ensure(name)] == [True, False]
    assert len(made) == 2


def test_ours_is_made_anew_for_another_checkout(
    made: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is installed editable: otherwise the benchmark of one checkout would measure the code of another."""
    venvs.ensure("ours")
    other = tmp_path / "other" / "model-server"
    other.mkdir(parents=True)
    (other / "pyproject.toml").write_bytes((venvs._OURS / "pyproject.toml").read_bytes())
    monkeypatch.setattr(venvs, "_OURS", other)
    assert venvs.ensure("ours")
    assert str(other) in made[-1]
