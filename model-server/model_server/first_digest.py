"""The digest that this revision's first pod had, where somebody records it: a model without a sha256 is held to it.

The file appears some time after the first pods have started, so whoever found none looks again now and then.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from model_server.errors import LoadFailure, Reason
from model_server.settings import SHA256, ModelSettings

_log = structlog.get_logger()

LOOK_SECONDS: Final = 10.0


def held(model: ModelSettings) -> ModelSettings:
    """`model`, with the recorded digest as its sha256 unless it has one of its own."""
    recorded = "" if model.sha256 else _recorded(model)
    return replace(model, sha256=recorded) if recorded else model


async def differs(model: ModelSettings, served: str) -> LoadFailure:
    """Returns when another digest than `served` is recorded; otherwise never."""
    while not model.sha256 and model.digest_file is not None:
        await asyncio.sleep(LOOK_SECONDS)
        recorded = _recorded(model)
        if recorded and recorded != served:
            uri = model.uri[:500]
            what = f"{uri} had sha256 {served} here, but {recorded} when this revision's first pod fetched it"
            return LoadFailure(Reason.DIGEST_MISMATCH, what)
        if recorded:
            break  # and so it stays
    never: asyncio.Future[LoadFailure] = asyncio.get_running_loop().create_future()
    return await never


def _recorded(model: ModelSettings) -> str:
    """Empty while there is none."""
    try:
        text = model.digest_file.read_text().strip() if model.digest_file else ""
    except (OSError, UnicodeDecodeError):
        return ""
    if text and not SHA256.fullmatch(text):
        _log.warning("the recorded digest is none", file=str(model.digest_file))
        return ""
    return text
