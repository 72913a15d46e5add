"""Everything runs as a restricted pod, where nothing else is admitted."""

import pytest

from inflight_demo import cluster
from inflight_probe.kube import ApiError
from stage import variant

PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    "spec": {"containers": [{"name": "it", "image": "it", "securityContext": {"privileged": True}}]},
}


@pytest.mark.parametrize("namespace", [cluster.SYSTEM, cluster.NAMESPACE])
async def test_the_namespaces_really_admit_restricted_pods_only(stage, namespace):
    pod = {**PRIVILEGED, "metadata": {"name": "privileged", "namespace": namespace}}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        await stage.kube.apply(pod)


async def test_a_model_runs_where_only_restricted_pods_may(stage):
    with pytest.raises(ApiError, match="violates PodSecurity"):
        await stage.apply({**PRIVILEGED, "metadata": {"name": "privileged"}})
    await stage.serve("modest", variant("main", "e2e/echo/1/model.py"))


async def test_no_pod_of_ours_holds_a_token_it_does_not_need(stage):
    await stage.serve("tokenless", variant("main", "e2e/echo/1/model.py"))
    pods = await stage.owned("Pod", "tokenless") + await stage.kube.list_all(
        "Pod", cluster.SYSTEM, "app.kubernetes.io/component=router"
    )
    mounts = [m["mountPath"] for p in pods for c in p["spec"]["containers"] for m in c.get("volumeMounts", [])]
    assert pods
    assert not any("serviceaccount" in mount for mount in mounts)
