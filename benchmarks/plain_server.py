"""A minimal plaintext model server: what a request costs with no protection, no limits and no checks at all.

uvloop, httptools and onnxruntime, inference inline on the event loop, float32 tensors in the binary form of
the Open Inference Protocol. It is the yardstick for what confonnx adds, and nothing to run anywhere: it
trusts every byte.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import cast

import httptools
import msgspec
import numpy as np
import uvloop

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: the wheel reports usage home otherwise
import onnxruntime


class Protocol(asyncio.Protocol):
    """One connection. Mutable: the request that arrives."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []
        self.header_length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of it

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self.header_length = int(value)

    def on_body(self, part: bytes) -> None:
        self.body.append(part)

    def on_message_complete(self) -> None:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body = []
        document = msgspec.json.decode(body[: self.header_length])
        inputs, offset = {}, self.header_length
        for tensor in document["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = np.frombuffer(body, np.float32, size // 4, offset).reshape(
                tensor["shape"]
            )
            offset += size
        described, raw = [], []
        for output, value in zip(self.session.get_outputs(), self.session.run(None, inputs), strict=True):
            parameters = {"binary_data_size": value.nbytes}
            described.append(
                {"name": output.name, "datatype": "FP32", "shape": value.shape, "parameters": parameters}
            )
            raw.append(value.reshape(-1).view(np.uint8).data)
        header = msgspec.json.encode({"model_name": document.get("id", ""), "outputs": described})
        head = (
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
            f"inference-header-content-length: {len(header)}\r\n"
            f"content-length: {len(header) + sum(map(len, raw))}\r\n\r\n"
        )
        self.transport.writelines([head.encode(), header, *raw])


async def serve(model: Path, port: int) -> None:
    """Serve ``model`` on loopback ``port``, for ever."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(session), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--port", type=int, default=0)
    given = arguments.parse_args()
    uvloop.run(serve(given.model, given.port))
