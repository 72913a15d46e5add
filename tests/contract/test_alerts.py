"""The alerts: what fires, what does not, decided by Prometheus' own evaluation over made-up series."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts" / "inflight" / "files" / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]

ROUTER = 'up{job="inflight-router",namespace="inflight-system",pod="router-0"}'
LEADING = 'inflight_operator_leading{job="inflight-operator",namespace="inflight-system",pod="operator-0"}'
CONNECTED = 'envoy_control_plane_connected_state{job="inflight-router",namespace="inflight-system",pod="router-0"}'
SIDECAR = 'envoy_control_plane_connected_state{job="mesh",namespace="inflight-system",pod="other-0"}'
OWN, EDGE, AUTHORITY = (
    f'envoy_{where}_ssl_certificate_expiration_unix_time_seconds{{job="inflight-router",namespace="inflight-system",'
    f'pod="router-0",envoy_tls_certificate="{name}"}}'
    for where, name in (("cluster", "router"), ("listener", "edge"), ("cluster", "operator"))
)
DAY = 24 * 3600
REQUESTS = 'inflight_server_request_seconds_count{namespace="demo",modeldeployment="digits",pod="a",code="200"}'
SHED = 'inflight_server_shed_total{namespace="demo",modeldeployment="digits",pod="a",reason="queue_full"}'


def condition(kind: str, status: str, reason: str = "Starting", name: str = "digits") -> str:
    labels = f'namespace="demo",name="{name}",type="{kind}",status="{status}",reason="{reason}"'
    return f"inflight_operator_condition{{{labels}}}"


def fires(alert: str, severity: str = "warning", **labels: str) -> list[str]:
    """The one alert that fires."""
    known = {"alertname": alert, "alertstate": "firing", "severity": severity, **labels}
    return ["ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in known.items()) + "}"]


SYSTEM = {"namespace": "inflight-system"}
POD = {"pod": "router-0", **SYSTEM}
DIGITS = {"namespace": "demo", "name": "digits"}
NOTHING: list[str] = []
NOT_LEADING = fires("InflightOperatorNotLeading", "critical", **SYSTEM)
NOT_READY = fires("InflightModelDeploymentNotReady", **DIGITS)
WITHOUT = fires("InflightRouterWithoutControlPlane", **POD)
SHEDS = fires("InflightRequestsShed", namespace="demo", modeldeployment="digits")
HELD = fires("InflightScalingHeld", **DIGITS)
EXPIRES, EDGE_EXPIRES = (
    fires("InflightCertificateExpiring", "critical", envoy_tls_certificate=name, **SYSTEM)
    for name in ("router", "edge")
)

HOUR = "x120"
"""Of samples, 30 s apart."""


ROUTERS = {ROUTER: "1" + HOUR, LEADING: "1" + HOUR}
WELL = ROUTERS | {CONNECTED: "1" + HOUR}


# By alert: the series (a value every 30 s; `_` is no sample, `stale` an end), when it is looked, what fires then.
@pytest.mark.parametrize(
    ("series", "minute", "expected"),
    [
        pytest.param({ROUTER: "1" + HOUR}, 3, NOT_LEADING, id="operator: none is there"),
        pytest.param({ROUTER: "1" + HOUR}, 1, NOTHING, id="operator: none since a minute"),
        pytest.param(ROUTERS | {LEADING: "0" + HOUR}, 3, NOT_LEADING, id="operator: all stand by"),
        pytest.param(WELL, 30, NOTHING, id="operator: one leads"),
        pytest.param(WELL | {LEADING: "1x20 stale _x2 1x99"}, 12, NOTHING, id="operator: another one took over"),
        pytest.param(WELL | {LEADING: "1x20 stale"}, 14, NOT_LEADING, id="operator: it went"),
        pytest.param(
            {ROUTER: "1" + HOUR, LEADING.replace("system", "trial"): "1" + HOUR},
            3,
            NOT_LEADING,
            id="operator: another installation's leads nobody here",
        ),
        pytest.param({LEADING: "1x20 stale"}, 30, NOTHING, id="operator: uninstalled with its routers"),
        pytest.param(ROUTERS | {CONNECTED: "0" + HOUR}, 6, WITHOUT, id="router: alone for six minutes"),
        pytest.param(ROUTERS | {CONNECTED: "0" + HOUR}, 4, NOTHING, id="router: alone for four minutes"),
        pytest.param(ROUTERS | {CONNECTED: "1" + HOUR}, 30, NOTHING, id="router: connected"),
        pytest.param({ROUTER: "0" + HOUR, LEADING: "1" + HOUR}, 6, WITHOUT, id="router: never found it"),
        pytest.param(ROUTERS, 6, WITHOUT, id="router: serves the last known good configuration"),
        pytest.param({SIDECAR: "0" + HOUR}, 30, NOTHING, id="router: somebody else's Envoy"),
        pytest.param({condition("Ready", "False"): "1" + HOUR}, 16, NOT_READY, id="ready: not for 16 minutes"),
        pytest.param({condition("Ready", "False"): "1" + HOUR}, 14, NOTHING, id="ready: not for 14 minutes"),
        pytest.param(
            {
                condition("Ready", "False", "Starting"): "1x20 stale",
                condition("Ready", "False", "Failed"): "_x20 1x120",
            },
            16,
            NOT_READY,
            id="ready: the reason changed meanwhile",
        ),
        pytest.param(
            {condition("Ready", "False"): "1x20 stale", condition("Ready", "True", "Complete"): "_x20 1x120"},
            30,
            NOTHING,
            id="ready: became so",
        ),
        pytest.param({condition("Progressing", "False"): "1" + HOUR}, 30, NOTHING, id="ready: rests"),
        pytest.param({condition("Ready", "False"): "1x20 stale"}, 30, NOTHING, id="ready: deleted"),
        pytest.param({REQUESTS: "0+300" + HOUR, SHED: "0+30" + HOUR}, 20, SHEDS, id="shed: 10 %"),
        pytest.param({REQUESTS: "0+300" + HOUR, SHED: "0+12" + HOUR}, 20, NOTHING, id="shed: 4 %"),
        pytest.param({REQUESTS: "0+300" + HOUR, SHED: "0x10 0+150x8 1200x99"}, 20, NOTHING, id="shed: a burst"),
        pytest.param({REQUESTS: "9" + HOUR, SHED: "9" + HOUR}, 20, NOTHING, id="shed: nobody asks"),
        pytest.param({condition("ScalingActive", "False"): "1" + HOUR}, 11, HELD, id="scaling: an HPA can't"),
        pytest.param({condition("ScalingActive", "Unknown"): "1" + HOUR}, 11, HELD, id="scaling: no load data"),
        pytest.param({condition("ScalingActive", "Unknown"): "1" + HOUR}, 9, NOTHING, id="scaling: not looked yet"),
        pytest.param({condition("ScalingActive", "True"): "1" + HOUR}, 30, NOTHING, id="scaling: active"),
        pytest.param({OWN: f"{6 * DAY}{HOUR}"}, 11, EXPIRES, id="certificate: 6 days"),
        pytest.param({OWN: f"{8 * DAY}{HOUR}"}, 30, NOTHING, id="certificate: 8 days"),
        pytest.param({OWN: f"{6 * DAY}{HOUR}"}, 9, NOTHING, id="certificate: may be renewed any minute"),
        pytest.param(
            {OWN: f"{60 * DAY}{HOUR}", EDGE: f"{DAY}{HOUR}"}, 11, EDGE_EXPIRES, id="certificate: the clients'"
        ),
        pytest.param(
            {OWN: f"{60 * DAY}{HOUR}", AUTHORITY: f"{DAY}{HOUR}"}, 30, NOTHING, id="certificate: an old authority"
        ),
    ],
)
def test_what_fires(series: dict[str, str], minute: int, expected: list[str], tmp_path: Path) -> None:
    case = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'ALERTS{alertstate="firing"}',
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": labels, "value": 1} for labels in expected],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "case.yaml"
    file.write_text(yaml.safe_dump(case))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_nothing_to_complain_about() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_each_alert_says_what_it_means_and_has_a_place_in_the_runbook(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    file, _, anchor = notes["runbook_url"].rpartition("/main/")[2].partition("#")
    assert anchor == rule["alert"].lower()
    assert re.search(rf"^## {rule['alert']}$", (ROOT / file).read_text(), re.MULTILINE)
