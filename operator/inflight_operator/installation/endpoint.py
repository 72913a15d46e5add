"""Where the operator answers: the one endpoint of its Service is the leader, who writes it itself.

A selector would find the pods that wait as well. The leader knows first that it leads, so nobody has to notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from inflight_operator.api import names
from inflight_operator.installation import owner
from inflight_operator.kube.client import Kube

NAME: Final = "inflight-operator"


@dataclass(frozen=True)
class Place:
    """One operator's pod and the address at which it answers."""

    pod: str
    address: str


async def publish(kube: Kube, namespace: str, here: Place, ports: dict[str, int]) -> None:
    """Let the Service lead here. TransientError."""
    reference = await owner.of_namespaced(kube, namespace)
    await kube.apply(_slice(namespace, here, ports, reference))


async def leads_to(kube: Kube, namespace: str) -> Place | None:
    """Where the Service leads to; None: nobody has led yet. TransientError."""
    found = await kube.get("EndpointSlice", namespace, NAME)
    for one in (found or {}).get("endpoints") or []:
        return Place(str((one.get("targetRef") or {}).get("name")), str(one["addresses"][0]))
    return None


def _slice(namespace: str, here: Place, ports: dict[str, int], reference: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {
                names.SERVICE_NAME: owner.SERVICE,
                # Kubernetes' own controllers leave alone what says so (KEP-752).
                "endpointslice.kubernetes.io/managed-by": names.FIELD_MANAGER,
            },
            "ownerReferences": [reference],
        },
        "addressType": f"IPv{ip_address(here.address).version}",
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in sorted(ports.items())],
        "endpoints": [
            {
                "addresses": [here.address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": here.pod},
            }
        ],
    }
