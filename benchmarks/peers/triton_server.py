"""Triton's server with its python backend, by PyTriton: v2 REST with binary tensors.

``python -m benchmarks.peers.triton_server MODEL PORT``. Triton's onnxruntime backend would be faster; it
is on no package index, only in NVIDIA's container images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.proxy.types import Request
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.onnx import Array, load


def serve(model: Path, port: int) -> None:
    """For ever."""
    run = load(model)

    def infer(requests: list[Request]) -> list[dict[str, Array]]:
        return [{"y": run(request["x"])} for request in requests]

    config = TritonConfig(http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False)
    workspace = model.parent / f"triton-{port}"  # it leaves 24 MB behind: here they go with the model
    with Triton(config=config, workspace=workspace) as triton:
        triton.bind(
            model_name=model.stem,
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=_shape(model))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=_shape(model, output=True))],
            config=ModelConfig(batching=False),
        )
        triton.serve()


def _shape(model: Path, *, output: bool = False) -> tuple[int, ...]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (tensor,) = session.get_outputs() if output else session.get_inputs()
    return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
