"""A large answer is put into the buffer of its request, where nobody looks at that any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import HEADER_SIZE, encapsulate_request
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import Registry
from confonnx.server.messages import HttpRequest
from tests.support.models import identity_model
from tests.unit.server.harness import Gateway


def test_a_large_answer_takes_over_the_buffer_of_its_request(tmp_path: Path) -> None:
    model = load_single(identity_model(tmp_path / "identity.onnx"))
    gateway = Gateway(Registry.load([model], SessionOptions()).models, max_response_bytes=1 << 22)
    # The kernel may stop a pool's thread between the end of its work and its last look at the request; the
    # answer then gets a buffer of its own. Ten times in a row that does not happen.
    assert any(_takes_over(gateway) for _ in range(10))


def _takes_over(gateway: Gateway) -> bool:
    """Whether the right answer came in the request's buffer."""
    value = np.random.default_rng(0).random(1 << 18, np.float32)
    tensor = messages.InferInput("x", TensorType(Datatype.FP32, value.shape), value)
    encoded = binary.encode_infer_request(messages.InferRequest((tensor,)))
    fields = (("date", gateway.date()), (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)))
    inner = bhttp.Request("POST", "http", "x", "/v2/models/identity/infer", fields)
    parts = bhttp.encode_request(inner, encoded.parts, offset=HEADER_SIZE)
    message, opener = encapsulate_request(gateway.ring.attested_keys(gateway.now)[-1].config, parts)
    outer = HttpRequest("POST", "/ohttp", {"content-type": "message/ohttp-req"}, message)
    response = asyncio.run(gateway.app.handle(outer))
    taken = response.body[0] is message
    answer = bhttp.parse_response(opener.open(response.body[0]))
    length = int(answer.field(binary.HEADER_LENGTH_FIELD) or 0)
    parsed = binary.parse_infer_response(answer.body, header_length=length, limits=OipLimits())
    found = parsed.outputs[0].value
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, value)
    return taken
