"""A real Prometheus on loopback, and the real processes that it watches: operator, routers, a model server.

The shipped scrape configuration and alerts, with two differences: targets come from a file instead of from Kubernetes
(with the labels that Kubernetes gives them), and minutes are seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

import local_envoy
from inflight_cluster import pki
from ports import free_port

ROOT = Path(__file__).parents[2]
SCRAPE = ROOT / "manifests" / "prometheus-scrape.yaml"
ALERTS = ROOT / "charts" / "inflight" / "files" / "alerts.yaml"
SYSTEM = "inflight-system"
OPERATOR_NAME = f"inflight-operator.{SYSTEM}.svc"
NOWHERE = "192.0.2.1"
"""For documentation (RFC 5737): the API server takes no loopback address for an endpoint, and nobody asks this one."""
SCRAPE_SECONDS = 1
PATIENCE_SECONDS = 60.0

Sample = dict[str, Any]


def quickened(alerts: str) -> str:
    """The same rules, for tests: whatever has to last minutes has to last seconds."""
    return re.sub(r"\[(\d+)m\]", r"[10s]", re.sub(r"for: \d+m", "for: 5s", alerts))


class Prometheus:
    """Scrapes whatever `watch` names, and evaluates the alerts."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._targets = directory / "targets"
        self._targets.mkdir(parents=True)
        config = yaml.safe_load(SCRAPE.read_text())
        for job in config["scrape_configs"]:
            assert job.pop("kubernetes_sd_configs")
            job["file_sd_configs"] = [{"files": [f"{self._targets}/{job['job_name']}.*.json"]}]
        (directory / "alerts.yaml").write_text(quickened(ALERTS.read_text()))
        times = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
        config |= {"global": times, "rule_files": ["alerts.yaml"]}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.command = [
            "prometheus",
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def watch(self, job: str, pod: str, port: int, meta: Mapping[str, str]) -> None:
        """Scrape a pod that listens on a port of loopback; `meta` is what Kubernetes says of it."""
        labels = {"__meta_kubernetes_pod_name": pod} | {f"__meta_kubernetes_{k}": v for k, v in meta.items()}
        file = self._targets / f"{job}.{pod}.json"
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"], "labels": labels}]))
        scratch.replace(file)

    def forget(self, job: str, pod: str) -> None:
        """As if the pod had never been."""
        (self._targets / f"{job}.{pod}.json").unlink(missing_ok=True)

    def query(self, expression: str) -> list[Sample]:
        """An instant query's vector; AssertionError when Prometheus can't evaluate it."""
        answer = httpx.post(f"{self._url}/query", data={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[Sample] = answer.json()["data"]["result"]
        return found

    def firing(self) -> list[Sample]:
        """The alerts that fire now, with labels and annotations."""
        alerts = httpx.get(f"{self._url}/alerts").json()["data"]["alerts"]
        return [alert for alert in alerts if alert["state"] == "firing"]

    def fires(self, alert_name: str, /, **labels: str) -> Sample | None:
        """The alert of this name and labels, if it fires now."""
        for alert in self.firing():
            if alert["labels"]["alertname"] == alert_name and labels.items() <= alert["labels"].items():
                return alert
        return None

    def metrics(self) -> set[str]:
        """The names of all series that there have been."""
        return set(httpx.get(f"{self._url}/label/__name__/values").json()["data"])

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"


def until(fact: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """The fact once it is one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := fact():
                return found
        except httpx.TransportError:
            pass  # it does not listen yet
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


@dataclass
class World:
    """The processes of one installation. Each can be killed and started again, on the ports that it had."""

    directory: Path
    kubeconfig: Path
    prometheus: Prometheus
    stack: ExitStack
    xds_port: int = field(default_factory=free_port)
    operator_port: int = field(default_factory=free_port)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _commands: dict[str, tuple[list[str], Mapping[str, str]]] = field(default_factory=dict)

    def run(self, name: str, command: list[str], environ: Mapping[str, str] | None = None) -> None:
        """Start a process; it is gone when the world is."""
        self._commands[name] = (command, environ or {})
        self.start(name)
        self.stack.callback(self.kill, name)

    def start(self, name: str) -> None:
        """Start it again."""
        command, environ = self._commands[name]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """As a node that fails does it."""
        process = self._running[name]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def certificates(self, name: str, days: int = 90, authority: str = "ca") -> Path:
        """A directory as the Secret is mounted."""
        made, keys = self.directory / name, self.directory / "keys"
        ca = pki.Pair(keys / f"{authority}.crt", keys / f"{authority}.key")
        if not ca.key.exists():
            pki.authority(keys, authority)
        pki.issue(made, "tls", ca, user="inflight", hosts=[OPERATOR_NAME], days=days)
        shutil.copy(ca.certificate, made / "ca.crt")
        return made

    def operator(self, tls: Path) -> None:
        """The operator, which scales by itself: it needs no HPA controller."""
        environ = {
            "KUBECONFIG": str(self.kubeconfig),
            "INFLIGHT_NAMESPACE": SYSTEM,
            "INFLIGHT_POD_NAME": "operator-0",
            "INFLIGHT_POD_IP": NOWHERE,
            "INFLIGHT_MODEL_SERVER_IMAGE": "inflight/model-server:test",
            "INFLIGHT_METRICS_API_MODE": "none",
            "INFLIGHT_TLS_DIR": str(tls),
            "INFLIGHT_XDS_PORT": str(self.xds_port),
            "INFLIGHT_METRICS_PORT": str(self.operator_port),
        }
        self.run("operator-0", [sys.executable, "-m", "inflight_operator"], environ)
        self.watch_operator()

    def watch_operator(self) -> None:
        """Kubernetes knows of its pod."""
        self.prometheus.watch("inflight-operator", "operator-0", self.operator_port, component("operator", "metrics"))

    def router(self, name: str, tls: Path, namespace: str = SYSTEM) -> None:
        """A router of this operator's."""
        directory, status = self.directory / name, free_port()
        directory.mkdir()
        config = local_envoy.bootstrap(
            directory, xds_port=self.xds_port, admin_port=free_port(), status_port=status, tls=tls
        )
        (directory / "bootstrap.yaml").write_text(yaml.safe_dump(config))
        options = ("--service-node", name, "--service-cluster", "inflight-router", "--concurrency", "1")
        command = [local_envoy.ENVOY, "-c", str(directory / "bootstrap.yaml"), *options, "--disable-hot-restart"]
        self.run(name, command)
        self.prometheus.watch("inflight-router", name, status, component("router", "status", namespace))


def component(name: str, port: str, namespace: str = SYSTEM) -> dict[str, str]:
    """What Kubernetes says of a pod of the chart's."""
    return {
        "namespace": namespace,
        "pod_label_app_kubernetes_io_name": "inflight",
        "pod_label_app_kubernetes_io_component": name,
        "pod_container_port_name": port,
    }


def model_pod(modeldeployment: str, variant: str, revision: str, namespace: str) -> dict[str, str]:
    """What Kubernetes says of a model server's pod."""
    return {
        "namespace": namespace,
        "pod_label_app_kubernetes_io_part_of": "inflight",
        "pod_label_app_kubernetes_io_name": "model-server",
        "pod_label_serving_inflight_dev_modeldeployment": modeldeployment,
        "pod_label_serving_inflight_dev_variant": variant,
        "pod_label_serving_inflight_dev_revision": revision,
        "pod_container_port_name": "metrics",
    }
