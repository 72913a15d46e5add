"""Who has which of the 100 places that sticky users are spread over: exactly by weight, and no more moves than needed.

A user's place is fixed (the router hashes what he is known by), so a user changes variants only when his place changes
hands. Each place has an owner, by the weights asked for, and somebody who answers there now, by the weights in force:
while weight moves step by step, or nothing of a variant is ready, these differ, and what was lent comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import Final

PLACES: Final = 100


@dataclass(frozen=True)
class Run:
    """`count` places side by side: their owner, and who answers there now."""

    owner: str
    now: str
    count: int


def decide(before: Sequence[Run], wanted: Mapping[str, int], effective: Mapping[str, int]) -> tuple[Run, ...]:
    """The places under the weights `wanted` and `effective` (each summing to 100; effective all zero while nobody is
    served), given who had them `before` (empty: nobody).
    """
    if any(run.count < 1 for run in before) or sum(run.count for run in before) != PLACES:
        before = (Run("", "", PLACES),)  # nobody's: the first time, or a status that somebody has edited
    owners = list(chain.from_iterable(repeat(run.owner, run.count) for run in before))
    now = list(chain.from_iterable(repeat(run.now, run.count) for run in before))
    owners = _handed_over(owners, wanted, owners)
    now = _handed_over(owners, effective, now) if any(effective.values()) else now
    both = groupby(zip(owners, (n or o for n, o in zip(now, owners, strict=True)), strict=True))
    return tuple(Run(owner, who, len(list(run))) for (owner, who), run in both)


def _handed_over(places: Sequence[str], weights: Mapping[str, int], now: Sequence[str]) -> list[str]:
    """`places` under these weights. Who has too many gives up those where others answer `now`, then his last; they go
    to who answers there now, if he is to have more, else in order."""
    made = list(places)
    surplus = {name: made.count(name) - weights.get(name, 0) for name in dict.fromkeys(made)}
    lacking = {name: weight - made.count(name) for name, weight in weights.items()}
    free = []
    for place in sorted(range(PLACES), key=lambda place: (now[place] == made[place], -place)):
        if surplus[made[place]] > 0:
            surplus[made[place]] -= 1
            free.append(place)
    rest = []
    for place in sorted(free):
        if lacking.get(now[place], 0) > 0:
            made[place] = now[place]
            lacking[now[place]] -= 1
        else:
            rest.append(place)
    gained = chain.from_iterable(repeat(name, count) for name, count in lacking.items())
    for place, name in zip(rest, gained, strict=True):
        made[place] = name
    return made
