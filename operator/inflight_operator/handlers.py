"""kopf's side: events of ModelDeployments and their children become keys in the queue. Nothing is decided here.

Only `on.event` handlers: kopf then adds no finalizer and no annotation to anybody's object, so a ModelDeployment can
always be deleted, with the operator running or not (docs/adr/0001).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import kopf

from inflight_operator.api import names
from inflight_operator.api.names import Key
from inflight_operator.observe.store import Store

_CHILDREN: Final = {
    "Deployment": ("apps", "v1", "deployments"),
    "ControllerRevision": ("apps", "v1", "controllerrevisions"),
    "Service": ("", "v1", "services"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "EndpointSlice": ("discovery.k8s.io", "v1", "endpointslices"),
}


def registry(
    store: Store, enqueue: Callable[[Key], None], router: Callable[[dict[str, Any], bool], None], router_service: str
) -> kopf.OperatorRegistry:
    """The handlers. `router` is told of the router Service's EndpointSlices (the object, and whether it is deleted)."""
    made = kopf.OperatorRegistry()

    kopf.on.login(registry=made)(_login)

    def follow(kind: str) -> Callable[..., Any]:
        # Coroutines, not functions: kopf would run functions in threads, and the store is the event loop's.
        async def handle(*, event: Any, **_: Any) -> None:
            forget = event["type"] == "DELETED"
            key = (store.drop if forget else store.put)(kind, event["object"])
            if key is not None:
                enqueue(key)

        return handle

    kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=made, id="modeldeployment")(follow(names.KIND))
    for kind, resource in _CHILDREN.items():
        marked = {names.MODEL_DEPLOYMENT: kopf.PRESENT}
        kopf.on.event(*resource, labels=marked, registry=made, id=kind.lower())(follow(kind))

    async def routers(*, event: Any, **_: Any) -> None:
        router(event["object"], event["type"] == "DELETED")

    kopf.on.event(
        *_CHILDREN["EndpointSlice"], labels={names.SERVICE_NAME: router_service}, registry=made, id="routers"
    )(routers)
    return made


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """kopf's own readers; its other ways would import a second Kubernetes client, of tens of MiB."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def settings(*, clusterwide: bool) -> kopf.OperatorSettings:
    """kopf as a patient watcher: it never gives up on a watch, writes nothing, and adds no delay of its own.

    Without rights on the whole cluster it may not look for namespaces and definitions either: the patience with which
    it would ask for them keeps it from ever watching anything.
    """
    made = kopf.OperatorSettings()
    made.scanning.disabled = not clusterwide
    made.posting.enabled = False
    made.networking.error_backoffs = _Endless()
    made.watching.server_timeout = 300
    made.watching.inactivity_timeout = 70
    made.queueing.idle_timeout = 1.0
    return made


class _Endless:
    """Back off 1, 2, 4, 8 s and then 10 s for ever: a watch that ends for good would leave a healthy-looking zombie."""

    def __iter__(self) -> Any:
        yield from (1.0, 2.0, 4.0, 8.0)
        while True:
            yield 10.0
