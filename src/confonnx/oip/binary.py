"""Inference messages as bytes: a JSON header, then the tensors that are not in it (``binary_tensor_data``).

A message without a binary part is its JSON alone. With one, the field ``inference-header-content-length``
tells where the JSON ends. The header is padded with spaces, which JSON ignores, to a multiple of 16 bytes:
where the body lies aligned, so does the first tensor, and the reader need not copy it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from confonnx.errors import OipError
from confonnx.oip.datatypes import Buffer, JsonObject, TensorType, ValueSpec
from confonnx.oip.entries import Entry, EntryReader, EntryWriter, Parameter, Parameters, plain_parameters
from confonnx.oip.json import decode_json, encode_json
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import (
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    RequestedOutput,
)
from confonnx.oip.tensors import tensor_from_bytes

HEADER_LENGTH_FIELD = "inference-header-content-length"
JSON_MEDIA_TYPE = "application/json"
BINARY_MEDIA_TYPE = "application/octet-stream"

_BINARY_DATA = "binary_data"
_BINARY_DATA_OUTPUT = "binary_data_output"
_ALIGNMENT = 16
_MAX_LENGTH_DIGITS = 18  # of a number below 2**63


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message. ``b"".join(parts)`` is the body; arrays in it are not copied, so it must be used before they
    change.

    ``header_length`` is the value of `HEADER_LENGTH_FIELD`, None where the body is JSON alone.
    """

    content_type: str
    header_length: int | None
    parts: tuple[Buffer, ...] = field(repr=False)


