"""The chart and install.yaml on a real API server: installed, upgraded, uninstalled. No pod runs here."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from inflight_cluster import apiserver, tools
from inflight_demo.manifests import INSTALL, NAMESPACE, install, render

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "inflight"
APISERVICE = "apiservice/v1beta2.custom.metrics.k8s.io"


@dataclass(frozen=True)
class Cluster:
    """An API server as an administrator with kubectl and helm sees it."""

    kubeconfig: Path
    kubectl_program: str
    helm_program: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._run(self.kubectl_program, arguments, stdin).stdout

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def helm(self, *arguments: str) -> str:
        return self._run(self.helm_program, arguments).stdout

    def helm_fails(self, *arguments: str) -> str:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self.helm(*arguments)
        return str(caught.value.stderr)

    def install(self, *options: str) -> str:
        return self.helm("upgrade", "--install", "inflight", str(CHART), "-n", NAMESPACE, *options)

    def clean(self) -> None:
        """As it was before anything was installed."""
        self._run(self.helm_program, ("uninstall", "inflight", "-n", NAMESPACE, "--ignore-not-found"))
        labelled = ("-l", "app.kubernetes.io/part-of=inflight", "--ignore-not-found")
        self.kubectl("delete", "apiservice,clusterrole,clusterrolebinding,crd", *labelled)
        self.kubectl("delete", "secret", "inflight-tls", "-n", NAMESPACE, "--ignore-not-found")
        for kinds, namespace in (
            ("deployment,service,configmap,pdb,serviceaccount,rolebinding", NAMESPACE),
            ("rolebinding", "kube-system"),
        ):
            self.kubectl("delete", kinds, "-n", namespace, *labelled)

    def _run(
        self, program: str, arguments: tuple[str, ...], stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [program, "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    memory = Path("/dev/shm")  # noqa: S108 - for etcd's speed
    directory = Path(tempfile.mkdtemp(prefix="inflight-chart-", dir=memory if memory.is_dir() else None))
    found = tools.ensure(["kubectl", "helm"])
    try:
        with apiserver.running(directory, controllers=True) as api:
            cluster = Cluster(api.kubeconfig, str(found["kubectl"]), str(found["helm"]))
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            namespace = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": labels},
            }
            cluster.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """With nothing installed."""
    yield shared
    shared.clean()


def test_one_command_installs_everything_and_says_what_to_do_next(cluster: Cluster) -> None:
    notes = cluster.install()
    assert "kubectl explain modeldeployment.spec" in notes
    assert cluster.get("crd/modeldeployments.serving.inflight.dev")["spec"]["group"] == "serving.inflight.dev"
    for name in ("inflight-operator", "inflight-router"):
        assert cluster.get("deployment", name, "-n", NAMESPACE)["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="defaults"),
        pytest.param(("--set", f"watchNamespaces={{{NAMESPACE}}}"), id="one-namespace"),
        pytest.param(("--set", "metricsApi.mode=none"), id="no-metrics-api"),
    ],
)
def test_the_api_server_knows_every_field_that_is_rendered(cluster: Cluster, options: tuple[str, ...]) -> None:
    """Its own word on its own schemas, of this very version: a field that it would drop is an error."""
    strictly = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    rendered = render(*options)
    said = cluster.kubectl(*strictly, stdin=rendered)
    assert len(said.splitlines()) == len([item for item in yaml.safe_load_all(rendered) if item])
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl(*strictly, stdin=rendered.replace("enableServiceLinks", "enableServiceLink"))
    assert 'unknown field "spec.template.spec.enableServiceLink"' in refused.value.stderr


def test_an_upgrade_that_changes_nothing_restarts_nothing(cluster: Cluster) -> None:
    def state() -> tuple[Any, ...]:
        deployments = cluster.get("deployment", "-n", NAMESPACE)["items"]
        return (
            {item["metadata"]["name"]: item["spec"]["template"] for item in deployments},
            [item["metadata"]["generation"] for item in deployments],
        )

    cluster.install()
    before = state()
    cluster.install()
    assert state() == before


def test_uninstalling_keeps_what_people_deployed_and_installing_again_takes_it_over(cluster: Cluster) -> None:
    cluster.install()
    cluster.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.serving.inflight.dev")
    digits = (ROOT / "manifests" / "examples" / "digits.yaml").read_text()
    cluster.kubectl("apply", "-n", "default", "-f", "-", stdin=digits.replace("namespace: demo", "namespace: default"))
    cluster.helm("uninstall", "inflight", "-n", NAMESPACE)
    kept = cluster.get("modeldeployment", "digits", "-n", "default")
    cluster.install()
    assert cluster.get("modeldeployment", "digits", "-n", "default") == kept


def test_a_second_release_is_refused_and_the_owner_named(cluster: Cluster) -> None:
    cluster.install()
    told = cluster.helm_fails("install", "again", str(CHART), "-n", "default")
    assert 'current value is "inflight"' in told


def test_policies_and_dashboard_are_objects_that_the_api_server_takes(cluster: Cluster) -> None:
    cluster.install("--set", "networkPolicy.enabled=true,dashboard.enabled=true")
    made = {item["metadata"]["name"] for item in cluster.get("networkpolicy", "-n", NAMESPACE)["items"]}
    assert made == {"inflight-operator", "inflight-router"}
    assert "inflight.json" in cluster.get("configmap", "inflight-dashboard", "-n", NAMESPACE)["data"]
    cluster.kubectl("create", "--dry-run=server", "-f", str(ROOT / "manifests" / "model-servers-policy.yaml"))


def test_monitors_without_their_definitions_are_refused_before_anything_is_made(cluster: Cluster) -> None:
    told = cluster.helm_fails(
        "install", "inflight", str(CHART), "-n", NAMESPACE, "--set", "serviceMonitor.enabled=true"
    )
    assert 'no matches for kind "PodMonitor"' in told
    assert cluster.get("deployment", "-n", NAMESPACE)["items"] == []


def test_the_api_server_lets_the_pods_into_a_restricted_namespace(cluster: Cluster) -> None:
    cluster.install()
    for item in cluster.get("deployment", "-n", NAMESPACE)["items"]:
        template = item["spec"]["template"]
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": NAMESPACE},
            "spec": {**template["spec"], "serviceAccountName": "default"},
        }
        cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        pod["spec"]["securityContext"] = {}
        with pytest.raises(subprocess.CalledProcessError) as refused:
            cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        assert "violates PodSecurity" in refused.value.stderr


def may(cluster: Cluster, verb: str, resource: str, *options: str, user: str) -> bool:
    kind, _, subresource = resource.partition("/")
    command = [cluster.kubectl_program, "--kubeconfig", str(cluster.kubeconfig), "auth", "can-i", verb, kind]
    asked = [*command, f"--subresource={subresource}", *options, "--as", user]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "yes"


def test_the_operator_may_do_its_work_and_not_more(cluster: Cluster) -> None:
    cluster.install()
    operator = f"system:serviceaccount:{NAMESPACE}:inflight-operator"
    for verb, resource in (
        ("list", "modeldeployments.serving.inflight.dev"),
        ("patch", "modeldeployments.serving.inflight.dev/status"),
        ("patch", "deployments.apps/scale"),
        ("create", "subjectaccessreviews.authorization.k8s.io"),
    ):
        assert may(cluster, verb, resource, "-A", user=operator), f"{verb} {resource}"
    for verb, resource in (
        ("*", "*"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "serviceaccounts/token"),
        ("patch", "modeldeployments.serving.inflight.dev"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
        ("impersonate", "users"),
    ):
        assert not may(cluster, verb, resource, "-A", user=operator), f"{verb} {resource}"


def test_who_edits_a_namespace_edits_its_modeldeployments_but_never_their_status(cluster: Cluster) -> None:
    cluster.install()
    cluster.kubectl("create", "rolebinding", "ada", "--clusterrole=admin", "--user=ada", "-n", "default")
    try:
        kind = "modeldeployments.serving.inflight.dev"
        deadline = time.monotonic() + 30  # the controller manager fills the aggregated roles
        while not may(cluster, "create", kind, "-n", "default", user="ada"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert not may(cluster, "create", kind, "-n", NAMESPACE, user="ada")
        assert not may(cluster, "patch", f"{kind}/status", "-n", "default", user="ada")
    finally:
        cluster.kubectl("delete", "rolebinding", "ada", "-n", "default")


def test_install_yaml_is_what_the_chart_gives_now() -> None:
    assert INSTALL.read_text() == install(), "run `make manifests`"


def test_install_yaml_installs_without_helm(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(INSTALL))
    cluster.kubectl("apply", "--server-side", "-f", str(INSTALL))
    for item in cluster.get("deployment", "-n", NAMESPACE)["items"]:
        assert item["metadata"]["generation"] == 1
