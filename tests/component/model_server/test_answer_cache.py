"""Answers kept: a real server over HTTP, and what replicas share in a real Redis, also while that fails."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from model_process import ServerProcess, started
from model_server.cache import values
from model_server.cache.shared import LOOK_UP_SECONDS, Found, Shared
from model_server.cache.store import Kept, own
from model_server.grpc_api.messages import ModelInferRequest, ModelInferResponse
from model_server.instruments import Counter
from model_serving import request, tensor, until
from redis_server import RedisServer, redis_running

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
PREFIX = "inflight:digits:abababab:"
CACHE = {"CACHE_MAX_MEGABYTES": "8"}


def asking(value: float) -> dict[str, Any]:
    return request(tensor([value, 2.0], [1, 2]))


def infer(server: ServerProcess, value: float = 1, **headers: str) -> tuple[str | None, list[float]]:
    """What the server says about its cache, and the answer."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    answer = httpx.post(f"{server.url}/v2/models/digits/infer", json=asking(value), headers=named, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-inflight-cache"), answer.json()["outputs"][0]["data"]


@pytest.fixture(scope="module")
def cached(onnx_file: Path) -> Iterator[ServerProcess]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with started("--model", f"digits={onnx_file}", **CACHE, CACHE_TTL_SECONDS="60", GRPC_PORT=port) as running:
        yield running


class TestOneServer:
    def test_the_second_answer_is_the_first_and_says_so(self, cached: ServerProcess) -> None:
        assert infer(cached, 10) == ("miss", [11, 3])
        assert infer(cached, 10) == ("hit", [11, 3])
        assert infer(cached, 10.5) == ("miss", [11.5, 3])

    def test_each_protocol_encodes_it_as_it_was_asked(self, cached: ServerProcess) -> None:
        infer(cached, 20)
        answer = httpx.post(f"{cached.url}/v1/models/digits:predict", json={"instances": [[20.0, 2.0]]})
        assert (answer.headers["x-inflight-cache"], answer.json()) == ("hit", {"predictions": [[21, 3]]})
        named = asking(20) | {"id": "7", "outputs": [{"name": "y"}]}
        answer = httpx.post(f"{cached.url}/v2/models/digits/infer", json=named)
        assert (answer.headers["x-inflight-cache"], answer.json()["id"]) == ("hit", "7")

    def test_grpc_finds_what_http_has_left(self, cached: ServerProcess) -> None:
        infer(cached, 25)
        message = ModelInferRequest(model_name="digits", raw_input_contents=[np.array([25, 2], np.float32).tobytes()])
        message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        with grpc.insecure_channel(f"127.0.0.1:{cached.wait_for('listening for gRPC')['port']}") as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            body, call = ask.with_call(message.SerializeToString(), timeout=30)
        assert dict(call.trailing_metadata())["x-inflight-cache"] == "hit"
        assert ModelInferResponse.FromString(body).raw_output_contents == [np.array([26, 3], np.float32).tobytes()]

    def test_the_client_may_refuse_what_is_kept_and_forbid_keeping(self, cached: ServerProcess) -> None:
        assert infer(cached, 30, cache_control="no-store")[0] == "miss"
        assert infer(cached, 30)[0] == "miss"
        assert infer(cached, 30, cache_control="no-cache")[0] == "bypass"

    def test_errors_say_nothing_of_the_cache(self, cached: ServerProcess) -> None:
        answer = httpx.post(f"{cached.url}/v2/models/digits/infer", json=request(tensor([1.0], [1, 1])))
        assert answer.status_code == 422
        assert "x-inflight-cache" not in answer.headers

    def test_it_is_counted(self, cached: ServerProcess) -> None:
        before = cached.metric('cache_requests_total{result="hit"}')
        infer(cached, 40), infer(cached, 40)
        assert cached.metric('cache_requests_total{result="hit"}') == before + 1
        assert cached.metric("cache_bytes") > 0

    def test_without_a_cache_there_is_no_header(self, server: ServerProcess) -> None:
        assert infer(server, 1) == (None, [2, 3])
        assert infer(server, 1) == (None, [2, 3])


