"""MLServer with a custom runtime: inference inline in the one process, v2 REST in JSON.

``python -m benchmarks.peers.mlserver_server MODEL PORT``. Its REST has no binary tensors.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.peers.onnx import load


class OnnxModel(MLModel):
    """The model at the settings' ``parameters.uri``."""

    async def load(self) -> bool:
        self.run = load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answer = self.run(NumpyCodec.decode_input(payload.inputs[0]))
        # Not NumpyCodec.encode_output, which makes a column of a vector.
        output = ResponseOutput(
            name="y", datatype="FP32", shape=list(answer.shape), data=answer.reshape(-1).tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(model: Path, port: int) -> None:
    """For ever."""
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=_free_port(),
        metrics_endpoint=None,
        parallel_workers=0,
        debug=False,  # else it logs every access
    )
    named = ModelSettings(name=model.stem, implementation=OnnxModel, parameters={"uri": str(model)})
    await MLServer(settings).start([named])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
