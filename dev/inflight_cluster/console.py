"""What the tool prints: one line for each step with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Console:
    """Step lines on `out` (stderr by default: the stdout of `kubectl` and `exec` belongs to them)."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce `title` when it starts on a terminal, and in any case with its time when it ends."""
        began = time.monotonic()
        live = self.out.isatty() and not self.quiet
        if live:
            self.out.write(f"  ...     {title}")
            self.out.flush()
        try:
            yield
        except BaseException:
            self._end(live, f"  failed  {title} after {time.monotonic() - began:.1f} s")
            raise
        self._end(live, f"{time.monotonic() - began:7.1f} s {title}")

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            print(text, file=self.out, flush=True)

    def _end(self, live: bool, text: str) -> None:
        self.say(f"\r\x1b[K{text}" if live else text)
