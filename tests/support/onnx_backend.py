"""The backend test suite that the ``onnx`` package carries, as cases that any way of running a model can be
held to.

A driver runs the model of a :class:`Case` on each of its data sets: in process, or through a client and a
server. ``passing_cases`` are those that stock onnxruntime passes; nothing between a client and onnxruntime
may lose one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from confonnx.oip.values import Value
from tests.support.shared import vector

BASELINE = "onnx-backend/ort-1.32.0-cpu.json"
_KINDS = ("node", "real", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a model, and pairs of inputs by name and expected outputs in the order of the graph."""

    name: str
    model: bytes
    data_sets: tuple[tuple[dict[str, Value], tuple[Value, ...]], ...]
    rtol: float
    atol: float

    def check(self, expected: Sequence[Value], outputs: Sequence[Value]) -> None:
        """The suite's own comparison of tensors, and the same structure around them, or AssertionError."""
        assert len(expected) == len(outputs), f"{len(outputs)} outputs, expected {len(expected)}"
        for one, other in zip(expected, outputs, strict=True):
            if isinstance(one, list) and isinstance(other, list):
                self.check(one, other)
            else:
                assert type(one) is type(other), f"{type(other).__name__}, expected {type(one).__name__}"
                Runner.assert_similar_outputs([one], [other], self.rtol, self.atol)


def cases() -> Iterator[Case]:
    """Every case of the suite; about 2000."""
    for kind in _KINDS:
        for case in _load(kind):
            yield _case(case)


def passing_cases() -> frozenset[str]:
    """The names of the cases that stock onnxruntime passes in process."""
    return frozenset(vector(BASELINE)["pass"])


def failing_cases() -> frozenset[str]:
    """The names of the cases that onnxruntime itself fails."""
    return frozenset(vector(BASELINE)["fail"])


def same_bits(first: Value, second: Value) -> bool:
    """Whether two values are of one type and equal to the last bit, NaN payloads and zero signs too."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        if first.dtype == object:
            return bool(first.tolist() == second.tolist())
        return np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_bits, first, second))
    return type(first) is type(second) and repr(first) == repr(second)


@cache
def _load(kind: str) -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the cases are computed while loading, with overflows and divisions by 0
        return list(load_model_tests(kind=kind))


def _case(case: TestCase) -> Case:
    data_sets: list[tuple[list[object], list[object]]]
    if case.model is not None:
        model = case.model
        data_sets = [(list(inputs), list(outputs)) for inputs, outputs in case.data_sets or ()]
    elif case.model_dir is not None:
        model = onnx.load(Path(case.model_dir) / "model.onnx")
        data_sets = [
            _read_data_set(path, model) for path in sorted(Path(case.model_dir).glob("test_data_set_*"))
        ]
    else:
        model, data_sets = _light(str(case.url))
    names = [info.name for info in model.graph.input]
    return Case(
        name=case.name,
        model=model.SerializeToString(),
        data_sets=tuple(
            (_by_name(names, inputs), tuple(map(_value, outputs))) for inputs, outputs in data_sets
        ),
        rtol=case.rtol,
        atol=case.atol,
    )


def _by_name(names: Sequence[str], inputs: Sequence[object]) -> dict[str, Value]:
    values = zip(names, map(_value, inputs), strict=False)  # trailing inputs may have defaults
    return {name: value for name, value in values if value is not None}


def _value(value: object) -> Value:
    """What the suite has (arrays, numpy scalars, protobufs, lists) as this project's value."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if value is None:
        return None
    if isinstance(value, list):
        return [_value(element) for element in value]
    array = np.asarray(value)
    if array.dtype.kind not in "SUO":
        return array
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.reshape(-1).tolist()]
    return np.array(texts, dtype=object).reshape(array.shape)


def _read_data_set(path: Path, model: onnx.ModelProto) -> tuple[list[object], list[object]]:
    return (
        [
            _read(path / f"input_{index}.pb", info.type)
            for index, info in enumerate(model.graph.input)
            if (path / f"input_{index}.pb").exists()
        ],
        [
            _read(path / f"output_{index}.pb", info.type)
            for index, info in enumerate(model.graph.output)
            if (path / f"output_{index}.pb").exists()
        ],
    )


def _read(path: Path, type_proto: onnx.TypeProto) -> object:
    data = path.read_bytes()
    if type_proto.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type_proto.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return onnx.TensorProto.FromString(data)


def _light(url: str) -> tuple[onnx.ModelProto, list[tuple[list[object], list[object]]]]:
    """A model of the wheel's ``data/light`` with its stored output; the input is the suite's ramp from 0 to
    1.
    """
    path = Path(onnx.__file__).parent / url.removeprefix("onnx/")
    model = onnx.load(path)
    defaults = {tensor.name for tensor in model.graph.initializer}
    model.graph.input.sort(key=lambda info: info.name in defaults)  # the one true input first
    inputs: list[object] = [
        Runner.generate_dummy_data(info) for info in model.graph.input if info.name not in defaults
    ]
    outputs: list[object] = [
        _read(path.with_name(f"{path.stem}_output_{index}.pb"), info.type)
        for index, info in enumerate(model.graph.output)
    ]
    return model, [(inputs, outputs)]
