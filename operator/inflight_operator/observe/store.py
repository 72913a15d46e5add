"""The last known state of every object the operator owns or follows. Fed by watch events, by the replies to our own
writes and by a periodic full list; read by `observe.world`. It asks nobody anything.

Resource versions order what arrives: a late event never undoes a newer reply (KEP-5504: they compare as integers).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from inflight_operator.api import conditions, names
from inflight_operator.api.names import Key
from inflight_operator.api.world import Object

CHILD_KINDS: Final = (
    "Deployment", "Service", "HorizontalPodAutoscaler", "EndpointSlice", "ControllerRevision",
)  # fmt: skip
KINDS: Final = (names.KIND, *CHILD_KINDS)

_Address = tuple[str, str]  # (kind, object name) within one ModelDeployment


class Store:
    """Objects by the ModelDeployment they belong to."""

    def __init__(self) -> None:
        self._owned: dict[Key, dict[_Address, Object]] = defaultdict(dict)
        self._removed: dict[tuple[Key, _Address], int] = {}

    def put(self, kind: str, obj: Object) -> Key | None:
        """Keep `obj` unless something newer is known; returns the key it concerns, None if it is nobody's."""
        key = owner_of(kind, obj)
        if key is None:
            return None
        address, version = (kind, obj["metadata"]["name"]), _version(obj)
        known = self._owned[key].get(address)
        if (known is None or version >= _version(known)) and version > self._removed.get((key, address), -1):
            self._owned[key][address] = _lean(kind, obj)
        return key

    def drop(self, kind: str, obj: Object) -> Key | None:
        """Forget a deleted object; returns the key it concerned."""
        key = owner_of(kind, obj)
        if key is None:
            return None
        address = (kind, obj["metadata"]["name"])
        known = self._owned[key].get(address)
        if known is not None and _version(known) <= _version(obj):
            del self._owned[key][address]
        self._removed[(key, address)] = _version(obj)
        if not self._owned[key]:
            del self._owned[key]
            self._removed = {at: seen for at, seen in self._removed.items() if at[0] != key}
        return key

    def replace(self, kind: str, objects: Iterable[Object], version: int, namespace: str | None = None) -> None:
        """Take a full list of `kind` (of one namespace, None: of all) read at resource version `version`."""
        fresh = {(owner_of(kind, obj), obj["metadata"]["name"]): obj for obj in objects}
        for key, address, known in list(self._all(kind)):
            inside = namespace is None or key[0] == namespace
            if inside and (key, address[1]) not in fresh and _version(known) <= version:
                del self._owned[key][address]
        for obj in fresh.values():
            self.put(kind, obj)

    def get(self, key: Key, kind: str, name: str) -> Object | None:
        """One object of a ModelDeployment, None if unknown."""
        return self._owned[key].get((kind, name)) if key in self._owned else None

    def all_of(self, key: Key, kind: str) -> list[Object]:
        """Every known object of one kind of a ModelDeployment, by name."""
        owned = self._owned.get(key, {})
        return [owned[address] for address in sorted(owned) if address[0] == kind]

    def known(self) -> list[Key]:
        """Every ModelDeployment that is known or has left something behind."""
        return sorted(self._owned)

    def conditions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """(namespace, name, type, status, reason) of every condition that a ModelDeployment's status has."""
        for (namespace, name), _, resource in self._all(names.KIND):
            for condition in conditions.labels(resource):
                yield namespace, name, *condition

    def _all(self, kind: str) -> Iterator[tuple[Key, _Address, Object]]:
        for key, owned in self._owned.items():
            for address, obj in owned.items():
                if address[0] == kind:
                    yield key, address, obj


def owner_of(kind: str, obj: Object) -> Key | None:
    """The ModelDeployment an object belongs to, by its label (Endpoint slices inherit their Service's)."""
    metadata = obj["metadata"]
    if kind == names.KIND:
        return metadata["namespace"], metadata["name"]
    name = (metadata.get("labels") or {}).get(names.MODEL_DEPLOYMENT)
    return (metadata["namespace"], name) if name else None


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


def _lean(kind: str, obj: Object) -> Object:
    """Without what nobody reads: it is most of an object's size."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "selfLink")}
    return {"kind": kind, **{k: v for k, v in obj.items() if k != "kind"}, "metadata": metadata}
