"""The client: verifies a server, then asks its models in sealed requests.

`flows` holds the whole logic as generators with no I/O and no clock; `sync` and `aio` drive them over
`transport`, for threads and for asyncio. `options` parses what the user said, `exchange` and `answers` say
what outer HTTP messages may be and mean, `inference` puts tensors into the Open Inference Protocol and checks
what comes back. Nothing here needs a TEE, onnxruntime or any part of the server, or is bound to one operating
system.
"""

from confonnx.client.aio import AsyncClient
from confonnx.client.sync import Client

__all__ = ["AsyncClient", "Client"]
