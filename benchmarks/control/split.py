"""Is traffic split by the weights? 10,000 real requests at 95/5 and again at 50/50, judged by 4 sigma."""

from __future__ import annotations

from typing import Any

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World, deployment, variant
from inflight_demo.console import Console
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.load import Run, closed_loop
from inflight_probe.stats import Share, shares

_CLIENTS = 8


async def split(world: World, console: Console) -> list[Result]:
    """One ModelDeployment a split, so that no rollout is in the way."""
    count = world.some(10_000, 500)
    parts: list[tuple[Run, list[Share]]] = []
    for stable in (95, 50):
        weights = {"stable": stable, "candidate": 100 - stable}
        models = {"stable": "digits/1/model.onnx", "candidate": "digits/2/model.onnx"}
        manifest = deployment("split", [variant(v, w, models[v]) for v, w in weights.items()], {"concurrency": 2})
        async with world.deployed(manifest):
            run = await _images(world, count)
        parts.append((run, shares(run.variants(), weights)))
        console.say(f"{stable}/{100 - stable}: {_told(parts[-1][1])}, failed {len(run.failed)}")
    return [_result(parts, count, world.quick)]


async def _images(world: World, count: int) -> Run:
    bodies = [request_body("images", [image]) for image in world.catalogue.digits.images]
    async with session(_CLIENTS) as http:
        send = sender(http, through(world.router, NAMESPACE, "split"), bodies, lambda _n, answer: output(answer))
        return await closed_loop(send, clients=_CLIENTS, count=count)


def _told(split: list[Share]) -> str:
    return ", ".join(f"{s.variant} {s.observed:.2f} %" for s in split) + f" ({split[0].sigmas:.1f} sigma)"


def _result(parts: list[tuple[Run, list[Share]]], count: int, quick: bool) -> Result:
    failed = sum(len(run.failed) for run, _ in parts)
    fair = all(share.within() for _, split in parts for share in split)
    data: list[dict[str, Any]] = [
        {
            "counts": dict(run.variants()),
            "why": dict(run.why()),
            "rate": round(run.rate),
            "p99_ms": run.milliseconds(99),
        }
        for run, _ in parts
    ]
    return Result(
        row="split",
        what=f"split over {count:,} requests at 95/5 and 50/50",
        goal="within 4 sigma, 0 failed",
        measured="; ".join(_told(split) for _, split in parts) + f"; {failed} failed",
        kept=fair and not failed,
        data={"runs": data},
        quick=quick,
    )
