"""The same prediction as each variant puts it on the wire, and what came back, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import numpy as np

from benchmarks.load import LoadError, ask_once, split_answer
from benchmarks.models import Array
from benchmarks.variants import Form, Variant
from benchmarks.workloads import Case, Workload
from confonnx.attestation.statement import ModelDescription
from confonnx.client import inference
from confonnx.client.exchange import HttpRequest
from confonnx.client.options import Connection, parse_url
from confonnx.client.outgoing import Requests
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    ResponseOpener,
    encapsulate_request,
)
from confonnx.ohttp.hpke import Buffer, Kem
from confonnx.ohttp.key_config import KeyConfig, parse_key_configs
from confonnx.ohttp.session import (
    SEQ_SIZE,
    SESSION_REQUEST_MEDIA_TYPE,
    SESSION_RESPONSE_MEDIA_TYPE,
    SenderSession,
)
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec
from confonnx.oip.limits import OipLimits

_LIMITS = OipLimits()
_HOST = "127.0.0.1"

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Whole HTTP requests, in turn those of the workload's cases; a sealed one works once, and so does the
    opener of its answer.
    """

    form: Form
    messages: Sequence[bytes]
    openers: Sequence[ResponseOpener] = ()

    def check(self, number: int, answer: memoryview, workload: Workload) -> None:
        """Raises ``LoadError`` unless HTTP answer number ``number`` holds what the model says in process."""
        status = self.judge(number, answer, workload)
        if status != 200:
            raise LoadError(f"answer {number} has status {status}: {bytes(answer[-200:])!r}")

    def judge(self, number: int, answer: memoryview, workload: Workload) -> int:
        """The status of HTTP answer number ``number``, and where that is 200, of what is sealed inside.

        Raises ``LoadError`` for one of 200 that does not hold what the model says in process.
        """
        status, body = split_answer(answer)
        if status != 200:
            return status
        if self.openers:
            response = bhttp.parse_response(self.openers[number].open(body))
            if response.status != 200:
                return response.status
            value = _read_binary(response.body, response.field(binary.HEADER_LENGTH_FIELD))
        elif self.form is Form.BINARY:
            value = _read_binary(body, _outer_field(answer, binary.HEADER_LENGTH_FIELD))
        else:
            value = _read_json(body, self.form)
        if not (isinstance(value, np.ndarray) and np.array_equal(value, workload.case(number).answer)):
            raise LoadError(f"answer {number} of {workload.name} is not what onnxruntime says in process")
        return 200


def prepare(variant: Variant, workload: Workload, *, port: int, count: int) -> Prepared:
    """``count`` requests for one server, dated now: the sealed ones are good for the two minutes of its
    replay window.

    ``ValueError`` for what goes over no wire.
    """
    match variant.form:
        case Form.ALONE | Form.SESSION:
            return _prepare_sealed(variant, workload, port=port, count=count)
        case Form.BINARY:
            requests = [_binary_request(case, workload) for case in workload.cases]
        case Form.JSON:
            requests = [_json_request(case, workload) for case in workload.cases]
        case Form.PLAIN_JSON:
            requests = [
                _post("/predict", _JSON, _JSON_FIELDS, msgspec.json.encode({"x": case.input.tolist()}))
                for case in workload.cases
            ]
        case Form.NONE:
            raise ValueError(f"{variant} has no requests")
    made = _on_the_wire(port)
    octets = [made(request) for request in requests]
    return Prepared(variant.form, [octets[number % len(octets)] for number in range(count)])


def describe(workload: Workload) -> ModelDescription:
    """The workload's model as a server would attest to it, but for the digest."""

    def spec(name: str, value: Array) -> ValueSpec:
        return ValueSpec(name, _type(value))

    case = workload.cases[0]
    return ModelDescription(workload.name, "1", "0" * 64, (spec("x", case.input),), (spec("y", case.answer),))


def _type(value: Array) -> TensorType:
    return TensorType(Datatype.FP32, (None,) * value.ndim)


def ask(case: Case, workload: Workload) -> inference.Question:
    """The prediction as our client asks for it."""
    return inference.ask(describe(workload), {"x": case.input}, outputs=None)


def prepare_wrong(workload: Workload, *, port: int, count: int) -> Prepared:
    """Requests in a session that each lack the model's input."""
    value = workload.cases[0].input
    message = messages.InferRequest(
        (messages.InferInput("absent", TensorType(Datatype.FP32, value.shape), value),)
    )
    encoded = binary.encode_infer_request(message)
    fields = (
        ("content-type", encoded.content_type),
        (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),
    )
    parts = _bhttp_parts(fields, encoded.parts, workload, port, Form.SESSION)
    return _seal_all(Variant.SESSION_X25519, [parts], port=port, count=count)


