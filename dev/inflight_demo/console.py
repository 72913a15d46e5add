"""What the demo prints: numbered steps with their times, aligned tables, progress for a terminal or a log.

Plain text only. On a terminal a progress line rewrites itself; in a log it is printed at every quarter.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

_INDENT = "    "


@dataclass
class Console:
    """Prints to `out`; `started` (time.time) is when the whole demo began, `total` how many steps it has."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    started: float = field(default_factory=time.time)
    total: int = 0
    number: int = 0
    _quarter: int = -1

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A numbered step; its time and the time since the start come at its end, also when it fails."""
        self.number += 1
        self._print(f"\n[{self.number}/{self.total}] {title}")
        began = time.time()
        word = "failed after"
        try:
            yield
            word = "done in"
        finally:
            now = time.time()
            self.say(f"{word} {now - began:.1f} s  (since the start {clock(now - self.started)})")

    def say(self, text: str = "") -> None:
        """One line inside a step."""
        self._print(f"{_INDENT}{text}" if text else "")

    def show(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table inside a step."""
        for line in table(header, rows):
            self.say(line)

    def progress(self, done: int, total: int, what: str) -> None:
        """How far something has got: rewritten in place on a terminal, each quarter otherwise."""
        text = f"{_INDENT}{done:>{len(f'{total:,}')},} of {total:,} {what}"
        finished = done >= total
        if self.out.isatty():
            self.out.write(f"\r{text}\x1b[K" + ("\n" if finished else ""))
            self.out.flush()
            return
        quarter = 4 * done // total if total else 4
        if quarter != self._quarter and quarter > 0:
            self._print(text)
        self._quarter = -1 if finished else quarter

    def _print(self, text: str) -> None:
        print(text, file=self.out, flush=True)


def clock(seconds: float) -> str:
    """12.3 s, or 2 min 05 s."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Aligned lines: text to the left, numbers (and what starts like one) to the right."""
    cells = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(rows) and all(_is_number(str(row[i])) for row in rows) for i in range(len(header))]
    return [_line(row, widths, right) for row in cells]


def live_line(values: Sequence[object], widths: Sequence[int]) -> str:
    """One row of a table whose rows are not known yet: every cell to the right of its given width."""
    return "  ".join(f"{value!s:>{width}}" for value, width in zip(values, widths, strict=True))


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = [c.rjust(w) if to_right else c.ljust(w) for c, w, to_right in zip(row, widths, right, strict=True)]
    return "  ".join(cells).rstrip()


def _is_number(text: str) -> bool:
    return bool(text) and (text[0].isdigit() or text in ("-", "–"))
