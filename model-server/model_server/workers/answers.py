"""What a worker's message, or its end, means for the prediction on it. Pure."""

from __future__ import annotations

import math
from typing import Any

from model_server.errors import Code, Problem
from model_server.executor import Outcome
from model_server.workers.channel import arrays
from model_server.workers.wire import WireError


class ModelError(Exception):
    """What a model raised in a worker; the text of its traceback comes with it."""

    def __init__(self, told: str, trace: str) -> None:
        super().__init__(told)
        self.trace = trace

    def __str__(self) -> str:
        """As it was raised, with where."""
        return f"{self.args[0]}\n{self.trace}" if self.trace else str(self.args[0])


def outcome(message: dict[str, Any], memory: memoryview, elapsed: float) -> Outcome:
    """WireError, KeyError, TypeError, ValueError for what no worker of ours would send."""
    seconds = _seconds(message["seconds"], elapsed)
    if "problem" in message:
        return Outcome(None, Problem(Code.BAD_INPUT, _text(message["problem"])), seconds)
    if "error" in message:
        return Outcome(None, ModelError(_text(message["error"]), _text(message.get("trace", ""))), seconds)
    return Outcome(arrays(message, memory), None, seconds)


def _seconds(told: Any, elapsed: float) -> float:
    """At most those that have passed: what admission expects of the next ones follows from it."""
    if type(told) is not float or not math.isfinite(told) or told < 0:
        raise WireError("no duration")
    return min(told, elapsed)


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise WireError("no text")
    return told


def lost(why: str) -> Outcome:
    """Of a prediction whose worker is no more."""
    return Outcome(
        None, Problem(Code.WORKER_LOST, f"{why} while it worked on this request, or others of its batch"), 0.0
    )
