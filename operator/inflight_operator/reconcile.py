"""One reconcile of one ModelDeployment: observe → decide → build → apply → report.

Level-triggered: it never asks what changed, it reads the whole world of the key and enforces the whole of it. It
returns when to be asked again. The order of writes keeps traffic safe: what is needed exists before a route names
it, and what a route named is removed last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from inflight_operator.api.conditions import Reason
from inflight_operator.api.names import Key
from inflight_operator.api.spec import parse
from inflight_operator.api.traffic import Traffic, traffic_of
from inflight_operator.api.world import Revision, World
from inflight_operator.apply.children import Children
from inflight_operator.apply.report import Reporter
from inflight_operator.apply.scale import Scale
from inflight_operator.decide import demand, endpoints, health, stickiness, weights
from inflight_operator.desired import alias, routes
from inflight_operator.desired.pod import Installation
from inflight_operator.errors import InflightError, NameConflictError, RefusedError, SpecError
from inflight_operator.hosts import Hosts
from inflight_operator.keyring import KeyRing
from inflight_operator.kube.client import Kube
from inflight_operator.memory import Memory
from inflight_operator.observe import digests, world
from inflight_operator.observe.store import Store
from inflight_operator.scaling_signal import Signal
from inflight_operator.settings import MetricsMode
from inflight_operator.steps.access import Access
from inflight_operator.steps.context import Pass, VariantPlan, needed, soonest, together
from inflight_operator.steps.digests import Ask, Digests
from inflight_operator.steps.hedging import Hedging, Paces
from inflight_operator.steps.leaving import ByEndpoint, Leaving
from inflight_operator.steps.retirement import Retirement
from inflight_operator.steps.revisions import Revisions
from inflight_operator.steps.scaling import Scaling
from inflight_operator.steps.telling import Telling
from inflight_operator.xds.model import Programmed, RouteSpec

ROUTING_GRACE_SECONDS: Final = 2.0
"""Routers acknowledge within milliseconds; only what takes longer is worth telling."""
CONFLICT_RETRY_SECONDS: Final = 30.0


class Plane(Protocol):
    """What the reconciler needs of the router's control plane."""

    def set(self, key: Key, spec: RouteSpec) -> None: ...
    def remove(self, key: Key) -> None: ...
    def programmed(self, key: Key) -> Programmed: ...


