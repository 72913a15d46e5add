"""uvicorn at its best: a raw ASGI application that reads the body, drops it and sends BENCH_CONSTANT."""

import os

_BODY = os.environ["BENCH_CONSTANT"].encode()
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}
_END = {"type": "http.response.body", "body": _BODY}


async def app(_scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_END)
