"""FastAPI on uvicorn, uvloop and httptools: binary tensors, inference inline on the event loop.

``python -m benchmarks.peers.fastapi_server MODEL PORT``. No checks of the message: what somebody writes who
needs a model behind a URL.
"""

from __future__ import annotations

import sys

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.peers.onnx import load

_LENGTH = "inference-header-content-length"


def make_app(model: str) -> FastAPI:
    """One route, of the Open Inference Protocol."""
    run = load(model)
    app = FastAPI()

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> Response:
        body = await request.body()
        length = int(request.headers[_LENGTH])
        (tensor,) = orjson.loads(body[:length])["inputs"]
        answer = run(np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"]))
        described = {
            "name": "y",
            "datatype": "FP32",
            "shape": answer.shape,
            "parameters": {"binary_data_size": answer.nbytes},
        }
        header = orjson.dumps({"model_name": name, "outputs": [described]})
        return Response(
            header + answer.tobytes(),
            media_type="application/octet-stream",
            headers={_LENGTH: str(len(header))},
        )

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
