"""The operator's own health and metrics, plain HTTP for the kubelet and Prometheus.

Alive: the event loop answers and every watch that should run does (kopf does not restart one that died). Ready: the
first full world has been reconciled, so the routers get all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

WATCH_GRACE_SECONDS = 60.0


class Health:
    """Answers GET /healthz, /readyz and /metrics. `clock` is monotonic seconds."""

    def __init__(self, watches: int, ready: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._watches = watches
        self._ready = ready
        self._clock = clock
        self._short_since: float | None = None

    async def serve(self, port: int) -> web.AppRunner:
        """Listen on all addresses."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        running = sum(task.get_name().startswith("watcher for") and not task.done() for task in asyncio.all_tasks())
        if running >= self._watches:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = self._clock()
        short = self._short_since is not None and self._clock() - self._short_since > WATCH_GRACE_SECONDS
        text = f"{running} of {self._watches} watches run\n"
        return web.Response(status=503 if short else 200, text=text)

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "reading the cluster\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
