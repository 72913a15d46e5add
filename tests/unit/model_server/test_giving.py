"""When a connection may be given to another process: between two requests, and never in one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from model_process import connected, one_answer, post
from model_serving import FakeModel, Gate, Server, serving, until

BODY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
INFER = post("/v2/models/digits/infer", BODY)
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Other:
    """Takes connections as another process would."""

    left: int = 1
    taken: list[socket.socket] = field(default_factory=list)

    def wanted(self) -> bool:
        """See rest.front.Giving."""
        return self.left > 0

    def give(self, fd: int) -> bool:
        """See rest.front.Giving."""
        self.left -= 1
        self.taken.append(socket.socket(fileno=os.dup(fd)))
        return True


@asynccontextmanager
async def giving(server: Server, left: int = 1) -> AsyncIterator[Other]:
    other = Other(left)
    server.front.giving, server.front.overfull = other, True
    yield other
    for taken in other.taken:
        taken.close()


@pytest.mark.parametrize("sent", [INFER, LIVE], ids=["a prediction", "a probe"])
async def test_it_is_given_after_the_answer_and_goes_on_elsewhere(sent: bytes) -> None:
    async with serving() as server, connected(server.port) as (reader, writer), giving(server) as other:
        other.left = 0  # not yet, when it is made
        writer.write(sent)
        assert await one_answer(reader) == 200
        other.left = 1
        writer.write(sent)
        assert await one_answer(reader) == 200
        await until(lambda: len(other.taken) == 1 and not server.web.connections)
        writer.write(b"for the other")
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(other.taken[0], 100) == b"for the other"
        await loop.sock_sendall(other.taken[0], b"from the other")
        assert await reader.readexactly(14) == b"from the other"


async def test_a_new_one_is_given_at_once() -> None:
    async with serving() as server, giving(server) as other, connected(server.port) as (_, writer):
        writer.write(b"first")
        await until(lambda: len(other.taken) == 1)
        assert await asyncio.get_running_loop().sock_recv(other.taken[0], 100) == b"first"


async def test_what_still_comes_of_an_answered_request_is_no_new_one() -> None:
    """Given away now, the rest of its body would be the other process's next request."""
    async with serving() as server, connected(server.port) as (reader, writer):
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n" + b"a" * 20)
        assert await one_answer(reader) == 404
        async with giving(server) as other:
            server.web.give_idle()
            writer.write(b"b" * 20)
            await asyncio.sleep(0.02)
            server.web.give_idle()
            assert not other.taken
            writer.write(b"c" * 20)
            await asyncio.sleep(0.02)
            server.web.give_idle()
            assert len(other.taken) == 1


@pytest.mark.parametrize("part", [INFER[:20], INFER[:-5]], ids=["of a head", "of a body"])
async def test_a_part_of_a_request_stays_with_who_has_read_it(part: bytes) -> None:
    async with serving() as server, connected(server.port) as (reader, writer):
        writer.write(part)
        await until(lambda: server.web.connections == 1)
        await asyncio.sleep(0.02)
        async with giving(server) as other:
            server.web.give_idle()
            assert not other.taken
            writer.write(INFER[len(part) :])
            assert await one_answer(reader) == 200
            await until(lambda: len(other.taken) == 1)


async def test_requests_in_a_row_are_all_answered_first() -> None:
    async with serving() as server, connected(server.port) as (reader, writer):
        writer.write(LIVE)
        assert await one_answer(reader) == 200
        async with giving(server) as other:
            writer.write(INFER + LIVE + INFER)
            assert [await one_answer(reader) for _ in range(3)] == [200, 200, 200]
            await until(lambda: len(other.taken) == 1)


async def test_a_prediction_under_way_is_waited_for() -> None:
    gate = Gate()
    async with serving(FakeModel(function=gate)) as server, connected(server.port) as (reader, writer):
        writer.write(INFER)
        await gate.wait_entered()
        async with giving(server) as other:
            server.web.give_idle()
            assert not other.taken
            gate.open.set()
            assert await one_answer(reader) == 200
            await until(lambda: len(other.taken) == 1)


async def test_a_closing_one_is_not_given() -> None:
    async with serving() as server, connected(server.port) as (reader, writer):
        writer.write(LIVE)
        assert await one_answer(reader) == 200
        async with giving(server) as other:
            writer.write(post("/v2/models/digits/infer", BODY, "Connection: close"))
            assert await one_answer(reader) == 200
            assert await reader.read() == b""
            assert not other.taken


async def test_one_that_was_given_is_not_given_again() -> None:
    async with serving() as server, connected(server.port) as (reader, writer):
        writer.write(LIVE)
        assert await one_answer(reader) == 200
        async with giving(server, left=5) as other:
            server.web.give_idle()
            server.web.give_idle()
            assert len(other.taken) == 1


async def test_an_adopted_one_is_answered() -> None:
    async with serving() as one, serving() as two, giving(one) as other, connected(one.port) as (reader, writer):
        await until(lambda: len(other.taken) == 1)
        await two.web.adopt(other.taken.pop())
        for _ in range(3):
            writer.write(INFER)
            assert await one_answer(reader) == 200
        assert two.value("request_seconds_count", code="200") == 3
        await asyncio.sleep(0.01)
        assert two.web.connections == 1
