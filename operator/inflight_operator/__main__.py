"""`inflight-operator`: read the settings, connect, run until SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys

import structlog
import uvloop

from inflight_operator import settings, telemetry
from inflight_operator.errors import InflightError
from inflight_operator.kube.client import Kube
from inflight_operator.runtime import Operator, StoppedError


def main() -> None:
    """Entry point of the console script."""
    telemetry.configure_logging(os.environ.get("INFLIGHT_LOG_LEVEL", "INFO"))
    try:
        known = settings.read(os.environ)
    except InflightError as error:
        sys.exit(f"inflight-operator: {error}")
    # What the imports made lives for ever; no collection has to walk it again.
    gc.freeze()
    uvloop.run(_run(known))


async def _run(known: settings.Settings) -> None:
    kube = await Kube.connect(known.kubeconfig)
    operator = asyncio.create_task(Operator(known, kube).run(), name="operator")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, operator.cancel)  # until kopf starts, which then has its own
    try:
        await operator
    except* (StoppedError, asyncio.CancelledError):
        structlog.get_logger(__name__).info("stopped: the routers keep serving what they know")
    finally:
        await kube.close()


if __name__ == "__main__":
    main()
