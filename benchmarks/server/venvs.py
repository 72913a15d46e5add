"""One Python environment a server, made from pinned requirements under the cache directory and kept until those change.

Installs one at a time and niced. Knows nothing of how a server is started.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inflight_cluster.settings import cache_directory

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PEERS: Final = Path(__file__).resolve().parent / "peers"
_OURS: Final = REPOSITORY / "model-server"
_CONSTRAINTS: Final = REPOSITORY / "requirements" / "dev.txt"
_STAMP: Final = ".inflight-requirements"


def home() -> Path:
    """Where everything lies that runs need and leave: environments, models, logs."""
    return cache_directory() / "bench-server"


def directory(name: str) -> Path:
    """The environment of a server; `ours` is what `pip install ./model-server` gives, from the checkout."""
    return home() / "venvs" / name


def python(name: str) -> Path:
    """Its interpreter."""
    return directory(name) / "bin" / "python"


def ensure(name: str) -> bool:
    """Make the environment if it isn't there as required; whether it had to be made."""
    wanted = _wanted(name)
    stamp = directory(name) / _STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    shutil.rmtree(directory(name), ignore_errors=True)
    _uv("venv", "--quiet", "--python", sys.executable, str(directory(name)))
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python(name)), *_packages(name))
    stamp.write_text(wanted)
    return True


def _wanted(name: str) -> str:
    """What the environment is made from. Ours is editable: one made from another checkout would measure its code."""
    parts = [file.read_bytes() for file in _decided_by(name)] + ([bytes(_OURS)] if name == "ours" else [])
    return hashlib.sha256(b"compiled".join(parts)).hexdigest()


def versions(name: str) -> dict[str, str]:
    """Every package installed for a server."""
    listed = _uv("pip", "freeze", "--quiet", "--python", str(python(name)))
    return dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)


def installed_mebibytes(name: str) -> float:
    """What is on the disk for a server besides Python itself, without the compiled copies that running leaves."""
    roots = [directory(name) / "lib"] + ([_OURS / "model_server"] if name == "ours" else [])
    return sum(size for root in roots for size in _sizes(root)) / 2**20


def _sizes(root: Path) -> Iterator[int]:
    for file in root.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.suffix != ".pyc":
            yield file.stat().st_size


def _decided_by(name: str) -> list[Path]:
    return [_OURS / "pyproject.toml", _CONSTRAINTS] if name == "ours" else [PEERS / name / "requirements.txt"]


def _packages(name: str) -> list[str]:
    if name == "ours":
        return ["-c", str(_CONSTRAINTS), "-e", str(_OURS)]
    return ["-r", str(PEERS / name / "requirements.txt")]


def _uv(*arguments: str) -> str:
    command = ["nice", "-n", "10", str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:6])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
