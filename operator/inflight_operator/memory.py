"""What may be lost: times and last readings of one ModelDeployment. After a restart the empty memory means "hold"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from inflight_operator.api.world import Address, Failure
from inflight_operator.decide.floor import Floor
from inflight_operator.decide.scaling import Wish
from inflight_operator.decide.stickiness import Run
from inflight_operator.decide.tail import Tail


@dataclass
class Memory:
    """Times are seconds of the operator's monotonic clock; revisions are by Kubernetes name."""

    weightless_since: dict[str, float] = field(default_factory=dict)
    unready_since: dict[str, float] = field(default_factory=dict)
    looked_at: dict[str, float] = field(default_factory=dict)
    digest_asked: dict[str, tuple[int, float]] = field(default_factory=dict)
    digest_told: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    routable: dict[str, frozenset[Address]] = field(default_factory=dict)
    wishes: dict[str, tuple[Wish, ...]] = field(default_factory=dict)
    floors: dict[str, Floor] = field(default_factory=dict)
    """By variant: it is whoever serves it that has to be big enough."""
    unknown_since: float | None = None
    unacknowledged_since: float | None = None
    published: dict[str, float | None] = field(default_factory=dict)
    published_at: float | None = None
    tails: dict[str, Tail] = field(default_factory=dict)
    tails_at: float | None = None
    leaving: dict[str, frozenset[str]] = field(default_factory=dict)
    """The pods, by address, that are marked to leave first."""
    marked_at: dict[str, float] = field(default_factory=dict)
    places: tuple[Run, ...] = ()
    """Of sticky users."""

    def keep_only(self, revisions: Iterable[str]) -> None:
        """Forget revisions that are no longer live."""
        living = set(revisions)
        tables = (
            self.weightless_since, self.unready_since, self.looked_at, self.failures, self.digest_asked, self.wishes,
            self.routable, self.tails, self.leaving, self.marked_at,
        )  # fmt: skip
        for table in tables:
            for name in set(table) - living:
                del table[name]
        self.digest_told &= living
