"""A real API server without nodes, for component tests: etcd and kube-apiserver on free loopback ports.

Needs no root and touches nothing outside the given directory. Not a cluster: nothing ever runs a pod.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflight_cluster import credentials, tools
from inflight_cluster.control_plane import ApiServer, ControllerManager, Etcd
from inflight_cluster.errors import ClusterError

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Running:
    """How to reach the API server as cluster-admin: by kubeconfig, by client certificate, or by token."""

    url: str
    kubeconfig: Path
    ca: Path
    client_certificate: Path
    client_key: Path
    token: str
    audit_log: Path
    """Who did what by which right; there only when an audit policy was given."""

    def client_context(self) -> ssl.SSLContext:
        """TLS that trusts this API server only, without a client certificate."""
        return ssl.create_default_context(cafile=str(self.ca))


@contextmanager
def running(
    directory: Path, *, controllers: bool = False, hpa_sync: str = "", audit: Mapping[str, Any] | None = None
) -> Iterator[Running]:
    """An API server that answers /readyz, with data and logs in `directory` (best below /dev/shm).

    `controllers` adds kube-controller-manager: garbage collection, HPA, Deployments, EndpointSlices; `hpa_sync`
    (such as "1s") is the HPA's period; `audit` is an audit policy. A Service of type ExternalName may back an
    APIService here. The processes end with the block, and with the thread that entered it should it be killed (enter
    it from the main thread).
    Raises ClusterError with the end of the log when a process does not come up within a minute.
    """
    directory.mkdir(parents=True, exist_ok=True)
    client_port, peer_port, port, controllers_port = _free_ports(4)
    api = _prepare(directory, f"https://{_LOOPBACK}:{port}")
    etcd_program = tools.system_program("etcd")
    if etcd_program is None:
        raise ClusterError("etcd is missing: install it with 'apt-get install etcd-server'")
    names = ["kube-apiserver", *(["kube-controller-manager"] if controllers else [])]
    binaries = tools.ensure(names)
    etcd = Etcd(
        program=etcd_program,
        data=directory / "etcd",
        client_url=f"http://{_LOOPBACK}:{client_port}",
        peer_url=f"http://{_LOOPBACK}:{peer_port}",
    )
    server = ApiServer(
        program=binaries["kube-apiserver"],
        pki=directory / "pki",
        etcd=etcd.client_url,
        address=_LOOPBACK,
        port=port,
        service_cidr="10.96.0.0/16",
        token_file=directory / "tokens.csv",
        audit=_audit(directory, audit, api.audit_log) if audit else None,
        nodes=False,
    )
    with ExitStack() as stack:
        stack.enter_context(_process("etcd", etcd.arguments(), directory))
        process = stack.enter_context(_process("kube-apiserver", server.arguments(), directory))
        _wait_ready(api, process, directory / "kube-apiserver.log")
        if controllers:
            manager = ControllerManager(
                program=binaries["kube-controller-manager"],
                pki=directory / "pki",
                kubeconfig=api.kubeconfig,
                address=_LOOPBACK,
                port=controllers_port,
                hpa_sync=hpa_sync,
            )
            stack.enter_context(_process("kube-controller-manager", manager.arguments(), directory))
        yield api


def _prepare(directory: Path, url: str) -> Running:
    pki = directory / "pki"
    ca = credentials.control_plane(pki, [_LOOPBACK])
    config = credentials.administrator(pki, ca, server=url)
    token = secrets.token_hex(16)
    (directory / "tokens.csv").write_text(f'{token},token-admin,token-admin,"system:masters"\n')
    log = directory / "audit.log"
    return Running(url, config, ca.certificate, pki / "admin.crt", pki / "admin.key", token, log)


def _audit(directory: Path, policy: Mapping[str, Any], log: Path) -> tuple[Path, Path]:
    file = directory / "audit-policy.json"
    file.write_text(json.dumps(policy))
    return file, log


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def _process(name: str, command: Sequence[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the command with its output in `name`.log; stopped at the end, or by the kernel if we are killed."""
    guarded = ["setpriv", "--pdeathsig", "KILL", *command]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(guarded, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(api: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(f"{api.url}/readyz", headers={"Authorization": f"Bearer {api.token}"})  # noqa: S310
    context = api.client_context()
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(request, context=context, timeout=5):  # noqa: S310  # nosec B310 # https, to ourselves
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise ClusterError(f"kube-apiserver is not ready; the end of {log}: {log.read_text()[-2000:]}")
