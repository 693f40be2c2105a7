"""What every peer calls for its inference."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def load(model: Path | str) -> Callable[[Array], Array]:
    """``y`` for ``x``, by onnxruntime with one thread."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: the wheel reports usage home otherwise
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run(value: Array) -> Array:
        answer: Array = session.run(None, {"x": value})[0]
        return answer

    return run
