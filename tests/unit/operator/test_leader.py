"""A leadership that ends before it has begun to serve."""

from __future__ import annotations

import asyncio
import time

from inflight_operator import settings
from inflight_operator.installation.lease import NAME, Candidate
from inflight_operator.leader import Leader
from inflight_operator.observe.store import Store
from memory_kube import MemoryKube

TOLD = {
    "INFLIGHT_NAMESPACE": "system",
    "INFLIGHT_MODEL_SERVER_IMAGE": "inflight/model-server:test",
    "INFLIGHT_POD_NAME": "a",
    "INFLIGHT_POD_IP": "10.0.0.1",
    "INFLIGHT_METRICS_API_MODE": "none",
    "INFLIGHT_XDS_PORT": "0",
}


async def test_who_is_stopped_while_it_still_reads_the_cluster_gives_the_lease_back() -> None:
    """Seen failing (the Lease stays its own for eight seconds) when only a leader that served handed over."""
    kube = MemoryKube()
    lease = Candidate(kube, "system", "a", time.monotonic)  # type: ignore[arg-type]
    await lease.win()
    leader = Leader(settings.read(TOLD), kube, Store(), lease)  # type: ignore[arg-type]
    running = asyncio.create_task(leader.run())
    await asyncio.sleep(0.2)
    assert not leader.whole
    running.cancel()
    await asyncio.wait([running], timeout=5)
    assert kube.objects["Lease", "system", NAME]["spec"]["holderIdentity"] == ""
