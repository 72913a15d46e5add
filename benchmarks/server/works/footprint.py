"""W5: how soon a server answers, and what it holds while nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from benchmarks.server import venvs
from benchmarks.server.samples import Sample
from benchmarks.server.session import Session
from benchmarks.server.starting import Server
from benchmarks.server.works.throughput import questions

ALONE: Final = "alone"
_SETTLING_SECONDS: Final = 2.0


async def measure(server: Server, session: Session, number: int) -> AsyncIterator[Sample]:
    """One start. RSS counts what processes share once for each, PSS once."""
    async with session.serving(server, "W5", questions("W5", session)[0]) as running:
        await asyncio.sleep(_SETTLING_SECONDS)
        weight = running.tree.weigh()
        values = {
            "first_answer_seconds": running.first_answer_seconds,
            "rss_mib": weight.rss,
            "pss_mib": weight.pss,
            "processes": weight.processes,
            "installed_mib": venvs.installed_mebibytes(server.environment),
            "packages": len(venvs.versions(server.environment)),
        }
        yield Sample("W5", server.name, ALONE, number, values)
