"""The models that are measured, made at run time from a seed, their inputs, and the answers they must give.

- ``tiny``: a perceptron 256 → 32 → 10. 1 KiB in, 40 B out: the cost of everything that is not inference.
- ``cnn``: eight convolutions on a 3×96×96 image. 108 KiB in, 40 B out: whether that cost matters beside 5 to
  10 ms of work.
- ``identity``: 16 MiB in, the same out: copies, page faults and ciphers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.quantiles import quantile

Array = npt.NDArray[np.float32]

SEED = 20261124
LARGE_ELEMENTS = 1 << 22
"""Elements of the identity's tensor: 16 MiB of float32."""

_OPSET = 21
_IR_VERSION = 10
_IMAGE = 96  # pixels each way
_CHANNELS = (64, 64, 128, 128, 192, 192, 256, 256)
_PROBE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Workload:
    """One model and one request to it. ``answer`` is what onnxruntime says in process, in ``in_process``
    seconds.
    """

    name: str
    path: Path
    input: Array
    answer: Array
    in_process: float
    concurrencies: tuple[int, ...]

    @property
    def large(self) -> bool:
        """Whether memory is worth measuring."""
        return self.input.nbytes >= 1 << 20


def make_workloads(names: Sequence[str], directory: Path) -> list[Workload]:
    """Write the models called ``names`` into ``directory``, and run each in process. ``KeyError`` for an
    unknown name.
    """
    random = np.random.default_rng(SEED)
    makers = {
        "tiny": (_tiny, random.random((1, 256), np.float32), (1, 8, 32)),
        "cnn": (_cnn, random.random((1, 3, _IMAGE, _IMAGE), np.float32), (1, 8, 32)),
        "identity": (_identity, random.random(LARGE_ELEMENTS, np.float32), (1, 2)),
    }
    workloads = []
    for name in names:
        make, value, concurrencies = makers[name]
        path = directory / f"{name}.onnx"
        path.write_bytes(make().SerializeToString())
        answer, seconds = _run_in_process(path, value)
        workloads.append(Workload(name, path, value, answer, seconds, concurrencies))
    return workloads


def _tiny() -> onnx.ModelProto:
    random = np.random.default_rng(SEED)
    weights = {"w1": _normal(random, 256, 32), "b1": _normal(random, 32), "w2": _normal(random, 32, 10)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["y"]),
    ]
    return _model("tiny", nodes, weights, ["batch", 256], ["batch", 10])


def _cnn() -> onnx.ModelProto:
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
    return _model("cnn", nodes, weights, ["batch", 3, _IMAGE, _IMAGE], ["batch", 10])


def _identity() -> onnx.ModelProto:
    return _model("identity", [helper.make_node("Identity", ["x"], ["y"])], {}, ["n"], ["n"])


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Array],
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


def _run_in_process(path: Path, value: Array) -> tuple[Array, float]:
    """The answer, and the median seconds that onnxruntime takes for it with one thread."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: the wheel reports usage home otherwise
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, {"x": value})[0]
    times = []
    end = perf_counter() + _PROBE_SECONDS
    while perf_counter() < end:
        start = perf_counter()
        session.run(None, {"x": value})
        times.append(perf_counter() - start)
    return answer, quantile(times, 0.5)
