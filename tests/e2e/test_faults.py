"""The operator dies, children are tampered with, the CR goes while nobody watches: traffic and state survive."""

import asyncio
import os
import signal
import time

from inflight_demo.cluster import SYSTEM
from inflight_probe import pods
from inflight_probe.load import closed_loop
from stage import variant

ECHO = "e2e/echo/1/model.py"
OPERATOR = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=operator"


async def operator_pod(stage):
    """The operator's pod, once it is ready."""
    found = []

    async def one_ready():
        nonlocal found
        listed = await stage.kube.list_all("Pod", SYSTEM, OPERATOR)
        found = [p for p in listed if not p["metadata"].get("deletionTimestamp") and is_ready(p)]
        return len(found) == 1

    await stage.kube.wait_until(one_ready, "one operator pod is ready", seconds=60)
    return found[0]


def is_ready(pod) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def restarts(pod) -> int:
    return sum(c["restartCount"] for c in pod["status"]["containerStatuses"])


async def test_killing_the_operator_loses_no_request_and_no_state(stage):
    """Seen failing (404) with an operator that is ready, its control plane open, before it has read the cluster."""
    both = [variant("stable", ECHO, 80), variant("candidate", "e2e/echo/2/model.py", 20)]
    before = await stage.serve("kept", *both)
    pod = await operator_pod(stage)
    async with stage.load("kept", rate=100) as run:
        await asyncio.sleep(2)
        for pid in pods.processes(pod["metadata"]["uid"]):
            os.kill(pid, signal.SIGKILL)

        async def restarted():
            now = await stage.kube.get("Pod", SYSTEM, pod["metadata"]["name"])
            return now is not None and restarts(now) > restarts(pod) and is_ready(now)

        await stage.kube.wait_until(restarted, "the operator has restarted and is ready", seconds=90)
        await asyncio.sleep(5)
    after = await stage.get("ModelDeployment", "kept")
    assert run.why() == {}
    assert len(run.ok) > 500
    assert [v["revision"] for v in after["status"]["variants"]] == [v["revision"] for v in before["status"]["variants"]]
    assert await revisions(stage, "kept") == 2, "a restart starts no pods of a new revision"
    await stage.serve("kept", variant("stable", ECHO, 60), variant("candidate", "e2e/echo/2/model.py", 40))


async def revisions(stage, name) -> int:
    return len(await stage.owned("Deployment", name))


async def test_a_deleted_child_is_made_again(stage):
    """Seen failing with an operator that does not queue a key for the events of its children."""
    await stage.serve("torn", variant("main", ECHO))
    for kind in ("Service", "HorizontalPodAutoscaler", "Deployment"):
        for child in await stage.owned(kind, "torn"):
            await repaired_after_delete(stage, kind, child["metadata"])
    async with stage.sending("torn") as send:

        async def answered():
            return (await send(0)).status == 200

        await stage.kube.wait_until(answered, "the model answers again", seconds=30)
        assert (await closed_loop(send, clients=1, count=20)).why() == {}


async def repaired_after_delete(stage, kind, meta):
    began = time.monotonic()
    await stage.kube.delete(kind, stage.namespace, meta["name"])

    def again(found):
        return found is not None and found["metadata"]["uid"] != meta["uid"]

    await stage.kube.wait(kind, stage.namespace, meta["name"], again, seconds=30)
    print(f"{kind} {meta['name']} was back after {time.monotonic() - began:.1f} s")


async def test_an_edited_child_is_put_right(stage):
    """Seen failing when drift is told by the recorded hash alone, which a hand edit leaves as it is."""
    await stage.serve("edited", variant("main", ECHO))
    deployment = (await stage.owned("Deployment", "edited"))[0]
    service = next(s for s in await stage.owned("Service", "edited") if s["spec"].get("selector"))
    hpa = (await stage.owned("HorizontalPodAutoscaler", "edited"))[0]
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    where = next(i for i, item in enumerate(env) if item["name"] == "INFLIGHT_MODEL_URI")
    edits = [
        (deployment, f"/spec/template/spec/containers/0/env/{where}/value", "s3://models/e2e/slow/1/model.py"),
        (service, "/spec/selector", {"app": "somebody-else"}),
        (hpa, "/spec/maxReplicas", 99),
    ]
    for child, path, value in edits:
        kind, name = child["kind"], child["metadata"]["name"]
        await stage.kube.patch(kind, stage.namespace, name, [{"op": "replace", "path": path, "value": value}])
    for child, path, _ in edits:

        def as_before(found, child=child, path=path):
            return at(found, path) == at(child, path)

        kind, name = child["kind"], child["metadata"]["name"]
        repaired = await stage.kube.wait(kind, stage.namespace, name, as_before, seconds=30)
        assert at(repaired, path) == at(child, path)


def at(found, path):
    """The value at a JSON pointer."""
    for step in path.strip("/").split("/"):
        found = found[int(step)] if step.isdigit() else found[step]
    return found


async def test_a_cr_deleted_while_the_operator_is_down_is_gone_at_once(stage):
    """Seen failing with a finalizer on the CR: it stays until somebody removes that."""
    await stage.serve("orphan", variant("main", ECHO))
    async with stage.without_operator():
        began = time.monotonic()
        await stage.kube.delete("ModelDeployment", stage.namespace, "orphan")
        assert await stage.kube.get("ModelDeployment", stage.namespace, "orphan") is None
        assert time.monotonic() - began < 2

        async def collected():
            kinds = ("Deployment", "Service", "HorizontalPodAutoscaler", "ControllerRevision", "Pod")
            return not any([await stage.owned(kind, "orphan") for kind in kinds])

        await stage.kube.wait_until(collected, "all children are collected", seconds=60)

    async def forgotten():
        async with stage.sending("orphan") as send:
            return (await send(0)).status == 404

    await stage.kube.wait_until(forgotten, "the route is gone", seconds=30)
