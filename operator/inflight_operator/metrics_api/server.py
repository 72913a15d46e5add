"""The HTTPS server behind the APIService: authenticate, authorise, answer. Nothing is decided here."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from inflight_operator.errors import InflightError

from . import objects
from .authorisation import Authoriser, Review
from .certificates import Certificates
from .identity import FrontProxy, User

Demand = Callable[[str, str], float | None]
"""(namespace, Deployment) → in-flight requests that its HPA should act on; None: no data."""

Trust = Callable[[], Awaitable[FrontProxy]]
"""Reads whom to trust from the cluster. Raises InflightError when it can't."""

_log: Final = structlog.get_logger(__name__)
_METRIC_PATH: Final = (
    f"/apis/{objects.GROUP_VERSION}/namespaces/{{namespace}}/{objects.RESOURCE}/{{name}}/{objects.METRIC}"
)
_HEALTH_PATHS: Final = ("/healthz", "/livez", "/readyz")
_USER: Final = web.RequestKey("user", User)
_GO_IDLE_SECONDS: Final = 90
_STOP_SECONDS: Final = 2.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Config:
    """Where to listen and what to say of the numbers."""

    tls_dir: Path
    """Directory with tls.crt and tls.key; read again when they change."""
    port: int = 8443
    """0: any free port."""
    host: str | None = None
    """Address to listen on; None: all."""
    window_seconds: int = 6
    """The time over which the demand is an average, as HPAs and people are told."""
    refresh_seconds: float = 60.0
    """How often the certificates and whom to trust are looked at again."""


class MetricsApi:
    """A running metrics API. Made by `serve`."""

    def __init__(self, config: Config, demand: Demand, trust: Trust, review: Review) -> None:
        self._config = config
        self._demand = demand
        self._trust = trust
        self._proxy: FrontProxy | None = None
        self._authoriser = Authoriser(review, time.monotonic)
        self._certificates = Certificates(config.tls_dir)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=_STOP_SECONDS,
            # Longer than the API server keeps idle connections: never close one just as it is being used.
            keepalive_timeout=_GO_IDLE_SECONDS + 30,
        )
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Listen. OSError: the port is taken."""
        await self._refresh()
        await self._runner.setup()
        context = self._certificates.listening
        await web.TCPSite(self._runner, self._config.host, self._config.port, ssl_context=context).start()
        self._refreshing = asyncio.create_task(self._keep_fresh(), name="metrics API certificates")

    async def stop(self) -> None:
        """Stop listening; open requests get two seconds to end."""
        if self._refreshing:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        await self._runner.cleanup()

    async def _keep_fresh(self) -> None:
        while True:
            # Until the API server has said whom to trust, nobody gets an answer: ask often.
            await asyncio.sleep(self._config.refresh_seconds if self._proxy else min(2.0, self._config.refresh_seconds))
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._proxy = await self._trust()
        except InflightError as error:
            _log.warning("can't read whom the metrics API may trust; it keeps what it knew", error=str(error))
        try:
            if self._certificates.refresh(self._proxy):
                _log.info("metrics API uses new certificates")
        except (OSError, ssl.SSLError) as error:
            _log.error("the metrics API's certificates can't be used; it keeps those before", error=str(error))

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_as_status, self._authenticate])
        for path in _HEALTH_PATHS:
            app.router.add_get(path, _healthy)
        for path, document in (
            ("/apis", objects.group_list()),
            (f"/apis/{objects.GROUP}", objects.group()),
            (f"/apis/{objects.GROUP_VERSION}", objects.resource_list()),
        ):
            app.router.add_get(path, _constant(document))
        app.router.add_get(_METRIC_PATH, self._metric)
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in _HEALTH_PATHS:
            return await handler(request)
        proxy = self._proxy
        if proxy is None or not proxy.vouches(request.get_extra_info("peercert")):
            return _failure(401, "only the API server's aggregation layer may ask, with its front-proxy certificate")
        user = proxy.user(request.headers)
        if user is None:
            return _failure(401, f"the front proxy named no user in {', '.join(proxy.username_headers)}")
        request[_USER] = user
        return await handler(request)

    async def _metric(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        if name == "*" or request.query.get("metricLabelSelector"):
            return _failure(400, f"{objects.METRIC} is served for one named Deployment at a time, without selectors")
        user = request[_USER]
        try:
            allowed = await self._authoriser.may_read(user, namespace, name)
        except InflightError as error:
            return _failure(503, f"can't ask the API server whether {user.name} may read this: {error}")
        if not allowed:
            return _failure(
                403, f"{user.name} may not get {objects.RESOURCE}/{objects.METRIC} of {name} in namespace {namespace}"
            )
        value = self._demand(namespace, name)
        if value is None:
            return _failure(404, f"no load data for Deployment {namespace}/{name}; the HPA holds its replicas")
        now = datetime.now(UTC)
        return web.json_response(objects.metric_value(namespace, name, value, now, self._config.window_seconds))


async def serve(config: Config, demand: Demand, trust: Trust, review: Review) -> MetricsApi:
    """Start the metrics API and return it running; `stop` ends it.

    While `trust` fails every question is answered 401. OSError: the port is taken or the TLS files are missing.
    """
    api = MetricsApi(config, demand, trust, review)
    await api.start()
    return api


@web.middleware
async def _as_status(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """What the router refuses (404, 405) is a Status too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _failure(error.status, f"{request.method} {request.path}: {error.reason}")


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _constant(document: objects.Json) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document)

    return answer


def _failure(code: int, message: str) -> web.Response:
    return web.json_response(objects.failure(code, message), status=code)
