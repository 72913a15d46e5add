"""A real Envoy on loopback, started from the chart's own bootstrap, for component tests and benchmarks."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from inflight_demo.manifests import render
from ports import free_port

CHART_FILES = Path(__file__).parents[2] / "charts" / "inflight" / "files"
ENVOY = str(files("envoy") / "_bin" / "envoy")


def rendered_text(name: str) -> str:
    """A file of the router's ConfigMap as Helm renders it with the default values."""
    return str(_configmap()[name])


@functools.cache
def _configmap() -> dict[str, str]:
    objects = yaml.safe_load_all(render("--show-only", "templates/router.yaml"))
    found: dict[str, str] = next(item["data"] for item in objects if item["kind"] == "ConfigMap")
    return found


def rendered(name: str) -> Any:
    return yaml.safe_load(rendered_text(name))


def edge_secret(file: Path, directory: Path) -> None:
    """The chart's file that tells routers of the certificate for clients, which lies in `directory`."""
    file.write_text((CHART_FILES / "sds-edge.yaml").read_text().replace("/etc/inflight/edge", str(directory)))


def with_ports(name: str, admin_port: int, status_port: int) -> dict[str, Any]:
    """One of the chart's bootstraps with this machine's ports."""
    config: dict[str, Any] = rendered(name)
    static = config["static_resources"]
    admin = next(cluster for cluster in static["clusters"] if cluster["name"] == "admin")
    config["admin"]["address"]["socket_address"]["port_value"] = admin_port
    static["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": status_port}
    _endpoint(admin)["port_value"] = admin_port
    return config


def bootstrap(directory: Path, *, xds_port: int, admin_port: int, status_port: int, tls: Path | None) -> dict[str, Any]:
    """The chart's bootstrap with this machine's ports; without `tls` (a directory) in plain text."""
    config = with_ports("bootstrap.yaml", admin_port, status_port)
    operator = next(c for c in config["static_resources"]["clusters"] if c["name"] == "inflight-operator")
    _endpoint(operator).update(address="127.0.0.1", port_value=xds_port)
    if tls is None:
        del operator["transport_socket"]
        return config
    context = operator["transport_socket"]["typed_config"]["common_tls_context"]
    configs = [
        context["tls_certificate_sds_secret_configs"][0],
        context["combined_validation_context"]["validation_context_sds_secret_config"],
    ]
    for secret in configs:
        source = secret["sds_config"]["path_config_source"]
        name = Path(source["path"]).name
        target = directory / name
        target.write_text((CHART_FILES / name).read_text().replace("/etc/inflight/tls", str(tls)))
        source["path"] = str(target)
    return config


def _endpoint(cluster: dict[str, Any]) -> dict[str, Any]:
    address: dict[str, Any] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    result: dict[str, Any] = address["socket_address"]
    return result


@dataclass
class Envoy:
    """A running Envoy; `admin` and `status` are the addresses of its administration and its readiness."""

    node: str
    process: asyncio.subprocess.Process
    admin_port: int
    status_port: int
    log: Path
    http: aiohttp.ClientSession

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def status(self) -> str:
        return f"http://127.0.0.1:{self.status_port}"

    async def ready(self) -> bool:
        """Whether it would be given traffic."""
        try:
            async with self.http.get(f"{self.status}/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def until_ready(self, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not await self.ready():
                if self.process.returncode is not None:
                    raise AssertionError(f"Envoy has ended:\n{self.log.read_text()[-4000:]}")
                await asyncio.sleep(0.02)

    async def stats(self, pattern: str) -> dict[str, float]:
        """Counters and gauges whose names match."""
        async with self.http.get(f"{self.admin}/stats", params={"filter": pattern, "format": "json"}) as answer:
            found = (await answer.json())["stats"]
        return {stat["name"]: stat["value"] for stat in found if "name" in stat}

    def memory(self) -> float:
        """Resident MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@asynccontextmanager
async def envoy(
    directory: Path,
    xds_port: int,
    *,
    node: str = "router-0",
    tls: Path | None = None,
    concurrency: int = 1,
    log_level: str = "warning",
    edge: dict[str, Any] | None = None,
    zone: str = "",
    layer: bool = True,
) -> AsyncIterator[Envoy]:
    """Run Envoy until the block ends; its files and its log lie in `directory`. `edge`: the chart's `router.tls`,
    `zone` where it is, `layer`: of weights, which routers of older charts don't have."""
    admin_port, status_port = free_port(), free_port()
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
    config = bootstrap(directory, xds_port=xds_port, admin_port=admin_port, status_port=status_port, tls=tls)
    config["node"]["metadata"]["tls"].update(edge or {})
    if not layer:
        del config["node"]["metadata"]["weights"], config["layered_runtime"]["layers"][1:]
    path, log = directory / "bootstrap.yaml", directory / "envoy.log"
    path.write_text(yaml.safe_dump(config))
    command = [
        ENVOY,
        *("-c", str(path), "--service-node", node, "--service-cluster", "inflight-router"),
        *("--service-zone", zone),
        *("--concurrency", str(concurrency), "--log-level", log_level, "--disable-hot-restart"),
    ]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        async with aiohttp.ClientSession() as http:
            yield Envoy(node, process, admin_port, status_port, log, http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
