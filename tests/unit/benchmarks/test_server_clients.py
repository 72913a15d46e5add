"""The benchmark's own clients: what they send, what they count, when they come back, and what they leave behind."""

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from benchmarks.server import clients, dialects, wrk
from benchmarks.server.clients import End, Talk
from benchmarks.server.processes import Tree
from benchmarks.server.wire import Answer, Connection, request
from benchmarks.server.works import crashes, overload

OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
WRONG = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"
BROKEN = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"
REFUSED = "HTTP/1.1 429 No\r\ncontent-length: 0\r\nx-inflight-retry-after-ms: 50\r\n\r\n"
EXACT = "x-inflight-retry-after-ms"
CHUNKED = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"


@asynccontextmanager
async def serving(*answers, connections=None):
    """A server that gives these answers in turn, and the last one for ever; "" is none at all."""
    given = list(answers)

    async def serve(reader, writer):
        if connections is not None:
            connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                answer = given.pop(0) if len(given) > 1 else given[0]
                writer.write(answer.encode())
                if "close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def talk(port, timeout=0.2):
    return Talk(port, lambda _: request("POST", "/", b"x"), lambda _, answer: answer.body == b"ok", timeout)


async def ends(*answers, seconds=0.3, honour=True):
    async with serving(*answers) as port:
        return await clients.closed(talk(port), 1, seconds, honour=honour)


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        pytest.param(OK, End.ANSWER, id="right"),
        pytest.param(CHUNKED, End.ANSWER, id="in chunks"),
        pytest.param(WRONG, End.WRONG, id="a wrong answer is none"),
        pytest.param(BROKEN, End.ERROR, id="a status"),
        pytest.param(REFUSED, End.REFUSAL, id="refused"),
        pytest.param("nonsense\r\n\r\n", End.ERROR, id="no HTTP"),
    ],
)
async def test_every_end_is_told_apart(answer, end):
    load = await ends(answer)
    assert {tried.end for tried in load.tried} == {end}


async def test_no_answer_in_time_is_a_timeout_and_the_connection_is_given_up():
    opened = []
    async with serving("", OK, connections=opened) as port:
        load = await clients.closed(talk(port, 0.05), 1, 0.2, honour=True)
    assert [tried.end for tried in load.tried[:2]] == [End.TIMEOUT, End.ANSWER]
    assert len(opened) == 2


async def test_a_connection_that_the_server_closes_is_opened_anew():
    load = await ends(LAST)
    assert len(load.tried) > 3
    assert {tried.end for tried in load.tried} == {End.ANSWER}


async def test_what_was_on_its_way_at_the_end_counts_as_nothing():
    load = await ends("", seconds=0.05)
    assert load.tried == []


@pytest.mark.parametrize(
    ("headers", "honour", "pause"),
    [
        pytest.param({EXACT: "30", "retry-after": "1"}, True, 0.03, id="the exact header goes first"),
        pytest.param({"retry-after": "2"}, True, 2, id="the standard one"),
        pytest.param({"retry-after": "Tue, 24 Nov 2026 10:00:00 GMT"}, True, 0.1, id="a date is not listened to"),
        pytest.param({}, True, 0.1, id="nothing told"),
        pytest.param({EXACT: "30"}, False, 0.1, id="a client that doesn't listen"),
    ],
)
def test_a_refused_client_comes_back_when_told_or_after_a_tenth_of_a_second(headers, honour, pause):
    assert clients.pause(Answer(429, headers), honour=honour) == pause


def test_a_client_whose_connection_broke_comes_back_after_a_tenth_of_a_second():
    assert clients.pause(None, honour=True) == 0.1


async def test_a_refused_client_waits_before_it_asks_again():
    load = await ends(REFUSED, OK, seconds=0.3)
    first, second = load.tried[:2]
    assert second.sent - first.ended >= 0.05


async def test_an_open_loop_waits_for_nobody():
    async with serving("") as port:
        load = await clients.open_loop(talk(port, 0.05), rate=200, seconds=0.3, seed=1)
    assert len(load.tried) > 5
    assert {tried.end for tried in load.tried} == {End.TIMEOUT}


