"""Why pods don't become ready, told by whoever knows best: the server's last words, the kubelet, the scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from inflight_operator.api.world import Failure

LOOK_AFTER_SECONDS: Final = 3.0
"""How long pods may be unready before anybody asks why."""
_LOOK_EVERY_SECONDS: Final = 5.0
_LOOK_SELDOM_SECONDS: Final = 60.0

_BENIGN: Final = {"ContainerCreating", "PodInitializing", ""}


def look_again(unready_for: float) -> float:
    """Seconds until pods that have been unready for so long are read again.

    Whoever waits for a new pod wants to know soon why it fails; what has failed for an hour fails for the same reason.
    That the pods are ready at last, or replaced, is told by watches.
    """
    return min(max(_LOOK_EVERY_SECONDS, unready_for / 2), _LOOK_SELDOM_SECONDS)


def decide(pods: Iterable[Mapping[str, Any]]) -> Failure | None:
    """The most telling failure among the pods of one revision; None while they are merely starting."""
    found = [failure for pod in pods for failure in _of(pod)]
    return min(found, default=(9, None), key=lambda item: item[0])[1]


def _of(pod: Mapping[str, Any]) -> Iterator[tuple[int, Failure]]:
    """Failures of one pod with their rank, the most telling lowest."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        yield from _ended(container)
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _BENIGN:
            yield (
                2,
                Failure(waiting["reason"], waiting.get("message") or f"container {container['name']} is waiting"),
            )
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield (
                3,
                Failure(condition.get("reason") or "Unschedulable", condition.get("message") or "no node fits"),
            )


def _ended(container: Mapping[str, Any]) -> Iterator[tuple[int, Failure]]:
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        ended = state.get("terminated")
        if not ended or ended.get("exitCode") == 0 or container.get("ready"):
            continue
        text = (ended.get("message") or "").strip()
        told = _told_by_server(text)
        if told:
            yield 0, told
        else:
            last = text.splitlines()[-1][:300] if text else "it left no message"
            reason = ended.get("reason") or "Error"
            yield (
                1,
                Failure(
                    "Crashed" if reason == "Error" else reason,
                    f"container {container['name']} exited with code {ended.get('exitCode')}: {last}",
                ),
            )


def _told_by_server(text: str) -> Failure | None:
    """The one JSON line {reason, message} that the model server leaves in its termination log."""
    try:
        line = json.loads(text)
        return Failure(str(line["reason"]), str(line["message"]))
    except (ValueError, KeyError, TypeError):
        return None
