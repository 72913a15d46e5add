"""The image that holds a pod's namespaces, compiled here: no registry to take it from."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from inflight_cluster import node, oci
from inflight_cluster.errors import ClusterError

_SOURCE = Path(__file__).with_name("pause.c")


def archive(cache: Path) -> Path:
    """An OCI archive of the pause image, built once for each version of its source."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    file = cache / "images" / f"pause-{digest}.tar"
    if not file.exists():
        oci.write(file, node.PAUSE_IMAGE, {"pause": _compile()}, ["/pause"], "65535:65535")
    return file


def _compile() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "pause"
        command = ["gcc", "-Os", "-s", "-static", "-Wall", "-Werror", "-o", str(output), str(_SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise ClusterError(f"gcc could not build {_SOURCE.name}: {built.stderr.strip()}")
        return output.read_bytes()