def _prepare_sealed(variant: Variant, workload: Workload, *, port: int, count: int) -> Prepared:
    questions = [ask(case, workload) for case in workload.cases]
    plaintexts = [
        _bhttp_parts(question.fields, question.body, workload, port, variant.form) for question in questions
    ]
    return _seal_all(variant, plaintexts, port=port, count=count)


def _seal_all(variant: Variant, plaintexts: Sequence[Sequence[Buffer]], *, port: int, count: int) -> Prepared:
    assert variant.kem is not None
    config = _key_config(port, variant.kem)
    seal, media_type, accept = _sealing(variant.form, config)
    made = _on_the_wire(port)
    sealed_messages, openers = [], []
    for number in range(count):
        sealed, opener = seal(plaintexts[number % len(plaintexts)])
        sealed_messages.append(made(_post("/ohttp", accept, (("content-type", media_type),), sealed)))
        openers.append(opener)
    return Prepared(variant.form, sealed_messages, openers)


def _bhttp_parts(
    fields: Fields, body: Sequence[Buffer], workload: Workload, port: int, form: Form
) -> Sequence[Buffer]:
    dated = (("date", format_datetime(datetime.now(UTC), usegmt=True)), *fields)
    path = f"/v2/models/{workload.name}/versions/1/infer"
    inner = bhttp.Request("POST", "http", f"{_HOST}:{port}", path, dated)
    offset = HEADER_SIZE + (SEQ_SIZE if form is Form.SESSION else 0)
    return bhttp.encode_request(inner, body, offset=offset)  # aligned, as our client sends it


def _sealing(
    form: Form, config: KeyConfig
) -> tuple[Callable[[Sequence[Buffer]], tuple[bytearray, ResponseOpener]], str, str]:
    """What seals one request after the other, and the media types of requests and answers."""
    if form is Form.ALONE:
        return lambda parts: encapsulate_request(config, parts), REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE
    session = SenderSession(config)

    def seal(parts: Sequence[Buffer]) -> tuple[bytearray, ResponseOpener]:
        sealed = session.seal(parts)
        assert sealed is not None  # a window has far fewer requests than a session may
        return sealed

    return seal, SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE


def _binary_request(case: Case, workload: Workload) -> HttpRequest:
    question = ask(case, workload)
    return _post(
        _infer_path(workload), binary.BINARY_MEDIA_TYPE, tuple(question.fields), b"".join(question.body)
    )


_JSON = "application/json"
_JSON_FIELDS = (("content-type", _JSON),)


def _json_request(case: Case, workload: Workload) -> HttpRequest:
    tensor = {
        "name": "x",
        "shape": case.input.shape,
        "datatype": "FP32",
        "data": case.input.reshape(-1).tolist(),
    }
    return _post(_infer_path(workload), _JSON, _JSON_FIELDS, msgspec.json.encode({"inputs": [tensor]}))


def _infer_path(workload: Workload) -> str:
    return f"/v2/models/{workload.name}/infer"


def _read_binary(body: Buffer, header_length: str | None) -> object:
    length = None if header_length is None else int(header_length)
    return binary.parse_infer_response(body, header_length=length, limits=_LIMITS).outputs[0].value


def _read_json(body: memoryview, form: Form) -> Array:
    document = msgspec.json.decode(body)
    if form is Form.PLAIN_JSON:
        return np.array(document, np.float32)
    (output,) = document["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def _key_config(port: int, kem: Kem) -> KeyConfig:
    # Not attested: this measures what the server does with a request, and nothing secret is sent.
    answer = ask_once(port, f"GET /ohttp HTTP/1.1\r\nhost: {_HOST}\r\n\r\n".encode())
    for config in parse_key_configs(bytes(split_answer(memoryview(answer))[1])):
        if config.kem is kem:
            return config
    raise LoadError(f"the server offers no key for {kem.name}")


def _post(path: str, accept: str, fields: tuple[tuple[str, str], ...], body: Buffer) -> HttpRequest:
    return HttpRequest("POST", path, accept=accept, max_response_bytes=0, fields=fields, body=body)


def _on_the_wire(port: int) -> Callable[[HttpRequest], bytes]:
    """What our client writes for a request; to the peers as well."""
    requests = Requests(Connection(parse_url(f"http://{_HOST}:{port}/")))
    return lambda request: b"".join(requests.make(request).octets())


def _outer_field(answer: memoryview, name: str) -> str:
    head = bytes(answer[:4096]).partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    raise LoadError(f"an answer came without {name}")
