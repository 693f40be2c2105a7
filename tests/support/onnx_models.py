"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
STRING = TensorProto.STRING
BFLOAT16 = TensorProto.BFLOAT16


def tensor(element: int, shape: Sequence[int | str | None] | None = ("N",)) -> onnx.TypeProto:
    """A tensor type."""
    return helper.make_tensor_type_proto(element, shape)


def sequence(element: onnx.TypeProto) -> onnx.TypeProto:
    """A sequence type."""
    return helper.make_sequence_type_proto(element)


def optional(element: onnx.TypeProto) -> onnx.TypeProto:
    """An optional type."""
    return helper.make_optional_type_proto(element)


def mapping(key: int, value: int) -> onnx.TypeProto:
    """A map type with scalar values."""
    return helper.make_map_type_proto(key, tensor(value, ()))


def model(
    inputs: Mapping[str, onnx.TypeProto],
    outputs: Mapping[str, onnx.TypeProto],
    nodes: Sequence[onnx.NodeProto],
    *,
    initializers: Sequence[TensorProto] = (),
    opset: int = 21,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model of the default domain and ``ai.onnx.ml`` 3."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_value_info(name, type_) for name, type_ in inputs.items()],
        [helper.make_value_info(name, type_) for name, type_ in outputs.items()],
        initializer=initializers,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="tests")


def identity(
    element: int = FLOAT, shape: Sequence[int | str | None] = ("N",), *, opset: int = 21
) -> onnx.ModelProto:
    """y = x."""
    type_ = tensor(element, shape)
    return model({"x": type_}, {"y": type_}, [helper.make_node("Identity", ["x"], ["y"])], opset=opset)


def weight(name: str, values: npt.ArrayLike) -> TensorProto:
    """A float initializer."""
    array = np.asarray(values, np.float32)
    return helper.make_tensor(name, FLOAT, array.shape, array.reshape(-1).tolist())


def external_weight(name: str, size: int, location: str) -> TensorProto:
    """A float initializer of ``size`` elements whose data is the file ``location``."""
    proto = TensorProto(name=name, data_type=FLOAT, dims=[size], data_location=TensorProto.EXTERNAL)
    proto.external_data.add(key="location", value=location)
    return proto


def with_external_data(location: str = "weights.bin", size: int = 3) -> onnx.ModelProto:
    """y = x + w, with w in the file ``location``."""
    return model(
        {"x": tensor(FLOAT, [size])},
        {"y": tensor(FLOAT, [size])},
        [helper.make_node("Add", ["x", "w"], ["y"])],
        initializers=[external_weight("w", size, location)],
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Writes the model, with the directories above it, and gives back ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path
