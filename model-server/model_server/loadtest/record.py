"""What came back, counted while a stage runs, and the stage's figures when it is over. No I/O, no clock."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np

CLIENT: Final = "client"
"""Who gave up, when it was the client itself."""


class End(StrEnum):
    """How a request ended."""

    ANSWER = "answer"
    REFUSAL = "refusal"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's end. Only a right status with a right body is an ANSWER."""

    end: End
    why: str = ""
    """For timeouts and errors: their kind, in a few words."""
    variant: str = ""
    revision: str = ""
    cached: bool = False
    retry_after: float | None = None
    """Seconds after which the server wants to be asked again."""


@dataclass(frozen=True)
class Quantiles:
    """Nearest-rank percentiles in milliseconds; None when there was nothing to rank."""

    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, seconds: array[float]) -> Self:
        """Of times in seconds."""
        if not seconds:
            return cls(None, None, None)
        ranked = np.quantile(np.frombuffer(seconds), (0.5, 0.9, 0.99), method="inverted_cdf")
        return cls(*(round(1000 * float(value), 3) for value in ranked))


@dataclass(frozen=True)
class Stage:
    """The figures of one number of clients. Ratios are of all requests that ended."""

    clients: int
    seconds: float
    requests: int
    answers: int
    answers_per_second: float
    """Of answers that came while the stage lasted; those on their way at its end count in everything but this."""
    goodput_per_second: float
    """The same of answers within the goal."""
    response_ms: Quantiles
    """Of answers, from the sending of the request that was answered."""
    until_answered_ms: Quantiles
    """Of answers, from the first try: refusals, pauses and timeouts on the way included."""
    refusals: int
    refusal_ms: Quantiles
    timeouts: Mapping[str, int]
    """By who gave up: CLIENT, or the status of a server or router that did."""
    timeout_ratio: float
    refusal_ratio: float
    errors: Mapping[str, int]
    variants: Mapping[str, int]
    """Answers by "variant/revision", where the server names them."""
    cached: int
    """Answers that the server says it didn't compute for this request."""
    unanswered_clients: int
    """Clients that had not one answer in the whole stage."""
    generator_cpu: float
    """CPU seconds of the load generator per second: 1.0 is all that it can use."""
    generator_lag_ms: float | None
    """p99 of how late the generator's own timer was: every measured time may be too long by this."""
    recovery_seconds: float | None = None
    """From the end of the load until a lone client was answered; None: not within the time given, or not asked."""

    @classmethod
    def of_json(cls, stage: Mapping[str, Any]) -> Self:
        """What `as_json` wrote. TypeError or KeyError for anything else."""
        ranked = {name: Quantiles(**stage[name]) for name in ("response_ms", "until_answered_ms", "refusal_ms")}
        return cls(**{**stage, **ranked})

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass
class Record:
    """Counts what a stage's clients tell; times are seconds on one clock."""

    clients: int
    starts: float
    ends: float
    within: float
    answered: array[float] = field(default_factory=lambda: array("d"))
    waited: array[float] = field(default_factory=lambda: array("d"))
    refused: array[float] = field(default_factory=lambda: array("d"))
    lags: array[float] = field(default_factory=lambda: array("d"))
    in_time: int = 0
    good: int = 0
    cached: int = 0
    timeouts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    served: set[int] = field(default_factory=set)

    def add(self, client: int, reply: Reply, wanted: float, sent: float, ended: float) -> None:
        """One request of one client, which has wanted an answer since `wanted`."""
        match reply.end:
            case End.ANSWER:
                self._answer(reply, ended - wanted, ended - sent, ended)
                self.served.add(client)
            case End.REFUSAL:
                self.refused.append(ended - sent)
            case End.TIMEOUT:
                self.timeouts[reply.why] += 1
            case End.ERROR:
                self.errors[reply.why] += 1

    def _answer(self, reply: Reply, waited: float, seconds: float, ended: float) -> None:
        self.answered.append(seconds)
        self.waited.append(waited)
        self.cached += reply.cached
        if reply.variant:
            self.variants["/".join(filter(None, (reply.variant, reply.revision)))] += 1
        if ended <= self.ends:
            self.in_time += 1
            self.good += seconds <= self.within

    def stage(self, ended: float, cpu_seconds: float) -> Stage:
        """The figures, when the last client was done at `ended` and this process had used `cpu_seconds`."""
        lasted = max(min(ended, self.ends) - self.starts, 1e-9)
        timeouts, errors = self.timeouts.total(), self.errors.total()
        requests = len(self.answered) + len(self.refused) + timeouts + errors
        return Stage(
            clients=self.clients,
            seconds=round(lasted, 3),
            requests=requests,
            answers=len(self.answered),
            answers_per_second=round(self.in_time / lasted, 3),
            goodput_per_second=round(self.good / lasted, 3),
            response_ms=Quantiles.of(self.answered),
            until_answered_ms=Quantiles.of(self.waited),
            refusals=len(self.refused),
            refusal_ms=Quantiles.of(self.refused),
            timeouts=dict(self.timeouts.most_common()),
            timeout_ratio=_ratio(timeouts, requests),
            refusal_ratio=_ratio(len(self.refused), requests),
            errors=dict(self.errors.most_common()),
            variants=dict(sorted(self.variants.items())),
            cached=self.cached,
            unanswered_clients=self.clients - len(self.served),
            generator_cpu=round(cpu_seconds / max(ended - self.starts, 1e-9), 3),
            generator_lag_ms=Quantiles.of(self.lags).p99,
        )


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
