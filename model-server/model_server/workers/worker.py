"""A worker: predicts what it is sent, one at a time, until the front closes the socket.

Runs in a process of its own, forked from the template. What it prints stays on the pod's standard error and output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_server import logs
from model_server.errors import Code, Problem
from model_server.models.base import Model
from model_server.models.tensors import Tensors
from model_server.workers.channel import Channel, arrays
from model_server.workers.wire import UnsendableError

NICE: Final = 10
"""Refusals and probes, made by the front, should be quick also when predictions use all of the machine."""
_AUTOGROUP: Final = Path("/proc/self/autogroup")
"""Of a session, and each worker leads one: its own niceness (sched(7))."""
_OOM_SCORE: Final = 500
"""When memory runs out it is a worker that should go, not the front."""
_TRACE_CHARACTERS: Final = 8192


@dataclass(frozen=True)
class Recycling:
    """When a worker makes way for a fresh one, between two requests; 0: never."""

    max_requests: int = 0
    max_rss_bytes: int = 0
    """Of resident memory, the model that it shares included."""


def serve(model: Model, channel: Channel, recycling: Recycling, threads: int) -> None:
    """Until the front goes away, or it is time for a fresh one. `threads`: of one prediction."""
    _settle(threads)
    channel.send({"ready": True})
    due = _due(recycling)
    while (received := channel.receive()) is not None:
        if _answer(model, channel, *received, due):
            return


def _settle(threads: int) -> None:
    """Be a good neighbour, and not quite the same as the other workers."""
    os.nice(NICE)
    with contextlib.suppress(OSError):  # where sessions share the CPU as groups, that counts within this one only
        _AUTOGROUP.write_text(str(NICE))
    score = Path("/proc/self/oom_score_adj")
    score.write_text(str(max(_OOM_SCORE, int(score.read_text()))))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # writing a large one down would keep its successor waiting
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # as Python does with its own after a fork
    if threads > 1:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415 - not for one

        threadpool_limits(threads)


def _answer(
    model: Model, channel: Channel, message: dict[str, Any], memory: memoryview, due: Callable[[], bool]
) -> bool:
    """Whether this was the last answer."""
    logs.request_id.set(message["request_id"])
    start = time.perf_counter()
    outputs, told = _predicted(model, message, memory)
    told["seconds"] = time.perf_counter() - start
    leaving = due()
    try:
        channel.send({**told, "leaving": leaving}, outputs)
    except UnsendableError as error:
        channel.send({**told, "error": f"the model answered what can't be sent: {error}", "leaving": leaving})
    return leaving


def _predicted(model: Model, message: dict[str, Any], memory: memoryview) -> tuple[Tensors | None, dict[str, Any]]:
    try:
        # Copies: a model may keep its inputs or write to them, and the memory is the next request's.
        return model.predict(arrays(message, memory)), {}
    except Problem as problem:
        return None, {"problem" if problem.code is Code.BAD_INPUT else "error": _clean(problem.detail)}
    except BaseException as error:  # a model may raise anything, SystemExit too
        trace = "".join(traceback.format_exception(error))[-_TRACE_CHARACTERS:]
        return None, {"error": _clean(f"{type(error).__name__}: {_text(error)}"), "trace": _clean(trace)}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its own __str__ is broken too
        return "(no text)"


def _clean(text: str) -> str:
    """As much of a text as an answer has room for, without what isn't Unicode."""
    return text[:_TRACE_CHARACTERS].encode("utf-8", "replace").decode()


def _due(recycling: Recycling) -> Callable[[], bool]:
    """Says, called once for each request, whether it is time for a fresh worker."""
    served = 0
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def due() -> bool:
        nonlocal served
        served += 1
        if recycling.max_requests and served >= recycling.max_requests:
            return True
        if not recycling.max_rss_bytes:
            return False
        pages = int(os.pread(statm, 128, 0).split()[1])
        return pages * resource.getpagesize() > recycling.max_rss_bytes

    return due
