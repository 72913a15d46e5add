"""Say what is: the status and its conditions, with the reason when pods don't become ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from inflight_operator.api.conditions import Condition
from inflight_operator.api.names import Key
from inflight_operator.api.world import Failure, Revision
from inflight_operator.apply.report import Reporter
from inflight_operator.decide import failure, health
from inflight_operator.decide.weights import Weights
from inflight_operator.desired import status
from inflight_operator.hosts import Grant
from inflight_operator.kube.client import Kube
from inflight_operator.memory import Memory
from inflight_operator.observe import pods
from inflight_operator.scaling_signal import Signal
from inflight_operator.steps.context import Pass, VariantPlan, needed, soonest
from inflight_operator.steps.hedging import Shortened
from inflight_operator.xds.model import Programmed

IN_FLIGHT_EVERY_SECONDS: Final = 15.0
"""In-flight numbers in the status are at most this fresh, or the status would never rest. That a number is known, or no
longer is, is told at once."""

_MOST_DEGRADED: Final = 256
"""As many as the status may name."""


class Telling:
    """Writes the status of a ModelDeployment."""

    def __init__(self, kube: Kube, reporter: Reporter, signal: Signal, *, tls: bool) -> None:
        self._kube = kube
        self._reporter = reporter
        self._signal = signal
        self._tls = tls

    async def step(
        self,
        run: Pass,
        plans: Sequence[VariantPlan],
        live: Iterable[str],
        split: Weights,
        *,
        scaling: Sequence[health.Scaling],
        programmed: Programmed,
        kept: int,
        missing_keys: Sequence[str],
        grant: Grant,
        tail: Shortened | None,
    ) -> float | None:
        """Write the status if it differs; returns when to look at unready pods again. `kept`: endpoints in use."""
        failures, again = await self._failures(run, plans)
        told = [_facts(plan, split, failures.get(plan.variant.name)) for plan in plans]
        facts = health.Facts(
            variants=told,
            acknowledged=programmed.acknowledged,
            rejected=programmed.rejected,
            waiting=split.waiting,
            draining=sorted(set(live) - set(needed(plans))),
            scaling=scaling,
            kept=kept,
            missing_keys=missing_keys,
            holding=split.holding,
            conflicts=[_conflict(run.key[0], host, whose) for host, whose in grant.refused],
        )
        in_flight = self._in_flight(run)
        where = run.memory.places
        made = status.build(
            run.resource,
            health.decide(facts),
            told,
            in_flight,
            stamp(),
            tls=self._tls,
            places=where,
            hosts=grant.hosts,
            hedge=tail.hedge if tail else None,
            degraded=sorted(frozenset().union(*tail.degraded.values()))[:_MOST_DEGRADED] if tail else (),
        )
        await self._reporter.status(run.resource, made)
        return again

    async def refuse(self, resource: dict[str, Any], conditions: tuple[Condition, ...], hosts: Sequence[str]) -> None:
        """Say that nothing can be done until somebody edits something; what served before still serves."""
        made = status.build(resource, conditions, [], {}, stamp(), tls=self._tls, hosts=hosts)
        await self._reporter.status(resource, made)

    def moved(self, memories: Mapping[tuple[str, str], Memory]) -> list[tuple[str, str]]:
        """Keys whose in-flight numbers differ from those told last."""
        told = {key: memory.published for key, memory in memories.items() if memory.published}
        return [key for key, values in told.items() if _rounded(self._signal.measured(key)) != values]

    async def _failures(self, run: Pass, plans: Sequence[VariantPlan]) -> tuple[dict[str, Failure], float | None]:
        """Failures by variant: a new revision's own come first."""
        found: dict[str, Failure] = {}
        again: float | None = None
        for plan in plans:
            for revision in plan.revisions:
                enough = plan.rollout.needed if revision is not plan.serving else 1
                again = soonest(again, await self._look(run, revision, enough))
                if revision.name in run.memory.failures:
                    found.setdefault(plan.variant.name, run.memory.failures[revision.name])
        return found, again

    async def _look(self, run: Pass, revision: Revision, enough: int) -> float | None:
        """Read the pods of a revision that has been unready for a while; returns when to look again."""
        memory = run.memory
        if revision.ready >= enough:
            memory.unready_since.pop(revision.name, None)
            memory.failures.pop(revision.name, None)
            return None
        since = memory.unready_since.setdefault(revision.name, run.now)
        last = memory.looked_at.get(revision.name)
        due = since + failure.LOOK_AFTER_SECONDS
        if last is not None:
            due = max(due, last + failure.look_again(last - since))
        if run.now < due:
            return due - run.now
        memory.looked_at[revision.name] = run.now
        why = await pods.why_unready(self._kube, run.key[0], run.key[1], revision)
        if why is not None:
            memory.failures[revision.name] = why
        return failure.look_again(run.now - since)

    def _in_flight(self, run: Pass) -> Mapping[str, float | None]:
        memory, measured = run.memory, _rounded(self._signal.measured(run.key))
        age = None if memory.published_at is None else run.now - memory.published_at
        if age is None or age >= IN_FLIGHT_EVERY_SECONDS or _known(measured) != _known(memory.published):
            memory.published, memory.published_at = measured, run.now
        return memory.published


def stamp() -> str:
    """Now, as conditions want it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _facts(plan: VariantPlan, split: Weights, why: Failure | None) -> health.VariantFacts:
    return health.VariantFacts(
        name=plan.variant.name,
        weight=plan.variant.weight,
        effective=split.effective[plan.variant.name],
        serving=plan.serving.revision,
        target=plan.target.revision,
        replicas=plan.serving.replicas,
        ready=plan.serving.ready,
        target_ready=plan.target.ready,
        needed=plan.rollout.needed,
        failure=why,
    )


def _conflict(namespace: str, host: str, whose: Key | None) -> str:
    """Other tenants' names are not told."""
    if whose is None:
        return f"{host} go nowhere, since this namespace may have no host there (router.hostDomains)"
    who = f"ModelDeployment {whose[1]}" if whose[0] == namespace else "a ModelDeployment of another namespace"
    return f"{host} go to {who}"


def _known(values: Mapping[str, float | None]) -> dict[str, bool]:
    return {name: value is not None for name, value in values.items()}


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 1) for name, value in values.items()}
