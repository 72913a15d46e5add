"""The command line of dev/cluster: reads the verb and hands over to what does it, on this machine or on kind."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from inflight_cluster import components, images, kind, network, settings, status, tools
from inflight_cluster import up as local
from inflight_cluster.components import Options
from inflight_cluster.console import Console
from inflight_cluster.down import down
from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import Settings

_PASSED_ON = ("kubectl", "exec")
_NO_ROOT = ("doctor", "tools", "push", "logs")
_ON_OFF = argparse.BooleanOptionalAction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status. A ClusterError becomes one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        chosen = settings.load()
        if given[:1] and given[0] in _PASSED_ON:  # their own options are none of ours
            return _passed_on(chosen, given[0], given[1:])
        return _run(chosen, _parser().parse_args(given), Console())
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


def _run(chosen: Settings, given: argparse.Namespace, console: Console) -> int:
    if given.verb not in _NO_ROOT:
        _require_root(chosen, given.verb)
    match given.verb:
        case "up":
            _up(chosen, Options(given.audit, given.fsync, chosen.hpa_sync), console)
        case "down":
            _down(chosen, console)
        case "load":
            _load(chosen, given.archive, console)
        case "images":
            _images(chosen, given.name, console)
        case "push":
            images.push(given.registry, (), chosen.cache, console)
        case "tools":
            print(tools.ensure(components.GO_TOOLS, chosen.cache, console)["kubelet"].parent)
        case "logs":
            return _logs(chosen, given.name, follow=given.follow)
        case "doctor":
            return _print_lines(status.doctor(chosen))
        case "status":
            return _status(chosen)
    return 0


def _up(chosen: Settings, options: Options, console: Console) -> None:
    if chosen.backend == "kind":
        kind.up(chosen, console)
    else:
        local.up(chosen, options, console)
    console.say(f"up: 'dev/cluster kubectl get pods -A'; kubeconfig {chosen.layout.kubeconfig}")


def _down(chosen: Settings, console: Console) -> None:
    if chosen.backend == "kind":
        kind.down(chosen)
    else:
        down(chosen, console)


def _load(chosen: Settings, archives: list[Path], console: Console) -> None:
    if chosen.backend == "kind":
        kind.load(chosen, archives, console)
    else:
        local.load(chosen.layout, archives, console)


def _images(chosen: Settings, names: list[str], console: Console) -> None:
    built = images.build(names, chosen.cache, console)
    if kind.exists(chosen) if chosen.backend == "kind" else network.exists(chosen.layout.netns):
        _load(chosen, [image.archive for image in built], console)
    for image in built:
        print(f"{image.reference}  {image.archive}")


def _status(chosen: Settings) -> int:
    if chosen.backend == "kind":
        return _passed_on(chosen, "kubectl", ["get", "nodes"])
    return _print_lines(status.status(chosen))


def _print_lines(lines: list[status.Line]) -> int:
    print("\n".join(map(str, lines)))
    return 0 if all(line.good for line in lines) else 1


def _logs(chosen: Settings, name: str, *, follow: bool) -> int:
    if chosen.backend == "kind":
        print(kind.logs(chosen, name), end="")
        return 0
    log = chosen.layout.logs / f"{name}.log"
    if not log.exists():
        known = ", ".join(sorted(path.stem for path in chosen.layout.logs.glob("*.log"))) or "none: it is not up"
        raise ClusterError(f"no log of {name!r}; there are: {known}")
    return subprocess.run(["tail", "-n", "+1", *(["-F"] if follow else []), str(log)], check=False).returncode


def _passed_on(chosen: Settings, verb: str, rest: list[str]) -> int:
    """Become kubectl, or the given command, inside the cluster's network."""
    _require_root(chosen, verb)
    if verb == "exec" and rest[:1] == ["--"]:
        rest = rest[1:]
    if verb == "exec" and not rest:
        raise ClusterError("exec needs a command: dev/cluster exec -- CMD...")
    if verb == "kubectl":
        command = [str(tools.ensure(["kubectl"], chosen.cache)["kubectl"]), *rest]
    else:
        command = rest if chosen.backend == "kind" else _with_dns(chosen, rest)
    if chosen.backend == "local":
        network.enter(chosen.layout.netns)
    os.environ["KUBECONFIG"] = str(chosen.layout.kubeconfig)
    os.environ["PATH"] = f"{chosen.cache / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606


def _with_dns(chosen: Settings, command: list[str]) -> list[str]:
    """The cluster's DNS for this command only: a mount namespace of its own with another resolv.conf."""
    bind = f'mount --bind {chosen.layout.resolv_conf} /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", bind, "exec", *command]


def _require_root(chosen: Settings, verb: str) -> None:
    if chosen.backend == "local" and os.geteuid() != 0:
        raise ClusterError(f"{verb!r} needs root (namespaces, mounts, cgroups): run it with sudo")
