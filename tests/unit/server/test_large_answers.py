"""A large answer is put into the buffer of its request, where nobody looks at that any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np

from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import HEADER_SIZE, encapsulate_request
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import Registry
from confonnx.server.connection import Connection, HttpLimits
from confonnx.server.http import HttpServer
from confonnx.server.messages import Buffer, HttpRequest, HttpResponse
from tests.support.models import identity_model
from tests.unit.server.harness import Gateway


def test_a_large_answer_takes_over_the_buffer_of_its_request(tmp_path: Path) -> None:
    model = load_single(identity_model(tmp_path / "identity.onnx"))
    gateway = Gateway(Registry.load([model], SessionOptions()).models, max_response_bytes=1 << 22)
    # The kernel may stop a pool's thread between the end of its work and its last look at the request; the
    # answer then gets a buffer of its own. Ten times in a row that does not happen.
    assert any(_takes_over(gateway) for _ in range(10))


class Spy:
    """Sees the request, which nothing else here holds."""

    def __init__(self, gateway: Gateway) -> None:
        self._app = gateway.app
        self.body = bytearray()

    def wants_body(self, method: str, path: str) -> bool:
        return True

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.body = request.body
        return await self._app.handle(request)


class Transport:
    """Takes an answer in parts."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def writelines(self, parts: Iterable[Buffer]) -> None:
        self.parts = list(parts)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, **_: int) -> None:
        pass


async def _exchange(gateway: Gateway, message: bytearray) -> tuple[Buffer, bool]:
    """The content of the answer, and whether it lies where the request lay."""
    spy, transport = Spy(gateway), Transport()
    connection = Connection(HttpServer(spy, HttpLimits()))
    connection.connection_made(cast(asyncio.Transport, transport))
    fields = f"host: x\r\ncontent-type: message/ohttp-req\r\ncontent-length: {len(message)}\r\n"
    head = f"POST /ohttp HTTP/1.1\r\n{fields}"
    for piece in (f"{head}\r\n".encode(), message):
        connection.get_buffer(len(piece))[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    while not transport.parts:
        await asyncio.sleep(0.001)
    return transport.parts[1], transport.parts[1] is spy.body


def _takes_over(gateway: Gateway) -> bool:
    """Whether the right answer came in the request's buffer."""
    value = np.random.default_rng(0).random(1 << 18, np.float32)
    tensor = messages.InferInput("x", TensorType(Datatype.FP32, value.shape), value)
    encoded = binary.encode_infer_request(messages.InferRequest((tensor,)))
    fields = (("date", gateway.date()), (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)))
    inner = bhttp.Request("POST", "http", "x", "/v2/models/identity/infer", fields)
    parts = bhttp.encode_request(inner, encoded.parts, offset=HEADER_SIZE)
    message, opener = encapsulate_request(gateway.ring.attested_keys(gateway.now)[-1].config, parts)
    content, taken = asyncio.run(_exchange(gateway, message))
    answer = bhttp.parse_response(opener.open(content))
    length = int(answer.field(binary.HEADER_LENGTH_FIELD) or 0)
    parsed = binary.parse_infer_response(answer.body, header_length=length, limits=OipLimits())
    found = parsed.outputs[0].value
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, value)
    return taken
