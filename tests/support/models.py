"""Small ONNX models for tests."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

OPSET = 21
IR_VERSION = 10


def save(graph: onnx.GraphProto, path: Path) -> Path:
    """Write ``graph`` as a checked model file."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tests"
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def add_model(path: Path) -> Path:
    """``sum[n] = a[n] + b[n]``, float32."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("a", "b", "sum")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "add", value[:2], value[2:])
    return save(graph, path)


def identity_model(path: Path, element_type: int = TensorProto.FLOAT) -> Path:
    """``y = x`` of any shape of one dimension."""
    x = helper.make_tensor_value_info("x", element_type, ["n"])
    y = helper.make_tensor_value_info("y", element_type, ["n"])
    return save(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y]), path)
