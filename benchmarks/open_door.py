"""The real server with one door more: the Open Inference Protocol in the clear, to show the seal's price.

A plain request takes the way of a sealed one but for opening, parsing Binary HTTP, the check for replays, and
sealing. This door exists in this process alone: nothing in ``src`` knows of it, and it listens on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import uvloop

from confonnx.ohttp import bhttp
from confonnx.oip.binary import HEADER_LENGTH_FIELD
from confonnx.server import lifecycle
from confonnx.server.app import App
from confonnx.server.logs import Log
from confonnx.server.messages import HttpRequest, HttpResponse
from confonnx.server.recall import Recall
from confonnx.server.settings_sources import load_settings

_PLAIN = "/v2/"
_INNER_FIELDS = ("content-type", HEADER_LENGTH_FIELD)


class OpenApp(App):
    """The application, and beside it the routes without the seal."""

    def __init__(self, **parts: Any) -> None:
        """As the application's own."""
        super().__init__(**parts)
        self._recall = Recall()
        self._heads: dict[tuple[str, bhttp.Fields], bhttp.RequestHead] = {}

    def wants_body(self, method: str, path: str) -> bool:
        """Plain requests too."""
        return path.startswith(_PLAIN) or super().wants_body(method, path)

    def _route(self, request: HttpRequest) -> str:
        return "gateway" if request.target.startswith(_PLAIN) else super()._route(request)

    async def _sealed(self, request: HttpRequest) -> HttpResponse:
        if not request.target.startswith(_PLAIN):
            return await super()._sealed(request)
        fields = tuple((name, request.fields[name]) for name in _INNER_FIELDS if name in request.fields)
        with self._metrics.sealed_request() as times:
            times.opened()
            head = self._heads.get((request.target, fields))
            if head is None:  # kept as a session keeps it, so that the seal alone makes the difference
                head = bhttp.RequestHead(request.method, "http", "", request.target, fields)
                self._heads[request.target, fields] = head
            await self._authenticator.check(None)
            body = memoryview(request.body).toreadonly()
            reply = await self._routes.answer(head, body, self._recall)
            times.answered(reply.model, reply.version, reply.outcome)
        outer = {"content-type": reply.content_type, **dict(reply.fields)}
        return HttpResponse(reply.status, outer, reply.body)


async def serve(model: Path) -> None:
    """Serve ``model`` on loopback with default settings, for ever; writes the port and the measurement."""
    setattr(lifecycle, "App", OpenApp)  # noqa: B010  the server is built from it
    source = "model_repository" if model.is_dir() else "model_path"
    settings, _ = load_settings({source: model, "address": "127.0.0.1", "http_port": 0, "metrics_port": 0})
    log = Log(form=settings.log_format, level=settings.log_level)
    async with lifecycle.running(settings, log) as server:
        print(server.port, server.measurement.hex(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    uvloop.run(serve(arguments.parse_args().model))
