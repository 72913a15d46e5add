"""What the chart renders: names, rights, security and settings, without a cluster."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from inflight_cluster import tools
from inflight_cluster.errors import ClusterError
from inflight_demo.manifests import NAMESPACE, render
from inflight_operator import settings
from inflight_operator.installation import aggregation, endpoint, lease, owner
from inflight_operator.leader import HAND_OVER_SECONDS
from inflight_operator.settings import MetricsMode
from inflight_operator.xds import lastgood, listener
from inflight_operator.xds.listener import Ports
from modeldeployments import DEFINITION
from rights import spelled

CHART = Path(__file__).parents[2] / "charts" / "inflight"
GOLDEN = Path(__file__).parent / "golden" / "rbac.yaml"
DIGEST = "sha256:" + "0123456789abcdef" * 4
WRITE = {"create", "update", "patch", "delete", "deletecollection"}
ANY = {"get", "list", "watch"} | WRITE

VARIATIONS = {
    "defaults": (),
    "two-namespaces": ("--set", "watchNamespaces={demo,team-a}"),
    "its-own-namespace": ("--set", f"watchNamespaces={{{NAMESPACE}}}"),
    "no-metrics-api": ("--set", "metricsApi.mode=none"),
    "prometheus-adapter": ("--set", "metricsApi.mode=prometheus-adapter"),
    "adapter-in-one-namespace": ("--set", "metricsApi.mode=prometheus-adapter,watchNamespaces={demo}"),
    "watched": (
        "--set",
        "serviceMonitor.enabled=true,serviceMonitor.labels.release=prometheus,prometheusRule.enabled=true,"
        "prometheusRule.labels.release=prometheus,dashboard.enabled=true,networkPolicy.enabled=true",
    ),
    "no-definition": ("--set", "crds.enabled=false"),
    "own-certificates": ("--set", "certificates.generate=false"),
    "cert-manager": ("--set", "certManager.enabled=true"),
    "one-operator": ("--set", "operator.replicas=1"),
    "tls": ("--set", "router.tls.secretName=edge"),
    "tls-only-and-closed": ("--set", "router.tls.secretName=edge,router.tls.only=true,router.access.default=closed"),
    "registry": (
        "--set",
        f"image.registry=registry.example:5000/team/,images.router.digest={DIGEST},imagePullSecrets[0].name=a,"
        "imagePullSecrets[1].name=b,operator.priorityClassName=high,router.nodeSelector.pool=edge,"
        "router.tolerations[0].operator=Exists,router.service.type=LoadBalancer,router.service.annotations.a=b",
    ),
}
every_variation = pytest.mark.parametrize("options", [pytest.param(v, id=k) for k, v in VARIATIONS.items()])

Object = dict[str, Any]


@functools.cache
def objects_of(options: tuple[str, ...] = ()) -> dict[tuple[str, str], Object]:
    """Everything rendered, by kind and namespace/name."""
    found = {}
    for item in yaml.load_all(render(*options), yaml.CSafeLoader):
        if item:
            metadata = item["metadata"]
            found[item["kind"], f"{metadata.get('namespace', '')}/{metadata['name']}".lstrip("/")] = item
    return found


def pods(rendered: dict[tuple[str, str], Object]) -> dict[str, Object]:
    """Those that stay; `helm test`'s pod comes and goes."""
    return {key[1]: item["spec"]["template"]["spec"] for key, item in rendered.items() if key[0] == "Deployment"}


def all_pods(rendered: dict[tuple[str, str], Object]) -> dict[str, Object]:
    return pods(rendered) | {key[1]: item["spec"] for key, item in rendered.items() if key[0] == "Pod"}


