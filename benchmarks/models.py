"""The models that are measured: random weights from a seed, one input ``x``, one output ``y``, float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]

SEED = 20261124
IMAGE = 96
"""Pixels each way."""
WIDTH = 256
"""Of the transformer's vectors."""

_OPSET = 21
_IR_VERSION = 10
_CHANNELS = (64, 64, 128, 128, 192, 192, 256, 256)
_LAYERS, _HEADS, _HIDDEN = 8, 4, 1024


def tiny() -> onnx.ModelProto:
    """A perceptron."""
    random = np.random.default_rng(SEED)
    weights = {"w1": _normal(random, 256, 32), "b1": _normal(random, 32), "w2": _normal(random, 32, 10)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["y"]),
    ]
    return _model("tiny", nodes, weights, ["batch", 256], ["batch", 10])


def cnn() -> onnx.ModelProto:
    """Eight convolutions."""
    random = np.random.default_rng(SEED)
    weights: dict[str, Array] = {}
    nodes = []
    source, channels = "x", 3
    for number, wanted in enumerate(_CHANNELS):
        weights[f"w{number}"] = _normal(random, wanted, channels, 3, 3)
        stride = 2 if number % 2 == 0 else 1
        convolution = helper.make_node(
            "Conv", [source, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1], strides=[stride, stride]
        )
        nodes += [convolution, helper.make_node("Relu", [f"c{number}"], [f"r{number}"])]
        source, channels = f"r{number}", wanted
    weights["dense"] = _normal(random, channels, 10)
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["y"]),
    ]
    return _model("cnn", nodes, weights, ["batch", 3, IMAGE, IMAGE], ["batch", 10])


def transformer() -> onnx.ModelProto:
    """Layers of attention and a feed-forward network, normalised before each; the mean over the sequence."""
    graph = _Encoder(np.random.default_rng(SEED))
    stream = "x"
    for layer in range(_LAYERS):
        name = f"layer{layer}"
        mixed = graph.attention(graph.normal(stream, f"{name}.n1"), f"{name}.a")
        stream = graph.node("Add", [stream, mixed], f"{name}.s1")
        hidden = graph.linear(graph.normal(stream, f"{name}.n2"), f"{name}.up", WIDTH, _HIDDEN)
        active = graph.node("Gelu", [hidden], f"{name}.gelu")
        down = graph.linear(active, f"{name}.down", _HIDDEN, WIDTH)
        stream = graph.node("Add", [stream, down], f"{name}.s2")
    graph.node("ReduceMean", [stream, "second"], "y", keepdims=0)
    return _model("transformer", graph.nodes, graph.weights, ["batch", "sequence", WIDTH], ["batch", WIDTH])


class _Encoder:
    """Nodes and weights so far. Mutable. Each method adds to them and gives the name of what it computes."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, npt.NDArray[np.generic]] = {
            "one": np.ones(WIDTH, np.float32),
            "scale": np.array(float(WIDTH // _HEADS) ** -0.5, np.float32),
            "heads": np.array([0, 0, _HEADS, WIDTH // _HEADS]),  # 0: as it is
            "joined": np.array([0, 0, WIDTH]),
            "second": np.array([1]),
        }

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def linear(self, source: str, name: str, into: int, out: int) -> str:
        self.weights[name] = _normal(self.random, into, out)
        return self.node("MatMul", [source, name], f"{name}.y")

    def normal(self, source: str, name: str) -> str:
        return self.node("LayerNormalization", [source, "one"], name)

    def attention(self, source: str, name: str) -> str:
        packed = self.linear(source, f"{name}.qkv", WIDTH, 3 * WIDTH)
        parts = [f"{name}.q", f"{name}.k", f"{name}.v"]
        self.nodes.append(helper.make_node("Split", [packed], parts, axis=2, num_outputs=3))
        split = [self.node("Reshape", [part, "heads"], f"{part}.heads") for part in parts]
        queries = self.node("Transpose", [split[0]], f"{name}.qt", perm=[0, 2, 1, 3])
        keys = self.node("Transpose", [split[1]], f"{name}.kt", perm=[0, 2, 3, 1])
        values = self.node("Transpose", [split[2]], f"{name}.vt", perm=[0, 2, 1, 3])
        scores = self.node("Mul", [self.node("MatMul", [queries, keys], f"{name}.qk"), "scale"], f"{name}.s")
        shares = self.node("Softmax", [scores], f"{name}.soft", axis=-1)
        mixed = self.node("MatMul", [shares, values], f"{name}.mixed")
        back = self.node("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        return self.linear(self.node("Reshape", [back, "joined"], f"{name}.j"), f"{name}.out", WIDTH, WIDTH)


def identity() -> onnx.ModelProto:
    """What comes in goes out."""
    return _model("identity", [helper.make_node("Identity", ["x"], ["y"])], {}, ["n"], ["n"])


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, npt.NDArray[np.generic]],
    input_shape: list[str | int],
    output_shape: list[str | int],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="benchmarks",
    )
    onnx.checker.check_model(model)
    return model


def _normal(random: np.random.Generator, *shape: int) -> Array:
    # He's scale: activations neither vanish nor overflow, so no denormal slows the arithmetic down.
    inputs = shape[0] if len(shape) < 3 else int(np.prod(shape[1:]))
    return random.normal(0, (2 / inputs) ** 0.5, shape).astype(np.float32)
