"""Does it help to keep to one's zone? `python -m benchmarks.bench_zones`: a simulation, for docs/adr/0016.

Each router sends to the pod with the fewest of its own requests, as Envoy does, among all pods or those of its zone; a
pod works on one request at a time. Prints mean and 99th percentile of the wait, in service times.
"""

from __future__ import annotations

import heapq
import random
import statistics

REQUESTS, WARM = 60_000, 5_000


def waits(zones: int, pods_per_zone: int, busy: float, *, own_zone: bool, routers_per_zone: int) -> list[float]:
    """Sorted waits of Poisson arrivals with exponential service times of mean 1."""
    chance = random.Random(1)  # noqa: S311
    pods, routers = zones * pods_per_zone, zones * routers_per_zone
    free = [0.0] * pods
    open_at = [[0] * pods for _ in range(routers)]
    ends: list[tuple[float, int, int]] = []
    now, found = 0.0, []
    for number in range(REQUESTS):
        now += chance.expovariate(busy * pods)
        while ends and ends[0][0] <= now:
            _, router, pod = heapq.heappop(ends)
            open_at[router][pod] -= 1
        router = chance.randrange(routers)
        first = router % zones * pods_per_zone
        choice = range(first, first + pods_per_zone) if own_zone else range(pods)
        least = min(open_at[router][pod] for pod in choice)
        pod = chance.choice([pod for pod in choice if open_at[router][pod] == least])
        start = max(now, free[pod])
        free[pod] = start + chance.expovariate(1)
        open_at[router][pod] += 1
        heapq.heappush(ends, (free[pod], router, pod))
        if number >= WARM:
            found.append(start - now)
    return sorted(found)


def main() -> None:
    print("zones | routers in each | busy | pods in each | wait, all zones: mean, p99 | own zone: mean, p99")
    for zones in (2, 3):
        for routers in (1, 2):
            for busy in (0.5, 0.8):
                for pods in (1, 2, 3, 4, 8):
                    told = []
                    for own in (False, True):
                        found = waits(zones, pods, busy, own_zone=own, routers_per_zone=routers)
                        told.append(f"{statistics.mean(found):.2f}, {found[int(0.99 * len(found))]:.1f}")
                    print(zones, routers, busy, pods, *told, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
