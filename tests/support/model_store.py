"""An HTTP(S) server of one file, with ranges and with every fault that a server or a network may have."""

from __future__ import annotations

import hashlib
import http.server
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Handler = http.server.BaseHTTPRequestHandler


@dataclass
class Asked:
    """One request."""

    range: tuple[int, int] | None
    """First and last byte asked for."""
    headers: dict[str, str]
    answered: int = 0
    """Bytes of the body that were sent."""


@dataclass
class FileServer:
    """What is served and how; everything may be changed while it runs, and `fault` decides per request."""

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    if_range: bool = True
    """Whether If-Range is heeded."""
    fault: Callable[[FileServer, Asked, Handler], bool] = lambda _server, _asked, _handler: False
    """Whether it has answered the request itself."""
    requests: list[Asked] = field(default_factory=list)
    url: str = ""
    now: int = 0
    """Bodies that are being sent."""
    most: int = 0
    """Bodies that were sent at once."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(asked.answered for asked in self.requests)

    def answer(self, handler: Handler) -> None:
        """One GET."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        asked = Asked((int(found[1]), int(found[2])) if found else None, headers)
        with self.lock:
            self.requests.append(asked)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            if not self.fault(self, asked, handler):
                self.serve(asked, handler)
        except OSError:
            handler.close_connection = True  # the client has left
        finally:
            with self.lock:
                self.now -= 1

    def serve(self, asked: Asked, handler: Handler, *, cut_after: int | None = None, **headers: str) -> None:
        """The right answer; `cut_after` bytes of it, or with other headers (content_range=...)."""
        fits = not self.if_range or asked.headers.get("if-range") in (None, self.etag)
        if asked.range and self.ranges and fits:
            start, last = asked.range
            if start >= len(self.content):
                send(handler, 416, b"", content_range=f"bytes */{len(self.content)}")
                return
            stop = min(last + 1, len(self.content))
            headers = {"content_range": f"bytes {start}-{stop - 1}/{len(self.content)}", **headers}
            status, body = 206, memoryview(self.content)[start:stop]
        else:
            status, body = 200, memoryview(self.content)
        if self.etag:
            headers = {"etag": self.etag, **headers}
        send(handler, status, body, asked, cut_after, **headers)


def send(
    handler: Handler,
    status: int,
    body: bytes | memoryview = b"",
    asked: Asked | None = None,
    cut_after: int | None = None,
    **headers: str,
) -> None:
    """An answer; cut after some bytes if so wished."""
    handler.send_response(status)
    for name, value in {"content_length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    body = memoryview(b"" if handler.command == "HEAD" else body)[:cut_after]
    for start in range(0, len(body), 65536):
        chunk = body[start : start + 65536]
        handler.wfile.write(chunk)
        if asked is not None:
            asked.answered += len(chunk)
    if cut_after is not None:
        handler.close_connection = True


def first_time(fault: Callable[[FileServer, Asked, Handler], bool], when: Callable[[Asked], bool]) -> Any:
    """`fault` for the first request for which `when` is true; all others are answered rightly."""
    lock, done = threading.Lock(), False

    def once(server: FileServer, asked: Asked, handler: Handler) -> bool:
        nonlocal done
        with lock:
            mine = not done and when(asked)
            done = done or mine
        return mine and fault(server, asked, handler)

    return once


def begins_at(start: int) -> Callable[[Asked], bool]:
    """Requests for a range from `start` on."""
    return lambda asked: asked.range is not None and asked.range[0] == start


def slowly(server: FileServer, asked: Asked, handler: Handler) -> bool:
    """A head at once and then a byte now and then, as long as the client stays."""
    start, last = asked.range or (0, len(server.content) - 1)
    handler.send_response(206)
    handler.send_header("content-range", f"bytes {start}-{last}/{len(server.content)}")
    handler.send_header("content-length", str(last - start + 1))
    handler.send_header("etag", server.etag)
    handler.end_headers()
    for position in range(start, last + 1):
        handler.wfile.write(server.content[position : position + 1])
        asked.answered += 1
        time.sleep(0.05)
    return True


@contextmanager
def serving(server: FileServer, tls: tuple[Path, Path] | None = None) -> Iterator[FileServer]:
    """Run it on a free port; with `tls` (certificate, key) over https."""

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:
            server.answer(self)

        do_POST = do_HEAD = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Listener(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that leaves is no error here."""

    listener = Listener(("127.0.0.1", 0), Answering)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.server_address[1]}/models/digits.onnx"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=store"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key
