"""The most that Python can do for W1: an asyncio protocol on uvloop and httptools that really parses, predicts and
encodes, and does nothing else of a server's work. Two processes that share one port: `python protocol.py PORT MODEL`.
"""

import asyncio
import os
import signal
import socket
import sys

import httptools
import numpy as np
import onnxruntime
import orjson
import uvloop

PROCESSES = 2
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "


class Protocol(asyncio.Protocol):
    def __init__(self, session):
        self._run = session.run
        self._parser = httptools.HttpRequestParser(self)
        self._parts = []

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._parser.feed_data(data)

    def on_body(self, body):
        self._parts.append(body)

    def on_message_complete(self):
        tensor = orjson.loads(b"".join(self._parts))["inputs"][0]
        self._parts.clear()
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        y = self._run(["y"], {"x": x})[0]
        output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
        body = orjson.dumps({"model_name": "m", "outputs": [output]})
        self._transport.write(b"%b%d\r\n\r\n%b" % (_HEAD, len(body), body))


async def serve(port, file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(session), sock=listener, backlog=1024)
    await server.serve_forever()


def main():
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if not child:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(int(sys.argv[1]), sys.argv[2]))
        children.append(child)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    for child in children:
        os.kill(child, signal.SIGTERM)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, ())
    main()
