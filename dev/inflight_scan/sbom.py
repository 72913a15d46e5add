"""`make sbom`: a CycloneDX bill of materials for each image, checked against the lock file that the image is made from.

It lists what pip installs. The base image's packages are its own to tell; the cluster's programs (dev/tools/go.mod) are
in no image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from inflight_scan import locks
from inflight_scan.locks import Pin

ROOT: Final = locks.REQUIREMENTS.parent
ENVIRONMENT: Final = ROOT / "build" / "scan" / "bin"
_OUT: Final = ROOT / "build" / "sbom"

Entry = tuple[str, str, frozenset[str]]
"""(name, version, sha256 of every file that may be installed)."""


def write(image: str, directory: Path = _OUT) -> Path:
    """The image's bill of materials as a file. ValueError when it does not say what the lock file says."""
    wanted = list(locks.pins((locks.REQUIREMENTS / f"{image}.txt").read_text(), locks.PLATFORM))
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{image}.cdx.json"
    command = [str(ENVIRONMENT / "cyclonedx-py"), "requirements", "--output-reproducible", "-o", str(file)]
    project = ROOT / image / "pyproject.toml"
    subprocess.run(
        [*command, *(["--pyproject", str(project)] if project.exists() else []), "-"],
        input="\n".join(pin.text for pin in wanted),
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},  # that it knows no dependency graph: a lock file has none
    )
    if wrong := differences(json.loads(file.read_text()), wanted):
        raise ValueError(f"{file} and requirements/{image}.txt differ in {', '.join(wrong)}")
    return file


def differences(bill: Mapping[str, Any], wanted: Iterable[Pin]) -> list[str]:
    """Packages that only one of the two knows, or knows otherwise."""
    pinned: set[Entry] = {(pin.name, pin.version, pin.hashes) for pin in wanted}
    listed: set[Entry] = {(item["name"], item["version"], _hashes(item)) for item in bill.get("components", ())}
    return sorted({f"{name} {version}" for name, version, _ in pinned ^ listed})


def _hashes(component: Mapping[str, Any]) -> frozenset[str]:
    references = component.get("externalReferences", ())
    return frozenset(item["content"] for reference in references for item in reference.get("hashes", ()))


def main() -> int:
    """Exit status 1: a bill says something else than its lock file."""
    try:
        for image in locks.IMAGES:
            print(write(image).relative_to(ROOT))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
