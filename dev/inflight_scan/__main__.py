"""`make scan`: bandit over the code, kube-score over the manifests, pip-audit over the pins. Any finding fails it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final

from inflight_scan import kube_score, locks
from inflight_scan.sbom import ENVIRONMENT, ROOT

_CODE: Final = ("operator", "model-server", "router", "dev")


def bandit() -> bool:
    """What is dangerous in our Python. Its remarks about markers that it did not need are not findings."""
    command = [str(ENVIRONMENT / "bandit"), "--quiet", "--recursive", *_CODE, "--configfile", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def pip_audit() -> bool:
    """Known holes in what goes into the images. `--strict`: what could not be looked up is no success."""
    options = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off")
    files = [f"--requirement={locks.REQUIREMENTS / image}.txt" for image in locks.IMAGES]
    return subprocess.run([str(ENVIRONMENT / "pip-audit"), *options, *files], check=False).returncode == 0


SCANNERS: Final[Mapping[str, Callable[[], bool]]] = {
    "bandit": bandit,
    "kube-score": kube_score.scan,
    "pip-audit": pip_audit,
}


def main() -> int:
    """Exit status 1: something was found, or a scanner could not do its work."""
    parser = argparse.ArgumentParser(prog="scan", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="without pip-audit, which asks a vulnerability service")
    left_out = {"pip-audit"} if parser.parse_args().offline else set()
    failed = []
    for name, scanner in SCANNERS.items():
        print(f"=== {name}{': LEFT OUT, nothing was looked up' if name in left_out else ''}", flush=True)
        if name not in left_out and not scanner():
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing unexplained was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
