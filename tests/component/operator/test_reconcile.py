"""The reconcile on a real API server: it converges, rests, repairs, and can be killed after any write."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from inflight_operator.api.names import revision_name
from inflight_operator.decide.floor import LAG_SECONDS
from inflight_operator.decide.leaving import ANNOTATION, COST
from inflight_operator.settings import MetricsMode
from inflight_operator.xds.model import Pace
from reconciling import NAMESPACE, Bench, CrashError

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"digits-{next(_numbers)}"


def spec(*weights: int, model: str = "1", **more: Any) -> dict[str, Any]:
    variants = [
        {"name": f"v{i}", "weight": weight, "model": {"uri": f"s3://models/digits/{model}/{i}"}}
        for i, weight in enumerate(weights)
    ]
    return {"variants": variants, "server": {"concurrency": 2}, **more}


def conditions(resource: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in resource["status"]["conditions"]}


async def test_a_new_model_deployment_gets_everything_it_needs_and_then_nothing_is_written(bench: Bench, name: str):
    await bench.put(name, spec(95, 5))
    await bench.settle(name)
    resource = await bench.get("ModelDeployment", name)
    revisions = [f"{name}-{v['name']}-{v['revision']}" for v in resource["status"]["variants"]]
    assert await bench.names_of("Deployment", name) == revisions
    assert await bench.names_of("HorizontalPodAutoscaler", name) == revisions
    assert await bench.names_of("ControllerRevision", name) == revisions
    assert await bench.names_of("Service", name) == sorted([name, *revisions])
    assert conditions(resource)["Ready"] == ("True", "Complete")
    assert [v["effectiveWeight"] for v in resource["status"]["variants"]] == [95, 5]
    before = bench.kube.writes
    bench.restart()
    await bench.settle(name)
    await bench.settle(name)
    assert bench.kube.writes == before


async def test_without_ready_pods_it_is_not_available_and_nothing_is_routed(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.reconcile(name)
    assert conditions(await bench.get("ModelDeployment", name))["Available"] == ("False", "NoReadyEndpoint")
    assert bench.routers.routes[NAMESPACE, name].split == ()


async def test_when_all_pods_turn_unready_at_once_requests_still_go_to_them(bench: Bench, name: str):
    """The kubelet is down, or the machine too busy for probes. Seen failing (no split) without the rule."""
    await bench.put(name, spec(95, 5))
    await bench.settle(name)
    before = bench.routers.routes[NAMESPACE, name]
    for deployment in await bench.names_of("Deployment", name):
        await bench.unready(deployment)
    await bench.reconcile(name)
    assert bench.routers.routes[NAMESPACE, name] == before
    resource = await bench.get("ModelDeployment", name)
    assert conditions(resource)["Available"] == ("False", "NoReadyEndpoint")
    assert "Requests still go to 2 that were" in next(
        c["message"] for c in resource["status"]["conditions"] if c["type"] == "Available"
    )


async def test_an_operator_that_takes_over_while_all_pods_are_unready_sends_requests_to_them_too(
    bench: Bench, name: str
):
    """With etcd stopped for a minute the node's heartbeats are late, all pods unready, and another operator leads. Seen
    failing (56 requests got no_ready_endpoint) when it only knew what it had seen itself."""
    await bench.put(name, spec(95, 5))
    await bench.settle(name)
    before = bench.routers.routes[NAMESPACE, name]
    for deployment in await bench.names_of("Deployment", name):
        await bench.unready(deployment)
    for _ in range(3):  # the first one writes that none is ready
        bench.restart()
        await bench.reconcile(name)
        assert bench.routers.routes[NAMESPACE, name] == before


async def test_one_variant_without_ready_pods_gives_its_weight_to_the_other(bench: Bench, name: str):
    await bench.put(name, spec(95, 5))
    await bench.settle(name)
    first, second = await bench.names_of("Deployment", name)
    await bench.unready(first)
    await bench.reconcile(name)
    assert bench.routers.routes[NAMESPACE, name].split == ((second, 100),)


async def test_a_changed_model_takes_the_weight_only_when_it_is_ready_and_the_old_one_goes_last(
    bench: Bench, name: str
):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (old,) = await bench.names_of("Deployment", name)
    await bench.put(name, spec(100, model="2"))
    await bench.reconcile(name)
    new = next(n for n in await bench.names_of("Deployment", name) if n != old)
    assert bench.routers.routes[NAMESPACE, name].split == ((old, 100),)
    assert await bench.names_of("HorizontalPodAutoscaler", name) == [old]
    assert conditions(await bench.get("ModelDeployment", name))["Ready"] == ("False", "RollingOut")
    await bench.make_ready(name)
    await bench.reconcile(name)
    assert bench.routers.routes[NAMESPACE, name].split == ((new, 100),)
    assert await bench.names_of("HorizontalPodAutoscaler", name) == [new]
    assert old in await bench.names_of("Deployment", name), "the old revision stays until its last request has ended"
    await bench.settle(name)
    assert await bench.names_of("Deployment", name) == [new]
    assert sorted([old, new]) == await bench.names_of("ControllerRevision", name), "history is kept"


async def test_an_old_revision_with_requests_in_flight_is_not_removed(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (old,) = await bench.names_of("Deployment", name)
    await bench.put(name, spec(100, model="2"))
    await bench.reconcile(name)
    await bench.make_ready(name)
    await bench.reconcile(name)
    bench.in_flight[old] = 1.0
    bench.now += 9
    await bench.reconcile(name)
    assert old in await bench.names_of("Deployment", name)
    bench.in_flight[old] = 0.0
    await bench.reconcile(name)
    assert old not in await bench.names_of("Deployment", name)


async def test_routers_that_have_not_acknowledged_keep_the_old_revision_alive(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (old,) = await bench.names_of("Deployment", name)
    await bench.put(name, spec(100, model="2"))
    bench.routers.silent = True
    for _ in range(4):
        await bench.reconcile(name)
        await bench.make_ready(name)
        bench.now += 60
    assert old in await bench.names_of("Deployment", name)
    assert conditions(await bench.get("ModelDeployment", name))["Ready"][0] == "False"
    bench.routers.silent = False
    await bench.settle(name)
    assert old not in await bench.names_of("Deployment", name)


async def test_going_back_uses_the_template_that_was_pinned_when_the_revision_was_born(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (old,) = await bench.names_of("Deployment", name)
    await bench.put(name, spec(100, model="2"))
    await bench.settle(name)
    bench.reconciler._revisions._installation = type(bench.reconciler._revisions._installation)("newer:image")
    await bench.put(name, spec(100))
    await bench.settle(name)
    deployment = await bench.get("Deployment", old)
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "inflight/model-server:test"


async def test_a_newer_operator_restarts_nobodys_pods(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)
    before = (await bench.get("Deployment", revision))["metadata"]["generation"]
    bench.restart()
    bench.reconciler._revisions._installation = type(bench.reconciler._revisions._installation)("newer:image")
    await bench.settle(name)
    assert (await bench.get("Deployment", revision))["metadata"]["generation"] == before


async def test_a_busy_old_revision_is_replaced_by_one_as_big(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (old,) = await bench.names_of("Deployment", name)
    await bench.kube.patch("Deployment", NAMESPACE, old, "scale", {"spec": {"replicas": 4}})
    bench.in_flight[old] = 8.0
    await bench.make_ready(name)
    await bench.put(name, spec(100, model="2"))
    await bench.reconcile(name)
    new = next(n for n in await bench.names_of("Deployment", name) if n != old)
    deployment = await bench.get("Deployment", new)
    assert deployment["spec"]["replicas"] == 4
    await bench.endpoints(deployment, 3)
    await bench.reconcile(name)
    assert bench.routers.routes[NAMESPACE, name].split == ((old, 100),), "three pods can't take the load of four"
    await bench.endpoints(deployment, 4)
    await bench.reconcile(name)
    assert bench.routers.routes[NAMESPACE, name].split == ((new, 100),)


async def test_a_weight_moves_only_as_far_as_capacity_and_the_hpa_is_told_of_the_goal(bench: Bench, name: str):
    await bench.put(name, spec(95, 5))
    await bench.settle(name)
    stable, candidate = await bench.names_of("Deployment", name)
    bench.in_flight |= {stable: 9.5, candidate: 0.5}
    bench.now += 60
    await bench.put(name, spec(5, 95))
    again = await bench.reconcile(name)
    assert dict(bench.routers.routes[NAMESPACE, name].split) == {stable: 84, candidate: 16}
    assert bench.signal.demand(NAMESPACE, candidate) == pytest.approx(1.4 * 9.5)
    assert again is not None
    assert conditions(await bench.get("ModelDeployment", name))["Ready"] == ("False", "ShiftingTraffic")
    await bench.endpoints(await bench.get("Deployment", candidate), 6)
    await bench.reconcile(name)
    assert dict(bench.routers.routes[NAMESPACE, name].split) == {stable: 5, candidate: 95}
    assert bench.signal.demand(NAMESPACE, candidate) == pytest.approx(9.5), "there is no more to lead"


async def test_weights_that_are_held_because_the_demand_is_unknown_are_not_called_in_effect(bench: Bench, name: str):
    """As after a restart of the operator. They were: Ready said Complete for ten seconds."""
    await bench.put(name, spec(90, 10))
    await bench.settle(name)
    bench.in_flight |= dict.fromkeys(await bench.names_of("Deployment", name))
    bench.now += 60
    await bench.put(name, spec(80, 20))
    again = await bench.reconcile(name)
    resource = await bench.get("ModelDeployment", name)
    assert [v["effectiveWeight"] for v in resource["status"]["variants"]] == [90, 10]
    assert conditions(resource)["Ready"] == ("False", "ShiftingTraffic")
    assert again is not None
    await bench.settle(name)
    resource = await bench.get("ModelDeployment", name)
    assert [v["effectiveWeight"] for v in resource["status"]["variants"]] == [80, 20]
    assert conditions(resource)["Ready"] == ("True", "Complete")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HorizontalPodAutoscaler"])
async def test_a_child_deleted_by_hand_is_made_again(bench: Bench, name: str, kind: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)
    await bench.kube.delete(kind, await bench.get(kind, revision))
    await bench.settle(name)
    assert revision in await bench.names_of(kind, name)


async def test_a_child_edited_by_hand_is_put_right(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)
    for kind, edit, path in (
        ("HorizontalPodAutoscaler", {"spec": {"maxReplicas": 99}}, ("spec", "maxReplicas")),
        ("Service", {"spec": {"selector": {"serving.inflight.dev/variant": "other"}}}, ("spec", "selector")),
    ):
        before = await bench.get(kind, revision)
        await _edit(bench, kind, revision, edit)
        await bench.settle(name)
        after = await bench.get(kind, revision)
        assert _at(after, path) == _at(before, path), kind


async def test_replicas_are_the_hpas_and_are_left_alone(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)
    await bench.kube.patch("Deployment", NAMESPACE, revision, "scale", {"spec": {"replicas": 7}})
    await bench.put(name, spec(100, revisionHistoryLimit=5))
    await bench.settle(name)
    assert (await bench.get("Deployment", revision))["spec"]["replicas"] == 7


async def test_somebody_elses_object_is_not_adopted(bench: Bench, name: str):
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "theirs.example"},
    }
    await bench.kube.apply(foreign)
    await bench.put(name, spec(100))
    await bench.reconcile(name)
    assert (await bench.get("Service", name))["spec"]["externalName"] == "theirs.example"
    resource = await bench.get("ModelDeployment", name)
    assert conditions(resource)["Ready"] == ("False", "Conflict")
    await bench.kube.delete("Service", await bench.get("Service", name))
    await bench.settle(name)
    assert conditions(await bench.get("ModelDeployment", name))["Ready"] == ("True", "Complete")


@contextmanager
def refused(bench: Bench) -> Iterator[None]:
    """The operator's Deployments have a field that the API server does not take."""
    taken = bench.kube.apply

    async def apply(manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "Deployment":
            manifest = copy.deepcopy(manifest)
            manifest["spec"]["template"]["spec"]["nodeSelector"] = {"a b": "c"}
        return await taken(manifest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.kube, "apply", apply)
        yield


async def test_what_the_cluster_does_not_take_is_told_in_its_own_words(bench: Bench, name: str):
    """Seen failing (no status at all) with an operator that only tries again."""
    await bench.put(name, spec(100))
    with refused(bench):
        assert await bench.reconcile(name) == 30
    resource = await bench.get("ModelDeployment", name)
    (ready,) = (c for c in resource["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Refused")
    assert ready["message"].startswith(f"Deployment {name}-v0-")
    assert 'nodeSelector: Invalid value: "a b"' in ready["message"]


@pytest.mark.parametrize("traffic", [pytest.param({}, id="open to all"), pytest.param({"access": {}}, id="closed")])
async def test_what_served_before_serves_on_when_the_next_revision_is_refused(
    bench: Bench, name: str, traffic: dict[str, Any]
):
    """Seen failing (no route after the restart) with an operator that only says so, and (open to all) without its
    access on the routes that it keeps."""
    await bench.put(name, spec(95, 5, traffic=traffic))
    await bench.settle(name)
    before = bench.routers.routes[NAMESPACE, name]
    (first, _) = await bench.names_of("Deployment", name)
    await bench.put(name, spec(95, 5, model="2", traffic=traffic))
    with refused(bench):
        for _ in ("in the process that knew the routes", "in one that has just started"):
            await bench.reconcile(name)
            assert conditions(await bench.get("ModelDeployment", name))["Ready"] == ("False", "Refused")
            assert bench.routers.routes[NAMESPACE, name] == before
            bench.routers.routes.clear()
            bench.restart()
        await bench.endpoints(await bench.get("Deployment", first), 3)
        await bench.reconcile(name)
    sizes = {b.name: len(b.endpoints) for b in bench.routers.routes[NAMESPACE, name].backends}
    assert sizes[first] == 3, "pods that come and go are followed"
    await bench.settle(name)
    assert conditions(await bench.get("ModelDeployment", name))["Accepted"] == ("True", "Valid")


async def test_history_is_kept_to_its_limit(bench: Bench, name: str):
    for model in range(5):
        await bench.put(name, spec(100, model=str(model), revisionHistoryLimit=2))
        await bench.settle(name)
    assert len(await bench.names_of("ControllerRevision", name)) == 3


def places(resource: dict[str, Any]) -> dict[str, int]:
    return {run["variant"]: run["places"] for run in resource["status"]["sticky"]}


async def test_sticky_users_stay_where_they_are_also_after_a_restart(bench: Bench, name: str):
    """Three variants: where the weights lie side by side, taking from the first would move users of the second too."""
    sticky = {"traffic": {"sticky": {"header": "x-user-id"}, "rules": [{"variant": "v1", "header": {"name": "x-qa"}}]}}
    await bench.put(name, spec(50, 30, 20, **sticky))
    await bench.settle(name)
    assert places(await bench.get("ModelDeployment", name)) == {"v0": 50, "v1": 30, "v2": 20}
    bench.restart()
    await bench.put(name, spec(40, 30, 30, **sticky))
    await bench.settle(name)
    told = (await bench.get("ModelDeployment", name))["status"]
    runs = [(run["variant"], run["places"]) for run in told["sticky"]]
    assert runs == [("v0", 40), ("v2", 10), ("v1", 30), ("v2", 20)]
    route = bench.routers.routes[NAMESPACE, name]
    serving = {f"{name}-{v['name']}-{v['revision']}": v["name"] for v in told["variants"]}
    assert [(serving[backend], count) for backend, count in route.split] == runs
    assert [serving[rule.backend] for rule in route.rules] == ["v1"]
    before = bench.kube.writes
    bench.restart()
    await bench.settle(name)
    assert bench.kube.writes == before
    gone = next(backend for backend, v in serving.items() if v == "v1")
    await bench.unready(gone)
    await bench.reconcile(name)
    bench.restart()
    lent = (await bench.get("ModelDeployment", name))["status"]["sticky"]
    assert sum(run["places"] for run in lent if run["variant"] == "v1") == 30
    assert all(run["answeredBy"] in ("v0", "v2") for run in lent if run["variant"] == "v1")
    assert gone not in dict(bench.routers.routes[NAMESPACE, name].split)
    await bench.kube.delete("EndpointSlice", await bench.get("EndpointSlice", gone))  # another pod becomes ready
    await bench.settle(name)
    assert (await bench.get("ModelDeployment", name))["status"]["sticky"] == told["sticky"], "they have come back"
    await bench.put(name, spec(40, 30, 30))
    await bench.settle(name)
    assert "sticky" not in (await bench.get("ModelDeployment", name))["status"]


async def test_a_variant_taken_out_is_drained_and_removed(bench: Bench, name: str):
    await bench.put(name, spec(50, 50))
    await bench.settle(name)
    gone = await bench.names_of("Deployment", name)
    await bench.put(name, spec(100))
    await bench.reconcile(name)
    assert await bench.names_of("Deployment", name) == gone
    await bench.settle(name)
    assert len(await bench.names_of("Deployment", name)) == 1


async def test_a_vanished_model_deployment_takes_its_routes_with_it(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    await bench.kube.delete("ModelDeployment", await bench.get("ModelDeployment", name))
    await bench.reconcile(name)
    assert (NAMESPACE, name) not in bench.routers.routes


PARTS = 6
"""Every write is a crash of its own; in parts, each within a test's time limit also on a busy machine."""


def journey(step: int) -> dict[str, Any]:
    """From nothing, over a changed weight and a changed model, to a variant less."""
    return [spec(95, 5), spec(5, 95), spec(5, 95, model="2"), spec(100, model="3")][step]


async def _travel(bench: Bench, name: str) -> None:
    for step in range(4):
        await bench.put(name, journey(step))
        try:
            await bench.settle(name)
        except CrashError:
            bench.restart()
            bench.kube.crash_after = None
            await bench.settle(name)


@pytest.mark.parametrize("part", range(PARTS), ids=lambda part: f"part{part + 1}of{PARTS}")
async def test_killed_after_any_write_it_converges_to_the_same_world(bench: Bench, name: str, part: int):
    await _travel(bench, name)
    expected, writes = await bench.state(name), bench.kube.writes
    assert writes > 20
    for crash in range(1 + part, writes + 1, PARTS):
        await bench.wipe(name)
        bench.kube.writes, bench.kube.crash_after = 0, crash
        await _travel(bench, name)
        assert bench.kube.crash_after is None, "the crash has to have happened"
        assert await bench.state(name) == expected, f"killed after write {crash}"


async def _edit(bench: Bench, kind: str, name: str, body: dict[str, Any]) -> None:
    from inflight_operator.kube.client import _Call, _path

    call = _Call("PATCH", _path(kind, NAMESPACE, name), {}, body, "application/merge-patch+json")
    await bench.kube._send(call)


def _at(obj: dict[str, Any], path: tuple[str, ...]) -> Any:
    for step in path:
        obj = obj[step]
    return obj


def test_revision_names_fit_and_differ():
    long = revision_name("m" * 60, "v" * 30, "0123abcd")
    assert len(long) <= 63
    assert long != revision_name("m" * 60, "v" * 29 + "w", "0123abcd")


async def replicas_of(bench: Bench, name: str) -> int:
    (revision,) = await bench.names_of("Deployment", name)
    return int((await bench.get("Deployment", revision))["spec"]["replicas"])


async def follow(bench: Bench, name: str, demand: float | None) -> int:
    """Ten seconds with that many requests in flight; the replicas after it."""
    (revision,) = await bench.names_of("Deployment", name)
    bench.in_flight[revision] = demand
    bench.now += 10.0
    await bench.reconcile(name)
    return await replicas_of(bench, name)


async def test_without_a_metrics_api_the_operator_follows_the_demand_by_itself(bench: Bench, name: str):
    """Up at once, down after the stabilisation window, and blind it holds."""
    bench.restart(MetricsMode.NONE)
    bounds = {"minReplicas": 1, "maxReplicas": 6, "targetInFlight": 2, "scaleDownStabilizationSeconds": 60}
    await bench.put(name, spec(100, autoscaling=bounds))
    await bench.settle(name)
    assert await bench.names_of("HorizontalPodAutoscaler", name) == []
    assert await follow(bench, name, 7.0) == 4
    assert await follow(bench, name, None) == 4
    told = conditions(await bench.get("ModelDeployment", name))
    assert told["ScalingActive"] == ("Unknown", "Unknown")
    assert await follow(bench, name, 100.0) == 6
    assert await follow(bench, name, 0.0) == 6
    told = conditions(await bench.get("ModelDeployment", name))
    assert told["ScalingActive"] == ("True", "OperatorScales")
    for _ in range(4):
        assert await follow(bench, name, 0.0) == 6, "the window of 60 s still has the time of 100 in it"
    assert await follow(bench, name, 0.0) == 1


async def test_when_hpas_can_not_be_served_any_more_the_operator_takes_over_from_them(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    assert len(await bench.names_of("HorizontalPodAutoscaler", name)) == 1
    bench.restart(MetricsMode.NONE)
    await bench.settle(name)
    assert await bench.names_of("HorizontalPodAutoscaler", name) == []
    assert await follow(bench, name, 9.0) == 5
    bench.restart()
    await bench.settle(name)
    assert len(await bench.names_of("HorizontalPodAutoscaler", name)) == 1
    assert await replicas_of(bench, name) == 5


async def test_a_deployment_at_zero_stays_there_whoever_scales(bench: Bench, name: str):
    bench.restart(MetricsMode.NONE)
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)
    await bench.kube.patch("Deployment", NAMESPACE, revision, "scale", {"spec": {"replicas": 0}})
    assert await follow(bench, name, 9.0) == 0


async def test_with_an_adapter_a_variant_that_gains_weight_is_made_big_enough_by_its_hpas_floor(
    bench: Bench, name: str
):
    """The test plays the HPA, which sees of the new variant no more than it has: never its share to come."""
    bench.restart(MetricsMode.PROMETHEUS_ADAPTER)
    bounds = {"minReplicas": 1, "maxReplicas": 20, "targetInFlight": 2}
    await bench.put(name, spec(95, 5, autoscaling=bounds))
    await bench.settle(name)
    old, new = await bench.names_of("HorizontalPodAutoscaler", name)
    (metric,) = (await bench.get("HorizontalPodAutoscaler", new))["spec"]["metrics"]
    assert (metric["type"], metric["pods"]["target"]["averageValue"]) == ("Pods", "2")
    bench.in_flight |= {old: 19.0, new: 1.0}

    async def least() -> int:
        return int((await bench.get("HorizontalPodAutoscaler", new))["spec"]["minReplicas"])

    async def weights() -> list[int]:
        return [v["effectiveWeight"] for v in (await bench.get("ModelDeployment", name))["status"]["variants"]]

    await bench.put(name, spec(5, 95, autoscaling=bounds))
    await bench.reconcile(name)
    await bench.reconcile(name)
    assert await least() == 14, "95 % of 20 requests at 2 a replica, and 40 % of room"
    assert await weights() == [92, 8], "what its one pod holds"
    await bench.kube.patch("Deployment", NAMESPACE, new, "scale", {"spec": {"replicas": 14}})
    await bench.settle(name)
    assert await weights() == [5, 95]
    assert await least() == 14, "held until the HPA can know"
    bench.now += LAG_SECONDS
    await bench.settle(name)
    assert await least() == 1
    before = bench.kube.writes
    await bench.settle(name)
    assert bench.kube.writes == before


async def test_that_the_load_is_known_or_not_is_told_at_once_and_its_numbers_now_and_then(bench: Bench, name: str):
    await bench.put(name, spec(100))
    await bench.settle(name)
    (revision,) = await bench.names_of("Deployment", name)

    async def told_after(seconds: float, demand: float | None) -> str:
        bench.now += seconds
        bench.in_flight[revision] = demand
        assert bench.reconciler.moved() == [(NAMESPACE, name)]
        await bench.reconcile(name)
        return str((await bench.get("ModelDeployment", name))["status"]["summary"]["inFlight"])

    assert await told_after(1.0, None) == "unknown"
    assert await told_after(1.0, 3.0) == "3.0"
    assert await told_after(1.0, 4.0) == "3.0"
    assert await told_after(15.0, 4.0) == "4.0"


async def test_a_host_that_somebody_else_has_is_told_and_comes_when_it_is_free(bench: Bench, name: str):
    other, host = f"{name}-b", f"{name}.ml.example"
    hosts = {"traffic": {"hosts": [host]}}

    async def told(which: str) -> tuple[list[str], str, str]:
        found = (await bench.get("ModelDeployment", which))["status"]
        ready = next(c for c in found["conditions"] if c["type"] == "Ready")
        return found.get("hosts", []), ready["reason"], ready["message"]

    await bench.put(name, spec(100, **hosts))
    await bench.settle(name)
    await bench.put(other, spec(100, **hosts))
    await bench.settle(other)
    assert (await told(name))[0] == [host]
    assert await told(other) == (
        [],
        "RouteConflict",
        f"Requests for {host} go to ModelDeployment {name}. All else is answered.",
    )
    assert bench.routers.routes[NAMESPACE, name].hosts == (host,)
    assert bench.routers.routes[NAMESPACE, other].hosts == ()
    bench.restart()
    await bench.refresh()
    await bench.reconciler.prime()
    await bench.settle(other)
    await bench.settle(name)
    assert ((await told(name))[0], (await told(other))[1]) == ([host], "RouteConflict")
    await bench.put(name, spec(100))
    await bench.settle(name)
    assert (NAMESPACE, other) in bench.woken
    await bench.settle(other)
    assert (await told(other))[:2] == ([host], "Complete")
    assert bench.routers.routes[NAMESPACE, other].hosts == (host,)


async def test_a_slow_pod_stands_back_and_is_hedged_against_and_the_status_says_so(bench: Bench, name: str):
    hedged = {"traffic": {"idempotent": True, "hedging": {"budgetPercent": 5}}}

    async def told() -> tuple[dict[str, Any], int | None, set[str]]:
        await bench.reconcile(name)
        found = await bench.get("ModelDeployment", name)
        routes = bench.routers.routes[NAMESPACE, name]
        return found["status"].get("hedging"), routes.hedge_milliseconds, {*routes.backends[0].degraded}

    three = {"autoscaling": {"minReplicas": 3}}
    await bench.put(name, spec(100, **three))
    await bench.settle(name)
    await bench.put(name, spec(100, **three, **hedged))
    assert await told() == ({"message": "Off: the load isn't known yet."}, None, set())
    (serving,) = await bench.names_of("Deployment", name)
    pods = sorted(end.address for end in bench.routers.routes[NAMESPACE, name].backends[0].endpoints)
    bench.paces[serving] = {pods[0]: Pace(2, 10, 10), pods[1]: Pace(0.4, 20, 20), pods[2]: Pace(0.4, 20, 20)}
    bench.now += 10
    assert await told() == ({"afterMilliseconds": 60, "degraded": [pods[0]]}, 60, {pods[0]})
    bench.now += 10
    before = bench.kube.writes
    bench.paces[serving] = {pod: Pace(0.5, 26, 25) for pod in pods}
    assert await told() == ({"afterMilliseconds": 60, "degraded": [pods[0]]}, 60, {pods[0]}), (
        "4 % were asked twice, as much as may be"
    )
    assert bench.kube.writes == before
    bench.now += 10
    bench.paces[serving] = {pod: Pace(1.9, 26, 25) for pod in pods}
    assert await told() == ({"message": "Off: more than 75% of the pods' slots are in use."}, None, set())
    await bench.put(name, spec(100, **three))
    await bench.settle(name)
    assert await told() == (None, None, set())


async def test_of_pods_that_are_too_many_the_idlest_are_marked_to_leave_first(bench: Bench, name: str):
    await bench.put(name, spec(100, autoscaling={"minReplicas": 4}))
    await bench.settle(name)
    (serving,) = await bench.names_of("Deployment", name)
    ends = await bench.pods(serving)
    busy = dict(zip(sorted(ends), (2.0, 0.0, 1.0, 3.0), strict=True))
    bench.by_endpoint[serving] = {end: count for end, count in busy.items() if count}
    bench.in_flight[serving] = 6.0
    before = bench.kube.writes
    await bench.reconcile(name)
    assert (await marks(bench, serving), bench.kube.writes) == (set(), before), "as many as there may be"
    await bench.put(name, spec(100, autoscaling={"minReplicas": 1}))
    bench.in_flight[serving] = 2.0
    await bench.reconcile(name)
    assert await marks(bench, serving) == {ends[end] for end, count in busy.items() if count < 3}, (
        "one of four is enough"
    )
    bench.in_flight[serving] = 8.0
    bench.now += 10
    await bench.reconcile(name)
    assert await marks(bench, serving) == set(), "the demand is back"


async def test_marks_stay_while_the_pods_are_being_taken_away(bench: Bench, name: str):
    """The Deployment's new size is seen here before Kubernetes has chosen who goes. Seen failing: it took them back."""
    await bench.put(name, spec(100, autoscaling={"minReplicas": 3}))
    await bench.settle(name)
    (serving,) = await bench.names_of("Deployment", name)
    ends = await bench.pods(serving)
    await bench.put(name, spec(100, autoscaling={"minReplicas": 1}))
    await bench.reconcile(name)
    marked = await marks(bench, serving)
    assert len(marked) == 2
    await bench.kube.patch("Deployment", NAMESPACE, serving, "scale", {"spec": {"replicas": 1}})
    bench.now += 60
    await bench.reconcile(name)
    assert await marks(bench, serving) == marked < set(ends.values())


async def test_a_mark_that_is_refused_keeps_nothing_else_from_being_done(bench: Bench, name: str):
    """By somebody's webhook, say. Seen failing: no status was written as long as there were too many pods."""
    await bench.put(name, spec(100, autoscaling={"minReplicas": 3}))
    await bench.settle(name)
    (serving,) = await bench.names_of("Deployment", name)
    await bench.pods(serving)
    bench.kube.refuses = "Pod"
    await bench.put(name, spec(100, autoscaling={"minReplicas": 1}, revisionHistoryLimit=7))
    assert await bench.reconcile(name) is not None, "to be tried again"
    stored = await bench.get("ModelDeployment", name)
    assert stored["status"]["observedGeneration"] == stored["metadata"]["generation"]
    assert await marks(bench, serving) == set()
    bench.kube.refuses = ""
    bench.now += 10
    await bench.reconcile(name)
    assert len(await marks(bench, serving)) == 2


async def marks(bench: Bench, revision: str) -> set[str]:
    """The pods that are to leave first."""
    pods = (await bench.kube.list("Pod", NAMESPACE)).items
    marked = {p["metadata"]["name"] for p in pods if (p["metadata"].get("annotations") or {}).get(ANNOTATION) == COST}
    return {name for name in marked if name.startswith(revision)}
