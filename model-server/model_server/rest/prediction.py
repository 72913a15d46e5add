"""A prediction request on its connection: what has come of it, and its Call once it is its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_server.errors import Code, Problem
from model_server.rest.infer import Call, Target
from model_server.rest.problems import Answer
from model_server.rest.wire import RequestHead, too_large

if TYPE_CHECKING:
    from model_server.rest.connection import Connection


class Prediction:
    """Received as it comes, opened when the requests before it on the connection have been answered."""

    __slots__ = (
        "_asked",
        "_body",
        "_call",
        "_connection",
        "_expects",
        "_head",
        "_method",
        "_padding",
        "complete",
        "keep_alive",
    )

    def __init__(self, connection: Connection, asked: Target) -> None:
        self._connection = connection
        self._asked = asked
        self._head = RequestHead.of(connection.headers)
        self._method = connection.parser.get_method()
        self._expects = connection.expect_100_continue
        self._call: Call | None = None
        self._body: bytes | bytearray = b""
        self._padding = 0
        """Bytes before the body, so that large raw tensors lie as their type wants it and need not be copied."""
        self.complete = False
        """Whether its body is all there."""
        self.keep_alive = connection.parser.get_http_version() != "1.0" and connection.parser.should_keep_alive()
        """Whether the connection is used again after the answer."""

    @property
    def answered(self) -> bool:
        """Whether the answer has gone."""
        return self._call is not None and self._call.answered

    @property
    def deadline(self) -> float:
        """Of an opened one, on the loop's clock."""
        return self._call.deadline if self._call is not None else 0.0

    def open(self) -> None:
        """It is its turn: it may be refused before its body has come."""
        connection = self._connection
        call = self._call = Call(connection.inference, self._asked, self._head)
        call.begin(self._method.decode("latin-1"), self._reply)
        if call.answered:
            return
        if self.complete:
            self._hand_on(call)
        elif self._expects:
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def receive(self, part: bytes) -> None:
        """Part of the body; nobody keeps more than the limit and what came with it."""
        limit = self._connection.inference.max_body_bytes
        if self.answered or len(self._body) - self._padding > limit:
            return
        if not self._body:
            self._body = part
        else:
            if not isinstance(self._body, bytearray):
                self._padding = self._head.padding()
                self._body = bytearray(self._padding) + self._body
            self._body += part
        if self._call is not None and len(self._body) - self._padding > limit:
            self._call.fail(too_large(limit))

    def completed(self) -> None:
        """The last byte has come."""
        self.complete = True
        if self._call is not None and not self._call.answered:
            self._hand_on(self._call)

    def leave(self) -> None:
        """The client has gone."""
        if self._call is not None:
            self._call.leave()

    def body_is_late(self) -> None:
        """The deadline has passed before the body was all there; the rest of it is not waited for."""
        if self._call is not None:
            self.keep_alive = False
            self._call.fail(Problem(Code.BODY_TIMEOUT, "the request body did not arrive before the deadline"))

    def _hand_on(self, call: Call) -> None:
        body = memoryview(self._body)[self._padding :] if self._padding else self._body
        self._body = b""
        if len(body) > self._connection.inference.max_body_bytes:
            call.fail(too_large(self._connection.inference.max_body_bytes))
        else:
            call.body(body)

    def _reply(self, call: Call, answer: Answer) -> None:
        if self._expects and not self.complete:
            self.keep_alive = False  # whether a body follows now, only the client knows
        self._connection.send(answer, call.request_id, self)
