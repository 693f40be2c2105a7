"""Values in and out of onnxruntime's ``OrtValue``.

What the Python interface of onnxruntime 1.32 takes and gives, found by trying each case:

===================================  =================================  ==================================
value                                into ``run``                       out of ``run``
===================================  =================================  ==================================
tensor of a numpy dtype, FP16        array                              array
BF16, FP8, FP4, INT4 and below       ``OrtValue`` filled through its    fails; only ``run_with_ort_values``
(below: *packed* types)              address, mixed freely with arrays  gives an ``OrtValue`` to read
strings                              array of objects                   array of objects
sequence, map, optional              list, dict, value or None          list, dict, value or None
sequence of maps                     fails                              list of dicts
===================================  =================================  ==================================

So inputs can always be mixed, but one packed output forces ``run_with_ort_values``, which takes and gives
nothing but ``OrtValue``. Two tricks carry the rest: a graph whose output *is* its input turns an
``OrtValue`` of any type into Python (:func:`lower`), and small graphs make ``OrtValue`` from strings (an
initializer) and sequences (``SequenceConstruct``) (:func:`lift`). Only a map that goes in while a packed
type comes out has no way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias, assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper

from confonnx.errors import InferenceError, InvalidInputError
from confonnx.models.digest import ModelBytes
from confonnx.oip.datatypes import (
    Array,
    Datatype,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueType,
    format_onnx_type,
    parse_onnx_type,
)
from confonnx.oip.tensors import tensor_from_bytes, tensor_to_bytes
from confonnx.oip.values import Value
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.ort import onnxruntime, open_session

OrtValue: TypeAlias = onnxruntime.OrtValue

_PACKED = frozenset(
    {
        Datatype.BF16,
        Datatype.FP8_E4M3FN,
        Datatype.FP8_E4M3FNUZ,
        Datatype.FP8_E5M2,
        Datatype.FP8_E5M2FNUZ,
        Datatype.FP8_E8M0,
        Datatype.FP4_E2M1,
        Datatype.INT4,
        Datatype.UINT4,
        Datatype.INT2,
        Datatype.UINT2,
    }
)


def is_packed(value_type: ValueType) -> bool:
    """Whether values of the type are, or optionally are, tensors that only an ``OrtValue`` can carry."""
    match value_type:
        case TensorType(datatype):
            return datatype in _PACKED
        case OptionalType(element):
            return is_packed(element)
        case SequenceType() | MapType():
            return False
        case _:
            assert_never(value_type)


def is_carried(value_type: ValueType, *, into: bool) -> bool:
    """Whether the Python interface takes (``into``) or gives values of the type at all.

    Packed tensors in a sequence or map never pass, and no sequence of anything but tensors goes in.
    """
    match value_type:
        case TensorType():
            return True
        case OptionalType(element):
            return is_carried(element, into=into)
        case SequenceType(element) | MapType(_, element):
            if into and isinstance(value_type, SequenceType) and not isinstance(element, TensorType):
                return False
            return not is_packed(element) and is_carried(element, into=into)
        case _:
            assert_never(value_type)


def feed(value: Value, value_type: ValueType, name: str) -> object:
    """``value`` as ``InferenceSession.run`` takes it."""
    return lift(value, value_type, name) if value is not None and is_packed(value_type) else value


def lift(value: Value, value_type: ValueType, name: str) -> OrtValue:
    """``value``, which is not None, as an ``OrtValue``. It may share the memory of an array, so keep that
    alive.

    Raises InferenceError for what has no way in, InvalidInputError for a value of another type.
    """
    match value_type:
        case TensorType(datatype) if isinstance(value, np.ndarray):
            return _lift_tensor(value, datatype, name)
        case SequenceType(TensorType(datatype)) if isinstance(value, list):
            return _lift_sequence(value, datatype, name)
        case OptionalType(element):
            return lift(value, element, name)
        case MapType():
            raise InferenceError(
                f"input {name!r} is a map and an output has a type that onnxruntime's Python "
                "interface gives only to callers without maps; request other outputs, or Cast "
                "that output to FP32 in the model"
            )
        case _:
            raise InvalidInputError(f"input {name!r} is not a {format_onnx_type(value_type)}")


def lower(value: OrtValue, value_type: ValueType, name: str) -> Value:
    """The Python value in an output ``value`` of the type."""
    if not value.has_value():  # first: every other question to an empty optional crashes the process
        return None
    if isinstance(value_type, OptionalType):
        return lower(value, value_type.element, name)
    if isinstance(value_type, TensorType):
        return _lower_tensor(value, value_type.datatype, name)
    result: Value = _passthrough(format_onnx_type(value_type))(value)
    return result


def _lift_tensor(array: Array, datatype: Datatype, name: str) -> OrtValue:
    if datatype is Datatype.BYTES:
        return _lift_strings(array)
    if datatype not in _PACKED:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))
    data = tensor_to_bytes(array, datatype, f"input {name!r}")
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), datatype.onnx_type)
    ctypes.memmove(value.data_ptr(), bytes(data), len(data))
    return value


def _lift_strings(array: Array) -> OrtValue:
    """Strings by way of an initializer, the only door that ``OrtValue`` has for them."""
    strings = [str(element).encode() for element in array.reshape(-1).tolist()]
    tensor = TensorProto(name="value", data_type=TensorProto.STRING, dims=array.shape, string_data=strings)
    output = helper.make_tensor_value_info("value", TensorProto.STRING, array.shape)
    return _run_graph(helper.make_graph([], "strings", [], [output], initializer=[tensor]), {})


def _lift_sequence(values: list[Value], datatype: Datatype, name: str) -> OrtValue:
    lifted = {
        f"element{index}": lift(value, TensorType(datatype), name) for index, value in enumerate(values)
    }
    element = helper.make_tensor_type_proto(datatype.onnx_type, None)
    output = helper.make_value_info("value", helper.make_sequence_type_proto(element))
    if lifted:
        node = helper.make_node("SequenceConstruct", list(lifted), ["value"])
    else:
        node = helper.make_node("SequenceEmpty", [], ["value"], dtype=datatype.onnx_type)
    inputs = [helper.make_value_info(key, element) for key in lifted]
    return _run_graph(helper.make_graph([node], "sequence", inputs, [output]), lifted)


def _lower_tensor(value: OrtValue, datatype: Datatype, name: str) -> Value:
    if datatype not in _PACKED:
        array: Array = value.numpy()
        return array
    shape = tuple(value.shape())
    data = bytearray(ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()))
    bits = datatype.bits or 8
    # onnxruntime leaves the unused bits of the last byte as they were.
    if used := int(np.prod(shape, dtype=np.int64)) * bits % 8:
        data[-1] &= (1 << used) - 1
    return tensor_from_bytes(data, datatype, shape, f"output {name!r}")


def _run_graph(graph: onnx.GraphProto, inputs: dict[str, OrtValue]) -> OrtValue:
    return _session(graph).run_with_ort_values(None, inputs)[0]


@lru_cache(maxsize=64)  # one for each non-tensor output type of the loaded models
def _passthrough(onnx_type: str) -> Callable[[OrtValue], Value]:
    """A function that turns an ``OrtValue`` of a type into Python: a graph whose output is its input."""
    info = helper.make_value_info("value", _type_proto(parse_onnx_type(onnx_type)))
    session = _session(helper.make_graph([], "passthrough", [info], [info]))

    def convert(value: OrtValue) -> Value:
        result: Value = session.run(None, {"value": value})[0]
        return result

    return convert


def _session(graph: onnx.GraphProto) -> onnxruntime.InferenceSession:
    # Opset 18 and IR 8: older than every onnxruntime that pyproject.toml lets in.
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return open_session(
        ModelBytes(model.SerializeToString(), (), ""), SessionOptions(), (), source="a conversion"
    )


def _type_proto(value_type: ValueType) -> onnx.TypeProto:
    match value_type:
        case TensorType(datatype, shape):
            return helper.make_tensor_type_proto(datatype.onnx_type, shape)
        case SequenceType(element):
            return helper.make_sequence_type_proto(_type_proto(element))
        case OptionalType(element):
            return helper.make_optional_type_proto(_type_proto(element))
        case MapType(key, value):
            return helper.make_map_type_proto(key.onnx_type, _type_proto(value))
        case _:
            assert_never(value_type)
