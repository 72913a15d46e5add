"""How much demand each variant's HPA is told: what is measured, or what the weight asked for would bring, if more.

Capacity leads traffic: a variant about to gain weight is told its share of the whole before it has it, and some more,
so that its HPA grows it first; the weight follows (`decide.weights`). No data is None: nothing is told and the HPA
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HEADROOM: Final = 1.4
"""A gaining variant is told so many times its share: `weights.FILL` of what it then gets is that share even when the
HPA stops 10 % short, which it tolerates."""


def decide(
    measured: Mapping[str, float | None], goal: Mapping[str, int], effective: Mapping[str, int]
) -> dict[str, float | None]:
    """In-flight requests by variant that its HPA should act on.

    `measured` is in-flight by variant (None: unknown); `goal` the weights being moved to and `effective` those in
    force, each summing to 100.
    """
    total = whole(measured, goal, effective)
    told: dict[str, float | None] = {}
    for variant, own in measured.items():
        share = (total or 0.0) * goal.get(variant, 0) / 100
        if goal.get(variant, 0) > effective.get(variant, 0):
            share *= HEADROOM
        told[variant] = None if own is None else max(own, share)
    return told


def whole(measured: Mapping[str, float | None], goal: Mapping[str, int], effective: Mapping[str, int]) -> float | None:
    """In-flight requests of all variants that share the weight, together; None when any is unknown. What others have
    (copies of requests, those that ask for one variant) comes to nobody else."""
    parts = [value for name, value in measured.items() if goal.get(name) or effective.get(name)]
    known = [value for value in parts if value is not None]
    return sum(known) if len(known) == len(parts) else None
