"""What a request's Cache-Control header asks for (RFC 9111, section 5.2.1), and what the cache tells of its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Result(StrEnum):
    """Where an answer came from; the value of x-inflight-cache and of the metric's label."""

    HIT = "hit"
    """It was kept."""
    MISS = "miss"
    """It was computed for this request."""
    COALESCED = "coalesced"
    """It was computed, or looked up, for an equal request that came a moment before."""
    BYPASS = "bypass"
    """What is kept was not asked: the request forbade it, or can't be told from others."""


@dataclass(slots=True, eq=False)
class Use:
    """How one request wants the cache to be used, and how it was."""

    read: bool = True
    """It may be answered with what is kept."""
    write: bool = True
    """Its answer may be kept."""
    max_age: float = math.inf
    """Seconds that an answer may be old."""
    result: Result | None = None
    """Known when the answer is given."""

    @classmethod
    def asked(cls, cache_control: bytes | None) -> Self:
        """By the header's value. no-cache, no-store and max-age count, everything else is ignored as RFC 9111 says."""
        use = cls()
        for directive in (cache_control or b"").lower().split(b","):
            name, _, value = directive.strip().partition(b"=")
            if name == b"no-cache":
                use.read = False
            elif name == b"no-store":
                use.write = False
            elif name == b"max-age":
                use._limit_age(value.strip(b'"'))
        return use

    def _limit_age(self, digits: bytes) -> None:
        """Something that is no number counts as 0: rather too fresh than too old."""
        self.max_age = min(self.max_age, int(digits[:10]) if digits.isdigit() else 0)
        self.read = self.read and self.max_age > 0
