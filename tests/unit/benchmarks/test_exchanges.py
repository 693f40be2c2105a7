"""No wrong answer counts as an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from benchmarks import exchanges
from benchmarks.exchanges import Prepared, ask, prepare
from benchmarks.load import LoadError
from benchmarks.models import Array
from benchmarks.variants import PEERS, Form, Variant
from benchmarks.workloads import Case, Workload, make_workloads
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import encapsulate_request, open_request, read_prefix
from confonnx.ohttp.hpke import Aead, Buffer, Kdf, Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.session import ReceiverSession, SenderSession
from confonnx.oip import binary
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferOutput, InferRequest, InferResponse

CASE = Case(np.arange(4, dtype=np.float32), np.arange(2, dtype=np.float32))
OTHER = Case(np.arange(6, dtype=np.float32), np.arange(3, dtype=np.float32))
WORKLOAD = Workload("tiny", Path("tiny.onnx"), (CASE, OTHER), in_process=0.001, concurrencies=(1,))


class Make(Protocol):
    def __call__(self, answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]: ...


def encode(answer: Array) -> binary.Encoded:
    request = InferRequest((), parameters={"binary_data_output": True})
    output = InferOutput("y", TensorType(Datatype.FP32, answer.shape), answer)
    return binary.encode_infer_response(InferResponse("tiny", "1", (output,)), request)


def http(status: int, body: bytes, header_length: int | None) -> memoryview:
    fields = f"inference-header-content-length: {header_length}\r\n" if header_length is not None else ""
    return memoryview(f"HTTP/1.1 {status} Any\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body)


class Keys:
    """Key 7 alone."""

    def __init__(self) -> None:
        self.key = PrivateKey.generate(Kem.X25519)
        self.config = KeyConfig(7, Kem.X25519, self.key.public_key, ((Kdf.HKDF_SHA256, Aead.AES_128_GCM),))

    def private_key(self, key_id: int) -> PrivateKey:
        assert key_id == 7
        return self.key


def plain(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    encoded = encode(answer)
    return Prepared(Form.BINARY, [b""]), http(status, b"".join(encoded.parts), encoded.header_length)


def as_json(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    output = {"name": "y", "datatype": "FP32", "shape": answer.shape, "data": answer.tolist()}
    body = json.dumps({"model_name": "tiny", "outputs": [output]}).encode()
    return Prepared(Form.JSON, [b""]), http(status, body, None)


def as_plain_json(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    return Prepared(Form.PLAIN_JSON, [b""]), http(status, json.dumps(answer.tolist()).encode(), None)


def alone(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    keys = Keys()
    message, opener = encapsulate_request(keys.config, [b"anything"])
    body = open_request(keys, message).sealer.seal(inner(answer, status))
    return Prepared(Form.ALONE, [bytes(message)], [opener]), http(200, bytes(body), None)


def in_session(answer: Array, *, status: int = 200) -> tuple[Prepared, memoryview]:
    keys = Keys()
    sealed = SenderSession(keys.config).seal([b"anything"])
    assert sealed is not None
    message, opener = sealed
    request = ReceiverSession(*read_prefix(keys, memoryview(message))).open(message)
    body = request.sealer.seal(inner(answer, status))
    return Prepared(Form.SESSION, [bytes(message)], [opener]), http(200, bytes(body), None)


def inner(answer: Array, status: int) -> Sequence[Buffer]:
    encoded = encode(answer)
    fields = ((binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),)
    return bhttp.encode_response(bhttp.Response(status, fields, b"".join(encoded.parts)))


FORMS = [plain, as_json, as_plain_json, alone, in_session]


@pytest.mark.parametrize("make", FORMS)
def test_the_right_answer_passes_and_another_does_not(make: Make) -> None:
    prepared, answer = make(CASE.answer)
    prepared.check(0, answer, WORKLOAD)
    for wrong in (CASE.answer + 1, np.nextafter(CASE.answer, np.float32(9)), OTHER.answer):
        prepared, answer = make(wrong)
        with pytest.raises(LoadError, match="not what onnxruntime says"):
            prepared.check(0, answer, WORKLOAD)


@pytest.mark.parametrize("make", FORMS)
def test_an_error_does_not_pass_wherever_its_status_is(make: Make) -> None:
    prepared, answer = make(CASE.answer, status=503)
    with pytest.raises(LoadError, match="status 503"):
        prepared.check(0, answer, WORKLOAD)


def test_answers_are_held_against_their_own_question() -> None:
    prepared, answer = plain(OTHER.answer)
    prepared.check(1, answer, WORKLOAD)
    prepared.check(3, answer, WORKLOAD)
    with pytest.raises(LoadError, match="not what onnxruntime says"):
        prepared.check(2, answer, WORKLOAD)


def test_plain_requests_are_whole_http_requests_of_the_cases_in_turn() -> None:
    prepared = prepare(Variant.PLAIN, WORKLOAD, port=1, count=3)
    assert len(prepared.messages) == 3
    for message, case in zip(prepared.messages, (CASE, OTHER, CASE), strict=True):
        head, _, body = message.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.splitlines()
        length = int(dict(ask(case, WORKLOAD).fields)[binary.HEADER_LENGTH_FIELD])
        request = binary.parse_infer_request(body, header_length=length, limits=OipLimits())
        assert np.array_equal(request.inputs[0].value, case.input)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", [peer for peer in PEERS if peer.form in (Form.JSON, Form.PLAIN_JSON)])
def test_json_holds_every_float_exactly(variant: Variant) -> None:
    case = Case(np.random.default_rng(1).random(9, np.float32), CASE.answer)
    workload = replace(WORKLOAD, cases=(case,))
    body = prepare(variant, workload, port=1, count=1).messages[0].partition(b"\r\n\r\n")[2]
    document = json.loads(body)
    data = document["x"] if variant.form is Form.PLAIN_JSON else document["inputs"][0]["data"]
    assert np.array_equal(np.array(data, np.float32), case.input)


def test_what_goes_over_no_wire_has_no_requests() -> None:
    with pytest.raises(ValueError, match="in process has no requests"):
        prepare(Variant.IN_PROCESS, WORKLOAD, port=1, count=1)


def test_each_sealed_variant_has_a_form_and_a_key() -> None:
    assert {variant for variant in Variant if variant.kem} == {
        variant for variant in Variant if variant.form in (Form.ALONE, Form.SESSION)
    }


@pytest.mark.parametrize("variant", [Variant.SESSION_X25519, Variant.X25519])
def test_sealed_requests_open_as_what_the_client_asks(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys()
    monkeypatch.setattr(exchanges, "_key_config", lambda port, kem: keys.config)
    prepared = prepare(variant, WORKLOAD, port=1, count=3)
    session = None
    for number, message in enumerate(prepared.messages):
        sealed = message.partition(b"\r\n\r\n")[2]
        if variant.form is Form.SESSION:
            session = session or ReceiverSession(*read_prefix(keys, memoryview(sealed)))
            request = session.open(sealed)
            assert request.seq == number
            plaintext = request.plaintext
        else:
            plaintext = open_request(keys, sealed).plaintext
        inner_request = bhttp.parse_request(plaintext)
        assert dict(inner_request.fields).keys() > {"date", "content-type"}
        assert bytes(inner_request.body) == b"".join(ask(WORKLOAD.case(number), WORKLOAD).body)


def test_the_models_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (make_workloads(["transformer"], tmp_path)[0] for _ in range(2))
    assert len(first.cases) == 3
    for one, other in zip(first.cases, second.cases, strict=True):
        assert np.array_equal(one.input, other.input)
        assert np.array_equal(one.answer, other.answer)
        assert np.isfinite(one.answer).all()
    assert first.in_process > 0


def test_models_have_the_size_that_their_name_says(tmp_path: Path) -> None:
    (workload,) = make_workloads(["identity-4"], tmp_path)
    assert workload.input_bytes == 4 << 20
    assert workload.large
    assert np.array_equal(workload.case(0).input, workload.case(0).answer)
    with pytest.raises(KeyError):
        make_workloads(["huge"], tmp_path)
