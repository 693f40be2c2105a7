"""The application without sockets: a real ring, real evidence, real models, a clock that tests turn."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from onnx import TensorProto, helper

from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.statement import ModelDescription, StatementLimits
from confonnx.keys.ring import KeyRing
from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import ResponseOpener, encapsulate_request
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec
from confonnx.oip.limits import OipLimits
from confonnx.oip.values import Value
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import LoadedModel, Registry
from confonnx.runtime.scheduler import Scheduler
from confonnx.runtime.session import Session
from confonnx.server.app import App, AppOptions
from confonnx.server.attestation import Attestation, Identity, TokenBucket
from confonnx.server.auth import Authenticator, Credential
from confonnx.server.logs import Log, LogFormat, LogLevel
from confonnx.server.messages import HttpRequest, HttpResponse
from confonnx.server.metrics import Metrics
from confonnx.server.replay import ReplayCache
from confonnx.server.routes import Routes
from tests.support.models import add_model, identity_model, save

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WINDOW = timedelta(minutes=2)
VECTOR = TensorType(Datatype.FP32, ("n",))


def picky_model(path: Path) -> Path:
    """``y = x`` reshaped to three elements: the runtime fails for any other number of them."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    shape = helper.make_tensor("three", TensorProto.INT64, [1], [3])
    node = helper.make_node("Reshape", ["x", "three"], ["y"])
    return save(helper.make_graph([node], "picky", [x], [y], [shape]), path)