@every_variation
def test_helm_finds_nothing_to_complain_about(options: tuple[str, ...]) -> None:
    helm = str(tools.ensure(["helm"])["helm"])
    done = subprocess.run([helm, "lint", "--strict", str(CHART), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        pytest.param("router.replcias=3", "'replcias' not allowed", id="typing-error"),
        pytest.param("metricsApi.mode=keda", "'builtin', 'prometheus-adapter', 'none'", id="mode"),
        pytest.param("serviceMonitor.interval=often", "does not match pattern", id="interval"),
        pytest.param("networkPolicy.apiServerPorts={https}", "got string, want integer", id="port-by-name"),
        pytest.param("router.replicas=0", "minimum", id="no-router"),
        pytest.param("router.drainSeconds=1", "minimum", id="drain-too-short"),
        pytest.param("router.tls.only=true", "minLength", id="tls-without-a-certificate"),
        pytest.param("router.access.default=shut", "'open', 'closed'", id="access"),
        pytest.param("images.router.digest=sha256:123", "does not match pattern", id="digest"),
        pytest.param("watchNamespaces={Demo}", "does not match pattern", id="namespace"),
        pytest.param("imagePullSecrets={a}", "got string, want object", id="pull-secret-without-name"),
        pytest.param("certificates.lifetime=90d", "does not match pattern", id="lifetime-in-days"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(option: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        render("--set", option)


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema) - {"global"} == set(values)
    for name, value in values.items():
        assert set(schema[name].get("properties", {})) == (set(value) if isinstance(value, dict) else set()), name


@every_variation
def test_pods_pass_the_restricted_standard(options: tuple[str, ...]) -> None:
    for name, pod in all_pods(objects_of(options)).items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        volumes = {next(iter(set(volume) - {"name"})) for volume in pod.get("volumes", ())}
        assert volumes <= {"configMap", "secret", "emptyDir"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


@every_variation
def test_containers_have_bounds_and_probes(options: tuple[str, ...]) -> None:
    for name, pod in pods(objects_of(options)).items():
        for container in pod["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), name
            assert "memory" in resources["limits"], name
            assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_only_the_operator_may_talk_to_the_api_server() -> None:
    found = pods(objects_of())
    assert all_pods(objects_of())[f"{NAMESPACE}/inflight-selftest"]["automountServiceAccountToken"] is False
    assert found[f"{NAMESPACE}/inflight-router"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in found[f"{NAMESPACE}/inflight-router"]
    assert found[f"{NAMESPACE}/inflight-operator"]["serviceAccountName"] == "inflight-operator"


NEVER = {
    "pods": WRITE,
    "pods/exec": ANY,
    "pods/attach": ANY,
    "pods/portforward": ANY,
    "pods/ephemeralcontainers": ANY,
    "pods/log": ANY,
    "nodes": ANY,
    "nodes/proxy": ANY,
    "services/proxy": ANY,
    "pods/proxy": ANY,
    "serviceaccounts": ANY,
    "serviceaccounts/token": ANY,
    "tokenreviews": ANY,
    "certificatesigningrequests": ANY,
    "roles": WRITE,
    "rolebindings": WRITE,
    "clusterroles": WRITE,
    "clusterrolebindings": WRITE,
    "mutatingwebhookconfigurations": ANY,
    "validatingwebhookconfigurations": ANY,
    "namespaces": WRITE,
    "customresourcedefinitions": WRITE,
}
"""Rights by which one could take over a cluster or read what is a tenant's: nothing here has one of them."""


@every_variation
def test_no_role_gives_a_way_to_more_rights(options: tuple[str, ...]) -> None:
    for name, rule in rules(options):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], name
        assert "nonResourceURLs" not in rule, name
        assert not {"escalate", "bind", "impersonate", "approve", "sign"} & set(rule["verbs"]), name
        for resource in rule["resources"]:
            assert not NEVER.get(resource, set()) & set(rule["verbs"]) - allowed(resource, name, options), (
                f"{name}: {resource}"
            )


def allowed(resource: str, role: str, options: tuple[str, ...]) -> set[str]:
    """Pods may be patched in named namespaces, where the operator can make any pod, and in all namespaces only where an
    admission policy leaves one annotation of it (tests/component/operator/test_rights.py)."""
    limited = ("ValidatingAdmissionPolicyBinding", "inflight-operator-marks-pods") in objects_of(options)
    return {"patch"} if resource == "pods" and (limited or role.startswith("Role ")) else set()


@every_variation
def test_no_secret_is_read_but_the_two_that_the_operator_makes(options: tuple[str, ...]) -> None:
    """Creating names nothing, and reads nothing: RBAC can't bind it to a name."""
    read = {
        name: rule for name, rule in rules(options) if "secrets" in rule["resources"] and rule["verbs"] != ["create"]
    }
    makes = options not in (VARIATIONS["own-certificates"], VARIATIONS["cert-manager"])
    assert list(read) == ([f"Role {NAMESPACE}/inflight-operator-own"] if makes else [])
    for rule in read.values():
        assert (rule["resourceNames"], rule["verbs"]) == (["inflight-ca", "inflight-tls"], ["get", "update"])


def rules(options: tuple[str, ...]) -> Iterator[tuple[str, Object]]:
    """Every rule, with the role that it is in."""
    for (kind, name), item in objects_of(options).items():
        if kind in ("Role", "ClusterRole"):
            yield from ((f"{kind} {name}", rule) for rule in item["rules"])


def rights(options: tuple[str, ...]) -> dict[str, Any]:
    """Roles and who has them, as the golden file tells it."""
    told: dict[str, Any] = {}
    for (kind, name), item in sorted(objects_of(options).items()):
        if kind in ("Role", "ClusterRole"):
            told[f"{kind} {name}"] = list(spelled(item["rules"]))
        elif kind in ("RoleBinding", "ClusterRoleBinding"):
            subjects = [f"{s['kind']} {s['namespace']}/{s['name']}" for s in item["subjects"]]
            told[f"{kind} {name}"] = f"{item['roleRef']['kind']} {item['roleRef']['name']} for {', '.join(subjects)}"
    return told


REVIEWED = [
    "defaults",
    "no-metrics-api",
    "prometheus-adapter",
    "two-namespaces",
    "its-own-namespace",
    "own-certificates",
]


@pytest.mark.parametrize("variation", REVIEWED)
def test_rights_are_those_that_were_reviewed(variation: str) -> None:
    """The golden file is read by people: change it only together with the reason."""
    assert rights(VARIATIONS[variation]) == yaml.safe_load(GOLDEN.read_text())[variation]


@pytest.mark.parametrize("variation", ["two-namespaces", "its-own-namespace"])
def test_with_named_namespaces_nothing_reaches_the_whole_cluster(variation: str) -> None:
    rendered = objects_of(VARIATIONS[variation])
    assert not {"ClusterRole", "ClusterRoleBinding", "APIService"} & {kind for kind, _ in rendered}
    assert "kube-system" not in {item["metadata"].get("namespace") for item in rendered.values()}


@every_variation
def test_the_operator_understands_the_settings_that_it_is_given(options: tuple[str, ...]) -> None:
    container = pods(objects_of(options))[f"{NAMESPACE}/inflight-operator"]["containers"][0]
    environment = {item["name"]: item.get("value", NAMESPACE) for item in container["env"]}
    read = settings.read(environment)
    namespaces = {
        "two-namespaces": ("demo", "team-a"),
        "its-own-namespace": (NAMESPACE,),
        "adapter-in-one-namespace": ("demo",),
    }
    modes = {
        "two-namespaces": MetricsMode.NONE,
        "its-own-namespace": MetricsMode.NONE,
        "no-metrics-api": MetricsMode.NONE,
        "prometheus-adapter": MetricsMode.PROMETHEUS_ADAPTER,
        "adapter-in-one-namespace": MetricsMode.PROMETHEUS_ADAPTER,
    }
    variation = next(name for name, value in VARIATIONS.items() if value == options)
    assert read.namespace == NAMESPACE
    assert read.watch_namespaces == namespaces.get(variation, ())
    assert read.metrics_api is modes.get(variation, MetricsMode.BUILTIN)
    assert read.certificate_seconds == (None if variation in ("own-certificates", "cert-manager") else 90 * 24 * 3600)
    assert read.router_tls is variation.startswith("tls")
    assert read.access_closed is (variation == "tls-only-and-closed")
    assert read.image_pull_secrets == (("a", "b") if variation == "registry" else ())
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"xds": read.xds_port, "metrics-api": read.metrics_api_port, "metrics": read.metrics_port}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {str(read.tls_dir), "/tmp"}  # noqa: S108


def test_images_are_named_by_registry_and_pulled_with_the_secrets() -> None:
    rendered = objects_of(VARIATIONS["registry"])
    images = {name: pod["containers"][0]["image"] for name, pod in pods(rendered).items()}
    assert images == {
        f"{NAMESPACE}/inflight-operator": "registry.example:5000/team/inflight/operator:0.1.0",
        f"{NAMESPACE}/inflight-router": f"registry.example:5000/team/inflight/router@{DIGEST}",
    }
    for pod in pods(rendered).values():
        assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_every_image_can_be_pinned_by_its_digest() -> None:
    options = [f"images.{image}.digest={DIGEST}" for image in ("operator", "router", "modelServer")]
    rendered = objects_of(("--set", ",".join(options)))
    text = yaml.safe_dump_all(rendered.values())
    named = set(re.findall(r"inflight/(?:operator|router|model-server)[:@]\S+", text))
    assert named == {f"inflight/{image}@{DIGEST}" for image in ("operator", "router", "model-server")}


def test_the_routers_administration_is_on_loopback_and_no_service_leads_to_what_is_not_for_clients() -> None:
    rendered = objects_of()
    bootstrap = yaml.safe_load(rendered["ConfigMap", f"{NAMESPACE}/inflight-router"]["data"]["bootstrap.yaml"])
    assert bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    led_to = {
        name: {port["targetPort"] for port in item["spec"]["ports"]}
        for (kind, name), item in rendered.items()
        if kind == "Service"
    }
    assert led_to == {
        f"{NAMESPACE}/inflight-operator": {18000, 8443},  # both ask for a certificate
        f"{NAMESPACE}/inflight-router": {"http"},
    }


def test_the_apiservice_that_the_operator_makes_fits_the_service() -> None:
    spec = aggregation.manifest(NAMESPACE, b"")["spec"]
    service = objects_of()["Service", f"{NAMESPACE}/{spec['service']['name']}"]
    assert spec["service"]["port"] in [port["port"] for port in service["spec"]["ports"]]
    assert (lease.NAME, endpoint.NAME, owner.SERVICE) == ("inflight-operator",) * 3
    assert "APIService" not in {kind for kind, _ in objects_of()}


def test_operator_script_and_bootstrap_agree_where_the_last_known_good_configuration_is_unpacked() -> None:
    for name in ("start.sh", "bootstrap.yaml"):
        assert lastgood.DIRECTORY in (CHART / "files" / name).read_text()


@every_variation
def test_nothing_is_rendered_that_differs_from_time_to_time(options: tuple[str, ...]) -> None:
    """Nor anything secret: Argo CD and `helm diff` render again and again."""
    assert render(*options) == render(*options)
    assert "Secret" not in {kind for kind, _ in objects_of(options)}
    assert "lookup" not in "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))


def test_cert_manager_makes_what_operator_and_routers_mount() -> None:
    rendered = objects_of(VARIATIONS["cert-manager"])
    made = rendered["Certificate", f"{NAMESPACE}/inflight-tls"]["spec"]
    for name in ("inflight-operator", "inflight-router"):
        volumes = {v["name"]: v for v in pods(rendered)[f"{NAMESPACE}/{name}"]["volumes"]}
        assert volumes["tls"]["secret"]["secretName"] == made["secretName"]
    assert f"inflight-operator.{NAMESPACE}.svc" in made["dnsNames"]
    assert {"server auth", "client auth"} <= set(made["usages"])
    signer = rendered["Issuer", f"{NAMESPACE}/{made['issuerRef']['name']}"]["spec"]["ca"]["secretName"]
    assert signer == rendered["Certificate", f"{NAMESPACE}/inflight-ca"]["spec"]["secretName"]


def test_the_definition_is_the_file_that_was_tested() -> None:
    rendered = objects_of()["CustomResourceDefinition", "modeldeployments.serving.inflight.dev"]
    assert rendered["spec"] == yaml.safe_load(DEFINITION.read_text())["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    gone = objects_of(("--set", "crds.keep=false"))
    assert "annotations" not in gone["CustomResourceDefinition", "modeldeployments.serving.inflight.dev"]["metadata"]
    assert "CustomResourceDefinition" not in {kind for kind, _ in objects_of(VARIATIONS["no-definition"])}


def test_a_router_has_time_to_drain_before_it_is_killed() -> None:
    pod = pods(objects_of(("--set", "router.drainSeconds=120")))[f"{NAMESPACE}/inflight-router"]
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["/bin/bash", "/etc/inflight/drain.sh", "120"]
    assert pod["terminationGracePeriodSeconds"] > 120


@pytest.mark.parametrize(
    ("variation", "opened"),
    [
        pytest.param("defaults", {"http": (80, 8080)}, id="plain"),
        pytest.param("tls", {"http": (80, 8080), "https": (443, 8443)}, id="both"),
        pytest.param("tls-only-and-closed", {"https": (443, 8443)}, id="tls-only"),
    ],
)
def test_the_routers_open_what_their_values_say(variation: str, opened: dict[str, tuple[int, int]]) -> None:
    rendered = objects_of(VARIATIONS[variation])
    pod = pods(rendered)[f"{NAMESPACE}/inflight-router"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"] if port["name"] != "status"}
    service = rendered["Service", f"{NAMESPACE}/inflight-router"]["spec"]["ports"]
    assert {port["name"]: (port["port"], ports[port["targetPort"]]) for port in service} == opened
    assert set(ports) == set(opened)
    files = rendered["ConfigMap", f"{NAMESPACE}/inflight-router"]["data"]
    said = ParseDict(yaml.safe_load(files["bootstrap.yaml"])["node"]["metadata"], Struct())
    listening = {listener.MAIN: Ports().plain, listener.TLS: Ports().tls}
    assert {listening[name] for name in listener.used_by(said)} == {port for _, port in opened.values()}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    (secret,) = yaml.safe_load(files[Path(Ports().certificate).name])["resources"]
    assert (secret["tls_certificate"]["watched_directory"]["path"] in mounts) is ("https" in opened)


def test_a_router_learns_its_zone_from_its_own_label() -> None:
    (container,) = pods(objects_of())[f"{NAMESPACE}/inflight-router"]["containers"]
    sources = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"]}
    arguments = dict(pairwise(container["args"]))
    assert sources[arguments["--service-zone"].strip("$()")] == "metadata.labels['topology.kubernetes.io/zone']"


def test_routers_are_replaced_one_by_one_and_never_all_gone() -> None:
    rendered = objects_of()
    deployment = rendered["Deployment", f"{NAMESPACE}/inflight-router"]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = rendered["PodDisruptionBudget", f"{NAMESPACE}/inflight-router"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_operators_are_replaced_one_by_one_and_only_the_one_that_leads_is_found() -> None:
    rendered = objects_of()
    spec = rendered["Deployment", f"{NAMESPACE}/inflight-operator"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "selector" not in rendered["Service", f"{NAMESPACE}/inflight-operator"]["spec"]
    assert ("PodDisruptionBudget", f"{NAMESPACE}/inflight-operator") in rendered
    alone = objects_of(VARIATIONS["one-operator"])
    assert ("PodDisruptionBudget", f"{NAMESPACE}/inflight-operator") not in alone, "it would keep nodes from draining"


def test_a_leader_has_time_to_hand_over_before_it_is_killed() -> None:
    pod = pods(objects_of())[f"{NAMESPACE}/inflight-operator"]
    assert pod["terminationGracePeriodSeconds"] > HAND_OVER_SECONDS + 10
