"""Which endpoints requests may go to: the rule of some to none, pure.

That all pods of a revision turn unready at once is seldom the end of all of them: the node's kubelet was stopped, its
machine is so busy that probes come late, a network partition is between the pods and who probes them. Sending nobody
anything would make an outage of it. So the last ones that were ready are kept for as long as they exist and none is
ready; a pod that really can't answer is found out by the router at its first failed connection (Envoy calls the same
idea panic mode, Google's SRE book "failing open").
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def routable(ready: frozenset[T], unready: frozenset[T], before: frozenset[T]) -> frozenset[T]:
    """Endpoints to use: the ready ones; when there are none, those used `before` that still exist as unready ones."""
    return ready or (before & unready)
