"""KServe's model server with a custom model: one worker, v2 REST with binary tensors.

``python -m benchmarks.peers.kserve_server MODEL PORT``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.logging import KSERVE_LOG_CONFIG
from kserve.utils.utils import generate_uuid

from benchmarks.peers.onnx import load


class OnnxModel(Model):
    """A model named like its file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.run = load(path)
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        answer = self.run(payload.inputs[0].as_numpy())
        output = InferOutput("y", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or generate_uuid(), self.name, [output], use_binary_outputs=payload.use_binary_outputs
        )


def _on_loopback(make: Callable[..., object], *arguments: object, **options: object) -> object:
    """What makes uvicorn's configuration, but not for every interface, of which KServe leaves no choice."""
    return make(*arguments, **{**options, "host": "127.0.0.1"})


if __name__ == "__main__":
    for name in ("uvicorn.access", "kserve.trace"):
        KSERVE_LOG_CONFIG["loggers"][name]["level"] = "WARNING"  # else it logs every access
    uvicorn.Config = partial(_on_loopback, uvicorn.Config)
    server = ModelServer(
        http_port=int(sys.argv[2]),
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
    )
    server.start([OnnxModel(Path(sys.argv[1]))])
