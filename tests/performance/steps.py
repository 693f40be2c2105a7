"""How much the interpreter does for one small request: bytecode instructions, and calls into C.

Counted, not timed: the same on every machine, however busy it is. ``python -m tests.performance.steps``
prints the counts as JSON. What a change costs in time is for ``benchmarks``; this only notices that it costs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, cast

import numpy as np

from confonnx import Client
from confonnx.client import inference
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import REQUEST_MEDIA_TYPE, encapsulate_request
from confonnx.ohttp.hpke import Kem
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE, SenderSession
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import Registry
from confonnx.server.connection import Connection, HttpLimits
from confonnx.server.http import HttpServer
from confonnx.server.logs import LogLevel
from tests.support.fake_server import BASE_URL, FakeServer, policy
from tests.support.models import add_model
from tests.unit.server.harness import Gateway

_WARM_UP = 5
_COUNTED = 11
INPUTS = {"a": np.arange(128, dtype=np.float32), "b": np.ones(128, np.float32)}


@dataclass(frozen=True, slots=True)
class Steps:
    """What one request takes."""

    instructions: int
    calls: int


class Counter:
    """Counts while it is entered. Mutable."""

    def __init__(self) -> None:
        self.instructions = self.calls = 0

    def __enter__(self) -> None:
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.instructions += event == "opcode"
        return self._trace

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        self.calls += event == "c_call"


def count(step: Callable[[], object]) -> Steps:
    """The usual steps of ``step()``, once everything that is kept is known."""
    found = []
    for number in range(_WARM_UP + _COUNTED):
        counter = Counter()
        with counter:
            step()
        if number >= _WARM_UP:
            found.append(Steps(counter.instructions, counter.calls))
    return Steps(median_low(one.instructions for one in found), median_low(one.calls for one in found))


class Peer:
    """A connection's other end: posts messages and takes answers, with no socket between."""

    def __init__(self, gateway: Gateway) -> None:
        self.answer = b""
        self._server = HttpServer(gateway.app, HttpLimits())
        self._connection = Connection(self._server)
        self._connection.connection_made(cast(asyncio.Transport, self))

    def post(self, data: bytes) -> None:
        """What the event loop does when ``data`` has come."""
        self.answer = b""
        self._connection.get_buffer(len(data))[: len(data)] = data
        self._connection.buffer_updated(len(data))
        self._server.cohort.turn()

    def write(self, data: bytes) -> None:
        """The connection answers."""
        self.answer = data

    def is_closing(self) -> bool:
        """Never."""
        return False

    def set_write_buffer_limits(self, **_: int) -> None:
        """Not needed."""


async def count_server(directory: Path) -> dict[str, Steps]:
    """A request in a session, and one alone."""
    file = load_single(add_model(directory / "add.onnx"))
    models = Registry.load([file], SessionOptions(intra_op_threads=1)).models
    gateway = Gateway(models, log_level=LogLevel.INFO)
    config = next(
        key.config for key in gateway.ring.attested_keys(gateway.now) if key.config.kem is Kem.X25519
    )
    question = inference.ask(models[0].description, INPUTS, outputs=None)
    fields = (("date", gateway.date()), *question.fields)
    head = bhttp.Request("POST", "https", "x", "/v2/models/add/versions/1/infer", fields)
    parts = bhttp.encode_request(head, question.body)
    session = SenderSession(config)

    def in_session() -> Iterator[bytes]:
        while (sealed := session.seal(parts)) is not None:
            yield _post(SESSION_REQUEST_MEDIA_TYPE, sealed[0])

    def alone() -> Iterator[bytes]:
        while True:
            yield _post(REQUEST_MEDIA_TYPE, encapsulate_request(config, parts)[0])

    return {
        "server, session": _count_posts(gateway, in_session()),
        "server, alone": _count_posts(gateway, alone()),
    }


def _post(media_type: str, message: bytearray) -> bytes:
    fields = f"host: x\r\ncontent-type: {media_type}\r\ncontent-length: {len(message)}\r\n"
    return f"POST /ohttp HTTP/1.1\r\n{fields}\r\n".encode() + message


def _count_posts(gateway: Gateway, messages: Iterator[bytes]) -> Steps:
    peer = Peer(gateway)
    ready = iter([next(messages) for _ in range(_WARM_UP + _COUNTED)])

    def step() -> None:
        peer.post(next(ready))
        assert peer.answer.startswith(b"HTTP/1.1 200 ")  # at once: a small model runs inline

    return count(step)


class Aside:
    """A transport to a server whose own steps are not counted."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """As the server's, uncounted."""
        trace, profile = sys.gettrace(), sys.getprofile()
        sys.settrace(None)
        sys.setprofile(None)
        try:
            return self._server.send(request, timeout=timeout)
        finally:
            sys.setprofile(profile)
            sys.settrace(trace)


def count_client() -> Steps:
    """A call of the client, from arrays to arrays, but for the connection."""
    with Client(BASE_URL, policy=policy(), transport=Aside(FakeServer())) as client:
        return count(lambda: client.predict(INPUTS))


def main() -> None:
    """Print the counts."""
    with TemporaryDirectory() as directory:
        counts = asyncio.run(count_server(Path(directory))) | {"client, session": count_client()}
    print(json.dumps({name: asdict(steps) for name, steps in counts.items()}))


if __name__ == "__main__":
    main()
