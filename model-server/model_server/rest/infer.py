"""One prediction request: head, body, queue, model, answer. Decides nothing itself: every step may raise a Problem."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from starlette.types import Receive

from model_server.admission import Admission
from model_server.errors import Code, Problem, first_line
from model_server.executor import Work
from model_server.lifecycle import Lifecycle, Served
from model_server.models.tensors import Tensors
from model_server.rest import v1, v2
from model_server.rest.problems import Answer
from model_server.rest.wire import ClientLeftError, RequestHead, departure, has_left, read_body

_V2: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_V1: Final = re.compile(r"/v1/models/([^/:]+):predict")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Target:
    """What a prediction path names."""

    name: str
    version: str | None
    protocol: int


def target(path: str) -> Target | None:
    """The model that `path` asks a prediction of; None for any other path."""
    if match := _V2.fullmatch(path):
        return Target(match[1], match[2], 2)
    if match := _V1.fullmatch(path):
        return Target(match[1], None, 1)
    return None


@dataclass(frozen=True, slots=True)
class Inference:
    """What prediction requests need of the server."""

    lifecycle: Lifecycle
    admission: Admission
    timeout_seconds: float
    max_body_bytes: int

    async def answer(self, asked: Target, head: RequestHead, receive: Receive, arrived: float) -> Answer:
        """The 200. Raises Problem, also for a client that has left. `arrived` is on the loop's clock."""
        head.check_media_type()
        served = self.lifecycle.get(asked.name, asked.version)
        deadline = arrived + head.timeout_seconds(self.timeout_seconds)
        self.admission.check(deadline)
        try:
            body = await read_body(receive, head, self.max_body_bytes, deadline)
        except ClientLeftError:
            raise Problem(Code.CANCELLED, "the client left before its request was complete") from None
        answer = await self._predicted(asked, served, body, deadline, receive)
        if has_left(receive):
            raise Problem(Code.CANCELLED, "the client left before its answer")
        return Answer(200, answer)

    async def _predicted(self, asked: Target, served: Served, body: bytes, deadline: float, receive: Receive) -> bytes:
        metadata = served.model.metadata
        if asked.protocol == 1:
            inputs = v1.decode(body, metadata)
            return v1.encode(await self._run(served, inputs, deadline, receive))
        request = v2.decode(body, metadata)
        outputs = await self._run(served, request.inputs, deadline, receive)
        return v2.encode(request, outputs, asked.name, served)

    async def _run(self, served: Served, inputs: Tensors, deadline: float, receive: Receive) -> Tensors:
        size = sum(array.nbytes for array in inputs.values()) if served.model.computes_only else None
        work = Work(partial(served.model.predict, inputs), size)
        try:
            outputs: Tensors = await self.admission.run(work, deadline, partial(departure, receive))
        except Problem:
            raise
        except Exception as error:
            _log.warning("prediction failed", error=first_line(error), exc_info=error)
            raise Problem(
                Code.MODEL_ERROR, "the model failed on this request; the server's log says why, by request_id"
            ) from error
        return outputs
