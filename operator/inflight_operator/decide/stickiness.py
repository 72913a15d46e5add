"""Who has which of the 100 places that sticky users are spread over: exactly by weight, and no more moves than needed.

A user's place is fixed (the router hashes what he is known by), so a user changes variants only when his place changes
hands. A variant that loses weight gives up its last places, those that gain take them in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, groupby, repeat
from typing import Final

PLACES: Final = 100

Run = tuple[str, int]
"""A variant and how many places side by side it has."""


def decide(before: Sequence[Run], weights: Mapping[str, int]) -> tuple[Run, ...]:
    """The places under these `weights` (summing to 100, or all zero), given who had them `before` (empty: nobody).

    With all weights zero nobody is served, and everything stays as it was.
    """
    if not any(weights.values()):
        return tuple(before)
    places = list(chain.from_iterable(repeat(name, count) for name, count in before))
    if len(places) != PLACES:
        places = [""] * PLACES
    surplus = {name: places.count(name) - weights.get(name, 0) for name in dict.fromkeys(places)}
    free = []
    for place in reversed(range(PLACES)):
        if surplus[places[place]] > 0:
            surplus[places[place]] -= 1
            free.append(place)
    gained = chain.from_iterable(repeat(name, weights[name] - places.count(name)) for name in weights)
    for place, name in zip(reversed(free), list(gained), strict=True):
        places[place] = name
    return tuple((name, len(list(run))) for name, run in groupby(places))
