"""Make every revision that a variant needs exist, as it was pinned when it was born."""

from __future__ import annotations

from dataclasses import replace

from inflight_operator.api import names
from inflight_operator.api.spec import Variant
from inflight_operator.api.world import Object, Revision
from inflight_operator.apply.children import Children
from inflight_operator.apply.report import Reporter
from inflight_operator.apply.scale import Case, Scale
from inflight_operator.decide import rollout
from inflight_operator.decide.rollout import Rollout, Size
from inflight_operator.desired import history
from inflight_operator.desired import revision as build
from inflight_operator.desired.pod import Installation
from inflight_operator.settings import MetricsMode
from inflight_operator.steps.context import Pass, VariantPlan, together


class Revisions:
    """Records, Deployments, Services and HPAs of the revisions in use."""

    def __init__(
        self,
        children: Children,
        scale: Scale,
        reporter: Reporter,
        installation: Installation,
        metrics_api: MetricsMode,
    ) -> None:
        self._children = children
        self._scale = scale
        self._reporter = reporter
        self._installation = installation
        self._metrics_api = metrics_api

    async def ensure(self, run: Pass, variant: Variant, demand: float | None, floor: int) -> VariantPlan:
        """Decide the variant's rollout and make its objects exist. `demand`: its in-flight requests, None: unknown;
        `floor`: the replicas below which its HPA may not go now."""
        live = {revision.revision: revision for revision in run.seen.of(variant.name)}
        sizes = {name: Size(revision.replicas, revision.ready) for name, revision in live.items()}
        recorded = run.told.get(variant.name, {}).get("revision")
        decided = rollout.decide(variant.revision, recorded, sizes, run.limits(variant), demand)
        target = await self._target(run, variant, decided)
        serving = target if decided.complete else live[decided.serving]
        plan = VariantPlan(variant, decided, target, serving)
        for revision in plan.revisions:
            await self._autoscaler(run, variant, revision, floor if revision is serving else None)
        return plan

    async def _target(self, run: Pass, variant: Variant, decided: Rollout) -> Revision:
        name = names.revision_name(run.key[1], variant.name, variant.revision)
        known = run.seen.revisions.get(name)
        born = known is None or not known.live
        if known is None or known.record is None or born:
            known = await self._record(run, variant, name, known)
        deployment, service = await together(
            self._deployment(run, known, decided.birth),
            self._apply(run, known, "Service", build.service(run.resource, known)),
        )
        if born:
            after = "" if decided.complete else f"; {decided.serving} serves until it is ready"
            text = f"variant {variant.name}: revision {variant.revision} is being started{after}"
            await self._reporter.event(run.resource, "RevisionCreated", text)
        return replace(known, objects={**known.objects, "Deployment": deployment, "Service": service})

    async def _deployment(self, run: Pass, revision: Revision, birth: int | None) -> Object:
        applied = await self._apply(run, revision, "Deployment", build.deployment(run.resource, revision))
        if birth is not None and applied["spec"].get("replicas", 1) < birth:
            await self._scale.to(applied, birth, Case.BIRTH)
        return applied

    async def _record(self, run: Pass, variant: Variant, name: str, known: Revision | None) -> Revision:
        """Write down what the user asked for and what we render from it; a record that exists keeps its words."""
        number = history.number(name, variant.name, run.seen.revisions.values())
        made = build.record(run.resource, variant, self._installation, number, known)
        blank = Revision(name, variant.name, variant.revision, None, {}, frozenset(), "")
        record = await self._apply(run, known or blank, "ControllerRevision", made)
        found = known or blank
        return replace(found, record=record["data"], objects={**found.objects, "ControllerRevision": record})

    async def _autoscaler(self, run: Pass, variant: Variant, revision: Revision, floor: int | None) -> None:
        """The HPA exists while the revision has the variant's weight (`floor` None: it hasn't): before and after,
        nothing may shrink it."""
        kind = "HorizontalPodAutoscaler"
        if floor is not None and self._metrics_api is not MetricsMode.NONE:
            scaling = replace(run.spec.autoscaling, min_replicas=floor)
            made = build.autoscaler(run.resource, revision, scaling, scaling.target(variant), self._metrics_api)
            await self._apply(run, revision, kind, made)
        elif (live := revision.objects.get(kind)) is not None:
            await self._children.remove(kind, live)

    async def _apply(self, run: Pass, revision: Revision, kind: str, manifest: Object) -> Object:
        return await self._children.ensure(manifest, revision.objects.get(kind), run.resource)
