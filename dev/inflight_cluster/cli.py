"""The command line of dev/cluster: reads the verb and hands over to what does it, on this machine or on kind."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inflight_cluster import components, images, kind, network, settings, status, tools
from inflight_cluster import up as local
from inflight_cluster.components import Options
from inflight_cluster.console import Console
from inflight_cluster.down import down
from inflight_cluster.errors import ClusterError
from inflight_cluster.locks import exclusive
from inflight_cluster.settings import Settings
from inflight_cluster.status import Line

_PASSED_ON = ("kubectl", "exec")
_ON_OFF = argparse.BooleanOptionalAction


@dataclass(frozen=True)
class Call:
    """What a verb works with: the environment's settings, its own arguments, where to tell what it does."""

    settings: Settings
    given: argparse.Namespace
    console: Console


Verb = Callable[[Call], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status. A ClusterError becomes one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ["PATH"] = tools.search_path()
    try:
        chosen = settings.load()
        if given[:1] and given[0] in _PASSED_ON:  # their own options are none of ours
            return _passed_on(chosen, given[0], given[1:])
        parsed = _parser().parse_args(given)
        run: Verb = parsed.run
        return run(Call(chosen, parsed, Console()))
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

    def verb(name: str, run: Verb | None, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text)
        added.set_defaults(run=run)
        return added

    start = verb("up", _up, "start the cluster, or what is missing of it")
    start.add_argument("--audit", action=_ON_OFF, help="log every write to logs/audit.log of the state directory")
    start.add_argument("--fsync", action=_ON_OFF, help="etcd waits for the disk (slower, nothing is lost)")
    verb("down", _down, "stop it and leave nothing behind")
    verb("status", _status, "which component runs and whether it is healthy")
    verb("doctor", _doctor, "whether this machine can run it")
    verb("tools", _tools, "build or find every program, and print where they are")
    archives = verb("load", _load, "import image archives into the node")
    archives.add_argument("archive", nargs="+", type=Path)
    pictures = verb("images", _images, "build what has changed, and load it when the cluster is up")
    pictures.add_argument("name", nargs="*", help=f"of {', '.join(images.PRODUCT + images.BINARIES)}; default: all")
    pushed = verb("push", _push, "push the product's images to a registry")
    pushed.add_argument("registry", help="such as registry.example.com/team")
    logs = verb("logs", _logs, "a component's log")
    logs.add_argument("name")
    logs.add_argument("-f", "--follow", action="store_true")
    verb("kubectl", None, "kubectl against this cluster")
    verb("exec", None, "exec -- CMD...: run inside the cluster's network, with KUBECONFIG set")
    return parser


def _up(call: Call) -> int:
    _require_root(call.settings, "up")
    if call.settings.backend == "kind":
        kind.up(call.settings, call.console)
    else:
        local.up(call.settings, Options(call.given.audit, call.given.fsync, call.settings.hpa_sync), call.console)
    call.console.say(f"up: 'dev/cluster kubectl get pods -A'; kubeconfig {call.settings.layout.kubeconfig}")
    return 0


def _down(call: Call) -> int:
    _require_root(call.settings, "down")
    if call.settings.backend == "kind":
        kind.down(call.settings)
    else:
        down(call.settings, call.console)
    return 0


def _status(call: Call) -> int:
    _require_root(call.settings, "status")
    return _print_lines(kind.status(call.settings) if call.settings.backend == "kind" else status.status(call.settings))


def _doctor(call: Call) -> int:
    return _print_lines(status.doctor(call.settings))


def _print_lines(lines: list[Line]) -> int:
    print("\n".join(map(str, lines)))
    return 0 if all(line.good for line in lines) else 1


def _tools(call: Call) -> int:
    if os.geteuid() == 0:  # who may install nothing can still build, and run the tests that need no more
        local.install_missing(call.console)
    print(tools.ensure(components.GO_TOOLS, call.settings.cache, call.console)["kubelet"].parent)
    return 0


def _load(call: Call) -> int:
    _require_root(call.settings, "load")
    _import(call.settings, call.given.archive, call.console)
    return 0


def _images(call: Call) -> int:
    _require_root(call.settings, "images")
    chosen = call.settings
    with exclusive(chosen.cache / "images.lock"):
        built = images.build(call.given.name, chosen.cache, call.console)
        if kind.exists(chosen) if chosen.backend == "kind" else network.exists(chosen.layout.netns):
            _import(chosen, [image.archive for image in built], call.console)
    for image in built:
        print(f"{image.reference}  {image.archive}")
    return 0


def _import(chosen: Settings, archives: list[Path], console: Console) -> None:
    if chosen.backend == "kind":
        kind.load(chosen, archives, console)
    else:
        local.load(chosen.layout, archives, console)


def _push(call: Call) -> int:
    with exclusive(call.settings.cache / "images.lock"):
        images.push(call.given.registry, (), call.settings.cache, call.console)
    return 0


def _logs(call: Call) -> int:
    name: str = call.given.name
    if call.settings.backend == "kind":
        print(kind.logs(call.settings, name), end="")
        return 0
    log = call.settings.layout.logs / f"{name}.log"
    if not log.exists():
        known = ", ".join(sorted(path.stem for path in call.settings.layout.logs.glob("*.log"))) or "none: it is not up"
        raise ClusterError(f"no log of {name!r}; there are: {known}")
    return subprocess.run(
        ["tail", "-n", "+1", *(["-F"] if call.given.follow else []), str(log)], check=False
    ).returncode


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
    os.environ["PATH"] = f"{chosen.cache / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"  # no proxy can be reached from inside
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606  # nosec B606 # what the user typed


def _with_dns(chosen: Settings, command: list[str]) -> list[str]:
    """The cluster's DNS for this command only: a mount namespace of its own with another resolv.conf."""
    bind = f'mount --bind {chosen.layout.resolv_conf} /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", bind, "exec", *command]


def _require_root(chosen: Settings, verb: str) -> None:
    if chosen.backend == "local" and os.geteuid() != 0:
        raise ClusterError(f"{verb!r} needs root (namespaces, mounts, cgroups): run it with sudo")
