"""Asks a component whether it is healthy, from inside the cluster's network namespace."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from inflight_cluster import processes
from inflight_cluster.components import Component
from inflight_cluster.errors import ClusterError

_GRACE = 1.0
# Health endpoints of our own processes in our own namespace; some of them serve a certificate made at start.
_NO_VERIFICATION = ssl._create_unverified_context()  # noqa: S323  # nosec B323 # asks this machine for its health, sends no secret


def problem(url: str) -> str:
    """Empty when healthy, else why not. `unix:PATH` is healthy when something accepts there."""
    try:
        if url.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(url.removeprefix("unix:"))
        else:
            with urllib.request.urlopen(url, timeout=2, context=_NO_VERIFICATION):  # noqa: S310  # nosec B310 # our own URLs
                pass
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", None) or error)
    return ""


def wait(cluster: str, components: Iterable[Component], logs: Path, seconds: float = 60.0) -> None:
    """Until all are healthy. Raises ClusterError for the first that ended or is late, with the end of its log."""
    deadline = time.monotonic() + seconds
    for component in components:
        look = time.monotonic() + _GRACE
        while why := problem(component.health):
            now = time.monotonic()
            if now > look and component.name not in processes.running(cluster):
                why, deadline = "it has ended", now
            if now >= deadline:
                log = logs / f"{component.name}.log"
                raise ClusterError(f"{component.name} is not healthy ({why}); the end of {log}:\n{tail(log)}")
            look = max(look, now + _GRACE) if now > look else look
            time.sleep(0.05)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, each cut to a readable length."""
    if not log.exists():
        return "(no log)"
    return "\n".join(line[:400] for line in log.read_text(errors="replace").splitlines()[-lines:])
