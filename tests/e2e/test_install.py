"""What a person does after `helm install`."""

from inflight_demo.cluster import CLUSTER, SYSTEM, quietly


def helm_test() -> str:
    return quietly(CLUSTER, "exec", "--", "helm", "test", "inflight", "-n", SYSTEM, "--timeout", "3m")


async def test_helm_test_says_that_the_installation_works_and_leaves_nothing(stage):
    assert "Phase:          Succeeded" in helm_test()
    assert await stage.kube.get("Pod", SYSTEM, "inflight-selftest") is None
