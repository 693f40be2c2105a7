"""The same prediction as each variant puts it on the wire, and what came back, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

import numpy as np

from benchmarks.load import LoadError, ask_once, split_answer
from benchmarks.workloads import Workload
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    REQUEST_MEDIA_TYPE,
    ResponseOpener,
    encapsulate_request,
)
from confonnx.ohttp.hpke import Kem
from confonnx.ohttp.key_config import KeyConfig, parse_key_configs
from confonnx.oip import binary
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferInput, InferRequest

_LIMITS = OipLimits()
_AUTHORITY = "127.0.0.1"


class Variant(StrEnum):
    """What is compared. The value is its name in a report."""

    MINIMAL = "minimal"  # plain_server.py
    PLAIN = "plain"  # confonnx with the seal bypassed: open_door.py
    X25519 = "X25519"
    XWING = "X-Wing"

    @property
    def kem(self) -> Kem | None:
        """The KEM of a sealed variant; None for the others."""
        return {Variant.X25519: Kem.X25519, Variant.XWING: Kem.MLKEM768_X25519}.get(self)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Whole HTTP requests; a sealed one works once, and so does the opener of its answer."""

    messages: Sequence[bytes]
    openers: Sequence[ResponseOpener] | None

    def check(self, number: int, answer: memoryview, workload: Workload) -> None:
        """Raises ``LoadError`` unless HTTP answer number ``number`` holds what the model says in process."""
        status, body = split_answer(answer)
        if status != 200:
            raise LoadError(f"answer {number} has status {status}: {bytes(body[:200])!r}")
        if self.openers is None:
            header_length = int(_outer_field(answer, binary.HEADER_LENGTH_FIELD))
        else:
            response = bhttp.parse_response(self.openers[number].open(body))
            body = memoryview(response.body)
            header_length = int(response.field(binary.HEADER_LENGTH_FIELD) or 0)
            if response.status != 200:
                raise LoadError(f"answer {number} has status {response.status} inside: {bytes(body[:200])!r}")
        parsed = binary.parse_infer_response(body, header_length=header_length, limits=_LIMITS)
        value = parsed.outputs[0].value
        if not (isinstance(value, np.ndarray) and np.array_equal(value, workload.answer)):
            raise LoadError(f"answer {number} of {workload.name} is not what onnxruntime says in process")


def prepare(variant: Variant, workload: Workload, *, port: int, count: int) -> Prepared:
    """``count`` requests for one server, dated now: the sealed ones are good for the two minutes of its
    replay window.
    """
    encoded = encode_prediction(workload)
    fields = (
        ("content-type", encoded.content_type),
        (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),
    )
    path = f"/v2/models/{workload.name}/infer"
    body = b"".join(encoded.parts)
    if variant.kem is None:
        return Prepared([_post(path, fields, body)] * count, None)
    config = _key_config(port, variant.kem)
    dated = (("date", format_datetime(datetime.now(UTC), usegmt=True)), *fields)
    inner = bhttp.Request("POST", "http", _AUTHORITY, path, dated)
    parts = bhttp.encode_request(inner, encoded.parts, offset=HEADER_SIZE)  # aligned, as our client sends it
    messages, openers = [], []
    for _ in range(count):
        sealed, opener = encapsulate_request(config, parts)
        messages.append(_post("/ohttp", (("content-type", REQUEST_MEDIA_TYPE),), sealed))
        openers.append(opener)
    return Prepared(messages, openers)


def encode_prediction(workload: Workload) -> binary.Encoded:
    """The workload's request in the binary form of the Open Inference Protocol."""
    value = InferInput("x", TensorType(Datatype.FP32, workload.input.shape), workload.input)
    return binary.encode_infer_request(InferRequest((value,)))


def _key_config(port: int, kem: Kem) -> KeyConfig:
    # Not attested: this measures what the server does with a request, and nothing secret is sent.
    answer = ask_once(port, f"GET /ohttp HTTP/1.1\r\nhost: {_AUTHORITY}\r\n\r\n".encode())
    for config in parse_key_configs(bytes(split_answer(memoryview(answer))[1])):
        if config.kem is kem:
            return config
    raise LoadError(f"the server offers no key for {kem.name}")


def _post(path: str, fields: Sequence[tuple[str, str]], body: bytes | bytearray) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: {_AUTHORITY}", *(f"{name}: {value}" for name, value in fields)]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _outer_field(answer: memoryview, name: str) -> str:
    head = bytes(answer[:4096]).partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    raise LoadError(f"an answer came without {name}")
