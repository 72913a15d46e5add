"""The command line of dev/cluster."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from inflight_cluster import components, images, network, settings, status, tools
from inflight_cluster.components import Options
from inflight_cluster.console import Console
from inflight_cluster.down import down
from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import Settings
from inflight_cluster.up import load, up

_PASSED_ON = ("kubectl", "exec")
_ON_OFF = argparse.BooleanOptionalAction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status. A ClusterError becomes one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        chosen = settings.load()
        if given[:1] and given[0] in _PASSED_ON:  # their own options are none of ours
            return _passed_on(chosen, given[0], given[1:])
        return _run(chosen, _parser().parse_args(given))
    except ClusterError as error:
        print(f"dev/cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev/cluster", description=settings.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    start = verbs.add_parser("up", help="start the cluster, or what is missing of it")
    start.add_argument("--audit", action=_ON_OFF, help="log every write to logs/audit.log of the state directory")
    start.add_argument("--fsync", action=_ON_OFF, help="etcd waits for the disk (slower, nothing is lost)")
    verbs.add_parser("down", help="stop it and leave nothing behind")
    verbs.add_parser("status", help="which component runs and whether it is healthy")
    verbs.add_parser("doctor", help="whether this machine can run it")
    verbs.add_parser("tools", help="build or find every program, and print where they are")
    archives = verbs.add_parser("load", help="import image archives into the node")
    archives.add_argument("archive", nargs="+", type=Path)
    pictures = verbs.add_parser("images", help="build what has changed, and load it when the cluster is up")
    pictures.add_argument("name", nargs="*", help=f"of {', '.join(images.PRODUCT + images.BINARIES)}; default: all")
    pushed = verbs.add_parser("push", help="push the product's images to a registry")
    pushed.add_argument("registry", help="such as registry.example.com/team")
    logs = verbs.add_parser("logs", help="a component's log")
    logs.add_argument("name")
    logs.add_argument("-f", "--follow", action="store_true")
    verbs.add_parser("kubectl", help="kubectl against this cluster")
    verbs.add_parser("exec", help="exec -- CMD...: run inside the cluster's network, with KUBECONFIG set")
    return parser


def _run(chosen: Settings, given: argparse.Namespace) -> int:
    console = Console()
    match given.verb:
        case "up":
            _require_root(given.verb)
            up(chosen, Options(given.audit, given.fsync, chosen.hpa_sync), console)
            console.say(f"up: 'dev/cluster kubectl get pods -A'; kubeconfig {chosen.layout.kubeconfig}")
        case "down":
            _require_root(given.verb)
            down(chosen, console)
        case "load":
            _require_root(given.verb)
            load(chosen.layout, given.archive, console)
        case "images":
            _images(chosen, given.name, console)
        case "push":
            images.push(given.registry, (), chosen.cache, console)
        case "tools":
            print(tools.ensure(components.GO_TOOLS, chosen.cache, console)["kubelet"].parent)
        case "logs":
            return _logs(chosen, given.name, follow=given.follow)
        case _:
            return _print_lines(chosen, given.verb)
    return 0


def _images(chosen: Settings, names: list[str], console: Console) -> None:
    built = images.build(names, chosen.cache, console)
    if network.exists(chosen.layout.netns):
        load(chosen.layout, [image.archive for image in built], console)
    for image in built:
        print(f"{image.reference}  {image.archive}")


def _print_lines(chosen: Settings, verb: str) -> int:
    if verb == "status":
        _require_root(verb)
    lines = status.doctor(chosen) if verb == "doctor" else status.status(chosen)
    print("\n".join(map(str, lines)))
    return 0 if all(line.good for line in lines) else 1


def _logs(chosen: Settings, name: str, *, follow: bool) -> int:
    log = chosen.layout.logs / f"{name}.log"
    if not log.exists():
        known = ", ".join(sorted(path.stem for path in chosen.layout.logs.glob("*.log"))) or "none: it is not up"
        raise ClusterError(f"no log of {name!r}; there are: {known}")
    return subprocess.run(["tail", "-n", "+1", *(["-F"] if follow else []), str(log)], check=False).returncode


def _passed_on(chosen: Settings, verb: str, rest: list[str]) -> int:
    _require_root(verb)
    where = chosen.layout
    if verb == "exec" and rest[:1] == ["--"]:
        rest = rest[1:]
    if verb == "exec" and not rest:
        raise ClusterError("exec needs a command: dev/cluster exec -- CMD...")
    network.enter(where.netns)
    os.environ["KUBECONFIG"] = str(where.kubeconfig)
    os.environ["PATH"] = f"{chosen.cache / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    if verb == "kubectl":
        command = [str(chosen.cache / "bin" / "kubectl"), *rest]
    else:
        # The cluster's DNS for this command only: a mount namespace of its own with another resolv.conf.
        bind = f'mount --bind {where.resolv_conf} /etc/resolv.conf && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bind, "exec", *rest]
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606


def _require_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise ClusterError(f"{verb!r} needs root (namespaces, mounts, cgroups): run it with sudo")
