"""kube-score over the manifests. What it finds and is meant stands here, with the reason, as long as it is found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from inflight_cluster import tools
from inflight_cluster.settings import cache_directory
from inflight_scan import manifests
from inflight_scan.sbom import ROOT

EXPLAINED: Final[Mapping[tuple[str, str], str]] = {
    (
        "",
        "container-ephemeral-storage-request-and-limit",
    ): "the chart's volumes are bounded, roots are"
    " read-only; how much disk models take is for the namespace's LimitRange and ResourceQuota",
    ("", "container-image-pull-policy"): "pin images by digest instead, which also says what is run",
    ("models", "pod-networkpolicy"): "who may ask a model is for its owner to say (docs/network.md)",
    ("inflight-selftest", "pod-probes"): "it runs once and ends",
    ("inflight-selftest", "pod-networkpolicy"): "it listens nowhere, and asks what any client may ask",
    ("models", "deployment-has-host-podantiaffinity"): "the scheduler spreads them over nodes and zones by default",
    ("models", "deployment-replicas"): "the HPA's, within the bounds that the user has set",
    ("models", "deployment-has-poddisruptionbudget"): "a budget for one replica would keep nodes from being drained",
}
"""Findings that are meant, by (object, check) with the reason: "" is any object, "models" the Deployments of models."""

Finding = tuple[str, str, str]
"""(name of the object, id of the check, what it says)."""

_SCORE: Final = "github.com/zegl/kube-score/cmd/kube-score"
_MODULE: Final = ROOT / "dev" / "scan"
_FINE: Final = 10
_OPTIONS: Final = (
    "--ignore-container-cpu-limit",  # throttling makes a tail of latency
    "--enable-optional-test=container-seccomp-profile",
    "--enable-optional-test=container-ports-check",
    "--kubernetes-version=v1.31",
    "--output-format=json",
)


def scan() -> bool:
    """Says what is unexplained, and which explanation nothing needs any more."""
    command = [str(_program()), "score", *_OPTIONS, "-"]
    done = subprocess.run(command, input=manifests.everything(), stdout=subprocess.PIPE, text=True, check=False)
    wrong = unexplained(findings(json.loads(done.stdout)), EXPLAINED)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return not wrong


def findings(scores: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """What kube-score's JSON finds less than fine."""
    for scored in scores:
        metadata = scored["object_meta"]
        model = "serving.inflight.dev/modeldeployment" in (metadata.get("labels") or {})
        for check in scored["checks"] or ():
            if not check["skipped"] and check["grade"] < _FINE:
                said = "; ".join(comment["summary"] for comment in check["comments"] or ())
                yield "models" if model else metadata["name"], check["check"]["id"], said


def unexplained(found: Iterable[Finding], explained: Mapping[tuple[str, str], str]) -> list[str]:
    """One line for each finding without an explanation, and for each explanation without a finding."""
    found = list(found)
    needed = {key for name, check, _ in found for key in ((name, check), ("", check))}
    new = [finding for finding in found if not {finding[:2], ("", finding[1])} & set(explained)]
    stale = [check for name, check in explained if (name, check) not in needed]
    return [f"{name}: {said} ({check})" for name, check, said in new] + [
        f"nothing needs the explanation of {check}" for check in stale
    ]


def _program() -> Path:
    """The scanner, built from dev/scan/go.mod the first time."""
    pinned = hashlib.sha256((_MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    program = cache_directory() / "scan" / f"kube-score-{pinned}"
    if not program.exists():
        print("building kube-score (a minute or two)")
        program.parent.mkdir(parents=True, exist_ok=True)
        go = [str(tools.go(cache_directory())), "build", "-trimpath", "-o", str(program), _SCORE]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
        subprocess.run(go, cwd=_MODULE, env=environment, check=True)
    return program
