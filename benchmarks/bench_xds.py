"""Measure the control plane against real Envoys on loopback: `python benchmarks/bench_xds.py [--models 1 200 1000]`.

Changes: from `set` to the acknowledgement of two routers, one change at a time, at several numbers of
ModelDeployments of two backends each; then what the load reports of all that cost. Split: who answered 10,000
requests. Demand: eight clients that always wait.
Prints a table per part; `--json FILE` keeps the numbers. `--closed`: every ModelDeployment asks for a token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests" / "support")]

import aiohttp  # noqa: E402

import edge_tokens  # noqa: E402
from inflight_operator.xds.model import Endpoint, Issuer, RouteSpec  # noqa: E402
from route_specs import backend, route_spec  # noqa: E402
from router_rig import Rig  # noqa: E402

Numbers = dict[str, Any]

MEMORY = """
import sys
sys.path[:0] = sys.argv[2:]
from inflight_operator.xds.plane import ControlPlane
from route_specs import backend, route_spec
def rss():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
imported, plane = rss(), ControlPlane()
for i in range(int(sys.argv[1])):
    model = f"m{i}"
    both = backend(model=model), backend("candidate", model=model)
    plane.set(("demo", model), route_spec(*both, name=model, weights=(95, 5)))
print(imported, rss())
"""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def model(index: int, weight: int, port: int, access: tuple[Issuer, ...] | None) -> RouteSpec:
    name = f"m{index}"
    both = backend(ports=[port], model=name), backend("candidate", [port], model=name)
    return replace(route_spec(*both, name=name, weights=(weight, 100 - weight)), access=access)


async def acknowledged(rig: Rig, keys: list[tuple[str, str]]) -> None:
    while not all(rig.plane.programmed(key).acknowledged for key in keys):  # noqa: ASYNC110 - of many keys
        await asyncio.sleep(0.02)


async def changes(rig: Rig, count: int, rounds: int, signer: edge_tokens.Issuer | None) -> Numbers:
    """One change after the other, with a pause, so that each is alone. `signer`: of the tokens that all ask for."""
    pod = await rig.pod()
    accounts = ("system:serviceaccount:demo:*",)
    access = (Issuer(signer.name, ("inflight",), signer.keys, accounts),) if signer else None
    headers = {"Authorization": f"Bearer {signer.token()}"} if signer else {}
    specs = [model(i, 95, pod.port, access) for i in range(count)]
    done = asyncio.Event()
    began = time.perf_counter()
    await rig.start(*specs, on_programmed=lambda _key: done.set())
    built = time.perf_counter() - began
    routers = [await rig.router(f"router-{i}", ready=False) for i in range(2)]
    began = time.perf_counter()
    for router in routers:
        await router.until_ready(120)
    await acknowledged(rig, [(spec.namespace, spec.name) for spec in specs])
    numbers: Numbers = {
        "models": count,
        "build s": round(built, 3),
        "two routers ready s": round(time.perf_counter() - began, 2),
    }

    async def measure(kind: str, edit: Callable[[RouteSpec, int], RouteSpec]) -> None:
        took, cpu = [], []
        for turn in range(rounds):
            specs[turn % count] = spec = edit(specs[turn % count], turn)
            done.clear()
            cpu_began, began = time.process_time(), time.perf_counter()
            rig.set(spec)
            await asyncio.wait_for(done.wait(), 30)
            took.append((time.perf_counter() - began) * 1000)
            cpu.append((time.process_time() - cpu_began) * 1000)
            await asyncio.sleep(0.02)
        numbers[f"{kind} ms median"] = round(statistics.median(took), 1)
        numbers[f"{kind} ms p99"] = round(percentile(took, 0.99), 1)
        numbers[f"{kind} CPU ms"] = round(statistics.median(cpu), 1)

    def weights(spec: RouteSpec, turn: int) -> RouteSpec:
        first, second = spec.backends
        weight = 1 + turn % 94  # never the 95 that is there
        return replace(spec, split=((first.name, weight), (second.name, 100 - weight)))

    def endpoints(spec: RouteSpec, turn: int) -> RouteSpec:
        first, second = spec.backends
        ours = frozenset({*first.endpoints, Endpoint("127.0.0.2", 1 + turn)})
        return replace(spec, backends=(replace(first, endpoints=ours), second))

    await measure("weight", weights)
    await measure("endpoint", endpoints)
    numbers |= await reports(rig, specs)
    numbers["router MiB"] = round(max(router.memory() for router in routers))
    for how, path, host in (("host", "/", f"m{count - 1}.demo"), ("path", f"/demo/m{count - 1}/", "x")):
        took = []
        for _ in range(300):
            began = time.perf_counter()
            assert (await rig.ask(path, host, headers=headers)).status == 200
            took.append((time.perf_counter() - began) * 1000)
        numbers[f"request by {how} ms median"] = round(statistics.median(took), 2)
    return numbers


async def reports(rig: Rig, specs: list[RouteSpec], seconds: int = 10) -> Numbers:
    """What it costs to be told the load of every backend, and to ask for the demand of one."""
    began = time.process_time()
    await asyncio.sleep(seconds)
    cpu = 1000 * (time.process_time() - began) / seconds
    names = [(spec.namespace, backend.name) for spec in specs for backend in spec.backends]
    began = time.perf_counter()
    for namespace, name in names:
        rig.plane.load.in_flight(namespace, name)
    asked = 1e6 * (time.perf_counter() - began) / len(names)
    return {"load reports CPU ms/s": round(cpu, 1), "demand asked us": round(asked)}


async def split(rig: Rig, weights: tuple[int, int], requests: int = 10_000, clients: int = 16) -> Numbers:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port]), backend("candidate", [pod.port]), weights=weights))
    await rig.router()
    seen: Counter[str] = Counter()
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            answer = await rig.ask()
            seen[answer.headers["x-inflight-variant"] if answer.status == 200 else str(answer.status)] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    share = weights[0] / 100
    off = (seen["stable"] - share * requests) / math.sqrt(requests * share * (1 - share))
    return {"weights": f"{weights[0]}/{weights[1]}", "requests": requests, **seen, "off by sigma": round(off, 2)}


async def demand(rig: Rig, clients: int = 8) -> Numbers:
    pod = await rig.pod(delay=0.1)
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router()
    await rig.until(lambda: rig.plane.load.in_flight("demo", "x") is not None)
    seen: list[tuple[float, float, int]] = []
    async with rig.traffic(clients=clients):
        began = time.perf_counter()
        while time.perf_counter() - began < 25:
            found = rig.plane.load.in_flight("demo", "digits-stable-aaaa1111")
            seen.append((time.perf_counter() - began, -1.0 if found is None else found, pod.open))
            await asyncio.sleep(0.1)
    settled = [value for at, value, _ in seen if at > 8]
    return {
        "clients": clients,
        "in the pod, mean": round(statistics.mean(count for at, _, count in seen if at > 8), 2),
        "reported, mean": round(statistics.mean(settled), 2),
        "reported, least": round(min(settled), 2),
        "reported, most": round(max(value for _, value, _ in seen), 2),
        "90 % after s": round(next(at for at, value, _ in seen if value >= 0.9 * clients), 1),
    }


def memory(count: int) -> Numbers:
    """Resident MiB of a process that has only the control plane."""
    paths = [str(ROOT / "operator"), str(ROOT / "tests" / "support")]
    command = [sys.executable, "-c", MEMORY, str(count), *paths]
    imported, built = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return {"models": count, "imported MiB": round(imported, 1), "with all models MiB": round(built, 1)}


async def fresh(part: Callable[[Rig], Any]) -> Numbers:
    """A part with an operator and routers of its own."""
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            numbers: Numbers = await part(Rig(Path(directory), stack, http))
            return numbers


async def main(models: list[int], rounds: int, signer: edge_tokens.Issuer | None) -> dict[str, list[Numbers]]:
    results: dict[str, list[Numbers]] = {}

    def keep(part: str, numbers: Numbers) -> None:
        print(part, *(f"{name}: {value}" for name, value in numbers.items()), sep=" | ", flush=True)
        results.setdefault(part, []).append(numbers)

    for count in models:
        keep("memory", memory(count))
        keep("changes", await fresh(lambda rig, count=count: changes(rig, count, rounds, signer)))
    for weights in ((95, 5), (50, 50)):
        keep("split", await fresh(lambda rig, weights=weights: split(rig, weights)))
    keep("demand", await fresh(demand))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 200, 1000])
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--closed", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured = asyncio.run(main(options.models, options.changes, edge_tokens.Issuer() if options.closed else None))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
