"""Brings the cluster up: every step may be repeated, finds what is already there and mends what is not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from inflight_cluster import (
    cgroups,
    components,
    credentials,
    debian,
    health,
    layout,
    network,
    node,
    pause,
    pki,
    processes,
    sysctls,
    tools,
)
from inflight_cluster.components import Component, Options
from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.layout import Layout
from inflight_cluster.locks import exclusive
from inflight_cluster.settings import Settings

_NODE_SECONDS = 90.0


def up(settings: Settings, options: Options, console: Console) -> None:
    """From whatever state to a cluster with a Ready node. Moves this process into the cluster's namespace."""
    where = settings.layout
    refuse_inside(where)
    with one_at_a_time(settings):
        programs = prepare(settings, console)
        with console.step("images the node needs"):
            pause_archive = pause.archive(settings.cache)
        with console.step("network namespace, certificates, cgroup"):
            _make_places(where)
        plan = components.plan(where, programs, _remembered(where, options))
        _start(where, plan[:2], console)
        load(where, [pause_archive], console)
        _start(where, plan[2:3], console)
        kubectl = [str(programs["kubectl"]), "--kubeconfig", str(where.kubeconfig)]
        with console.step("access for DNS"):
            _apply(kubectl, node.dns_access())
        _start(where, plan[3:], console)
        with console.step("node Ready, default service account"):
            _settle(kubectl)


def _remembered(where: Layout, options: Options) -> Options:
    """A repeated `up` without flags changes nothing: choices hold until others are made."""
    file = where.state / "options.json"
    earlier = Options(**json.loads(file.read_text())) if file.exists() else Options()
    merged = options.over(earlier)
    file.write_text(json.dumps(dataclasses.asdict(merged)))
    return merged


def prepare(settings: Settings, console: Console) -> dict[str, Path]:
    """Every program a cluster is made of: Debian packages installed, Go tools built."""
    install_missing(console)
    programs = tools.ensure(components.GO_TOOLS, settings.cache, console)
    for name in components.DEBIAN_PROGRAMS:
        found = tools.system_program(name)
        if found is None:
            raise ClusterError(f"{name} is still missing after installing its Debian package")
        programs[name] = found
    return programs


def install_missing(console: Console) -> None:
    """The Debian packages that a cluster and the tests need, those that are not there yet."""
    if missing := debian.missing():
        with console.step(f"install {' '.join(missing)}"):
            debian.install(missing)


def load(where: Layout, archives: list[Path], console: Console) -> None:
    """Import OCI or Docker image archives into the node's containerd, unless it has had exactly this file."""
    for archive in archives:
        mark = where.state / "loaded" / archive.name
        facts = _facts(archive)
        if mark.exists() and mark.read_text() == facts:
            continue
        with console.step(f"load {archive.name}"):
            command = ["ctr", "--address", str(where.containerd_socket), "--namespace", "k8s.io", "images", "import"]
            done = subprocess.run([*command, str(archive)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise ClusterError(f"containerd did not take {archive}: {done.stderr.strip()}")
            mark.parent.mkdir(exist_ok=True)
            mark.write_text(facts)


def _facts(archive: Path) -> str:
    try:
        status = archive.stat()
    except FileNotFoundError:
        raise ClusterError(f"no image archive {archive}") from None
    return f"{archive.resolve()} {status.st_ino} {status.st_size} {status.st_mtime_ns}"


def refuse_inside(where: Layout) -> None:
    """`up` and `down` manage the machine's mounts, which `exec` has hidden behind a private copy."""
    if network.inside(where.netns):
        raise ClusterError("this runs inside the cluster's network namespace: use it outside of 'dev/cluster exec'")


def one_at_a_time(settings: Settings) -> AbstractContextManager[None]:
    """Held by `up` and `down` of one cluster."""
    busy = f"another 'dev/cluster up' or 'down' of {settings.name!r} is running: wait for it"
    return exclusive(settings.state.with_suffix(".lock"), busy)


def _make_places(where: Layout) -> None:
    for directory in (where.state, where.config, where.logs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    sysctls.remember(where.state.parent / "sysctls.json")
    network.create(where.netns)
    network.enter(where.netns)
    network.configure()
    if not where.pki.exists():
        make_credentials(where)
    cgroups.create(where.name)


def make_credentials(where: Layout) -> None:
    """All certificates and kubeconfigs, under their final name only when complete."""
    partial = where.state / "pki.partial"
    service_address = layout.SERVICE_CIDR.replace("0.0/16", "0.1")
    ca = credentials.control_plane(partial, [layout.NODE_ADDRESS, service_address, "127.0.0.1"])
    credentials.administrator(partial, ca, server=layout.API_URL)
    node_user = (f"system:node:{where.name}", ("system:nodes",))
    users: Mapping[str, tuple[str, tuple[str, ...]]] = {
        "kube-controller-manager": ("system:kube-controller-manager", ()),
        "kube-scheduler": ("system:kube-scheduler", ()),
        "kube-proxy": ("system:kube-proxy", ()),
        "kubelet": node_user,
        "coredns": ("coredns", ()),
    }
    for name, (user, groups) in users.items():
        credentials.client(partial, ca, name, server=layout.API_URL, user=user, groups=groups)
    pki.issue(partial, "kubelet-server", ca, user=node_user[0], hosts=[layout.NODE_ADDRESS, where.name])
    partial.replace(where.pki)


def _start(where: Layout, plan: list[Component], console: Console) -> None:
    """Start what does not run, or runs with other arguments or files than it should; wait until healthy."""
    running = processes.running(where.name)
    for component in plan:
        changed = _write_files(component)
        found = running.get(component.name)
        if found and (changed or found.arguments != component.arguments):
            processes.kill([found.pid])
            found = None
        if not found:
            log = where.logs / f"{component.name}.log"
            processes.start(where.name, component.name, component.arguments, log)
    with console.step(" ".join(component.name for component in plan)):
        health.wait(where.name, plan, where.logs)


def _write_files(component: Component) -> bool:
    changed = False
    for path, text in component.files.items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed = True
    return changed


def _apply(kubectl: list[str], manifest: str) -> None:
    command = [*kubectl, "apply", "-f", "-"]
    done = subprocess.run(command, input=manifest, text=True, capture_output=True, check=False)
    if done.returncode:
        raise ClusterError(f"the API server refused our own manifest: {done.stderr.strip()}")


def _settle(kubectl: list[str]) -> None:
    deadline = time.monotonic() + _NODE_SECONDS
    while why := _not_ready(kubectl):
        if time.monotonic() > deadline:
            raise ClusterError(f"the node is not Ready: {why}; see 'dev/cluster logs kubelet'")
        time.sleep(0.1)


def _not_ready(kubectl: list[str]) -> str:
    asked = subprocess.run([*kubectl, "get", "nodes", "-o", "json"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return asked.stderr.strip()
    nodes = json.loads(asked.stdout)["items"]
    ready = [c for n in nodes for c in n["status"].get("conditions", []) if c["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        return str(ready[0]["message"]) if ready else "it has not registered"
    account = [*kubectl, "get", "serviceaccount", "default", "--namespace", "default"]
    found = subprocess.run(account, capture_output=True, text=True, check=False)
    return found.stderr.strip() if found.returncode else ""
