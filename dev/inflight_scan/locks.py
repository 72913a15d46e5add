"""Reads the lock files: what exactly goes into each image. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

REQUIREMENTS: Final = Path(__file__).resolve().parents[2] / "requirements"
IMAGES: Final = ("operator", "model-server", "router")
PLATFORM: Final = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}
"""What the images' Dockerfiles are built on."""


@dataclass(frozen=True)
class Pin:
    """One package of a lock file; `text` is its line with its hashes, as pip wants it."""

    name: str
    version: str
    hashes: frozenset[str]
    text: str


def of(name: str) -> list[Pin]:
    """Every pin of requirements/`name`.txt, for any platform."""
    return list(pins((REQUIREMENTS / f"{name}.txt").read_text()))


def pins(text: str, platform: Mapping[str, str] | None = None) -> Iterator[Pin]:
    """The pins in a lock file's text; with `platform` (PEP 508 markers) those for it only.

    ValueError for anything but `name==version`.
    """
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if not block.strip() or block.startswith(("#", "-")):
            continue
        requirement = Requirement(block.partition("\\")[0].strip())
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==":
            raise ValueError(f"not pinned: {requirement}")
        if platform is None or requirement.marker is None or requirement.marker.evaluate(dict(platform)):
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
            kept = "\n".join(line for line in block.splitlines() if not line.strip().startswith("#"))
            yield Pin(requirement.name, specifiers[0].version, hashes, kept)
