"""Sticky users: whom a change of the weights moves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.changes import in_force
from benchmarks.traffic.prober import serving, waiting
from inflight_demo.console import Console
from inflight_probe.infer import request_body, session, through
from inflight_probe.load import Reply, closed_loop

_BEFORE, _AFTER = 5, 10
_CLIENTS = 16


async def sticky(world: World, console: Console) -> list[Result]:
    """10,000 users at 95/5 and again at 90/10: who answers each of them."""
    name, users = "sticky", world.some(10_000, 500)
    made = waiting(
        name,
        {"stable": 100 - _BEFORE, "candidate": _BEFORE},
        1,
        wait=0,
        traffic={"sticky": {"header": "x-user-id"}},
    )
    async with serving(world, made):
        before = await _asked(world, name, users)
        console.say(f"{_BEFORE} %: {Counter(before.values())}")
        patch = [
            {"op": "replace", "path": f"/spec/variants/{n}/weight", "value": value}
            for n, value in enumerate((100 - _AFTER, _AFTER))
        ]
        await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
        await in_force(world, name, {"stable": 100 - _AFTER, "candidate": _AFTER})
        after = await _asked(world, name, users)
        console.say(f"{_AFTER} %: {Counter(after.values())}")
    return [_judged(world, before, after)]


async def _asked(world: World, name: str, users: int) -> dict[int, str]:
    """The variant of each user. AssertionError when somebody got no answer."""
    target = through(world.router, NAMESPACE, name)
    body = request_body("x", [[1.0]])
    found: dict[int, str] = {}
    async with session(_CLIENTS) as http:

        async def ask(number: int) -> Reply:
            headers = {"content-type": "application/json", "x-user-id": f"user-{number}"}
            async with http.post(target.infer, data=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, f"user {number} got {answer.status}"
                found[number] = answer.headers["x-inflight-variant"]
            return Reply(200)

        await closed_loop(ask, clients=_CLIENTS, count=users)
    return found


def _judged(world: World, before: Mapping[int, str], after: Mapping[int, str]) -> Result:
    users = len(before)
    moves = Counter((before[n], after[n]) for n in before if before[n] != after[n])
    moved, wanted = moves.total(), (_AFTER - _BEFORE) / 100
    noise = 4 * math.sqrt(users * wanted * (1 - wanted))
    back = moved - moves["stable", "candidate"]
    off = [
        (Counter(found.values())["candidate"] - users * share) / math.sqrt(users * share * (1 - share))
        for found, share in ((before, _BEFORE / 100), (after, _AFTER / 100))
    ]
    return Result(
        suite="traffic",
        row="sticky",
        what="10,000 sticky users at 95/5 and then at 90/10",
        goal="splits within 4 sigma; <= 5 % + 4 sigma moved, none back",
        measured=f"splits off by {off[0]:+.1f} and {off[1]:+.1f} sigma; {100 * moved / users:.2f} % moved, {back} back",
        kept=all(abs(sigma) <= 4 for sigma in off) and moved <= users * wanted + noise and not back,
        data={
            "before": dict(Counter(before.values())),
            "after": dict(Counter(after.values())),
            "moved": moved,
            "back": back,
        },
        quick=world.quick,
    )
