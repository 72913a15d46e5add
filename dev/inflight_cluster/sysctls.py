"""kubelet sets a few kernel variables of the whole machine; this remembers what they were and puts them back."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

_SYSCTL = Path("/proc/sys")
NAMES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def remember(file: Path, root: Path = _SYSCTL) -> None:
    """Write the current values to `file`, unless an earlier run (or another instance) has done so."""
    if file.exists():
        return
    file.write_text(json.dumps({name: (root / name).read_text().strip() for name in NAMES}))


def restore(file: Path, root: Path = _SYSCTL) -> None:
    """Put the remembered values back and forget them."""
    if not file.exists():
        return
    with suppress(ValueError):  # a killed run may have left half a file: then kubelet had not started
        for name, value in json.loads(file.read_text()).items():
            (root / name).write_text(value)
    file.unlink()
