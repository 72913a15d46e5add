"""What every router should have, and what a router has said about it. Pure: no I/O, no clock.

`World` is the wish: all ModelDeployments' pieces. `Verdicts` is what one build of Envoy thinks of them: which
routes it has accepted on its own, and what it has refused. A router's state lives in `session`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from . import weights
from .build import Key, Pieces, Routes, route_configuration
from .wire import CLUSTER, ENDPOINTS, LISTENER, RUNTIME, Resource


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of the wish touches: resource names by type, and ModelDeployments whose routes changed, weights
    included."""

    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    routes: frozenset[Key] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.routes or any(self.names.values()))


@dataclass(frozen=True, slots=True)
class Told:
    """The weights of one version of a ModelDeployment's routes: in the layer, and in the routes themselves."""

    piece: bytes
    whole: Routes


class World:
    """The wanted resources of all ModelDeployments, by type and name, and their routes by key.

    `routes` are for routers that take `weights` (by version of the routes, those that are still served included) from
    the runtime, `whole` for those that don't.
    """

    def __init__(self, listeners: list[Resource]) -> None:
        self.resources: dict[str, dict[str, Resource]] = {
            CLUSTER: {},
            ENDPOINTS: {},
            LISTENER: {resource.name: resource for resource in listeners},
            RUNTIME: {weights.LAYER: weights.layer(())},
        }
        self.routes: dict[Key, Routes] = {}
        self.whole: dict[Key, Routes] = {}
        self.weights: dict[Key, Mapping[str, Told]] = {}
        self._layer_is_old = False
        self._joined: dict[str, Resource] = {}
        self._owners: dict[str, Key] = {}
        self._pieces: dict[Key, Pieces] = {}

    def place(self, endpoints: Resource) -> Change:
        """Wish for endpoints that are no ModelDeployment's."""
        known = self.resources[ENDPOINTS].get(endpoints.name)
        self.resources[ENDPOINTS][endpoints.name] = endpoints
        changed = known is None or known.version != endpoints.version
        return Change({ENDPOINTS: frozenset({endpoints.name})} if changed else {})

    def pieces(self, key: Key) -> Pieces | None:
        return self._pieces.get(key)

    def joined(self, name: str, version: str, routes: Mapping[Key, Routes]) -> Resource:
        """A route configuration; the last one is kept, since all routers mostly need the same."""
        last = self._joined.get(name)
        if last is None or last.version != version:
            last = self._joined[name] = route_configuration(name, version, routes)
        return last

    def layer(self) -> Resource:
        """The weights of all, as they are to be now."""
        if self._layer_is_old:
            self._layer_is_old = False
            of_all = [self.weights[key] for key in sorted(self.weights)]
            self.resources[RUNTIME][weights.LAYER] = weights.layer(
                told[v].piece for told in of_all for v in sorted(told)
            )
        return self.resources[RUNTIME][weights.LAYER]

    def conflict(self, key: Key, clusters: Iterable[str]) -> str | None:
        """Why a ModelDeployment can't have these clusters: the name of one is another's."""
        for name in clusters:
            owner = self._owners.get(name, key)
            if owner != key:
                return f"the cluster {name} belongs to the ModelDeployment {'/'.join(owner)}"
        return None

    def set(self, key: Key, pieces: Pieces, serving: Collection[str] = ()) -> Change:
        """Wish for these pieces, whose clusters have no `conflict`, instead of the key's earlier ones.

        `serving` are the versions of its routes that routers have: those keep their weights until they are gone.
        """
        old = self._pieces.get(key)
        self._pieces[key] = pieces
        names = {
            CLUSTER: self._replace(CLUSTER, old.clusters if old else {}, pieces.clusters),
            ENDPOINTS: self._replace(ENDPOINTS, old.endpoints if old else {}, pieces.endpoints),
            RUNTIME: self._weigh(key, serving, pieces),
        }
        for name in names[CLUSTER]:
            if name in pieces.clusters:
                self._owners[name] = key
            else:
                del self._owners[name]
        self.routes[key], self.whole[key] = pieces.routes, pieces.whole
        books = ((p.routes.version, p.whole.version) if p else None for p in (old, pieces))
        return Change(names, frozenset({key}) if len({*books}) > 1 else frozenset())

    def remove(self, key: Key, serving: Collection[str] = ()) -> Change:
        """Wish for nothing under this key; `serving` as in `set`."""
        old = self._pieces.pop(key, None)
        if old is None:
            return Change()
        del self.routes[key], self.whole[key]
        for name in old.clusters:
            del self._owners[name]
        return Change(
            {
                CLUSTER: self._replace(CLUSTER, old.clusters, {}),
                ENDPOINTS: self._replace(ENDPOINTS, old.endpoints, {}),
                RUNTIME: self._weigh(key, serving, None),
            },
            frozenset({key}),
        )

    def settle(self, key: Key) -> Change:
        """All routers have what is wanted: no others of its routes are served any more."""
        return Change({RUNTIME: self._weigh(key, (), self._pieces.get(key))})

    def _weigh(self, key: Key, serving: Collection[str], pieces: Pieces | None) -> frozenset[str]:
        """Put one ModelDeployment's weights into the layer; the layer's name if that changes it."""
        before = self.weights.pop(key, {})
        now = {version: told for version, told in before.items() if version in serving}
        if pieces and pieces.weights:
            now[pieces.routes.version] = Told(pieces.weights, pieces.whole)
        if now:
            self.weights[key] = now
        if now == before:
            return frozenset()
        self._layer_is_old = True
        self._joined.clear()  # routes have weights too, which their versions don't tell
        return frozenset({weights.LAYER})

    def _replace(self, type_url: str, old: Mapping[str, Resource], new: Mapping[str, Resource]) -> frozenset[str]:
        """Put `new` in the place of `old`; the names that differ."""
        resources = self.resources[type_url]
        changed = {name for name, r in new.items() if name not in old or old[name].version != r.version}
        gone = old.keys() - new.keys()
        resources.update((name, new[name]) for name in changed)
        for name in gone:
            del resources[name]
        return frozenset(changed | gone)


