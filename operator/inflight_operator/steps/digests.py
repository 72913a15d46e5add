"""Hold each revision to the model that its first pod had, where the user gave no sha256 (ADR 7).

The digest is written down in the revision's record, which is the authority, and told to later pods by a ConfigMap that
their template has named from the start. Whatever fails here fails alone: models are served without it too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from inflight_operator.api.world import Revision
from inflight_operator.apply.children import Children
from inflight_operator.apply.report import Reporter
from inflight_operator.desired import revision as build
from inflight_operator.errors import TransientError
from inflight_operator.kube.client import ApiError, Kube
from inflight_operator.observe import pods
from inflight_operator.steps.context import Pass, VariantPlan, needed, soonest

_log: Final = structlog.get_logger(__name__)

AGAIN_SECONDS: Final = (5.0, 60.0, 600.0, 3600.0)
"""Pauses after pods that could not be asked: perhaps no policy lets the operator in, and asking takes time."""

Ask = Callable[[str, str], Awaitable[str | None]]
"""(address of a pod, name of the model) → its sha256, None when it can't be had now."""


class Digests:
    """Asks, records, tells; each once per revision."""

    def __init__(self, kube: Kube, children: Children, reporter: Reporter, ask: Ask) -> None:
        self._kube = kube
        self._children = children
        self._reporter = reporter
        self._ask = ask

    async def step(self, run: Pass, plans: Sequence[VariantPlan]) -> float | None:
        """Do what is due; returns when to try again, None for never."""
        again: float | None = None
        for revision in needed(plans).values():
            try:
                again = soonest(again, await self._hold(run, revision))
            except TransientError as error:
                _log.warning("the model's digest can't be recorded now", revision=revision.name, error=str(error))
                again = soonest(again, AGAIN_SECONDS[1])
        return again

    async def _hold(self, run: Pass, revision: Revision) -> float | None:
        if revision.record is None or revision.record["model"].get("sha256"):
            return None
        if revision.digest is None:
            if not revision.ready:
                return None
            if (wait := self._wait(run, revision)) > 0:
                return wait
            sha256 = await self._asked(run, revision)
            if sha256 is None:
                return self._wait(run, revision) or None
            revision = await self._recorded(run, revision, sha256)
        await self._tell(run, revision)
        return None

    def _wait(self, run: Pass, revision: Revision) -> float:
        """Seconds until a pod may be asked, which is longer each time that one did not answer."""
        times, last = run.memory.digest_asked.get(revision.name, (0, run.now))
        pause = AGAIN_SECONDS[min(times, len(AGAIN_SECONDS)) - 1] if times else 0.0
        return max(0.0, last + pause - run.now)

    async def _asked(self, run: Pass, revision: Revision) -> str | None:
        address = await pods.first_ready_address(self._kube, run.key[0], run.key[1], revision)
        if address is None:
            return None  # its endpoint has just gone: that is an event too
        times, _ = run.memory.digest_asked.get(revision.name, (0, 0.0))
        run.memory.digest_asked[revision.name] = times + 1, run.now
        return await self._ask(address, run.key[1])

    async def _recorded(self, run: Pass, revision: Revision, sha256: str) -> Revision:
        live = revision.objects["ControllerRevision"]
        record = await self._children.ensure(build.recorded(run.resource, revision, sha256), live, run.resource)
        text = f"variant {revision.variant}: revision {revision.revision} is the model with sha256 {sha256}"
        await self._reporter.event(run.resource, "DigestRecorded", text)
        return replace(revision, objects={**revision.objects, "ControllerRevision": record})

    async def _tell(self, run: Pass, revision: Revision) -> None:
        if revision.name in run.memory.digest_told:
            return
        try:
            await self._kube.create("ConfigMap", run.key[0], build.digest_map(revision))
        except ApiError as error:
            if error.status != 409:  # it is there
                raise
        run.memory.digest_told.add(revision.name)
