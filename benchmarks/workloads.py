"""The models that are measured, made at run time from a seed, their inputs, and the answers they must give.

- ``tiny``: a perceptron 256 → 32 → 10. 1 KiB in, 40 B out: the cost of everything that is not inference.
- ``cnn``: eight convolutions on a 3×96×96 image. 108 KiB in, 40 B out: whether that cost matters beside 5 to
  10 ms of work.
- ``transformer``: an encoder of eight layers, 256 wide, for sequences of any length; 64 to 128 KiB in, 1 KiB
  out. Requests of three lengths alternate. 10 to 20 ms of work.
- ``identity-1``, ``identity-4``, ``identity-16``: so many MiB in, the same out: copies, page faults and
  ciphers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import models
from benchmarks.quantiles import quantile

Array = npt.NDArray[np.float32]

NAMES = ("tiny", "cnn", "transformer", "identity-1", "identity-4", "identity-16")
"""All of them."""

_SEQUENCES = (96, 64, 128)
_PROBE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One request to a model, and what onnxruntime says to it in process."""

    input: Array
    answer: Array


@dataclass(frozen=True, slots=True)
class Workload:
    """One model and the requests to it, which alternate: request number n is ``cases[n % len(cases)]``.
    onnxruntime takes ``in_process`` seconds for one, on average.
    """

    name: str
    path: Path
    cases: tuple[Case, ...]
    in_process: float
    concurrencies: tuple[int, ...]

    def case(self, number: int) -> Case:
        """What request ``number`` asks."""
        return self.cases[number % len(self.cases)]

    @property
    def input_bytes(self) -> int:
        """Size of the largest input."""
        return max(case.input.nbytes for case in self.cases)

    @property
    def large(self) -> bool:
        """Whether memory is worth measuring by the request."""
        return self.input_bytes >= 1 << 20


def make_workloads(names: Sequence[str], directory: Path) -> list[Workload]:
    """Write the models called ``names`` into ``directory``, and run each in process. ``KeyError`` for an
    unknown name.
    """
    return [_make_workload(name, directory) for name in names]


def _make_workload(name: str, directory: Path) -> Workload:
    concurrencies: tuple[int, ...] = (1, 8, 32)
    shapes: list[tuple[int, ...]]
    match name.split("-"):
        case ["tiny"]:
            model, shapes = models.tiny(), [(1, 256)]
        case ["cnn"]:
            model, shapes = models.cnn(), [(1, 3, models.IMAGE, models.IMAGE)]
        case ["transformer"]:
            model, shapes = models.transformer(), [(1, length, models.WIDTH) for length in _SEQUENCES]
        case ["identity", size]:
            model, shapes = models.identity(), [(int(size) << 18,)]
            if int(size) == 16:
                concurrencies = (1, 8)  # 32 of them are more than the server's limit of memory
        case _:
            raise KeyError(name)
    path = directory / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    session = open_session(path)
    random = np.random.default_rng(models.SEED)
    cases, times = [], []
    for shape in shapes:
        value = random.random(shape, np.float32)
        answer, seconds = _run_in_process(session, value)
        cases.append(Case(value, answer))
        times.append(seconds)
    return Workload(name, path, tuple(cases), sum(times) / len(times), concurrencies)


def open_session(path: Path) -> Any:
    """onnxruntime with one thread: what every server has here."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: the wheel reports usage home otherwise
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run_in_process(session: Any, value: Array) -> tuple[Array, float]:
    """The answer, and the median seconds that it takes."""
    answer: Array = session.run(None, {"x": value})[0]
    times = []
    end = perf_counter() + _PROBE_SECONDS
    while perf_counter() < end:
        start = perf_counter()
        session.run(None, {"x": value})
        times.append(perf_counter() - start)
    return answer, quantile(times, 0.5)