class Verdicts:
    """What one build of Envoy has said.

    `accepted` are the resources that it last accepted, by type and name, `passed` the routes that it last
    accepted alone, by key: what stands in for what it refuses. `refused` are versions of resources and
    `refused_routes` versions of routes that it said no to, with its words: they are never sent to it again.
    """

    def __init__(self) -> None:
        self.accepted: dict[tuple[str, str], Resource] = {}
        self.refused: dict[tuple[str, str], tuple[str, str]] = {}
        self.passed: dict[Key, Routes] = {}
        self.refused_routes: dict[Key, tuple[str, str]] = {}

    def usable(self, type_url: str, resource: Resource) -> Resource | None:
        """What to send when this resource is wanted: itself, or what was last accepted if it is refused."""
        if not self.refuses(type_url, resource):
            return resource
        return self.accepted.get((type_url, resource.name))

    def has_passed(self, key: Key, routes: Routes) -> bool:
        passed = self.passed.get(key)
        return passed is not None and passed.version == routes.version

    def refuses(self, type_url: str, resource: Resource) -> bool:
        version, _ = self.refused.get((type_url, resource.name), (None, ""))
        return version == resource.version

    def refuses_routes(self, key: Key, routes: Routes) -> bool:
        version, _ = self.refused_routes.get(key, (None, ""))
        return version == routes.version

    def objection(self, key: Key, routes: Routes, pieces: Pieces) -> str | None:
        """Why something of this ModelDeployment as it is wanted now was refused; None if nothing was."""
        if self.refuses_routes(key, routes):
            return f"the router refuses its routes: {self.refused_routes[key][1]}"
        for type_url, resources in ((CLUSTER, pieces.clusters), (ENDPOINTS, pieces.endpoints)):
            for resource in resources.values() if self.refused else ():
                if self.refuses(type_url, resource):
                    kind = "cluster" if type_url == CLUSTER else "endpoints of"
                    return f"the router refuses {kind} {resource.name}: {self.refused[type_url, resource.name][1]}"
        return None

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self.passed.pop(key, None)
        self.refused_routes.pop(key, None)

    def forget_clusters(self, names: Iterable[str]) -> None:
        """These clusters are gone."""
        for name in names:
            for type_url in (CLUSTER, ENDPOINTS):
                self.refused.pop((type_url, name), None)
                self.accepted.pop((type_url, name), None)