@pytest.mark.parametrize("held", [CACHE], indirect=True)
async def test_equal_requests_on_several_connections_are_computed_once(held: Any) -> None:
    async with httpx.AsyncClient(base_url=held.running.url, timeout=30) as client:
        first = asyncio.create_task(client.post("/v2/models/digits/infer", json=asking(1)))
        await until(lambda: held.calls == 1)
        rest = [asyncio.create_task(client.post("/v2/models/digits/infer", json=asking(1))) for _ in range(5)]
        await until(lambda: held.running.metric("requests_in_flight") == 6)
        first.cancel()  # its client leaves, the others still want it
        await until(lambda: held.running.metric("requests_in_flight") == 5)
        held.let_go()
        answers = await asyncio.gather(*rest)
    assert {answer.headers["x-inflight-cache"] for answer in answers} == {"coalesced"}
    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[1, 2]] * 5
    assert held.calls == 1
    assert held.running.metric("requests_in_flight") == 0


class TestReplicas:
    def test_what_one_has_computed_the_other_need_not(self, onnx_file: Path) -> None:
        model = ("--model", f"digits={onnx_file}")
        with redis_running("secret") as redis:
            settings = {**CACHE, "CACHE_URL": redis.url.replace("redis:", "valkey:"), "REVISION": "r1"}
            numbers = iter(range(100))

            def found_by_the_other() -> bool:
                value, before = next(numbers), len(redis.keys)
                assert infer(one, value) == ("miss", [value + 1, 3])
                eventually(lambda: len(redis.keys) > before)
                said, answer = infer(other, value)  # which it is asked for the first time
                assert answer == [value + 1, 3]
                return said == "hit"

            with started(*model, **settings) as one, started(*model, **settings) as other:
                eventually(found_by_the_other)
                assert not any("secret" in line for line in one.raw + other.raw), "passwords are not logged"
            before = len(redis.keys)
            with started(*model, **settings | {"REVISION": "r2"}) as canary:
                assert infer(canary, 0) == ("miss", [1, 3])
                eventually(lambda: len(redis.keys) == before + 1, "another revision has answers of its own")

    def test_predictions_go_on_without_it_and_use_it_again_once_it_is_back(self, onnx_file: Path) -> None:
        redis = RedisServer()
        with started("--model", f"digits={onnx_file}", **CACHE, CACHE_URL=redis.url) as server:
            for value in range(10):
                assert infer(server, value) == ("miss", [value + 1, 3])
            assert 3 <= server.metric("cache_shared_errors_total") <= 6, "asked three times, then left alone"
            redis.start()
            try:
                numbers = iter(range(100, 1000))
                eventually(lambda: infer(server, next(numbers))[0] == "miss" and bool(redis.keys))
            finally:
                redis.stop()

    def test_a_url_without_memory_of_its_own_is_refused(self) -> None:
        arguments = ("--model", "digits=./x.onnx")
        with started(*arguments, ready=False, CACHE_URL="redis://127.0.0.1:1") as server:
            assert server.ended() == 1
            assert "INFLIGHT_CACHE_MAX_MEGABYTES" in server.raw[-1]


def eventually(condition: Callable[[], bool], what: str = "the condition did not come true") -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Bench:
    """A Shared on a real server, and what it was asked."""

    def __init__(self, redis: RedisServer, ttl: float = 60, patience: float = 5, url: str = "") -> None:
        self.errors = Counter()
        self.shared = Shared(url or redis.url, PREFIX, ttl, self.errors, patience=patience)

    async def look_up(self, key: bytes = KEY) -> Found | None:
        """What is found in time."""
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        if self.shared.look_up(key, answer.set_result) is None:
            return None
        return await answer


def kept(value: float = 1) -> Kept:
    made = own({"y": np.array([value], np.float32)})
    assert made is not None
    return made


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_running() as running:
        yield running


@asynccontextmanager
async def sharing(redis: RedisServer, ttl: float = 60, patience: float = 5) -> AsyncIterator[Bench]:
    redis.ask("FLUSHALL")
    bench = Bench(redis, ttl, patience)
    try:
        yield bench
    finally:
        await bench.shared.close()


