"""The weights in force: the user's, less what can't be served, and never faster than capacity.

1. A variant with no ready endpoint gives its weight to the others, pro rata.
2. A variant that gains takes no more than its ready replicas can hold at the demand measured now, with some room:
   requests come by chance, and a replica that just keeps up queues without end. What it can't take yet stays where it
   was. The HPA is told of the goal (`decide.demand`), so the rest follows.
3. Unknown demand holds the weights for `HOLD_SECONDS`; then the user's wish wins over caution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HOLD_SECONDS: Final = 10.0
FILL: Final = 0.8
"""Of what a gaining variant's replicas should have in flight, so much is given to them. The HPA is told of more
(`demand.HEADROOM`), also when its tolerance of 10 % leaves it short: the last step is never waited for in vain."""


@dataclass(frozen=True)
class Capacity:
    """A variant's ready replicas, and how much one should have in flight; `most` is its maxReplicas."""

    ready: int
    target_in_flight: int
    most: int


@dataclass(frozen=True)
class Weights:
    """Integers summing to 100 (all zero when nothing is ready). `waiting`: variants that need more replicas first."""

    effective: Mapping[str, int]
    goal: Mapping[str, int]
    waiting: tuple[str, ...]
    holding: bool

    @property
    def settled(self) -> bool:
        """The goal is in force."""
        return dict(self.effective) == dict(self.goal)


def decide(
    wanted: Mapping[str, int],
    current: Mapping[str, int],
    capacity: Mapping[str, Capacity],
    demand: float | None,
    unknown_for: float,
) -> Weights:
    """Decide all variants' weights together.

    `wanted` is the spec's; `current` what is in force (empty at first); `demand` all in-flight requests, None if
    unknown for `unknown_for` seconds.
    """
    able = {name for name in wanted if capacity[name].ready > 0}
    goal = share(100, {name: wanted[name] for name in wanted if name in able})
    goal = {name: goal.get(name, 0) for name in wanted}
    held = share(100, {name: current.get(name, 0) for name in wanted if name in able})
    if not any(held.values()) or goal == held:
        return Weights(goal, goal, (), False)
    held = {name: held.get(name, 0) for name in wanted}
    if demand is None:
        hold = unknown_for < HOLD_SECONDS
        return Weights(held if hold else goal, goal, (), hold)
    return _follow_capacity(goal, held, capacity, demand)


def _follow_capacity(
    goal: Mapping[str, int], held: Mapping[str, int], capacity: Mapping[str, Capacity], demand: float
) -> Weights:
    gained, waiting = {}, []
    for name in goal:
        if goal[name] > held[name]:
            fits = _fits(capacity[name], demand)
            gained[name] = max(held[name], min(goal[name], fits))
            if gained[name] < goal[name]:
                waiting.append(name)
    left = 100 - sum(gained.values())
    losers = {name: goal[name] for name in goal if name not in gained}
    short = left - sum(losers.values())
    # What the gainers can't take yet stays with those that lose it, in proportion to what each would lose.
    spare = share(short, {name: held[name] - goal[name] for name in losers}) if short else {}
    effective = {name: gained.get(name, losers.get(name, 0) + spare.get(name, 0)) for name in goal}
    return Weights(effective, goal, tuple(waiting), False)


def _fits(capacity: Capacity, demand: float) -> int:
    """The largest weight (0..100) that the ready replicas hold; one can have all that is meant for one, and at
    maxReplicas there is nothing to wait for."""
    if demand <= capacity.target_in_flight or capacity.ready >= capacity.most:
        return 100
    return min(100, int(100 * FILL * capacity.ready * capacity.target_in_flight / demand))


def share(total: int, parts: Mapping[str, int]) -> dict[str, int]:
    """Split `total` in proportion to `parts`, exactly, by largest remainder; all zero when the parts are."""
    whole = sum(parts.values())
    if whole == 0:
        return dict.fromkeys(parts, 0)
    shares = {name: total * part // whole for name, part in parts.items()}
    by_remainder = sorted(parts, key=lambda name: (-(total * parts[name] % whole), name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
