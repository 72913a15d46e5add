"""The demo's second half, inside the cluster's network: publish models, serve them, send them real requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from inflight_demo import digits, loadstep, model_image, models, published, reach, ready, store
from inflight_demo.cluster import NAMESPACE, SYSTEM
from inflight_demo.console import Console
from inflight_demo.loadstep import Phase, Sample, Trace
from inflight_probe.infer import through
from inflight_probe.kube import Kube, access
from inflight_probe.scaling import OWNER, revision_of

_READY_SECONDS = 180
_QUIET_SECONDS, _LOAD_SECONDS, _HOLD_SECONDS = 6.0, 75.0, 6.0
_CLIENTS = 8
_ROW_SECONDS = 3.0


def main(console: Console) -> bool:
    """Whether every answer, the split and the scaling were as promised; what was not is printed with NOT."""
    return asyncio.run(_main(console))


async def _main(console: Console) -> bool:
    async with Kube(access()) as kube, router(kube) as url:
        catalogue = await _models(kube, console)
        await _remove(kube, "waiting")
        with console.step("digits: 95 % logistic regression, 5 % neural network"):
            await ready.apply_example(kube, "digits", NAMESPACE)
            deployment = await ready.wait_ready(kube, NAMESPACE, "digits", seconds=_READY_SECONDS, say=console.say)
        with console.step(f"Traffic: {digits.REQUESTS:,} images through the router at full speed"):
            run = await digits.send_images(url, NAMESPACE, "digits", catalogue.digits, console)
            fine = digits.report(console, run, catalogue.digits, ready.weights(deployment))
        with console.step(f"Load: 1, then {_CLIENTS} requests in flight on a model that waits 100 ms"):
            scaled = await _load(kube, url, console)
    return fine and scaled


def router(kube: Kube) -> AbstractAsyncContextManager[str]:
    """The URL of the router's Service while the block runs."""
    return reach.service(kube, SYSTEM, "inflight-router", 80)


async def _models(kube: Kube, console: Console) -> models.Catalogue:
    with console.step("Models: train on 1,257 handwritten digits, judge on 540 others, publish to S3"):
        catalogue = models.catalogue()
        console.say("trained before, nothing changed since" if catalogue.cached else "trained and checked now")
        console.show(
            ("model", "what", "accuracy"),
            [(m.key, m.title, f"{100 * m.accuracy:.1f} %") for m in catalogue.models],
        )
        keys = await store.ensure(kube, NAMESPACE)
        uploads = published.uploads(catalogue)
        async with reach.service(kube, NAMESPACE, "s3", store.PORT) as url:
            store.publish(url, keys, uploads, lambda n, u: console.say(f"{n} of {len(uploads)}  s3://models/{u.key}"))
        model_image.ensure(catalogue)
        console.say(f"and as an image   {model_image.REFERENCE}")
    return catalogue


async def _load(kube: Kube, url: str, console: Console) -> bool:
    await ready.apply_example(kube, "waiting", NAMESPACE)
    await ready.wait_ready(kube, NAMESPACE, "waiting", seconds=_READY_SECONDS, say=console.say)
    revision = await revision_of(kube, NAMESPACE, "waiting")
    phases = [Phase(0, _QUIET_SECONDS, 1), Phase(_QUIET_SECONDS, _QUIET_SECONDS + _LOAD_SECONDS, _CLIENTS)]
    console.say(loadstep.header())
    last = -math.inf

    def seen(trace: Trace) -> None:
        nonlocal last
        if trace.samples[-1].at - last >= _ROW_SECONDS:
            last = trace.samples[-1].at
            console.say(loadstep.row(trace, _ROW_SECONDS))

    def enough(samples: Sequence[Sample]) -> bool:
        return loadstep.reached(samples, _CLIENTS, _HOLD_SECONDS)

    trace = await loadstep.play(
        kube,
        through(url, NAMESPACE, "waiting"),
        (NAMESPACE, revision),
        phases,
        seen=seen,
        enough=enough,
    )
    kept = _verdict(console, trace)
    await _remove(kube, "waiting")
    console.say("waiting is deleted, and its pods have gone")
    return kept


async def _remove(kube: Kube, name: str) -> None:
    await kube.delete("ModelDeployment", NAMESPACE, name)

    async def gone() -> bool:
        return not await kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}")

    await kube.wait_until(gone, f"the pods of {name} have gone", seconds=_READY_SECONDS)


def _verdict(console: Console, trace: Trace) -> bool:
    failed = [o for o in trace.outcomes if not o.ok]
    first = next((s.at for s in trace.samples if s.scale.desired >= _CLIENTS), None)
    most = max(s.scale.desired for s in trace.samples)
    if first is None:
        console.say(f"NOT as promised: the HPA wanted {most} replicas at most, {_CLIENTS} are needed")
    else:
        console.say(f"{_CLIENTS} replicas wanted {first - _QUIET_SECONDS:.0f} s after the step; {most} at most")
    console.say(f"{len(trace.outcomes):,} requests, failed: {len(failed)}")
    return first is not None and not failed
