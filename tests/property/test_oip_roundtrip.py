"""Round trips of arbitrary values of arbitrary types, in both forms."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.errors import InvalidInputError
from confonnx.oip.binary import (
    Encoded,
    encode_infer_request,
    encode_infer_response,
    parse_infer_request,
    parse_infer_response,
)
from confonnx.oip.datatypes import (
    Array,
    Datatype,
    Kind,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
    format_onnx_type,
    parse_onnx_type,
)
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferInput, InferOutput, InferRequest, InferResponse, RequestedOutput
from confonnx.oip.tensors import byte_size, tensor_from_bytes, tensor_to_bytes
from confonnx.oip.values import Value, coerce
from tests.support.oip import same

LIMITS = OipLimits()
# No lone surrogates: they have no UTF-8.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
dims = st.one_of(st.integers(0, 9), st.none(), st.text(min_size=1, max_size=4))
datatypes = st.sampled_from(Datatype)


@st.composite
def arrays(draw: st.DrawFn, datatype: Datatype) -> Array:
    """Any bits: NaN payloads, subnormals and negative zeros included."""
    shape = draw(shapes)
    count = int(np.prod(shape))
    size = byte_size(datatype, count)
    if size is None:
        strings = np.empty(count, object)
        strings[:] = draw(st.lists(text, min_size=count, max_size=count))
        return strings.reshape(shape)
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).copy()
    if datatype is Datatype.BOOL:
        data &= 1
    if datatype.bits in (2, 4) and (used := count * datatype.bits % 8):
        data[-1] &= (1 << used) - 1
    return tensor_from_bytes(data.data, datatype, shape)


tensor_types = datatypes.map(TensorType)
map_values = st.sampled_from(["FP32", "FP64", "INT64", "BYTES"]).map(
    lambda name: TensorType(Datatype(name), ())
)
keys = st.sampled_from([Datatype.INT64, Datatype.BYTES])
maps = st.builds(MapType, keys, st.one_of(map_values, st.builds(SequenceType, tensor_types)))
value_types: st.SearchStrategy[ValueType] = st.recursive(
    st.one_of(tensor_types, maps),
    lambda inner: st.one_of(
        st.builds(SequenceType, inner),
        st.builds(OptionalType, inner.filter(lambda type_: not isinstance(type_, OptionalType))),
    ),
    max_leaves=4,
)

integers = st.integers(-(2**63), 2**63 - 1)


def scalars(datatype: Datatype) -> st.SearchStrategy[int | float | str]:
    match datatype.kind:
        case Kind.FLOAT:
            return st.floats(width=32)
        case Kind.INTEGER:
            return integers
        case _:
            return text


def values(type_: ValueType) -> st.SearchStrategy[Value]:
    match type_:
        case TensorType(datatype):
            return arrays(datatype)
        case SequenceType(element):
            return st.lists(values(element), max_size=3)
        case OptionalType(element):
            return st.one_of(st.none(), values(element))
        case MapType(key, value):
            keys = integers if key is Datatype.INT64 else text
            items = scalars(value.datatype) if isinstance(value, TensorType) else values(value)
            return st.dictionaries(keys, items, max_size=3)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[ValueType, Value]:
    type_ = draw(value_types)
    return type_, draw(values(type_))


named = st.dictionaries(text.filter(bool), typed_values(), max_size=3)
parameters = st.dictionaries(
    st.sampled_from(["priority", "custom", "content_type"]),
    st.one_of(
        text, st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)
    ),
)


def body(encoded: Encoded) -> bytes:
    return b"".join(encoded.parts)


def without_payloads(value: Value) -> Value:
    """What JSON keeps of a value: every NaN becomes numpy's own."""
    match value:
        case np.ndarray() if value.dtype.kind == "O" or Datatype.from_numpy(value.dtype).kind not in (
            Kind.FLOAT,
            Kind.COMPLEX,
        ):
            return value
        case np.ndarray():
            with np.errstate(invalid="ignore"):
                wide = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
                for part in (wide.real, wide.imag) if wide.dtype.kind == "c" else (wide,):
                    part[np.isnan(part)] = np.nan
                return wide.astype(value.dtype)
        case list():
            return [without_payloads(item) for item in value]
        case dict():
            return {
                key: without_payloads(item) if isinstance(item, list) else item for key, item in value.items()
            }
        case _:
            return value


@given(type_=value_types)
def test_type_texts(type_: ValueType) -> None:
    assert parse_onnx_type(format_onnx_type(type_)) == type_


