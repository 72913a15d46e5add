"""Logs as JSON lines on standard error, with what is bound to the request or the process in every line."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any, Final

import orjson
import structlog

request_id: ContextVar[str] = ContextVar("request_id")
"""The request that is being worked on; in every line logged meanwhile."""

verbose = False
"""Whether debug lines are written: asking here is cheaper than a call that writes nothing."""

_given: dict[str, str] = {}

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configured() -> dict[str, str]:
    """What `configure` was given, for another process of this server; empty before."""
    return _given


def configure(level: str, **always: str) -> None:
    """Set up structlog, and let the libraries' warnings through the same way; empty `always` values are left out."""
    global verbose, _given  # noqa: PLW0603 - as global as the logs
    verbose = level == "debug"
    _given = {"level": level, **always}
    bound = {key: value for key, value in always.items() if value}

    def add_bound(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        of_request = request_id.get("")
        return {**bound, **({"request_id": of_request} if of_request else {}), **event}

    shared: list[structlog.typing.Processor] = [
        add_bound,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()


def _renderer(_logger: Any, _name: str, event: Any) -> str:
    return _dumps(event)
