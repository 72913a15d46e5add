"""Let go of revisions that nobody needs, once their last request has ended, and of history that is too long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inflight_operator.api.world import Revision
from inflight_operator.apply.children import Children
from inflight_operator.apply.report import Reporter
from inflight_operator.decide import retire
from inflight_operator.desired import history, routes
from inflight_operator.scaling_signal import Signal
from inflight_operator.steps.context import Pass, VariantPlan, needed, soonest


class Retirement:
    """Removes what lost its weight. The order matters: the HPA first, so that nothing shrinks what still serves."""

    def __init__(self, children: Children, reporter: Reporter, signal: Signal) -> None:
        self._children = children
        self._reporter = reporter
        self._signal = signal

    async def step(
        self, run: Pass, plans: Iterable[VariantPlan], live: Mapping[str, Revision], *, acknowledged: bool
    ) -> float | None:
        """Retire what is due; returns when to look again. `acknowledged`: every router has the present routes."""
        keep = needed(plans)
        again: float | None = None
        for name, revision in live.items():
            if name in keep:
                run.memory.weightless_since.pop(name, None)
                continue
            if (hpa := revision.objects.get("HorizontalPodAutoscaler")) is not None:
                await self._children.remove("HorizontalPodAutoscaler", hpa)
            if acknowledged:
                run.memory.weightless_since.setdefault(name, run.now)
            answer = self._decide(run, revision)
            if answer.due:
                await self._remove(run, revision)
            else:
                again = soonest(again, answer.wait)
        for record in history.surplus(run.seen.revisions.values(), keep, run.spec.revision_history_limit):
            await self._children.remove("ControllerRevision", record)
        return again

    def _decide(self, run: Pass, revision: Revision) -> retire.Retirement:
        since = run.memory.weightless_since.get(revision.name)
        weightless_for = None if since is None else run.now - since
        in_flight = self._signal.of_revision(run.key[0], revision.name)
        return retire.decide(weightless_for, in_flight, routes.timeout_milliseconds(revision) / 1000)

    async def _remove(self, run: Pass, revision: Revision) -> None:
        for kind in ("Deployment", "Service"):
            if kind in revision.objects:
                await self._children.remove(kind, revision.objects[kind])
        text = f"variant {revision.variant}: revision {revision.revision} finished its requests and was removed"
        await self._reporter.event(run.resource, "RevisionRetired", text)
