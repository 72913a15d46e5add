"""A real Redis server on a loopback port, which can be stopped, frozen and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 20


class RedisServer:
    """Keeps nothing on disk."""

    def __init__(self, password: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For INFLIGHT_CACHE_URL."""
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if self._password:
            options += ["--requirepass", self._password]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.ask("PING")
            except OSError:
                assert time.monotonic() < deadline, "redis-server did not start"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Gone, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, *words: str | bytes) -> bytes:
        """The raw reply to one command."""
        sent = _command(*words) + _command("QUIT")
        if self._password:
            sent = _command("AUTH", self._password) + sent
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(sent)
            reply = b""
            while part := connection.recv(65536):
                reply += part
        return reply.removeprefix(b"+OK\r\n" if self._password else b"").removesuffix(b"+OK\r\n")

    @property
    def sent_bytes(self) -> int:
        """To all clients, since it started."""
        return int(self.ask("INFO", "stats").split(b"total_net_output_bytes:")[1].split()[0])

    @property
    def keys(self) -> list[bytes]:
        """Everything that is kept there."""
        return [line for line in self.ask("KEYS", "*").split(b"\r\n") if line and line[:1] not in b"*$"]


def _command(*words: str | bytes) -> bytes:
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


@contextmanager
def redis_running(password: str = "") -> Iterator[RedisServer]:
    """One for a test."""
    server = RedisServer(password)
    server.start()
    try:
        yield server
    finally:
        server.stop()
