"""A worker: predicts what it is sent, one at a time, until the front closes the socket.

Runs in a process of its own, forked from the template. What it prints stays on the pod's standard error and output.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_server.errors import Code, Problem
from model_server.models.base import Model
from model_server.models.loading import warm_up
from model_server.models.tensors import Tensors
from model_server.workers.channel import Channel, arrays

NICE: Final = 10
"""Refusals and probes, made by the front, should be quick also when predictions use all of the machine."""
_OOM_SCORE: Final = 500
"""When memory runs out it is a worker that should go, not the front."""
_PR_SET_PDEATHSIG: Final = 1
_RSS_EVERY: Final = 16
_TRACE_CHARACTERS: Final = 8192


@dataclass(frozen=True)
class Recycling:
    """When a worker makes way for a fresh one, between two requests; 0: never."""

    max_requests: int = 0
    max_rss_bytes: int = 0


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent`, which started this one, ends however it may."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def serve(model: Model, channel: Channel, recycling: Recycling, threads: int) -> None:
    """Until the front goes away, or it is time for a fresh one. `threads`: of one prediction."""
    threadpool_limits(threads)
    os.nice(NICE)
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    channel.send({"ready": warm_up(model)})
    served = 0
    while (received := channel.receive()) is not None:
        served += 1
        leaving = _due(served, recycling)
        _answer(model, channel, *received, leaving=leaving)
        if leaving:
            return


def _answer(model: Model, channel: Channel, message: dict[str, Any], memory: memoryview, *, leaving: bool) -> None:
    start = time.perf_counter()
    outputs, told = _predicted(model, message, memory)
    told |= {"seconds": time.perf_counter() - start, "leaving": leaving}
    try:
        channel.send(told, outputs)
    except TypeError as error:  # an output of a type that the protocol has no name for
        channel.send({**told, "error": str(error)})


def _predicted(model: Model, message: dict[str, Any], memory: memoryview) -> tuple[Tensors | None, dict[str, Any]]:
    try:
        return model.predict(arrays(message, memory, copy=False)), {}
    except Problem as problem:
        return None, {"problem" if problem.code is Code.BAD_INPUT else "error": problem.detail}
    except BaseException as error:  # a model may raise anything, SystemExit too
        trace = "".join(traceback.format_exception(error))
        return None, {"error": f"{type(error).__name__}: {error}"[:1000], "trace": trace[-_TRACE_CHARACTERS:]}


def _due(served: int, recycling: Recycling) -> bool:
    if recycling.max_requests and served >= recycling.max_requests:
        return True
    if recycling.max_rss_bytes and served % _RSS_EVERY == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() > recycling.max_rss_bytes
    return False
