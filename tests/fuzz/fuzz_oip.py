"""Inference messages and metadata: any bytes are a value, which encodes and parses to itself, or a documented
error.

The first zero byte of an input, which JSON cannot hold, stands between the header and the binary part;
without one there is no binary part. So a mutation of the header does not end the message by making its length
wrong.

``python -m tests.fuzz.fuzz_oip --seconds 600``
"""

from __future__ import annotations

import re

import numpy as np

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.binary import (
    Encoded,
    encode_infer_request,
    encode_infer_response,
    parse_infer_request,
    parse_infer_response,
)
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec, parse_onnx_type
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import (
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    parse_model_metadata,
)
from confonnx.oip.values import Value
from tests.fuzz.mutator import main
from tests.support.oip import same, sample

LIMITS = OipLimits(
    max_header_bytes=3000, max_tensors=12, max_depth=4, max_elements=5000, max_rank=4, max_name_length=12
)
_RAW = ValueSpec("x", TensorType(Datatype.UINT2, ("N", 2)))
# A BYTES element is the worst: an empty string of four bytes on the wire has a pointer, and others an object
# too.
_BYTES_OF_MEMORY_PER_BYTE = 8


def framed(encoded: Encoded) -> bytes:
    """A message as an input of `fuzz_oip`."""
    body = b"".join(encoded.parts)
    if encoded.header_length is None:
        return body
    return body[: encoded.header_length] + b"\0" + body[encoded.header_length :]


def unframed(data: bytes) -> tuple[bytes, int | None]:
    """The body of an input, and the length of its header."""
    header, separator, binary = data.partition(b"\0")
    return header + binary, len(header) if separator else None


def _input(name: str, type_: str, value: Value) -> InferInput:
    return InferInput(name, parse_onnx_type(type_), value)


_NUMBERS = InferRequest(
    tuple(InferInput(type_.value, TensorType(type_), sample(type_, (1, 3))) for type_ in list(Datatype)[::4]),
    (RequestedOutput("y", binary=True),),
    id="7",
)
_MORE = InferRequest(
    tuple(InferInput(type_.value, TensorType(type_), sample(type_)) for type_ in list(Datatype)[1::3][:8])
)
_VALUES = InferRequest(
    (
        _input("z", "seq(map(string,tensor(float)))", [{"a": 0.5, "b": -0.0}]),
        _input("o", "optional(seq(tensor(string)))", [sample(Datatype.BYTES)]),
        _input("n", "optional(tensor(float))", None),
    )
)
_RESPONSE = InferResponse(
    "m",
    "1",
    (
        InferOutput("y", TensorType(Datatype.FP32), np.array([np.nan, np.inf, 1.5], np.float32)),
        InferOutput("c", TensorType(Datatype.COMPLEX64), np.array([1 + 2j], np.complex64)),
    ),
)
_METADATA = ModelMetadata(
    "m", (_RAW,), (ValueSpec("z", parse_onnx_type("seq(map(int64,tensor(float)))")),), ("1",)
)

CORPUS = [
    *(
        framed(encode_infer_request(request, binary=binary))
        for request in (_NUMBERS, _MORE, _VALUES)
        for binary in (True, False)
    ),
    framed(encode_infer_response(_RESPONSE, _NUMBERS)),
    framed(encode_infer_response(_RESPONSE, _VALUES)),
    framed(Encoded("", None, (_METADATA.encode(),))),
    framed(Encoded("", 0, (bytes(range(16)),))),
]

_SCALARS = re.compile(rb'"(?:[^"\\]|\\.)*"(?!:)|-?[0-9][0-9.e+-]*|true|false')
_REPLACEMENTS = [
    b"-1", b"0", b"1", b"2", b"3", b"1.5", b"1e400", b"4294967296", b"18446744073709551616",
    b'"NaN"', b'""', b'"x"',
    b"true", b"null", b"[]", b"[1]", b"{}", b'"MAP"', b'"OPTIONAL"', b'"BYTES"',
    b'"UINT2"', b'"seq(tensor(float))"',
]  # fmt: skip


def variants(message: bytes) -> list[bytes]:
    """``message`` with one scalar of its header replaced, in every way: what changes of bytes seldom make."""
    header = message.partition(b"\0")[0]
    return [
        message[: found.start()] + replacement + message[found.end() :]
        for found in _SCALARS.finditer(header)
        for replacement in _REPLACEMENTS
    ]


VARIANTS = [variant for message in CORPUS for variant in variants(message)]


def fuzz_oip(data: bytes) -> None:
    """The target: ``data`` as a request, as a response and as metadata."""
    body, header_length = unframed(data)
    try:
        request = parse_infer_request(body, header_length=header_length, limits=LIMITS, raw_input=_RAW)
    except (OipError, InvalidInputError) as error:
        _check_text(error)
    else:
        _check_request(request, len(body))
    try:
        response = parse_infer_response(body, header_length=header_length, limits=LIMITS)
    except (OipError, InvalidInputError) as error:
        _check_text(error)
    else:
        _check_response(response, len(body))
    try:
        metadata = parse_model_metadata(body)
    except OipError as error:
        _check_text(error)
    else:
        assert parse_model_metadata(metadata.encode()) == metadata


def _check_request(request: InferRequest, size: int) -> None:
    for item in request.inputs:
        assert _memory(item.value) <= _BYTES_OF_MEMORY_PER_BYTE * size
    for binary in (True, False):
        encoded = encode_infer_request(request, binary=binary)
        again = _parse(encoded)
        assert b"".join(encode_infer_request(again, binary=binary).parts) == b"".join(encoded.parts)
        if binary:
            assert same([item.value for item in again.inputs], [item.value for item in request.inputs])


def _parse(encoded: Encoded) -> InferRequest:
    wide = OipLimits()  # what was written in other words may be longer
    return parse_infer_request(b"".join(encoded.parts), header_length=encoded.header_length, limits=wide)


def _check_response(response: InferResponse, size: int) -> None:
    assert sum(_memory(item.value) for item in response.outputs) <= _BYTES_OF_MEMORY_PER_BYTE * size
    encoded = encode_infer_response(response, _NUMBERS)
    body = b"".join(encoded.parts)
    again = parse_infer_response(body, header_length=encoded.header_length, limits=OipLimits())
    assert b"".join(encode_infer_response(again, _NUMBERS).parts) == body


def _memory(value: Value) -> int:
    match value:
        case np.ndarray():
            assert not value.flags.writeable
            return value.nbytes
        case list():
            return sum(map(_memory, value))
        case _:
            return 0


def _check_text(error: OipError | InvalidInputError) -> None:
    assert 0 < len(str(error)) < 2000


if __name__ == "__main__":
    main(fuzz_oip, CORPUS + VARIANTS)