class Reconciler:
    """Holds the doors to the outside and the memory between reconciles."""

    def __init__(
        self,
        *,
        store: Store,
        kube: Kube,
        plane: Plane,
        signal: Signal,
        installation: Installation,
        router_host: str,
        router_tls: bool,
        keyring: KeyRing,
        access_closed: bool,
        metrics_api: MetricsMode,
        why_alone: str = "metricsApi.mode: none",
        clock: Callable[[], float],
        wake: Callable[[Key], None],
        host_domains: Sequence[str],
        paces: Paces,
        by_endpoint: ByEndpoint,
        idlest_first: bool,
        ask: Ask = digests.ask,
    ) -> None:
        self._store = store
        self._plane = plane
        self._signal = signal
        self._router_host = router_host
        self._clock = clock
        self._children = Children(kube, store)
        reporter = Reporter(kube, store)
        scale = Scale(kube)
        self._revisions = Revisions(self._children, scale, reporter, installation, metrics_api)
        self._scaling = Scaling(scale, signal, metrics_api, why_alone)
        self._retirement = Retirement(self._children, reporter, signal)
        self._telling = Telling(kube, reporter, signal, tls=router_tls)
        self._access = Access(keyring, closed=access_closed)
        self._digests = Digests(kube, self._children, reporter, ask)
        self._hosts = Hosts(wake, host_domains)
        self._hedging = Hedging(paces)
        self._leaving = Leaving(kube, signal, by_endpoint, wanted=idlest_first)
        self._memory: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Bring `key` to what its spec says; returns seconds until it has to be looked at again, None for never."""
        seen = world.read(self._store, key)
        if seen is None:
            self._forget(key)
            return None
        try:
            spec = parse(key[1], seen.resource["spec"])
            memory = self._memory.setdefault(key, Memory())
            return await self._enforce(Pass(seen, spec, memory, self._clock()))
        except SpecError as error:
            await self._refuse(seen, Reason.INVALID_SPEC, error)
            return None
        except NameConflictError as conflict:
            await self._refuse(seen, Reason.CONFLICT, conflict)
        except RefusedError as refusal:
            await self._refuse(seen, Reason.REFUSED, refusal)
        return CONFLICT_RETRY_SECONDS

    async def _refuse(self, seen: World, reason: Reason, why: InflightError) -> None:
        """Say why nothing can be done. What served before serves on, with the pods that it has now, also when this
        process has just started and knows no routes.
        """
        memory = self._memory.setdefault(seen.key, Memory())
        routable = self._routable(memory, seen, seen.revisions.values())
        gate = self._access.step(seen.key, seen.resource["spec"])
        try:
            traffic = traffic_of(seen.resource["spec"])
        except SpecError:
            traffic = Traffic()
        grant = self._hosts.step(seen.resource)
        spec, serving, split = routes.as_told(seen, routable, gate.issuers, traffic, grant.hosts)
        self._plane.set(seen.key, spec)
        self._signal.serve(seen.key, serving, split, split)
        await self._telling.refuse(seen.resource, health.refused(reason, str(why)), grant.hosts)

    async def prime(self) -> None:
        """Read what is needed before routers that know more are told anything: keys, and all claims to hosts."""
        seen = [world.read(self._store, key) for key in self._store.known()]
        self._hosts.prime(one.resource for one in seen if one)
        await self._access.prime((one.key[0], one.resource["spec"]) for one in seen if one)

    def moved(self) -> list[Key]:
        """Keys whose in-flight numbers differ from what their status says."""
        return self._telling.moved(self._memory)

    async def _enforce(self, run: Pass) -> float | None:
        plans = await self._children_of(run)
        live = {revision.name: revision for revision in run.seen.revisions.values() if revision.present} | needed(plans)
        run.memory.keep_only(live)
        routable = self._routable(run.memory, run.seen, live.values())
        split = self._weights(run, plans, routable)
        gate = self._access.step(run.key, run.resource["spec"])
        places = self._places(run, split)
        tail = self._hedging.step(run, plans, split.effective)
        grant = self._hosts.step(run.resource)
        spec = routes.build(
            run.key,
            plans,
            live.values(),
            split.effective,
            routable=routable,
            access=gate.issuers,
            traffic=run.spec.traffic,
            places=places,
            hosts=grant.hosts,
            hedge_milliseconds=tail.milliseconds if tail else None,
            degraded=tail.degraded if tail else {},
        )
        self._plane.set(run.key, spec)
        serving = {plan.variant.name: plan.serving.name for plan in plans}
        self._signal.serve(run.key, serving, split.goal, split.effective)
        programmed = self._plane.programmed(run.key)
        again = soonest(await self._leaving.step(run, plans), await self._scaling.step(run, plans))
        again = soonest(again, self._hedging.again(run))
        again = soonest(again, await self._retirement.step(run, plans, live, acknowledged=programmed.acknowledged))
        if (patience := self._patience(run, programmed)) > 0:
            return soonest(again, patience)
        told = self._scaling.told(run, plans)
        kept = sum(len(routable[name]) for name in serving.values())
        look = await self._telling.step(
            run,
            plans,
            live,
            split,
            scaling=told,
            programmed=programmed,
            kept=kept,
            missing_keys=gate.missing,
            grant=grant,
            tail=tail,
        )
        ask = await self._digests.step(run, plans)
        return soonest(again, look, ask, 1.0 if split.waiting or split.holding else None)

    async def _children_of(self, run: Pass) -> list[VariantPlan]:
        """Make everything exist that the ModelDeployment needs: its own Service, and each variant's revisions."""
        own = alias.service(run.resource, self._router_host)
        measured = self._signal.measured(run.key)
        await self._children.ensure(own, run.seen.alias, run.resource)
        floors = self._scaling.floors(run)
        return await together(
            *(self._revisions.ensure(run, v, measured.get(v.name), floors[v.name]) for v in run.spec.variants)
        )

    @staticmethod
    def _routable(memory: Memory, seen: World, live: Iterable[Revision]) -> dict[str, routes.Addresses]:
        """The endpoints that requests may go to, by revision. Which ones were ready a process that has just taken over
        doesn't know, but of which revisions there were some the status does. (What has weight had some, or still has
        those that were kept.)"""
        had = {n: told for n, told in seen.told.items() if told.get("readyReplicas") or told["effectiveWeight"]}
        ready = {(name, told["revision"]) for name, told in had.items()}
        none: routes.Addresses = frozenset()
        known = {r.name: r.unready if (r.variant, r.revision) in ready else none for r in live} | memory.routable
        memory.routable = {r.name: endpoints.routable(r.endpoints, r.unready, known[r.name]) for r in live}
        return memory.routable

    def _weights(
        self, run: Pass, plans: Sequence[VariantPlan], routable: Mapping[str, routes.Addresses]
    ) -> weights.Weights:
        measured = self._signal.measured(run.key)
        wanted = {plan.variant.name: plan.variant.weight for plan in plans}
        current = {name: told["effectiveWeight"] for name, told in run.told.items()}
        total = demand.whole(measured, wanted, current) if measured else None
        memory = run.memory
        if total is not None:
            memory.unknown_since = None
        elif memory.unknown_since is None:
            memory.unknown_since = run.now
        # Where no variant has a ready pod, those that were ready hold the weights as they are.
        some = any(plan.serving.ready for plan in plans)
        capacity = {
            plan.variant.name: weights.Capacity(
                plan.serving.ready if some else len(routable[plan.serving.name]),
                run.spec.autoscaling.target(plan.variant),
                run.spec.autoscaling.max_replicas,
            )
            for plan in plans
        }
        return weights.decide(
            wanted=wanted,
            current=current,
            capacity=capacity,
            demand=total,
            unknown_for=run.now - memory.unknown_since if memory.unknown_since is not None else 0.0,
        )

    @staticmethod
    def _places(run: Pass, split: weights.Weights) -> tuple[stickiness.Run, ...]:
        """Where sticky users are, from where they were: as this process knows, else as the status says."""
        if run.spec.traffic.sticky:
            before = run.memory.places or [stickiness.Run(*told) for told in run.seen.places]
            wanted = {variant.name: variant.weight for variant in run.spec.variants}
            run.memory.places = stickiness.decide(before, wanted, split.effective)
        else:
            run.memory.places = ()
        return run.memory.places

    @staticmethod
    def _patience(run: Pass, programmed: Programmed) -> float:
        """Seconds to wait for the routers before the status speaks of it: their answer asks for this key again."""
        if programmed.acknowledged or programmed.rejected is not None:
            run.memory.unacknowledged_since = None
            return 0.0
        if run.memory.unacknowledged_since is None:
            run.memory.unacknowledged_since = run.now
        return run.memory.unacknowledged_since + ROUTING_GRACE_SECONDS - run.now

    def _forget(self, key: Key) -> None:
        self._memory.pop(key, None)
        self._plane.remove(key)
        self._signal.forget(key)
        self._access.forget(key)
        self._hosts.forget(key)
