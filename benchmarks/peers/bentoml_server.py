"""BentoML: one service, one worker, arrays in JSON, inference inline on the event loop.

``MODEL=… python -m bentoml serve benchmarks.peers.bentoml_server:Service``. Its other form for arrays is
pickle, which no server takes from strangers.
"""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import numpy.typing as npt
from bentoml.validators import DType

from benchmarks.peers.onnx import load

Array = Annotated[npt.NDArray[np.float32], DType("float32")]


@bentoml.service(
    workers=1, traffic={"timeout": 600}, metrics={"enabled": False}, logging={"access": {"enabled": False}}
)
class Service:
    """``POST /predict`` with ``{"x": […]}`` gives ``[…]``."""

    def __init__(self) -> None:
        self.run = load(os.environ["MODEL"])

    @bentoml.api(route="/predict")
    async def predict(self, x: Array) -> Array:
        return self.run(x)
