"""No wrong answer counts as an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from benchmarks.exchanges import Prepared, Variant, encode_prediction, prepare
from benchmarks.load import LoadError
from benchmarks.workloads import Array, Workload, make_workloads
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import encapsulate_request, open_request
from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig
from confonnx.oip import binary
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferOutput, InferRequest, InferResponse

WORKLOAD = Workload(
    "tiny",
    Path("tiny.onnx"),
    input=np.arange(4, dtype=np.float32),
    answer=np.arange(2, dtype=np.float32),
    in_process=0.001,
    concurrencies=(1,),
)


class Make(Protocol):
    def __call__(self, answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]: ...


def encode(answer: Array) -> binary.Encoded:
    request = InferRequest((), parameters={"binary_data_output": True})
    output = InferOutput("y", TensorType(Datatype.FP32, answer.shape), answer)
    return binary.encode_infer_response(InferResponse("tiny", "1", (output,)), request)


def http(status: int, body: bytes, header_length: int | None) -> memoryview:
    fields = f"inference-header-content-length: {header_length}\r\n" if header_length is not None else ""
    return memoryview(f"HTTP/1.1 {status} Any\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body)


def plain(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    encoded = encode(answer)
    return Prepared([b""], None), http(status, b"".join(encoded.parts), encoded.header_length)


def sealed(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    key = PrivateKey.generate(Kem.X25519)
    config = KeyConfig(7, Kem.X25519, key.public_key, ((Kdf.HKDF_SHA256, Aead.AES_128_GCM),))
    message, opener = encapsulate_request(config, [b"anything"])

    class Keys:
        def private_key(self, key_id: int) -> PrivateKey:
            assert key_id == 7
            return key

    encoded = encode(answer)
    fields = ((binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),)
    parts = bhttp.encode_response(bhttp.Response(status, fields, b"".join(encoded.parts)))
    body = open_request(Keys(), message).sealer.seal(parts)
    return Prepared([bytes(message)], [opener]), http(200, bytes(body), None)


@pytest.mark.parametrize("make", [plain, sealed])
def test_the_right_answer_passes_and_another_does_not(make: Make) -> None:
    prepared, answer = make(WORKLOAD.answer)
    prepared.check(0, answer, WORKLOAD)
    prepared, answer = make(WORKLOAD.answer + 1)
    with pytest.raises(LoadError, match="not what onnxruntime says"):
        prepared.check(0, answer, WORKLOAD)


@pytest.mark.parametrize("make", [plain, sealed])
def test_an_error_does_not_pass_wherever_its_status_is(make: Make) -> None:
    prepared, answer = make(WORKLOAD.answer, status=503)
    with pytest.raises(LoadError, match="status 503"):
        prepared.check(0, answer, WORKLOAD)


def test_plain_requests_are_whole_http_requests() -> None:
    prepared = prepare(Variant.PLAIN, WORKLOAD, port=0, count=3)
    assert len(prepared.messages) == 3
    head, _, body = prepared.messages[0].partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.splitlines()
    encoded = encode_prediction(WORKLOAD)
    request = binary.parse_infer_request(body, header_length=encoded.header_length, limits=OipLimits())
    assert np.array_equal(request.inputs[0].value, WORKLOAD.input)  # type: ignore[arg-type]


def test_the_models_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (make_workloads(["tiny"], tmp_path)[0] for _ in range(2))
    assert np.array_equal(first.input, second.input)
    assert np.array_equal(first.answer, second.answer)
    assert np.isfinite(first.answer).all()
    assert first.in_process > 0
