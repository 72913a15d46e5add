"""Writes that nobody needs: a second reconcile of an unchanged CR, and ten minutes in which nothing happens.

Counted twice: by the operator's own counter, and by what the API server remembers of the operator as a field
manager. Leases are nobody's business here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import aiohttp

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World, deployment, variant
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe import operators
from inflight_probe.kube import Kube

_MANAGER = "inflight-operator"
_KINDS = ("ModelDeployment", "Deployment", "Service", "HorizontalPodAutoscaler", "ControllerRevision")
_COUNTER = "inflight_operator_writes_total"


async def quiet(world: World, console: Console) -> list[Result]:
    """Touch a CR in a way that means nothing, wait, then only wait."""
    idle = world.some(600, 20)
    both = [variant("stable", 95, "digits/1/model.onnx"), variant("candidate", 5, "digits/2/model.onnx")]
    async with world.deployed(deployment("quiet", both, {})):
        await asyncio.sleep(world.some(60, 30))
        before, owned = await _written(world.kube), await _owned(world.kube)
        note = {"metadata": {"annotations": {"example.com/note": "somebody looked"}}}
        await world.kube.patch("ModelDeployment", NAMESPACE, "quiet", note)
        await asyncio.sleep(10)
        again = await _written(world.kube)
        for minute in range(idle // 10):
            await asyncio.sleep(10)
            console.progress(10 * (minute + 1), idle, "idle seconds")
        after, left = await _written(world.kube), await _owned(world.kube)
    differ = sorted(key for key in owned.keys() | left.keys() if owned.get(key) != left.get(key))
    return [_result(again - before, after - again, differ, idle, world.quick)]


async def _written(kube: Kube) -> int:
    """The operator's writes since it started. LookupError when its metric is not there."""
    address = (await operators.leader(kube, SYSTEM))["status"]["podIP"]
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}:9090/metrics") as answer:
        lines = (await answer.text()).splitlines()
    if not any(_COUNTER.removesuffix("_total") in line for line in lines):
        raise LookupError(f"the operator's metrics have no {_COUNTER}")
    counted = [line for line in lines if line.startswith(_COUNTER) and "Lease" not in line]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in counted))


async def _owned(kube: Kube) -> Mapping[str, str]:
    """What the operator manages in every object, and when it last did, as the API server has it."""
    found = {}
    for kind in _KINDS:
        for item in await kube.list_all(kind):
            mine = [e for e in item["metadata"].get("managedFields", []) if e["manager"] == _MANAGER]
            if mine:
                meta = item["metadata"]
                found[f"{kind} {meta.get('namespace')}/{meta['name']}"] = json.dumps(mine, sort_keys=True)
    return found


def _result(second: int, idle: int, differ: list[str], seconds: int, quick: bool) -> Result:
    return Result(
        row="quiet",
        what=f"second reconcile of an unchanged CR, and {seconds / 60:.0f} idle minutes",
        goal="0 writes",
        measured=f"{second} and {idle} writes; {len(differ)} objects changed by the operator",
        kept=not second and not idle and not differ,
        data={"second_reconcile": second, "idle": idle, "seconds": seconds, "changed": differ},
        quick=quick,
    )
