"""A pod that has just come and is still cold: least request gives it no more than the others have (docs/adr/0022)."""

from __future__ import annotations

import asyncio

from route_specs import backend, route_spec
from router_rig import Rig


async def test_a_cold_pod_never_has_more_open_requests_than_its_share(rig: Rig) -> None:
    """Twelve clients, four pods of 40 ms; the fifth takes ten times as long. With a share of the requests instead of a
    share of those that are open it would get a fifth of some 300/s, and never keep up."""
    warm = [await rig.pod(f"warm-{n}", delay=0.04) for n in range(4)]
    cold = await rig.pod("cold", delay=0.4)
    ports = [pod.port for pod in warm]
    await rig.start(route_spec(backend(ports=ports)))
    await rig.router()
    async with rig.traffic(clients=12) as seen:
        await asyncio.sleep(1)
        rig.set(route_spec(backend(ports=[*ports, cold.port])))
        await rig.until(lambda: cold.requests)
        before = seen.total()
        await asyncio.sleep(4)
        answered = seen.total() - before
    assert cold.most <= 12 / 5 + 1
    assert cold.requests < 0.1 * answered, "a fifth of the pods, and yet"
    assert set(seen) == {"200 cold", *(f"200 {pod.name}" for pod in warm)}
