"""A revision whose user gave no sha256 is held to the model that its first pod had."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from inflight_operator.api import names
from inflight_operator.kube.client import ApiError
from inflight_operator.steps.digests import AGAIN_SECONDS
from reconciling import NAMESPACE, Bench, CrashError

SHA, OTHER = "ab" * 32, "cd" * 32
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"digest-{next(_numbers)}"


def spec(model: str = "1", **more: Any) -> dict[str, Any]:
    return {"variants": [{"name": "v", "model": {"uri": f"s3://models/digits/{model}", **more}}]}


async def pod(bench: Bench, revision: str, address: str, *, ready: bool = True, network: str = "pod") -> None:
    """A pod of a revision as the kubelet would tell of it."""
    deployment = await bench.get("Deployment", revision)
    quiet = bench._quiet()
    body = {
        "metadata": {"name": f"{revision}-{address.replace('.', '-')}", "labels": deployment["metadata"]["labels"]},
        "spec": {"containers": [{"name": "server", "image": "none"}], "hostNetwork": network == "host"},
    }
    made = await quiet.create("Pod", NAMESPACE, body)
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"conditions": conditions, "podIP": address, "podIPs": [{"ip": address}]}
    await quiet.patch("Pod", NAMESPACE, made["metadata"]["name"], "status", {"status": status})


async def begun(bench: Bench, name: str, wanted: dict[str, Any]) -> str:
    """The one revision of a ModelDeployment with ready endpoints and no pods yet."""
    await bench.put(name, wanted)
    await bench.settle(name)
    return (await bench.names_of("Deployment", name))[-1]


async def recorded(bench: Bench, revision: str) -> str | None:
    found: str | None = (await bench.get("ControllerRevision", revision))["metadata"]["annotations"].get(names.DIGEST)
    return found


async def told(bench: Bench, revision: str) -> dict[str, Any] | None:
    return await bench.kube.get("ConfigMap", NAMESPACE, f"{revision}-digest")


async def test_the_first_pods_digest_is_recorded_and_told_to_later_ones_without_a_rollout(bench: Bench, name: str):
    revision = await begun(bench, name, spec())
    template = (await bench.get("Deployment", revision))["spec"]["template"]
    assert (await recorded(bench, revision), await told(bench, revision)) == (None, None)
    await pod(bench, revision, "10.1.0.1")
    bench.digests["10.1.0.1"] = SHA
    await bench.settle(name)
    assert await recorded(bench, revision) == SHA
    found = await told(bench, revision)
    assert found
    assert (found["data"], found["immutable"]) == ({"sha256": SHA}, True)
    record = await bench.get("ControllerRevision", revision)
    assert found["metadata"]["ownerReferences"][0]["uid"] == record["metadata"]["uid"], "it goes with the record"
    (volume,) = (v for v in template["spec"]["volumes"] if v["name"] == "digest")
    assert volume["configMap"]["name"] == found["metadata"]["name"]
    assert volume["configMap"]["optional"]
    assert (await bench.get("Deployment", revision))["spec"]["template"] == template


async def test_nobody_is_asked_twice_not_even_by_an_operator_that_has_just_started(bench: Bench, name: str):
    revision = await begun(bench, name, spec())
    await pod(bench, revision, "10.1.0.1")
    bench.digests["10.1.0.1"] = SHA
    await bench.settle(name)
    writes = bench.kube.writes
    bench.digests["10.1.0.1"] = OTHER
    bench.restart()
    await bench.settle(name)
    await bench.settle(name)
    assert bench.asked == ["10.1.0.1"]
    assert bench.kube.writes == writes
    assert await recorded(bench, revision) == SHA


async def test_a_model_with_a_sha256_is_not_asked_for_it(bench: Bench, name: str):
    revision = await begun(bench, name, spec(sha256=SHA))
    await pod(bench, revision, "10.1.0.1")
    await bench.settle(name)
    assert bench.asked == []
    volumes = (await bench.get("Deployment", revision))["spec"]["template"]["spec"]["volumes"]
    assert "digest" not in [volume["name"] for volume in volumes]


async def test_only_a_pod_that_answers_by_itself_is_asked(bench: Bench, name: str):
    revision = await begun(bench, name, spec())
    await pod(bench, revision, "10.1.0.1", ready=False)
    await pod(bench, revision, "10.1.0.2", network="host")
    await bench.settle(name)
    assert bench.asked == []
    await pod(bench, revision, "10.1.0.3")
    bench.digests["10.1.0.3"] = SHA
    await bench.settle(name)
    assert bench.asked == ["10.1.0.3"]


async def test_pods_that_cannot_be_reached_are_asked_ever_more_seldom_and_serve_all_the_same(bench: Bench, name: str):
    revision = await begun(bench, name, spec())
    await pod(bench, revision, "10.1.0.1")
    for pause in (*AGAIN_SECONDS, AGAIN_SECONDS[-1]):
        assert await bench.reconcile(name) == pytest.approx(pause)
        assert await bench.reconcile(name) == pytest.approx(pause)
        bench.now += pause
    assert len(bench.asked) == len(AGAIN_SECONDS) + 1
    conditions = {c["type"]: c["status"] for c in (await bench.get(names.KIND, name))["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    bench.digests["10.1.0.1"] = SHA
    await bench.reconcile(name)
    assert await recorded(bench, revision) == SHA


@pytest.mark.parametrize("write", [1, 2], ids=["after the record", "after the ConfigMap"])
async def test_an_operator_that_is_killed_in_between_ends_up_the_same(bench: Bench, name: str, write: int):
    revision = await begun(bench, name, spec())
    await pod(bench, revision, "10.1.0.1")
    bench.digests["10.1.0.1"] = SHA
    bench.kube.crash_after = bench.kube.writes + write
    with pytest.raises(CrashError):
        await bench.reconcile(name)
    bench.kube.crash_after = None
    bench.digests["10.1.0.1"] = OTHER
    bench.restart()
    await bench.settle(name)
    found = await told(bench, revision)
    assert found
    assert (await recorded(bench, revision), found["data"]["sha256"]) == (SHA, SHA)


async def test_going_back_to_a_revision_goes_back_to_its_digest(bench: Bench, name: str):
    first = await begun(bench, name, spec("1"))
    await pod(bench, first, "10.1.0.1")
    bench.digests["10.1.0.1"] = SHA
    await bench.settle(name)
    await bench.put(name, spec("2"))
    await bench.settle(name)
    assert await bench.names_of("Deployment", name) != [first]
    bench.digests["10.1.0.1"] = OTHER
    await bench.put(name, spec("1"))
    await bench.settle(name)
    assert await bench.names_of("Deployment", name) == [first]
    assert await recorded(bench, first) == SHA


async def test_what_cannot_be_recorded_stops_nothing_else(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch):
    revision = await begun(bench, name, spec())
    await pod(bench, revision, "10.1.0.1")
    bench.digests["10.1.0.1"] = SHA
    real = bench.kube.create

    async def forbidden(kind: str, namespace: str, body: Any) -> Any:
        if kind == "ConfigMap":
            raise ApiError(403, "Forbidden", "may not create configmaps")
        return await real(kind, namespace, body)

    monkeypatch.setattr(bench.kube, "create", forbidden)
    assert await bench.reconcile(name) == AGAIN_SECONDS[1]
    monkeypatch.undo()
    await bench.reconcile(name)
    assert await told(bench, revision)