def parse_header_length(text: str | None) -> int | None:
    """The value of `HEADER_LENGTH_FIELD` in bytes, None where the message has no such field.

    Raises:
        OipError: it is no number, or longer than any size is.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
        raise OipError(
            f"{HEADER_LENGTH_FIELD} is no number of bytes, expected 1 to {_MAX_LENGTH_DIGITS} digits"
        )
    return int(text)


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Parameter | None] | None = None


class _Request(msgspec.Struct, frozen=True):
    inputs: list[Entry]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Parameter | None] | None = None


class _Response(msgspec.Struct, frozen=True):
    model_name: str
    outputs: list[Entry]
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Parameter | None] | None = None


_request = msgspec.json.Decoder(_Request)
_response = msgspec.json.Decoder(_Response)


def encode_infer_request(request: InferRequest, *, binary: bool = True) -> Encoded:
    """The body of a request. ``binary`` puts the inputs into the binary part and asks for outputs in that
    form.

    Raises:
        InvalidInputError: a value is not of its type.
    """
    writer = EntryWriter()
    parameters = dict(request.parameters)
    if binary:
        parameters.setdefault(_BINARY_DATA_OUTPUT, True)
    header: JsonObject = {"id": request.id} if request.id is not None else {}
    if parameters:
        header["parameters"] = parameters
    header["inputs"] = [
        writer.write(
            item.name, item.type, item.value, item.parameters, binary=binary, where=_input(item.name)
        )
        for item in request.inputs
    ]
    if request.outputs:
        header["outputs"] = [_requested(output) for output in request.outputs]
    return _encoded(header, writer, binary=binary)


def parse_infer_request(
    body: Buffer, *, header_length: int | None, limits: OipLimits, raw_input: ValueSpec | None = None
) -> InferRequest:
    """A request. Arrays are read-only, and views on ``body`` where datatype and alignment allow.

    ``raw_input`` is the model's input if it has exactly one: a ``header_length`` of 0 then says that the body
    is its bytes and nothing else (Triton's raw binary request). At most one dimension of it may vary.

    Raises:
        OipError: malformed, or over a limit.
        InvalidInputError: a number that its datatype cannot hold.
    """
    if header_length == 0:
        return _parse_raw(body, raw_input, limits)
    header, reader = _split(body, header_length, limits)
    message = decode_json(_request, header, "the request's JSON")
    names = _checked_names((entry.name for entry in message.inputs), "input", limits)
    requested = message.outputs or []
    _checked_names((output.name for output in requested), "requested output", limits)
    inputs = tuple(
        InferInput(name, *reader.read(entry, _input(name)))
        for name, entry in zip(names, message.inputs, strict=True)
    )
    reader.finish()
    return InferRequest(
        inputs=inputs,
        outputs=tuple(_parse_requested(output) for output in requested),
        id=_checked_id(message.id, limits),
        parameters=_checked_parameters(message.parameters),
    )


def encode_infer_response(response: InferResponse, request: InferRequest) -> Encoded:
    """The body of the response to ``request``: its id, and each output in the form that it asked for.

    An output's own ``binary_data`` decides, then the request's ``binary_data_output``; JSON where neither is
    there.

    Raises:
        InvalidInputError: a value is not of its type.
    """
    writer = EntryWriter()
    forms = {output.name: output.binary for output in request.outputs}
    default = request.parameters.get(_BINARY_DATA_OUTPUT) is True
    header: JsonObject = {"model_name": response.model_name}
    if response.model_version is not None:
        header["model_version"] = response.model_version
    if request.id is not None:
        header["id"] = request.id
    if response.parameters:
        header["parameters"] = dict(response.parameters)
    outputs: list[JsonObject] = []
    for item in response.outputs:
        form = forms.get(item.name)
        binary = default if form is None else form
        where = f"output {item.name!r}"
        outputs.append(
            writer.write(item.name, item.type, item.value, item.parameters, binary=binary, where=where)
        )
    header["outputs"] = outputs
    return _encoded(header, writer, binary=bool(writer.parts))


def parse_infer_response(body: Buffer, *, header_length: int | None, limits: OipLimits) -> InferResponse:
    """A response. Arrays are read-only, and views on ``body`` where datatype and alignment allow.

    Raises:
        OipError: malformed, or over a limit.
        InvalidInputError: a number that its datatype cannot hold.
    """
    header, reader = _split(body, header_length, limits)
    message = decode_json(_response, header, "the response's JSON")
    names = _checked_names((entry.name for entry in message.outputs), "output", limits)
    outputs = tuple(
        InferOutput(name, *reader.read(entry, f"output {name!r}"))
        for name, entry in zip(names, message.outputs, strict=True)
    )
    reader.finish()
    return InferResponse(
        model_name=message.model_name,
        model_version=message.model_version,
        outputs=outputs,
        id=_checked_id(message.id, limits),
        parameters=_checked_parameters(message.parameters),
    )


def _split(body: Buffer, header_length: int | None, limits: OipLimits) -> tuple[memoryview, EntryReader]:
    view = memoryview(body)
    if not view:
        raise OipError("the body is empty, expected JSON")
    size = len(view) if header_length is None else header_length
    if not 0 < size <= len(view):
        raise OipError(f"{HEADER_LENGTH_FIELD} is {size}, expected 1 to {len(view)}, the size of the body")
    if size > limits.max_header_bytes:
        raise OipError(
            f"{size} bytes of JSON, at most {limits.max_header_bytes} allowed; send tensors in binary form"
        )
    binary = None if header_length is None else view[size:]
    return view[:size], EntryReader(binary, limits)


def _encoded(header: JsonObject, writer: EntryWriter, *, binary: bool) -> Encoded:
    text = encode_json(header)
    if not binary:
        return Encoded(JSON_MEDIA_TYPE, None, (text,))
    text += b" " * (-len(text) % _ALIGNMENT)
    return Encoded(BINARY_MEDIA_TYPE, len(text), (text, *writer.parts))


def _parse_raw(body: Buffer, spec: ValueSpec | None, limits: OipLimits) -> InferRequest:
    type_ = spec.type if spec is not None else None
    if (
        spec is None
        or not isinstance(type_, TensorType)
        or type_.shape is None
        or type_.datatype.bits is None
    ):
        raise OipError(
            f"{HEADER_LENGTH_FIELD} is 0 (a raw request), which only a model with one input can take, "
            f"a tensor of known rank and of numbers; send a JSON header"
        )
    where = _input(spec.name)
    fixed = [size for size in type_.shape if isinstance(size, int)]
    count = limits.count_elements(fixed, where)
    if len(type_.shape) - len(fixed) > 1 or (len(fixed) < len(type_.shape) and count == 0):
        raise OipError(
            f"{where}: the size of a raw request does not tell more than one dimension that varies"
        )
    varying = len(body) * 8 // (type_.datatype.bits * count) if len(fixed) < len(type_.shape) else 0
    shape = tuple(size if isinstance(size, int) else varying for size in type_.shape)
    limits.count_elements(shape, where)
    array = tensor_from_bytes(memoryview(body), type_.datatype, shape, where)
    return InferRequest((InferInput(spec.name, replace(type_, shape=shape), array),))


def _requested(output: RequestedOutput) -> JsonObject:
    parameters = dict(output.parameters)
    if output.binary is not None:
        parameters[_BINARY_DATA] = output.binary
    return {"name": output.name, **({"parameters": parameters} if parameters else {})}


def _parse_requested(output: _Output) -> RequestedOutput:
    parameters = plain_parameters(output.parameters)
    binary = parameters.pop(_BINARY_DATA, None)
    if binary is not None and not isinstance(binary, bool):
        raise OipError(f"output {output.name!r}: the parameter {_BINARY_DATA!r} must be true or false")
    return RequestedOutput(output.name, binary, MappingProxyType(parameters))


def _checked_parameters(parameters: dict[str, Parameter | None] | None) -> Parameters:
    checked = plain_parameters(parameters)
    if not isinstance(checked.get(_BINARY_DATA_OUTPUT, False), bool):
        raise OipError(f"the parameter {_BINARY_DATA_OUTPUT!r} must be true or false")
    return MappingProxyType(checked)


def _checked_id(identifier: str | None, limits: OipLimits) -> str | None:
    return None if identifier is None else limits.check_name(identifier, "the id")


def _checked_names(names: Iterable[str | None], what: str, limits: OipLimits) -> list[str]:
    seen: dict[str, None] = {}
    for name in names:
        if not name:
            raise OipError(f"without a name: the {what} at position {len(seen)}")
        limits.check_name(name, f"the name of the {what} at position {len(seen)}")
        if name in seen:
            raise OipError(f"{what} {name!r} is there twice")
        if len(seen) == limits.max_tensors:
            raise OipError(f"more than the {limits.max_tensors} {what}s that a message may have")
        seen[name] = None
    return list(seen)


def _input(name: str) -> str:
    return f"input {name!r}"
