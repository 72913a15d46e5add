"""Requests that are no HTTP, or that hide another one: by kind, with what the router may answer to each.

The kinds are those of RFC 9112 sections 2 to 7 and 11 (smuggling, splitting) and of Envoy's guide for edges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

Make = Callable[[Random, str], bytes]
CUT_OFF: Final = 0
WAITS: Final = -1
_REFUSED: Final = frozenset({CUT_OFF, 400})


def _junk(chance: Random, most: int = 40) -> bytes:
    return bytes(chance.randrange(256) for _ in range(chance.randrange(1, most)))


def _get(host: str, *lines: bytes, path: bytes = b"/v2/health/ready", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"GET " + path + b" " + version, b"Host: " + host.encode(), *lines, b"", b""])


def _post(host: str, *lines: bytes, body: bytes = b"") -> bytes:
    head = [b"POST /v2/models/x/infer HTTP/1.1", b"Host: " + host.encode(), *lines, b"", b""]
    return b"\r\n".join(head) + body


_SMUGGLED = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n"

KINDS: Final[Mapping[str, tuple[Make, frozenset[int]]]] = {
    "random bytes": (lambda chance, _host: _junk(chance, 400) + b"\r\n\r\n", _REFUSED),
    "random method": (
        lambda chance, host: _junk(chance).replace(b" ", b"") + b" / HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n",
        _REFUSED | {404},
    ),
    "random header name": (
        lambda chance, host: _get(host, bytes([chance.choice(b'\0\x01\x0b\x7f (),/;<=>?@[]{}"\\')]) + b"a: b"),
        _REFUSED,
    ),
    "NUL in a header": (lambda _chance, host: _get(host, b"a: b\0c"), _REFUSED),
    "underscore in a header": (lambda _chance, host: _get(host, b"x_a: b"), _REFUSED),
    # A server may also put a space in the place of the fold (RFC 9112 section 5.2), which Envoy does.
    "folded header": (lambda _chance, host: _get(host, b"a: b", b" c"), _REFUSED | {200}),
    "space before the colon": (lambda _chance, host: _get(host, b"a : b"), _REFUSED),
    "no host": (lambda _chance, _host: b"GET / HTTP/1.1\r\n\r\n", _REFUSED),
    "two hosts": (lambda _chance, host: _get(host, b"Host: " + host.encode()), _REFUSED | {404}),
    "length and chunks": (
        lambda _chance, host: _post(host, b"Content-Length: 4", b"Transfer-Encoding: chunked", body=_SMUGGLED),
        _REFUSED,
    ),
    "two lengths": (
        lambda _chance, host: _post(host, b"Content-Length: 3", b"Content-Length: 30", body=b"abc"),
        _REFUSED,
    ),
    "length that is none": (
        lambda chance, host: _post(
            host, b"Content-Length: " + chance.choice([b"-1", b"+3", b"0x3", b"3,3", b"9" * 30])
        ),
        _REFUSED | {413},
    ),
    "unknown coding": (
        lambda chance, host: _post(
            host,
            b"Transfer-Encoding: " + chance.choice([b"xchunked", b"chunked, gzip", b"\x0bchunked"]),
            body=_SMUGGLED,
        ),
        _REFUSED | {501},
    ),
    "chunk that is none": (
        lambda chance, host: _post(
            host, b"Transfer-Encoding: chunked", body=chance.choice([b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"])
        ),
        _REFUSED,
    ),
    "long header": (
        lambda chance, host: _get(host, b"a: " + b"x" * chance.randrange(62_000, 90_000)),
        frozenset({0, 400, 431}),
    ),
    "many headers": (
        lambda chance, host: _get(host, *(b"a%d: b" % n for n in range(chance.randrange(101, 300)))),
        frozenset({0, 400, 431}),
    ),
    "long path": (
        lambda chance, host: _get(host, path=b"/" + b"a" * chance.randrange(62_000, 90_000)),
        frozenset({0, 400, 414, 431}),
    ),
    "NUL in the path": (lambda _chance, host: _get(host, path=b"/a\0b"), _REFUSED),
    "escaped slash": (lambda _chance, host: _get(host, path=b"/a%2fb"), _REFUSED),
    "another version": (
        lambda chance, host: _get(host, version=chance.choice([b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP"])),
        _REFUSED | {426, 505},
    ),
    "upgrade": (lambda _chance, host: _get(host, b"Connection: upgrade", b"Upgrade: websocket"), _REFUSED | {403}),
    "tunnel": (
        lambda _chance, host: b"CONNECT " + host.encode() + b":80 HTTP/1.1\r\nHost: " + host.encode() + b":80\r\n\r\n",
        _REFUSED | {404},
    ),
    "HTTP/2 without TLS, garbled": (
        lambda chance, _host: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _junk(chance, 200),
        _REFUSED | {WAITS},
    ),
}
"""Kind → how it is made, and the statuses that are right for it."""


def malformed(chance: Random, host: str) -> tuple[str, bytes]:
    """A kind and bytes of it, for a ModelDeployment that `host` names."""
    kind = chance.choice(list(KINDS))
    return kind, KINDS[kind][0](chance, host)


def expected(kind: str, status: int) -> bool:
    """Whether the router may answer that."""
    return status in KINDS[kind][1]
