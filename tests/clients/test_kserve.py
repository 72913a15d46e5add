"""KServe's own clients, REST and gRPC, against a real server: `make clients`.

Their package brings 68 others and wants an older protobuf than ours, so they run in an environment that uv makes for
them (300 MB, from the package index).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from model_artifacts import write
from model_process import free_port, started

SCRIPT = Path(__file__).with_name("kserve_client.py")
KSERVE = "kserve==0.21.0"
ECHO = b"class Echo:\n    def predict(self, inputs):\n        return dict(inputs)\n"


def test_kserves_clients_work_unchanged(tmp_path: Path) -> None:
    uv = [str(Path(sys.executable).with_name("uv")), "run", "--quiet", "--no-project", "--with", KSERVE]
    grpc_port = free_port()
    model = write(tmp_path, "echo.py", ECHO)
    with started("--model", f"echo={model}", "--format", "python", GRPC_PORT=grpc_port) as running:
        command = [*uv, "--python", sys.executable, str(SCRIPT), str(running.port), grpc_port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
