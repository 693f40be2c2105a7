"""Which models may be batched: those whose types have a common first dimension, and whose rows stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from confonnx.errors import ConfigurationError
from confonnx.models.repository import load_single
from confonnx.runtime.batch_proof import prove_batching
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
from tests.support import onnx_models as models
from tests.support.onnx_models import FLOAT, STRING, tensor

ROWS = tensor(FLOAT, ("batch", 4))


def loaded(tmp_path: Path, proto: onnx.ModelProto) -> Session:
    return Session.load(load_single(models.save(proto, tmp_path / "m.onnx")), SessionOptions())


def one(operator: str, *, inputs: int = 1, **attributes: int) -> onnx.ModelProto:
    """A model of one node over inputs and output of rows of four numbers."""
    names = [f"x{number}" for number in range(inputs)]
    node = helper.make_node(operator, names, ["y"])
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return models.model(dict.fromkeys(names, ROWS), {"y": ROWS}, [node])


@pytest.mark.parametrize(
    "proto",
    [
        one("Relu"),
        one("Add", inputs=2),
        one("Softmax", axis=1),
        models.identity(STRING, ("batch", 2)),
        models.identity(TensorProto.INT64, ("batch", "sequence")),
        models.identity(models.BFLOAT16, ("batch", 3)),
        models.model(
            {"x": ROWS},
            {"y": tensor(TensorProto.INT64, ("batch",))},
            [helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)],
        ),
        models.model(
            {"x": ROWS},
            {"y": ROWS},
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            initializers=[models.weight("w", np.ones((4, 4), np.float32))],
        ),
    ],
    ids=["relu", "add", "softmax-1", "strings", "integers", "bfloat16", "argmax", "matmul"],
)
def test_rows_that_stay_apart(tmp_path: Path, proto: onnx.ModelProto) -> None:
    prove_batching(loaded(tmp_path, proto), source="model 'm'")


@pytest.mark.parametrize(
    "proto",
    [
        one("Softmax", axis=0),
        one("LpNormalization", axis=0),
        models.model(
            {"x": ROWS},
            {"y": ROWS},
            [
                helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
                helper.make_node("Sub", ["x", "mean"], ["y"]),
            ],
            initializers=[helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
        ),
        models.model(
            {"x": ROWS},
            {"y": ROWS},
            [helper.make_node("RandomNormalLike", ["x"], ["y"])],
        ),
        models.model(
            {"x": ROWS},
            {"y": tensor(FLOAT, ("batch", 4))},
            [helper.make_node("Gather", ["x", "first"], ["y"])],
            initializers=[helper.make_tensor("first", TensorProto.INT64, [1], [0])],
        ),
    ],
    ids=["softmax-0", "normalisation", "mean-over-the-batch", "random", "first-row-only"],
)
def test_rows_that_mix(tmp_path: Path, proto: onnx.ModelProto) -> None:
    with pytest.raises(
        ConfigurationError, match=r"model 'm' cannot be batched: its output 'y' .* depends on"
    ):
        prove_batching(loaded(tmp_path, proto), source="model 'm'")


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ({"x": tensor(FLOAT, (4, "n"))}, {"y": tensor(FLOAT, (4, "n"))}, "'x' is no tensor whose first"),
        ({"x": tensor(FLOAT, (None,))}, {"y": tensor(FLOAT, (None,))}, "'x' is no tensor whose first"),
        ({"x": tensor(FLOAT, None)}, {"y": tensor(FLOAT, None)}, "'x' is no tensor whose first"),
        ({"x": tensor(FLOAT, ())}, {"y": tensor(FLOAT, ())}, "'x' is no tensor whose first"),
        ({"x": tensor(FLOAT, ("a",))}, {"y": tensor(FLOAT, ("b",))}, r"different names \(x: a, y: b\)"),
        (
            {"x": tensor(FLOAT, ("n", "n"))},
            {"y": tensor(FLOAT, ("n", "n"))},
            "'x' has the dimension 'n' twice",
        ),
        (
            {"x": models.sequence(tensor(FLOAT))},
            {"y": models.sequence(tensor(FLOAT))},
            "'x' is no tensor whose first",
        ),
    ],
)
def test_types_that_cannot_be_put_together(
    tmp_path: Path, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], text: str
) -> None:
    proto = models.model(inputs, outputs, [helper.make_node("Identity", ["x"], ["y"])])
    with pytest.raises(ConfigurationError, match=text):
        prove_batching(loaded(tmp_path, proto), source="model 'm'")


def test_a_model_that_test_inputs_do_not_run_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    proto = models.model(
        {"x": tensor(FLOAT, ("batch", "n"))},
        {"y": tensor(FLOAT, ("batch", 7))},
        [node],
        initializers=[helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 7])],
    )
    with pytest.raises(ConfigurationError, match="does not run on test inputs of 2 and 3 rows"):
        prove_batching(loaded(tmp_path, proto), source="model 'm'")


def test_other_dimensions_may_want_to_be_one(tmp_path: Path) -> None:
    proto = models.model(
        {"x": tensor(FLOAT, ("batch", "n"))},
        {"y": tensor(FLOAT, ("batch",))},
        [helper.make_node("Squeeze", ["x", "axes"], ["y"])],
        initializers=[helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    prove_batching(loaded(tmp_path, proto), source="model 'm'")
