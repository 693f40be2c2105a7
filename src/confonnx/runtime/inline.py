"""Which runs are so short that handing them to a thread would cost more than the run itself.

Such a run may block the event loop for a moment, so the decision must hold for whatever a client sends: the
model is timed at its start on inputs of growing size, only requests that are no larger than the largest that
was fast run inline, and a model with an operator whose work follows from the *values* of its inputs (a loop
count, a size to expand to) never does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from confonnx.errors import ConfigurationError, InferenceError
from confonnx.models.test_inputs import create_test_inputs, varying_dims
from confonnx.oip.datatypes import TensorType, ValueSpec
from confonnx.oip.values import Scalar, Value
from confonnx.runtime.session import Session

THRESHOLD = 0.001
"""Seconds. Under it a thread costs a tiny model a tenth of its rate; above it other connections wait too
long.
"""

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})  # others may do anything

# Operators of these domains, up to opset 28, whose work is not bounded by the size of their inputs.
_UNBOUNDED = frozenset(
    {
        *("AffineGrid", "BlackmanWindow", "CenterCropPad", "Col2Im", "ConstantOfShape", "DFT", "Expand"),
        *("HammingWindow", "HannWindow", "ImageDecoder", "Loop", "MaxUnpool", "MelWeightMatrix", "OneHot"),
        *("Pad", "Range", "Resize", "STFT", "Scan", "SequenceMap", "Tile", "Upsample"),
    }
)
_BATCH = 8  # of every dimension that varies, in the first timed run
_GROWTH = 4  # from one timed size to the next
_LARGEST = 2 << 20  # bytes of an input that is still tried; larger requests go to threads for other reasons
_TIMED_RUNS = 3
_HOPELESS = 0.1  # seconds of the first run after which no later one will be under the threshold


@dataclass(frozen=True, slots=True)
class InlineBound:
    """The sizes of inputs, in elements by name, up to which a model runs within :data:`THRESHOLD`."""

    elements: Mapping[str, int]

    def allows(self, inputs: Mapping[str, Value]) -> bool:
        """Whether no input is larger than in the timed run."""
        return all(_size(value) <= self.elements.get(name, 0) for name, value in inputs.items())


def measure_inline(session: Session) -> InlineBound | None:
    """Runs the model on test inputs, which also warms it up. None when its runs belong on the pool.

    Tries with every varying dimension at 8, else at 1: not every model takes any size. A model that refuses
    both kinds of test inputs goes to the pool, for nobody knows how long it runs. Larger sizes are tried for
    as long as they are fast, where the number of elements tells the shape.
    """
    for size in (_BATCH, 1):
        if (trial := _try(session, size)) is None:
            continue
        if trial.seconds > THRESHOLD or not all(map(_is_bounded, session.operators)):
            return None
        if size == _BATCH and all(map(_varies_one_way, session.inputs)):
            trial = _largest_fast(session, trial)
        return InlineBound(trial.elements)
    return None


@dataclass(frozen=True, slots=True)
class _Trial:
    """The shortest of some runs on inputs of these sizes. ``largest`` is the largest input in bytes."""

    seconds: float
    elements: Mapping[str, int]
    largest: int


def _try(session: Session, size: int) -> _Trial | None:
    """Runs with every varying dimension at ``size``; None where the model does not take it."""
    try:
        inputs = create_test_inputs(session.schema, dims=_all_dims(session, size), seed=0)
        seconds = _timed(session, inputs)
        if seconds < _HOPELESS:  # the first run also allocates, so it alone does not decide
            seconds = min(_timed(session, inputs) for _ in range(_TIMED_RUNS))
    except (InferenceError, ConfigurationError):
        return None
    arrays = [value.nbytes for value in inputs.values() if isinstance(value, np.ndarray)]
    return _Trial(seconds, {name: _size(value) for name, value in inputs.items()}, max(arrays, default=0))


def _largest_fast(session: Session, trial: _Trial) -> _Trial:
    """The last fast one of ever larger trials; ``trial`` was fast."""
    size = _BATCH
    while trial.largest * _GROWTH <= _LARGEST:
        size *= _GROWTH
        larger = _try(session, size)
        if (
            larger is None
            or larger.seconds > THRESHOLD
            or larger.elements == trial.elements  # nothing varies
        ):
            break
        trial = larger
    return trial


def _varies_one_way(spec: ValueSpec) -> bool:
    """Whether no more than one dimension of a tensor varies, so that its elements bound every dimension.

    With two, as many elements may be much more work: attention over a sequence of 4096 instead of over 64 of
    64.
    """
    return (
        isinstance(spec.type, TensorType)
        and spec.type.shape is not None
        and sum(not isinstance(size, int) for size in spec.type.shape) <= 1
    )


def _is_bounded(operator: tuple[str, str]) -> bool:
    domain, name = operator
    return domain in _DOMAINS and name not in _UNBOUNDED


def _timed(session: Session, inputs: Mapping[str, Value]) -> float:
    started = time.perf_counter()
    session.run(inputs)
    return time.perf_counter() - started


def _all_dims(session: Session, size: int) -> dict[str, int]:
    return {name: size for spec in session.inputs if not spec.optional for name in varying_dims(spec)}


def _size(value: Value | Scalar) -> int:
    """Elements in a value; a character of a string counts as one."""
    if isinstance(value, np.ndarray):
        return (
            value.size
            if value.dtype != object
            else sum(len(str(text)) + 1 for text in value.reshape(-1).tolist())
        )
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    if isinstance(value, dict):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    return len(value) + 1 if isinstance(value, str) else 1
