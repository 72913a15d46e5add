"""What the chart gives to those who watch: monitors that find the pods, the same alerts and labels in every way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inflight_demo.manifests import NAMESPACE, render
from inflight_operator.api import names
from inflight_operator.api.spec import parse
from inflight_operator.api.world import Revision
from inflight_operator.desired.pod import Installation, template
from inflight_operator.desired.revision import autoscaler
from inflight_operator.settings import MetricsMode

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
FILES = ROOT / "charts" / "inflight" / "files"
KINDS = {"PodMonitor", "PrometheusRule"}
Object = dict[str, Any]


def rendered(*values: str) -> dict[tuple[str, str], Object]:
    options = [part for value in values for part in ("--set", value)]
    found = [item for item in yaml.safe_load_all(render(*options)) if item]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


MONITORED = rendered("serviceMonitor.enabled=true", "serviceMonitor.labels.release=mine")
MONITORS = {name.removeprefix("inflight-"): item for (kind, name), item in MONITORED.items() if kind == "PodMonitor"}
JOBS: dict[str, Object] = {
    job["job_name"].removeprefix("inflight-"): job
    for job in yaml.safe_load((MANIFESTS / "prometheus-scrape.yaml").read_text())["scrape_configs"]
}
MODEL_SERVER = template(
    "digits",
    parse("digits", {"variants": [{"name": "a", "model": {"uri": "s3://b/k"}}]}).variants[0],
    Installation("i"),
)


def pod_of(part: str) -> Object:
    """The pod template that a monitor is for."""
    if part == "model-server":
        return MODEL_SERVER
    found: Object = MONITORED["Deployment", f"inflight-{part}"]["spec"]["template"]
    return found


def test_nothing_needs_the_prometheus_operator_unless_asked_for() -> None:
    plain = rendered()
    assert not KINDS & {kind for kind, _ in plain}
    assert ("ConfigMap", "inflight-dashboard") not in plain


@pytest.mark.parametrize("part", ["operator", "router", "model-server"])
def test_a_monitor_finds_its_pods(part: str) -> None:
    monitor, pod = MONITORS[part], pod_of(part)
    assert monitor["metadata"]["labels"]["release"] == "mine"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for c in pod["spec"]["containers"] for port in c["ports"]]


@pytest.mark.parametrize("part", ["operator", "router", "model-server"])
def test_without_the_prometheus_operator_the_same_pods_get_the_same_labels(part: str) -> None:
    monitor, job = MONITORS[part]["spec"], JOBS[part]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["path"] == job.get("metrics_path", "/metrics")
    assert endpoint.get("honorLabels", False) == job.get("honor_labels", False)
    assert monitor.get("sampleLimit") == job.get("sample_limit")
    # The Prometheus operator sets namespace and pod by itself, and the job is the configuration's own name.
    (name, *set_by_us) = endpoint["relabelings"]
    assert (name["targetLabel"], name["replacement"]) == ("job", job["job_name"])
    keep, *others = job["relabel_configs"]
    assert [r["target_label"] for r in others[:2]] == ["namespace", "pod"]
    assert [(r["sourceLabels"], r["targetLabel"]) for r in set_by_us] == [
        (r["source_labels"], r["target_label"]) for r in others[2:]
    ]
    labels = pod_of(part)["metadata"]["labels"]
    meta = {f"__meta_kubernetes_pod_label_{k.translate(str.maketrans('./-', '___'))}": v for k, v in labels.items()}
    meta["__meta_kubernetes_pod_container_port_name"] = endpoint["port"]
    assert ";".join(meta[name] for name in keep["source_labels"]) == keep["regex"]
    assert {name for relabel in others[2:] for name in relabel["source_labels"]} <= set(meta)


def test_with_named_namespaces_model_servers_are_looked_for_there_only() -> None:
    named = rendered("serviceMonitor.enabled=true", "watchNamespaces={demo,shop}")
    assert named["PodMonitor", "inflight-model-server"]["spec"]["namespaceSelector"] == {"matchNames": ["demo", "shop"]}
    assert MONITORS["model-server"]["spec"]["namespaceSelector"] == {"any": True}


def test_the_alerts_are_the_same_in_every_way_in() -> None:
    rule = rendered("prometheusRule.enabled=true", "prometheusRule.labels.release=mine")["PrometheusRule", "inflight"]
    alerts = yaml.safe_load((FILES / "alerts.yaml").read_text())
    assert rule["spec"] == alerts
    assert rule["metadata"]["labels"]["release"] == "mine"
    assert yaml.safe_load((MANIFESTS / "prometheus-alerts.yaml").read_text()) == alerts


def test_the_dashboard_comes_as_it_is() -> None:
    config = rendered("dashboard.enabled=true")["ConfigMap", "inflight-dashboard"]
    assert json.loads(config["data"]["inflight.json"]) == json.loads((FILES / "dashboard.json").read_text())
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["namespace"] == NAMESPACE


def test_panels_have_a_place_of_their_own() -> None:
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert x + w <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_adapters_rule_makes_the_metric_that_hpas_ask_for() -> None:
    (rule,) = yaml.safe_load((MANIFESTS / "prometheus-adapter-values.yaml").read_text())["rules"]["custom"]
    spec = parse("digits", {"variants": [{"name": "a", "model": {"uri": "s3://b/k"}}]})
    resource = {"metadata": {"name": "digits", "namespace": "demo", "uid": "1"}}
    revision = Revision("digits-a-1", "a", "1", None, {}, frozenset(), "")
    hpa = autoscaler(resource, revision, spec.autoscaling, 2, MetricsMode.PROMETHEUS_ADAPTER)
    (metric,) = hpa["spec"]["metrics"]
    assert metric == {
        "type": "Pods",
        "pods": {"metric": {"name": names.METRIC}, "target": {"type": "AverageValue", "averageValue": "2"}},
    }
    assert rule["name"]["as"] == names.METRIC
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
