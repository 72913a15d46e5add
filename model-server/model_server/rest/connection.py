"""A client's connection: predictions go straight to the core, everything else to the ASGI application by uvicorn.

A task, a scope and an event for each request (what ASGI needs) cost more than a small model. Parsing stays httptools';
uvicorn's connection stays in charge of its life, of pipelining, and of all other paths. Added here: bounds on a
request's head and on a body nobody wants, and problem+json for malformed HTTP.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from model_server.errors import Code, Problem
from model_server.rest import problems
from model_server.rest.front import Front
from model_server.rest.infer import Inference, target
from model_server.rest.prediction import Prediction
from model_server.rest.problems import Answer

HEAD_SECONDS: Final = 10.0
"""For a request's line and headers, from the connection's start or their first byte."""
HEAD_BYTES: Final = 64 * 1024
JOINED_BYTES: Final = 64 * 1024
"""Of an answer's tail that are copied behind its head; more are sent from where they are."""
READER_SECONDS: Final = 30.0
"""For a client to read some of an answer."""
LINGER_SECONDS: Final = 5.0
"""For the rest of a body whose request was answered before it was all there (refused, too large)."""


class Connection(HttpToolsProtocol):
    """A connection on which every wait for the client ends."""

    inference: Inference
    adopted = False
    """Whether another process of this server has served it before: it may be idle for long, as between requests."""
    _front: Front
    _timer: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0
    """Bytes received of a head that isn't complete, and perhaps of what came before; None: no head is awaited."""
    _data_bytes = 0
    """Of what is being parsed."""
    _receiving = False
    """Whether a request has begun to come and isn't all there."""
    _resting_since = math.inf
    """When the last answer had gone, on the loop's clock; infinity: a request is under way."""
    _reader_timer: asyncio.TimerHandle | None = None
    """While the client must first read what was sent."""
    _incoming: Prediction | None = None
    """The prediction request that is being received."""
    _current: Prediction | None = None
    """The prediction request that is to be answered next."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._front = self.config.loaded_app
        self.inference = self._front.inference
        if self.adopted:
            self._head_bytes = None
            self._rest()
        else:
            self._close_after(HEAD_SECONDS)
            self.give_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more, and let nobody work for the client that has gone."""
        self._stop_waiting()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        if self._current is not None:
            self._current.leave()
            self._current = None
        super().connection_lost(exc)
        self._end_rest()

    def _rest(self) -> None:
        """Wait for the next request, but not for ever."""
        self._resting_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn's word for it: a request has begun. Its timer may ring: one for each would cost more than that."""
        self._resting_since = math.inf

    def timeout_keep_alive_handler(self) -> None:
        """The timer rings: see whether it has been as long since the last answer."""
        self.timeout_keep_alive_task = None
        left = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            super().timeout_keep_alive_handler()
        elif left < math.inf:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _end_rest(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and arm the timers for what hasn't come: rarely anything."""
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        self._data_bytes = len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes is not None:
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("the request line and headers are too long")
            elif self._timer is None:
                self._close_after(HEAD_SECONDS)
        elif self._incoming is not None and self._incoming is self._current:
            self.wait_for_body(self._current)

    def give_if_idle(self) -> None:
        """Let another process serve this connection from here on, if that is wanted and no request is under way."""
        giving = self._front.giving
        if giving is None or not self._idle or not giving.wanted():
            return
        if giving.give(self.transport.get_extra_info("socket").fileno()):
            self.connections.discard(self)
            self.transport.close()  # closes this process's descriptor: the connection goes on with the other's

    @property
    def _idle(self) -> bool:
        """Whether the last answer has gone and nothing of the next request has come."""
        return (
            self._current is None
            and not self._receiving
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
        )

    def _give_soon(self) -> None:
        """Not from within the parser: it may have more to read."""
        if self._front.overfull:
            self.loop.call_soon(self.give_if_idle)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = self._data_bytes
        self._receiving = True
        self._resting_since = math.inf

    def on_headers_complete(self) -> None:
        """From here on the request's own deadline counts."""
        self._stop_waiting()
        received, self._head_bytes = self._head_bytes or 0, None
        if received > HEAD_BYTES and len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > HEAD_BYTES:
            raise ValueError  # the parser turns it into an error of its own: answered 400
        asked = target(self.url)
        if asked is None:
            self._hand_to_asgi()
            return
        self._incoming = prediction = Prediction(self, asked)
        if self._current is not None or (self.cycle is not None and not self.cycle.response_complete):
            self._queue(prediction, None)
        else:
            self._current = prediction
            prediction.open()

    def _hand_to_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the very list that the scope holds
        super().on_headers_complete()

    def _queue(self, request: Any, app: Any) -> None:
        """Requests that come before the last answer has gone wait for their turn (pipelining)."""
        self.flow.pause_reading()
        self.pipeline.appendleft((request, app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start what is next in turn, which may be a prediction."""
        if isinstance(cycle, Prediction):
            self._current = cycle
            cycle.open()
            if not (cycle.complete or cycle.answered):
                self.wait_for_body(cycle)
        elif self._current is not None:
            self._queue(cycle, app)
        else:
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        if self._incoming is None:
            super().on_body(body)
        else:
            self._incoming.receive(body)

    def on_message_complete(self) -> None:
        """The body is all there; if its request was answered already, the connection is idle now."""
        self._receiving = False
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            super().on_message_complete()
            answered = self.cycle.response_complete
        else:
            self._stop_waiting()
            answered = incoming.answered
            incoming.completed()
        if answered and not self.transport.is_closing():
            self._stop_waiting()
            self._rest()

    def on_response_complete(self) -> None:
        """An ASGI answer has gone."""
        self._end_rest()  # uvicorn starts a timer of its own, unless there is more to answer
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._resting_since = self.loop.time()
        if self.cycle.response_complete and self.cycle.more_body:
            self._linger()
        self._give_soon()

    def send(self, answer: Answer, request_id: str, prediction: Prediction) -> None:
        """The answer of the current prediction."""
        self._current = None
        if self.transport.is_closing():
            return
        keep_alive = prediction.keep_alive and not self.inference.lifecycle.draining
        status, body, headers, tail = answer
        length = sum([part.nbytes for part in tail]) if tail else 0
        first = b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n%b%b" % (
            STATUS_LINE[status],
            b"".join([b"%b: %b\r\n" % header for header in headers]),
            len(body) + length,
            request_id.encode(),
            b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
            body,
        )
        if not tail:
            self.transport.write(first)
        elif length <= JOINED_BYTES:
            self.transport.write(b"".join([first, *tail]))
        else:
            self.transport.writelines([first, *tail])
        if not keep_alive:
            self.transport.close()
        if self.flow.write_paused:
            self._current = prediction
            self.flow.pause_reading()
            self._wait_for_reader(math.inf)
        elif self.pipeline:  # not from here: hundreds in a row that are answered at once would nest too deeply
            self._current = prediction
            self.loop.call_soon(self._go_on, prediction)
        else:
            self._go_on(prediction)

    def _go_on(self, prediction: Prediction) -> None:
        """The answer has gone: whatever is next in turn."""
        self._current = None
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._rest()
        if not prediction.complete:
            self._linger()
        self._give_soon()

    def resume_writing(self) -> None:
        """The client has read most of what was sent."""
        super().resume_writing()
        if self._reader_timer is not None and self._current is not None:
            self._reader_timer.cancel()
            self._reader_timer = None
            self._go_on(self._current)

    def _wait_for_reader(self, left: float) -> None:
        """Nothing more is computed for a client that doesn't read, and one that reads nothing at all is left."""
        now = self.transport.get_write_buffer_size()
        if now < left:
            self._reader_timer = self.loop.call_later(READER_SECONDS, self._wait_for_reader, now)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Close when idle, or after the answer that is being waited for."""
        if self._current is not None and (self.pipeline or not self._current.answered):
            self._current.keep_alive = False
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Malformed HTTP: problem+json, and the connection closed."""
        answer = problems.answer(Problem(Code.BAD_REQUEST, msg.rstrip(".")), "")
        lines: list[bytes] = [b"HTTP/1.1 400 Bad Request\r\n"]
        for name, value in [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]:
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))
        self.transport.close()

    def wait_for_body(self, prediction: Prediction) -> None:
        """A body has until the deadline of its request."""
        if self._timer is None and not prediction.answered:
            self._timer = self.loop.call_at(prediction.deadline, prediction.body_is_late)

    def _linger(self) -> None:
        """What is still to come of a body is read and dropped, but not for ever."""
        if not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._close_after(LINGER_SECONDS)

    def _close_after(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
