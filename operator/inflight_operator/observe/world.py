"""The world of one ModelDeployment, made from the store. Pure: the store is its only source."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inflight_operator.api import names
from inflight_operator.api.names import Key
from inflight_operator.api.world import Address, Object, Revision, World
from inflight_operator.observe.store import Store

_REVISION_KINDS = ("ControllerRevision", "Deployment", "Service", "HorizontalPodAutoscaler")


def read(store: Store, key: Key) -> World | None:
    """What is known of `key` now; None when the ModelDeployment is gone or going."""
    resource = store.get(key, names.KIND, key[1])
    if resource is None or resource["metadata"].get("deletionTimestamp"):
        return None
    found: dict[str, dict[str, Object]] = {}
    for kind in _REVISION_KINDS:
        for obj in store.all_of(key, kind):
            if names.REVISION in obj["metadata"].get("labels", {}) and owned_by(obj, resource):
                found.setdefault(obj["metadata"]["name"], {})[kind] = obj
    slices = store.all_of(key, "EndpointSlice")
    endpoints, unready = _ready_endpoints(slices), _addresses(slices, _unready)
    pods = _pods(slices)
    revisions = {name: _revision(name, objects, endpoints, unready, pods) for name, objects in sorted(found.items())}
    return World(key, resource, revisions, store.get(key, "Service", key[1]))


def owned_by(obj: Object, resource: Object) -> bool:
    """Whether `obj` belongs to this very ModelDeployment, not to an earlier one of the same name."""
    owners = obj["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == resource["metadata"]["uid"] for owner in owners)


def _revision(
    name: str,
    objects: Mapping[str, Object],
    endpoints: Mapping[str, frozenset[Address]],
    unready: Mapping[str, frozenset[Address]],
    pods: Mapping[str, Mapping[str, str]],
) -> Revision:
    first = next(iter(objects.values()))["metadata"]
    record = objects.get("ControllerRevision")
    return Revision(
        name=name,
        variant=first["labels"][names.VARIANT],
        revision=first["labels"][names.REVISION],
        record=record["data"] if record else None,
        objects={kind: obj for kind, obj in objects.items() if not obj["metadata"].get("deletionTimestamp")},
        endpoints=endpoints.get(name, frozenset()),
        created=first.get("creationTimestamp") or "",
        unready=unready.get(name, frozenset()),
        pods=pods.get(name, {}),
    )


def _ready_endpoints(slices: list[Object]) -> dict[str, frozenset[Address]]:
    """Usable addresses by Service name: the ready ones, and where there are none, those that serve while they end.

    A slice's `ready` is false once its pod terminates (KEP-1672); our servers go on answering for the drain delay, and
    an answer from a pod that is leaving is better than none (kube-proxy does the same, KEP-1669).
    """
    ready = _addresses(slices, lambda conditions: bool(conditions.get("ready")))
    leaving = _addresses(slices, lambda conditions: bool(conditions.get("serving")))
    return leaving | ready


def _pods(slices: list[Object]) -> dict[str, dict[str, str]]:
    """The names of pods by Service name and IP."""
    found: dict[str, dict[str, str]] = {}
    for piece in slices:
        service = piece["metadata"]["labels"].get(names.SERVICE_NAME, "")
        for endpoint in piece.get("endpoints") or []:
            if pod := (endpoint.get("targetRef") or {}).get("name"):
                found.setdefault(service, {}).update(dict.fromkeys(endpoint["addresses"], pod))
    return found


def _unready(conditions: Mapping[str, bool]) -> bool:
    return not (conditions.get("ready") or conditions.get("serving") or conditions.get("terminating"))


def _addresses(slices: list[Object], wanted: Callable[[Mapping[str, bool]], bool]) -> dict[str, frozenset[Address]]:
    """Addresses by Service name, of the endpoints whose conditions are wanted."""
    found: dict[str, set[Address]] = {}
    for piece in slices:
        service = piece["metadata"]["labels"].get(names.SERVICE_NAME, "")
        ports = [port["port"] for port in piece.get("ports") or [] if port.get("name") == "http"]
        for endpoint in piece.get("endpoints") or []:
            if ports and wanted(endpoint.get("conditions") or {}):
                zone = endpoint.get("zone") or ""
                found.setdefault(service, set()).update((ip, ports[0], zone) for ip in endpoint["addresses"])
    return {service: frozenset(addresses) for service, addresses in found.items()}
