"""The mount table: what is mounted below a directory, and taking it away again."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def parse(mountinfo: str) -> list[Path]:
    """Mount points in the order of /proc/self/mountinfo, with its \\040 escapes undone."""
    fields = (line.split(" ") for line in mountinfo.splitlines() if line)
    return [Path(_OCTAL.sub(lambda found: chr(int(found.group(1), 8)), field[4])) for field in fields]


def below(directory: Path) -> list[Path]:
    """Mount points inside `directory`, the innermost first."""
    found = parse(Path("/proc/self/mountinfo").read_text())
    return [point for point in reversed(found) if point.is_relative_to(directory)]


def unmount_below(directory: Path) -> list[Path]:
    """Unmount everything inside `directory`; the mount points that resist, for whatever reason."""
    for _ in range(3):  # a mount may hide another at the same point
        points = below(directory)
        if not points:
            return []
        for point in points:
            subprocess.run(["umount", "--lazy", "--", str(point)], capture_output=True, check=False)
    return below(directory)
