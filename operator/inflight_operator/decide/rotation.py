"""When certificates are made anew, pure. Times are seconds that are left until one expires; None: there is none.

An authority that everybody is to trust has to be known everywhere before anything is signed by it, and to be believed
for as long as something signed by it is in use. So the next one is told long before it signs, and the last one stays
in the bundle until it expires.

    authority  |---------------- 4 lifetimes ----------------|
    next                        |-- told --|-- signs ------------------...
    leaf       |---- lifetime ----|, made anew after a third of it
"""

from __future__ import annotations

from enum import Enum
from typing import Final

AUTHORITY_LIFETIMES: Final = 4
"""An authority lives as long as so many of the certificates that it signs."""


class Step(Enum):
    """What to do about the authority."""

    KEEP = "keep"
    FOUND = "found"
    """Make the first one, or another one in the place of one that has expired: nothing of it is of use any more."""
    PREPARE = "prepare"
    """Make the next one, and let everybody know it."""
    PROMOTE = "promote"
    """The next one signs from now on."""


def authority(current: float | None, following: float | None, lifetime: float) -> Step:
    """What to do, where certificates live `lifetime` seconds and authorities four times as long."""
    whole = AUTHORITY_LIFETIMES * lifetime
    if current is None or current <= 0:
        return Step.FOUND if following is None or following <= 0 else Step.PROMOTE
    if following is None or following <= 0:
        return Step.PREPARE if current < whole / 2 else Step.KEEP
    # Known for a whole lifetime: every certificate and every copy of the bundle has been made anew since.
    return Step.PROMOTE if whole - following >= lifetime else Step.KEEP


def renew(left: float | None, lifetime: float) -> bool:
    """Whether a certificate has to be made anew: a third of its lifetime is over, or it was made for a longer one."""
    return left is None or left < lifetime * 2 / 3 or left > lifetime


def look_again(lifetime: float) -> float:
    """Seconds until the next look: late by a small part of a lifetime at most, and once a minute at least."""
    return min(60.0, lifetime / 30)
