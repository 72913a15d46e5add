"""An installation of its own in a test's namespace, made by somebody without rights outside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from inflight_demo import reach
from inflight_demo.cluster import CLUSTER, ROOT, quietly
from stage import Stage

OWNER = "trial-owner"
CHART = str(ROOT / "charts" / "inflight")


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    return quietly(CLUSTER, "kubectl", *arguments, stdin=stdin)


def helm(*arguments: str) -> str:
    """As the namespace's owner, who may do nothing outside it."""
    return quietly(CLUSTER, "exec", "--", "helm", "--kube-as-user", OWNER, *arguments)


@asynccontextmanager
async def trial(stage: Stage, *values: str, port: int = 80) -> AsyncIterator[Stage]:
    """The stage with an installation of its own, reached at `port`, and no other operator in the cluster."""
    namespace = stage.namespace
    kubectl("create", "rolebinding", OWNER, "-n", namespace, "--clusterrole=cluster-admin", f"--user={OWNER}")
    usual = ("crds.enabled=false", f"watchNamespaces={{{namespace}}}", "router.replicas=1")
    async with stage.without_operator():
        helm(
            "install", "trial", CHART, "--namespace", namespace, "--wait", "--timeout", "3m",
            "--set", ",".join((*usual, *values)),
        )  # fmt: skip
        try:
            assert "Phase:          Succeeded" in helm("test", "trial", "--namespace", namespace, "--timeout", "2m")
            async with reach.service(stage.kube, namespace, "inflight-router", port) as url:
                yield replace(stage, router=url)
        finally:
            helm("uninstall", "trial", "--namespace", namespace, "--wait", "--timeout", "2m")
