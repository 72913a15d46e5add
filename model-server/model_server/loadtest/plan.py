"""What a load test is told to do, checked before anything is sent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

CLIENTS_MOST: Final = 1000
COUNTS_MOST: Final = 50
DURATION_MOST: Final = 3600.0
TIMEOUT_MOST: Final = 600.0

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class LoadTestError(Exception):
    """The test can't be run or told; the text is one line: what happened, where, what to do."""


@dataclass(frozen=True)
class Plan:
    """One load test: the same clients again for every count."""

    clients: tuple[int, ...]
    """How many clients at once, one stage each, in this order."""
    timeout_seconds: float
    """How long a client waits for an answer before it gives up and closes the connection."""
    duration_seconds: float
    """Of each stage."""
    within_seconds: float
    """Goodput counts the answers that took no longer."""
    retry_seconds: float | None
    """How long a refused client waits; None: as long as the refusal says."""
    settle_seconds: float
    """After each stage a lone client asks until it is answered, at most so long; 0: not at all."""


def checked_url(text: str) -> str:
    """`text`, when it is an http(s) URL with a host. ValueError with the reason."""
    try:
        url = urlsplit(text)
        host = url.hostname and (url.port is None or url.port)
    except ValueError:
        host = None
    if not host or url.scheme not in ("http", "https") or not text.isprintable():
        raise ValueError("must start with http:// or https:// and name a host")
    return text


def header(text: str) -> tuple[str, str]:
    """ "Name: value" as lower-case name and value. ValueError with the reason."""
    name, separator, value = text.partition(":")
    if not (separator and _TOKEN.fullmatch(name)) or not value.isprintable():
        raise ValueError("must be NAME: VALUE")
    return name.lower(), value.strip()


def counts(text: str) -> tuple[int, ...]:
    """ "1,2,5" as numbers. ValueError with the reason."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 10 for part in parts):
        raise ValueError("must be whole numbers with commas between them: 1,2,5")
    found = tuple(int(part) for part in parts)
    if not all(1 <= count <= CLIENTS_MOST for count in found) or len(found) > COUNTS_MOST:
        raise ValueError(f"must be at most {COUNTS_MOST} numbers from 1 to {CLIENTS_MOST}")
    return found


def seconds(text: str, most: float, least: float = 0.001) -> float:
    """A bounded number of seconds. ValueError with the reason."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not least <= found <= most:  # also false for NaN
        raise ValueError(f"must be a number of seconds from {least:g} to {most:g}")
    return found


def output_file(text: str, suffixes: tuple[str, ...]) -> Path:
    """A file that can be written later: right suffix, in a directory that is there. ValueError with the reason."""
    file = Path(text)
    if file.suffix.lower() not in suffixes:
        raise ValueError(f"must end in {' or '.join(suffixes)}")
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise ValueError("must be a file in a directory that exists")
    return file
