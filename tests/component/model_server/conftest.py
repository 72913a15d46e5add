"""A real server process over the smallest models there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_artifacts import add_one, write
from model_process import ServerProcess, started

HOLD = """
import os, time
from pathlib import Path

class Hold:
    '''Counts its calls in a file, and holds until there is a file called open.'''
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def load(self, path):
        self.calls = Path(os.environ["TEST_CALLS"])

    def predict(self, inputs):
        if not inputs["x"].any():
            return {"y": inputs["x"]}  # the warm-up
        with self.calls.open("a") as file:
            file.write("x")
        while not (self.calls.parent / "open").exists():
            time.sleep(0.005)
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models"), "add.onnx", add_one())


@pytest.fixture(scope="session")
def server(onnx_file: Path) -> Iterator[ServerProcess]:
    """A server that tests share, so they leave it as it was."""
    with started("--model", f"digits={onnx_file}", MAX_BODY_BYTES="200000", TIMEOUT_MILLISECONDS="3000") as running:
        yield running


class Held:
    """A server whose predictions hold until `let_go`."""

    def __init__(self, running: ServerProcess, directory: Path) -> None:
        self.running = running
        self._directory = directory

    @property
    def calls(self) -> int:
        """Predictions computed so far."""
        file = self._directory / "calls"
        return file.stat().st_size if file.exists() else 0

    def let_go(self) -> None:
        """End every prediction from now on."""
        (self._directory / "open").touch()


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """A Held server; settings by `@pytest.mark.parametrize("held", [{...}], indirect=True)`."""
    monkeypatch.setenv("TEST_CALLS", str(tmp_path / "calls"))
    model = write(tmp_path, "hold.py", HOLD.encode())
    settings = {"MAX_QUEUE": "4", "TIMEOUT_MILLISECONDS": "20000", **getattr(request, "param", {})}
    with started("--model", f"digits={model}", "--format", "python", **settings) as running:
        yield Held(running, tmp_path)
