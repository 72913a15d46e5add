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
    operator = Operator(known, kube)
    _stop_on_signal(operator)
    taken_back = asyncio.create_task(_take_back(operator))
    try:
        await operator.run()
    except* StoppedError:
        structlog.get_logger(__name__).info("stopped: the routers keep serving what they know")
    finally:
        taken_back.cancel()
        await kube.close()


def _stop_on_signal(operator: Operator) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, operator.stop)


async def _take_back(operator: Operator) -> None:
    """kopf takes the signals for itself, and would end its watches before anybody else could lead: five seconds."""
    await operator.watching.wait()
    _stop_on_signal(operator)


if __name__ == "__main__":
    main()
