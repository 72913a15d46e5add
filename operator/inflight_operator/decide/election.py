"""Who leads, by a Lease: the rules of client-go's leader election (KEP-589), pure.

Clocks of two machines are never compared: a candidate measures with its own clock for how long it has seen the Lease
unchanged. A leader that can't renew steps down before anybody else may take the Lease, so there are never two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEASE_SECONDS: Final = 8
"""A Lease that has not changed for so long may be taken."""
GIVE_UP_SECONDS: Final = 6.0
"""A leader whose last renewal began so long ago no longer acts; the rest is for what it has under way to end."""
RENEW_EVERY_SECONDS: Final = 2.0
LOOK_EVERY_SECONDS: Final = 1.0
_A_MOMENT: Final = 0.05


@dataclass(frozen=True)
class Lease:
    """What the API server has of the Lease. `holder` is empty when it was given back."""

    holder: str
    version: str
    seconds: float = LEASE_SECONDS


@dataclass(frozen=True)
class Sighting:
    """A Lease (None: there is none) and since when, in seconds of our own clock, we have seen it as it is."""

    lease: Lease | None
    since: float


def see(before: Sighting | None, lease: Lease | None, now: float) -> Sighting:
    """What is known after reading `lease`."""
    if before is not None and before.lease == lease:
        return before
    return Sighting(lease, now)


def may_take(seen: Sighting, me: str, now: float) -> bool:
    """Whether `me` may write itself into the Lease: it is free, mine, or not renewed for as long as its holder said.

    Mine without my knowing: the process before this one in the same pod held it, and is dead.
    """
    lease = seen.lease
    return lease is None or lease.holder in ("", me) or now - seen.since > lease.seconds


def look_again(seen: Sighting | None, now: float) -> float:
    """Seconds until a candidate looks next: at the very moment when the Lease may be taken, if that is soon."""
    if seen is None or seen.lease is None:
        return LOOK_EVERY_SECONDS
    runs_out = seen.since + seen.lease.seconds - now
    return min(LOOK_EVERY_SECONDS, runs_out + _A_MOMENT) if runs_out > 0 else LOOK_EVERY_SECONDS


def left(renewed: float, now: float) -> float:
    """Seconds for which a leader that began its last successful renewal at `renewed` may go on acting."""
    return renewed + GIVE_UP_SECONDS - now