X = np.array([[1.5, -2]], np.float32)


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        pytest.param(dialects.v2_json("m"), {"outputs": [{"data": [3, 4], "shape": [1, 2]}]}, id="V2"),
        pytest.param(dialects.plain_json("/"), {"y": [[3, 4]]}, id="named rows"),
        pytest.param(dialects.plain_json("/"), [[3, 4]], id="bare rows"),
    ],
)
def test_an_answer_is_right_only_with_the_right_numbers(dialect, answer):
    body = json.dumps(answer).encode()
    assert dialect.matches(body, np.array([[3.0, 4.0]]))
    assert not dialect.matches(body, np.array([[3.0, 4.1]]))
    assert not dialect.matches(body, np.array([[3.0]]))
    assert not dialect.matches(b"{}", np.array([[3.0, 4.0]]))
    assert not dialect.matches(b"no JSON", np.array([[3.0, 4.0]]))


def test_numbers_of_48_bits_must_match_exactly():
    dialect, end = dialects.plain_json("/"), 2**48 - 2
    assert dialect.matches(json.dumps([[end]]).encode(), np.array([[end]], float), 1e-15)
    assert not dialect.matches(json.dumps([[end + 1]]).encode(), np.array([[end]], float), 1e-15)


def test_a_binary_tensor_follows_the_json_that_describes_it():
    message = dialects.v2_binary("m").message(X)
    head, _, body = message.partition(b"\r\n\r\n")
    length = int(head.partition(b"inference-header-content-length: ")[2].split(b"\r\n")[0])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(body) - length == X.nbytes
    assert body[length:] == X.tobytes()


def test_every_server_is_told_the_clients_patience():
    message = dialects.plain_json("/").message(X, timeout_seconds=2.0)
    assert b"\r\nx-request-timeout-ms: 2000\r\n" in message


REPORT = (
    "Running 1s test\n\nREPORT "
    '{"requests": 200, "microseconds": 2000000, "p50": 1500, "p99": 9000, "status": 3, "connect": 0, "read": 1, '
    '"write": 0, "timeout": 2}\n'
)


def test_failures_that_wrk_saw_are_no_answers():
    report = wrk.parse(REPORT, cpu_seconds=0.5)
    assert (report.rps, report.p50_ms, report.p99_ms) == (98.5, 1.5, 9.0)
    assert (report.failed, report.generator_share) == (6, 0.25)


def test_wrk_that_could_not_run_says_why():
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1", 0)


def test_questions_of_overload_are_all_different_and_their_answers_known():
    wanted = overload.Wanted(steps=3)
    first, second, later = (wanted.question(identity) for identity in (1, 2, 9))
    assert first.x.tolist() == [[1, 1]]
    assert first.wanted[0, 0] != second.wanted[0, 0]
    assert first.wanted[0, 0] == later.wanted[0, 0]
    assert later.wanted[0, 1] == 9


def test_a_healthy_row_of_the_crash_mix_is_healthy():
    assert crashes.question(5).x.tolist() == [[crashes.HEALTHY, 5]]


CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {0!r}], start_new_session=True); {0}"


def test_a_tree_is_weighed_and_stopped_with_children_in_sessions_of_their_own(tmp_path):
    sleeping = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(30)"
    tree = Tree([sys.executable, "-c", CHILD.format(sleeping)], {}, tmp_path, tmp_path / "log")
    with tree:
        deadline = time.monotonic() + 5
        while len(tree.pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        weight = tree.weigh()
        assert weight.processes == 2
        assert weight.rss >= weight.pss > 1
        assert tree.cpu_seconds() >= 0
    assert tree.pids() == []
    assert not tree.running()


def test_a_trees_last_words_are_kept(tmp_path):
    with Tree([sys.executable, "-c", "print('no port')"], {}, tmp_path, tmp_path / "log") as tree:
        deadline = time.monotonic() + 5
        while tree.running() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "no port" in tree.last_words()


async def test_a_connection_that_the_server_closed_says_so():
    async with serving(LAST) as port:
        connection = Connection()
        await connection.connect(port)
        await connection.ask(request("GET", "/"))
        assert not connection.open
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionError, match="not connected"):
            await connection.ask(request("GET", "/"))
