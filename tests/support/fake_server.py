"""A server in memory that is the client's transport: real keys, evidence, seals, messages; no server code.

It answers from a few models written in numpy. Tests read what it received, turn its clock, restart it, and
replace single answers, outer or sealed.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from confonnx.attestation import base64url, bundle
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.policy import Policy
from confonnx.attestation.statement import ModelDescription, Statement, StatementLimits, report_data
from confonnx.client.exchange import AnswerReader, HttpRequest, HttpResponse
from confonnx.errors import EncapsulationError, ReplayError, UnknownKeyError
from confonnx.http.fields import Fields
from confonnx.keys.ring import KeyRing
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import RESPONSE_MEDIA_TYPE, ResponseSealer, open_request, read_prefix
from confonnx.ohttp.session import (
    SESSION_REQUEST_MEDIA_TYPE,
    SESSION_RESPONSE_MEDIA_TYPE,
    ReceiverSession,
)
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec
from confonnx.oip.limits import OipLimits
from confonnx.oip.values import Value

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MEASUREMENT = bytes(range(32))
BASE_URL = "http://fake.example/prefix"
LIMITS = StatementLimits(1 << 20, 1 << 20, timedelta(minutes=2))
PROBLEM = "application/problem+json"
KEY_PROBLEM = b'{"type":"https://iana.org/assignments/http-problem-types#ohttp-key"}'
DATE_PROBLEM = b'{"type":"https://iana.org/assignments/http-problem-types#date"}'


def _tensor(name: str, datatype: Datatype = Datatype.FP32) -> ValueSpec:
    return ValueSpec(name, TensorType(datatype, ("n",)))


@dataclass(frozen=True)
class FakeModel:
    """A model and what it computes, from inputs by name to outputs by name."""

    description: ModelDescription
    run: Callable[[Mapping[str, Value]], dict[str, Value]]


def _arithmetic(inputs: Mapping[str, Value]) -> dict[str, Value]:
    a, b = np.asarray(inputs["a"]), np.asarray(inputs["b"])
    return {"sum": a + b, "product": a * b}


def model(name: str, version: str = "1", digest: str = "aa" * 32) -> FakeModel:
    """``sum`` and ``product`` of ``a`` and ``b``, float32 of one dimension."""
    return FakeModel(
        ModelDescription(
            name, version, digest, (_tensor("a"), _tensor("b")), (_tensor("sum"), _tensor("product"))
        ),
        _arithmetic,
    )


def policy(*digests: str) -> Policy:
    """Accepts `FakeServer`s with models of these digests (any model where there are none)."""
    if not digests:
        return Policy.simple(enclave_hash=MEASUREMENT.hex(), allow_simulated=True, dangerous_any_model=True)
    return Policy.simple(enclave_hash=MEASUREMENT.hex(), allow_simulated=True, enclave_model_hash=digests[0])


@dataclass
class FakeServer:
    """The server, and a `confonnx.client.transport.Transport` to it. Locked, so threads may share it."""

    models: Sequence[FakeModel] = field(default_factory=lambda: [model("add")])
    lifetime: timedelta = timedelta(hours=24)
    limits: StatementLimits = LIMITS
    authorization: str | None = None
    clock: datetime = NOW
    """The client's clock."""
    clock_ahead: timedelta = timedelta()
    """By how much the server's clock is ahead of the client's."""
    outer: Callable[[HttpRequest], HttpResponse | Exception | None] = lambda _: None
    """Replaces an outer answer where it gives one."""
    inner: Callable[[bhttp.Request], bhttp.Response | None] = lambda _: None
    """Replaces a sealed answer where it gives one."""
    received: list[HttpRequest] = field(default_factory=list)
    opened: list[bhttp.Request] = field(default_factory=list)
    identities: list[bytes] = field(default_factory=list)
    """Of the requests in sessions that were opened: session and number."""
    closed: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.ring = self._new_ring()

    def _new_ring(self) -> KeyRing:
        return KeyRing.generate(now=self.server_now(), lifetime=self.lifetime, grace=timedelta(hours=1))

    def restart(self, *, same_key_ids: bool) -> None:
        """Forgets every key; the new ones have the old identifiers if so wanted, other ones if not."""
        base = self.ring.key_id_base + (0 if same_key_ids else 100)
        fresh = self._new_ring()
        self.ring = KeyRing(
            bytes(fresh._secret),
            epoch=0,
            started_at=self.server_now().replace(microsecond=0),
            lifetime=self.lifetime,
            grace=timedelta(hours=1),
            key_id_base=base,
        )

    def server_now(self) -> datetime:
        """The server's clock."""
        return self.clock + self.clock_ahead

    @property
    def paths(self) -> list[str]:
        """Method and path of every request received, without queries."""
        return [f"{request.method} {request.path.partition('?')[0]}" for request in self.received]

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `confonnx.client.transport.Transport`."""
        assert not self.closed
        assert timeout is None or timeout > 0
        with self._lock:
            self.received.append(request)
            self.ring.advance(self.server_now())
        answer = self.outer(request)  # not locked: it may wait for other threads
        if answer is None:
            with self._lock:
                answer = self._answer(request)
        if isinstance(answer, Exception):
            raise answer
        reader = AnswerReader(request, answer.status, answer.fields)  # as the real transports do
        if reader.wants_body:
            reader.feed(bytes(answer.body))
        return reader.finish(self.clock)

    def close(self) -> None:
        """See `confonnx.client.transport.Transport`."""
        self.closed = True

    def now(self) -> datetime:
        """See `confonnx.client.transport.Transport`."""
        return self.clock

    def answer(
        self, status: int, media_type: str, body: bytes = b"", *fields: tuple[str, str]
    ) -> HttpResponse:
        """An outer answer."""
        return HttpResponse(status, (("content-type", media_type), *fields), body, self.clock)

    def _answer(self, request: HttpRequest) -> HttpResponse:
        target = urlsplit(request.path)
        match request.method, target.path:
            case "GET", "/attestation":
                nonce = base64url.decode(parse_qs(target.query)["nonce"][0], what="nonce")
                return self.answer(200, bundle.MEDIA_TYPE, self._bundle(nonce))
            case "POST", "/ohttp":
                return self._open(request)
            case _:
                return self.answer(404, PROBLEM, b"{}")

    def _bundle(self, nonce: bytes) -> bytes:
        statement = Statement(
            issued_at=self.server_now(),
            nonce=nonce,
            keys=self.ring.attested_keys(self.server_now()),
            models=tuple(model.description for model in self.models),
            deployment="test",
            server_version="0",
            authentication=() if self.authorization is None else ("bearer",),
            limits=self.limits,
        ).encode()
        attester = SimulatedAttester(measurement=MEASUREMENT)
        evidence, endorsements = attester.collect(report_data(statement))
        return bundle.Bundle(statement, attester.evidence_type, evidence, endorsements).encode()

    def _open(self, request: HttpRequest) -> HttpResponse:
        try:
            plaintext, sealer, media_type = self._unseal(request)
        except UnknownKeyError:
            return self.answer(400, PROBLEM, KEY_PROBLEM)
        except (EncapsulationError, ReplayError):
            return self.answer(400, PROBLEM, b"{}")
        inner = bhttp.parse_request(plaintext)
        self.opened.append(inner)
        response = self.inner(inner) or self._inner(inner)
        return self.answer(200, media_type, bytes(sealer.seal(bhttp.encode_response(response))))

    def _unseal(self, request: HttpRequest) -> tuple[memoryview, ResponseSealer, str]:
        message = bytes(request.body)
        if dict(request.fields)["content-type"] != SESSION_REQUEST_MEDIA_TYPE:
            opened = open_request(self.ring, message)
            return opened.plaintext, opened.sealer, RESPONSE_MEDIA_TYPE
        private_key, prefix = read_prefix(self.ring, memoryview(message))
        session = ReceiverSession(private_key, prefix)  # a new one every time: as if every replica took turns
        found = session.open(message)
        if found.identity in self.identities:
            raise ReplayError("seen before")
        self.identities.append(found.identity)
        return found.plaintext, found.sealer, SESSION_RESPONSE_MEDIA_TYPE

    def _inner(self, request: bhttp.Request) -> bhttp.Response:
        date = parsedate_to_datetime(request.field("date") or "")
        if abs(date - self.server_now()) > self.limits.replay_window:
            return self.sealed(400, DATE_PROBLEM, ("content-type", PROBLEM))
        if not hmac.compare_digest(request.field("authorization") or "", self.authorization or ""):
            return self.error(401, "who are you?")
        match [unquote(segment) for segment in request.path.split("/")[2:]]:
            case []:
                return self.sealed(200, messages.ServerMetadata("confonnx", "0").encode())
            case ["health", "ready"]:
                return self.sealed(200, messages.encode_health(True))
            case ["models", name, "versions", version, verb]:
                for model in self.models:
                    if (model.description.name, model.description.version) == (name, version):
                        return self._model(model, verb, request)
                return self.error(404, f"no model {name} version {version}")
            case _:
                return self.error(404, "no such path")

    def _model(self, model: FakeModel, verb: str, request: bhttp.Request) -> bhttp.Response:
        if verb == "ready":
            return self.sealed(200, messages.encode_model_ready(model.description.name, ready=True))
        length = request.field(binary.HEADER_LENGTH_FIELD)
        question = binary.parse_infer_request(
            request.body, header_length=None if length is None else int(length), limits=OipLimits()
        )
        values = model.run({item.name: item.value for item in question.inputs})
        names = [output.name for output in question.outputs] or list(values)
        types = {spec.name: spec.type for spec in model.description.outputs}
        answer = messages.InferResponse(
            model.description.name,
            model.description.version,
            tuple(messages.InferOutput(name, types[name], values[name]) for name in names),
        )
        encoded = binary.encode_infer_response(answer, question)
        fields: Fields = (("content-type", encoded.content_type),)
        if encoded.header_length is not None:
            fields = (*fields, (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)))
        return self.sealed(200, b"".join(encoded.parts), *fields)

    def sealed(self, status: int, body: bytes, *fields: tuple[str, str]) -> bhttp.Response:
        """A sealed answer with the server's date."""
        return bhttp.Response(
            status, (("date", format_datetime(self.server_now(), usegmt=True)), *fields), body
        )

    def error(self, status: int, text: str, *fields: tuple[str, str]) -> bhttp.Response:
        """A sealed answer with an error in the protocol's form."""
        return self.sealed(status, messages.encode_error(text), *fields)


@dataclass
class AsyncFakeServer:
    """The same server for asyncio; every request gives other tasks a turn."""

    server: FakeServer

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `confonnx.client.transport.AsyncTransport`."""
        await asyncio.sleep(0)
        return self.server.send(request, timeout=timeout)

    async def close(self) -> None:
        """See `confonnx.client.transport.AsyncTransport`."""
        self.server.close()

    def now(self) -> datetime:
        """See `confonnx.client.transport.AsyncTransport`."""
        return self.server.now()
