"""`inflight-operator`: read the settings, connect, run until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys

import uvloop

from inflight_operator import settings, telemetry
from inflight_operator.errors import InflightError
from inflight_operator.kube.client import Kube
from inflight_operator.runtime import Operator


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
    operator = asyncio.create_task(Operator(known, await Kube.connect(known.kubeconfig)).run(), name="operator")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, operator.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await operator


if __name__ == "__main__":
    main()