@given(datatype=datatypes, shape=st.none() | st.lists(dims, max_size=4).map(tuple), optional=st.booleans())
def test_tensor_specs(datatype: Datatype, shape: tuple[int | str | None, ...] | None, optional: bool) -> None:
    spec = ValueSpec("x", TensorType(datatype, shape), optional)
    assert ValueSpec.from_json(spec.to_json()) == spec


@given(type_=value_types)
def test_value_specs(type_: ValueType) -> None:
    spec = ValueSpec("x", type_)
    assert ValueSpec.from_json(spec.to_json()) == spec


@given(data=st.data(), datatype=datatypes, offset=st.integers(0, 15))
def test_bytes_are_canonical_at_any_offset(data: st.DataObject, datatype: Datatype, offset: int) -> None:
    array = data.draw(arrays(datatype))
    wire = bytes(tensor_to_bytes(array, datatype))
    back = tensor_from_bytes(memoryview(bytes(offset) + wire)[offset:], datatype, array.shape)
    assert same(back, array)
    assert back.flags.aligned
    assert not back.flags.writeable
    assert bytes(tensor_to_bytes(back, datatype)) == wire


@given(
    inputs=named, parameters=parameters, outputs=st.sets(text.filter(bool), max_size=3), id_=st.none() | text
)
@settings(deadline=None)
def test_binary_requests(
    inputs: dict[str, tuple[ValueType, Value]],
    parameters: dict[str, str | int | float | bool],
    outputs: set[str],
    id_: str | None,
) -> None:
    request = InferRequest(
        inputs=tuple(InferInput(name, type_, value, parameters) for name, (type_, value) in inputs.items()),
        outputs=tuple(RequestedOutput(name, len(name) > 2 or None) for name in outputs),
        id=id_,
        parameters=parameters,
    )
    encoded = encode_infer_request(request)
    back = parse_infer_request(body(encoded), header_length=encoded.header_length, limits=LIMITS)
    assert back.id == id_
    assert back.outputs == request.outputs
    assert back.parameters == {**parameters, "binary_data_output": True}
    for item, (name, (type_, value)) in zip(back.inputs, inputs.items(), strict=True):
        assert item.name == name
        assert item.parameters == parameters
        assert same(item.value, value)
        assert same(coerce(item.value, ValueSpec(name, type_), convert=False), value)
    again = encode_infer_request(back)
    assert body(again) == body(encoded)
    assert again.header_length == encoded.header_length


@given(inputs=named)
@settings(deadline=None)
def test_json_requests(inputs: dict[str, tuple[ValueType, Value]]) -> None:
    request = InferRequest(tuple(InferInput(name, type_, value) for name, (type_, value) in inputs.items()))
    encoded = encode_infer_request(request, binary=False)
    assert encoded.header_length is None
    back = parse_infer_request(body(encoded), header_length=None, limits=LIMITS)
    for item, (_, value) in zip(back.inputs, inputs.values(), strict=True):
        assert same(without_payloads(item.value), without_payloads(value))
    assert body(encode_infer_request(back, binary=False)) == body(encoded)


@given(outputs=named, wishes=st.lists(st.sampled_from([None, True, False]), min_size=3, max_size=3))
@settings(deadline=None)
def test_responses(outputs: dict[str, tuple[ValueType, Value]], wishes: list[bool | None]) -> None:
    request = InferRequest((), tuple(map(RequestedOutput, outputs, wishes)), id="7")
    made = tuple(InferOutput(name, type_, value) for name, (type_, value) in outputs.items())
    encoded = encode_infer_response(InferResponse("m", "1", made), request)
    back = parse_infer_response(body(encoded), header_length=encoded.header_length, limits=LIMITS)
    assert back.id == "7"
    assert [item.name for item in back.outputs] == list(outputs)
    for item, (_, value) in zip(back.outputs, outputs.values(), strict=True):
        assert same(without_payloads(item.value), without_payloads(value))
    assert body(encode_infer_response(back, request)) == body(encoded)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=6,
    ),
    type_=value_types,
)
@settings(deadline=None)
def test_whatever_a_user_passes(value: object, type_: ValueType) -> None:
    spec = ValueSpec("x", type_)
    try:
        coerced = coerce(value, spec)
    except InvalidInputError:
        return
    assert same(coerce(coerced, spec, convert=False), coerced)
    request = InferRequest((InferInput("x", type_, coerced),))
    encoded = encode_infer_request(request)
    back = parse_infer_request(body(encoded), header_length=encoded.header_length, limits=LIMITS)
    assert same(back.inputs[0].value, coerced)