class GatedSession:
    """Stands for a slow model: ``run`` waits for ``gate``, or raises ``error``."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.gate = threading.Event()
        self.error = error
        self.aborted = False

    def run(
        self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None, *, abort: Any = None
    ) -> dict[str, Value]:
        if self.error is not None:
            raise self.error
        deadline = time.monotonic() + 5
        while not self.gate.wait(0.005) and time.monotonic() < deadline:
            if abort is not None and abort.requested:
                self.aborted = True
                break
        return {"y": np.asarray(inputs["x"])}


def gated_model(name: str, session: GatedSession, *, version: str = "1") -> LoadedModel:
    description = ModelDescription(
        name, version, "ab" * 32, (ValueSpec("x", VECTOR),), (ValueSpec("y", VECTOR),)
    )
    return LoadedModel(description, cast(Session, session), None)


@dataclass
class Gateway:
    """An application and everything around it. ``now`` is the server's clock."""

    models: Sequence[LoadedModel]
    credentials: Sequence[Credential] = ()
    url_prefix: str = ""
    max_response_bytes: int = 1 << 20
    pad: bool = True
    timeout: float = 5.0
    max_queue: int = 4
    capacity: int = 1000
    attestations: int = 100
    attester: Any = field(default_factory=lambda: SimulatedAttester(bytes(32)))
    now: datetime = START
    ready: bool = True
    log_level: LogLevel = LogLevel.DEBUG

    def __post_init__(self) -> None:
        self.lines = io.StringIO()
        self.ring = KeyRing.generate(now=self.now, lifetime=timedelta(hours=24), grace=timedelta(hours=1))
        self.metrics = Metrics()
        self.scheduler = Scheduler(threads=1, max_queue=self.max_queue)
        self.authenticator = Authenticator(self.credentials)
        registry = Registry(self.models)
        limits = StatementLimits(1 << 20, self.max_response_bytes, WINDOW)
        identity = Identity(
            tuple(model.description for model in registry.models),
            "test",
            "0",
            self.authenticator.schemes,
            limits,
        )
        self.attestation = Attestation(
            ring=self.ring,
            identity=identity,
            attester=self.attester,
            bucket=TokenBucket(rate=1, burst=self.attestations, clock=lambda: self.now.timestamp()),
            now=lambda: self.now,
        )
        self.replays = ReplayCache(window=WINDOW, capacity=self.capacity)
        self.app = App(
            ring=self.ring,
            attestation=self.attestation,
            authenticator=self.authenticator,
            replays=self.replays,
            routes=Routes(
                registry=registry,
                scheduler=self.scheduler,
                metrics=self.metrics,
                version="0",
                timeout=self.timeout,
                is_ready=lambda: self.ready,
                limits=OipLimits(),
            ),
            metrics=self.metrics,
            log=Log(form=LogFormat.JSON, level=self.log_level, stream=self.lines),
            now=lambda: self.now,
            is_ready=lambda: self.ready,
            options=AppOptions(self.url_prefix, self.max_response_bytes, self.pad),
        )

    async def get(self, target: str, method: str = "GET", **fields: str) -> HttpResponse:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return await self.app.handle(HttpRequest(method, target, named, bytearray()))

    async def post(self, message: bytes | bytearray, target: str = "/ohttp", **fields: str) -> HttpResponse:
        named = {
            "content-type": "message/ohttp-req",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        return await self.app.handle(HttpRequest("POST", target, named, bytearray(message)))

    def seal(
        self,
        path: str = "/v2/health/live",
        *,
        method: str = "GET",
        date: str | None = "now",
        body: bytes = b"",
        fields: bhttp.Fields = (),
    ) -> tuple[bytes, ResponseOpener]:
        """A sealed request and what opens its answer."""
        if date is not None:
            fields = (("date", self.date() if date == "now" else date), *fields)
        return self.seal_bytes(
            b"".join(bhttp.encode_request(bhttp.Request(method, "https", "x", path, fields, body)))
        )

    def seal_bytes(self, plaintext: bytes) -> tuple[bytes, ResponseOpener]:
        config = self.ring.attested_keys(self.now)[-1].config
        message, opener = encapsulate_request(config, [plaintext])
        return bytes(message), opener

    async def ask(self, path: str = "/v2/health/live", **options: Any) -> bhttp.Response:
        """The opened answer to a sealed request."""
        message, opener = self.seal(path, **options)
        return self.open(await self.post(message), opener)

    @staticmethod
    def open(response: HttpResponse, opener: ResponseOpener) -> bhttp.Response:
        assert response.status == 200, response
        assert response.fields["content-type"] == "message/ohttp-res"
        return bhttp.parse_response(opener.open(b"".join(response.body)))

    async def infer(self, model: str, inputs: Mapping[str, Any], **options: Any) -> bhttp.Response:
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        arrays = {
            name: array.astype(np.float32) if array.dtype == np.float64 else array
            for name, array in arrays.items()
        }
        entries = tuple(
            messages.InferInput(name, TensorType(Datatype.from_numpy(array.dtype), array.shape), array)
            for name, array in arrays.items()
        )
        request = messages.InferRequest(entries, id="q1", **options)
        encoded = binary.encode_infer_request(request)
        fields = (
            ("content-type", encoded.content_type),
            ("inference-header-content-length", str(encoded.header_length)),
        )
        path = f"/v2/models/{model}/infer"
        return await self.ask(path, method="POST", body=b"".join(encoded.parts), fields=fields)

    def date(self, offset: timedelta = timedelta()) -> str:
        return format_datetime(self.now + offset, usegmt=True)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def real_models(directory: Path) -> list[LoadedModel]:
    """``add`` (a, b → sum), ``text`` (strings, x → y) and ``picky`` (x → y)."""
    files = [
        add_model(directory / "add.onnx"),
        identity_model(directory / "text.onnx", TensorProto.STRING),
        picky_model(directory / "picky.onnx"),
    ]
    return list(Registry.load([load_single(file) for file in files], SessionOptions()).models)


def run(scenario: Callable[[], Any]) -> None:
    """Run an async scenario."""
    asyncio.run(scenario())


def values(response: bhttp.Response) -> dict[str, Any]:
    """The outputs in a sealed answer."""
    length = response.field("inference-header-content-length")
    answer = binary.parse_infer_response(
        response.body, header_length=None if length is None else int(length), limits=OipLimits()
    )
    return {output.name: output.value for output in answer.outputs}


def error_of(response: bhttp.Response) -> str:
    return messages.parse_error(bytes(response.body))