class TestShared:
    async def test_what_was_put_is_found_with_the_time_it_has_left(self, redis: RedisServer) -> None:
        async with sharing(redis, ttl=60) as bench:
            bench.shared.put(KEY, kept(7))
            await until(lambda: redis.keys == [PREFIX.encode() + KEY.hex().encode()])
            found = await bench.look_up()
            assert found is not None
            assert found.kept.outputs["y"].tolist() == [7]
            assert 50 < found.remaining <= 60
            assert await bench.look_up(OTHER_KEY) is None
            assert bench.errors.value == 0

    async def test_it_is_gone_after_its_time(self, redis: RedisServer) -> None:
        async with sharing(redis, ttl=0.2) as bench:
            bench.shared.put(KEY, kept())
            await until(lambda: bool(redis.keys))
            await until(lambda: not redis.keys)
            assert await bench.look_up() is None

    async def test_many_questions_at_once_each_get_their_own_answer(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            keys = [b"%032d" % number for number in range(40)]
            for number, key in enumerate(keys):
                bench.shared.put(key, kept(number))
            await until(lambda: len(redis.keys) == 40)
            found = await asyncio.gather(*map(bench.look_up, keys))
            assert [one.kept.outputs["y"].tolist() for one in found if one] == [[number] for number in range(40)]

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(b"\x80\x04\x95 a pickle", id="not ours"),
            pytest.param(bytes(20 * 1024**2), id="20 MiB"),
        ],
    )
    async def test_foreign_values_are_counted_and_not_believed(self, redis: RedisServer, value: bytes) -> None:
        async with sharing(redis) as bench:
            redis.ask("SET", PREFIX.encode() + KEY.hex().encode(), value)
            sent = redis.sent_bytes
            assert await bench.look_up() is None
            assert bench.errors.value == 1
            assert not bench.shared._circuit.failures, "it was told in time"
            assert redis.sent_bytes - sent < 2 * 1024**2

    async def test_what_never_ends_there_ends_here(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            bench.shared.put(KEY, kept())
            await until(lambda: bool(redis.keys))
            redis.ask("PERSIST", PREFIX.encode() + KEY.hex().encode())
            assert await bench.look_up() is None

    async def test_another_kind_of_value_is_an_error_but_no_failure_of_the_server(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            redis.ask("RPUSH", PREFIX.encode() + KEY.hex().encode(), "a list")
            for _ in range(5):
                assert await bench.look_up() is None
            assert bench.errors.value == 5
            assert await bench.look_up(OTHER_KEY) is None
            assert bench.errors.value == 5, "it is still asked"

    async def test_a_server_that_hangs_costs_milliseconds_three_times_and_then_nothing(self) -> None:
        with redis_running() as redis:
            async with sharing(redis, patience=LOOK_UP_SECONDS) as bench:
                await bench.shared._connecting
                redis.freeze()
                for _ in range(3):
                    begun = time.perf_counter()
                    assert await bench.look_up() is None
                    assert time.perf_counter() - begun < LOOK_UP_SECONDS + 0.1
                assert bench.shared.look_up(KEY, lambda _: None) is None, "not asked any more"
                bench.shared.put(KEY, kept())
                assert bench.shared._answers.waiting == 0, "nor sent anything"
                await until(lambda: bench.shared._questions._task is None, 3)  # no connection is held on to for ever
                redis.thaw()
                await until(lambda: bench.shared.look_up(KEY, lambda _: None) is not None, 10)
                await until(lambda: not bench.shared._circuit.broken, 10)

    async def test_what_was_cancelled_is_told_nothing(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            told: list[Found | None] = []
            asked = bench.shared.look_up(KEY, told.append)
            assert asked is not None
            asked.cancel()
            assert await bench.look_up(OTHER_KEY) is None
            assert told == []

    async def test_with_the_wrong_password_nothing_is_found_and_nothing_fails(self) -> None:
        with redis_running("right") as redis:
            bench, begun = Bench(redis, url=redis.url.replace("right", "wrong")), time.monotonic()
            for _ in range(3):
                assert await bench.look_up() is None
                await asyncio.sleep(0.05)
            assert time.monotonic() - begun < 4, "its patience was not needed"
            assert bench.errors.value >= 3
            assert bench.shared.look_up(KEY, lambda _: None) is None
            await bench.shared.close()

    async def test_no_more_is_kept_for_sending_than_can_be_sent(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            for number in range(1000):
                bench.shared.put(b"%032d" % number, kept(number))
            assert bench.shared._answers.waiting <= 64

    async def test_large_answers_are_not_sent(self, redis: RedisServer) -> None:
        async with sharing(redis) as bench:
            large = own({"y": np.zeros(values.MAX_BYTES, np.uint8)})
            assert large is not None
            bench.shared.put(KEY, large)
            assert bench.shared._answers.waiting == 0
