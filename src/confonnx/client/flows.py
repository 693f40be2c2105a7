"""What the client does, step by step, with no I/O and no clock: the client's whole logic, written once.

A flow is a generator. It yields what it needs and is sent back what came of it:

- an `HttpRequest`, for which it is sent the `HttpResponse` that arrived;
- `KeysWanted`, for which it is sent `AttestedKeys` other than those that it names. Whoever drives flows runs
  `Flows.attest` for that, once for all flows that wait for it, and swaps `ClientState.keys`;
- `EndorsementsWanted`, where the caller chose not to leave endorsements to the server, for which it is sent
  those of the vendor or of the cache.

An error of either is thrown into the flow. `sync` and `aio` drive the same flows; tests drive them by hand.

What every sealed request goes through:

1. keys that were verified under the policy and have time left, else `KeysWanted` (proactively, some time
   before they run out);
2. a model that the policy accepts, and inputs that fit its attested schema and limits;
3. Open Inference Protocol in Binary HTTP, with a ``Date`` (RFC 9458 §6.5.1), sealed to the attested key: in
   the session that is open with it, or alone;
4. the answer: "cannot open" leads to one re-attestation and one retry, a sealed ``#date`` problem to one
   correction of the date and one retry; whatever does not open is an error, and nothing is ever sent to a
   key not verified.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import quote

from confonnx.attestation import base64url, bundle
from confonnx.attestation.endorse.exchange import Endorsements
from confonnx.attestation.endorse.options import Mode
from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.statement import ModelDescription
from confonnx.attestation.verify.appraise import Step, appraise
from confonnx.client import answers, inference
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.options import ClientOptions
from confonnx.client.session import Session, session_with
from confonnx.errors import ModelNotFoundError, OverloadedError, TooLargeError, TransportError
from confonnx.http.fields import Fields
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    ResponseOpener,
)
from confonnx.ohttp.hpke import Buffer
from confonnx.ohttp.session import SEQ_SIZE, SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE
from confonnx.oip.messages import ServerMetadata, parse_health, parse_server_metadata
from confonnx.oip.values import Value

NONCE_BYTES = 32
# Keys are replaced when a tenth of their time is left, so that no call waits at the very end; never more than
# a minute before it, so that long-lived keys are not asked for needlessly.
_RENEWAL_FRACTION = 10
_RENEWAL_AT_MOST = timedelta(minutes=1)
# The statement was fresh by the local clock when it was verified: the server's clock cannot be further off.
_MAX_CLOCK_OFFSET = timedelta(days=1)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """A flow needs verified keys other than ``instead_of``."""

    instead_of: AttestedKeys | None


@dataclass(frozen=True, slots=True)
class EndorsementsWanted:
    """A flow needs endorsements of a bundle's evidence, valid at ``now``; see `Endorser.collect`."""

    bundle: bundle.Bundle
    now: datetime


Action: TypeAlias = HttpRequest | KeysWanted | EndorsementsWanted
Reply: TypeAlias = HttpResponse | AttestedKeys | Endorsements
SealedFlow: TypeAlias = Generator[Action, Reply, T]


@dataclass(slots=True)
class ClientState:
    """What a client has learnt. Mutable; each field is replaced whole: threads see the old or the new value.

    ``session`` is the one that the next request goes into, if it is still good then. Where two threads begin
    one at the same time, either is as good as the other, and the one that stays here serves the next.
    ``clock_offset`` is added to the local clock to make the ``Date`` of requests, and to nothing else: the
    server's clock belongs to its host, who must not be able to keep old evidence or keys alive with it.
    """

    keys: AttestedKeys | None = None
    session: Session | None = None
    clock_offset: timedelta = timedelta()
    asker: inference.Asker = field(default_factory=inference.Asker)
    beginning: tuple[tuple[object, ...], tuple[Buffer, Buffer]] | None = None
    """What is before and after the content of a request, and all that it depends on."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request to make inside the seal, and how to read a sealed answer with status 200."""

    method: str
    path: str
    fields: Fields
    body: Sequence[Buffer]
    read: Callable[[bhttp.Response], T_co]
    inference: bool = False


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows of one client. ``random_bytes`` makes nonces."""

    options: ClientOptions
    state: ClientState
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def attest(self, *, trace: Callable[[Step], None] | None = None) -> SealedFlow[AttestedKeys]:
        """Asks for evidence with a fresh nonce and appraises it; ``trace`` receives each step.

        Raises what `appraise`, `read_bundle` and `Endorser.collect` raise.
        """
        nonce = self.random_bytes(NONCE_BYTES)
        request = attestation_request(nonce)
        response = yield from _sent(request)
        found = read_bundle(request, response)
        endorsements: Endorsements = ()
        if self.options.endorsements.mode is not Mode.BUNDLED:
            endorsements = yield from _endorsed(found, response.received_at)
        return appraise(
            found,
            self.options.policy,
            nonce=nonce,
            now=response.received_at,
            endorsements=endorsements,
            trace=trace,
        )

    def models(self, *, now: datetime) -> SealedFlow[tuple[ModelDescription, ...]]:
        """The models that the server attests to and the policy accepts."""
        return (yield from self.usable_keys(now)).models

    def predict(
        self,
        inputs: Mapping[str, object],
        *,
        model: str | None,
        version: str | None,
        outputs: Sequence[str] | None,
        now: datetime,
    ) -> SealedFlow[dict[str, Value]]:
        """Runs a model. See `Client.predict` for what it takes, gives and raises."""

        def prepare(keys: AttestedKeys) -> Call[dict[str, Value]]:
            description = select(keys, model, version)
            question = self.state.asker.ask(description, inputs, outputs=outputs)
            return Call(
                "POST",
                f"{model_path(description)}/infer",
                question.fields,
                question.body,
                question.read,
                inference=True,
            )

        return (yield from self._call(prepare, now))

    def server_metadata(self, *, now: datetime) -> SealedFlow[ServerMetadata]:
        """What the server says about itself inside the seal."""
        return (yield from self._call(lambda _: Call("GET", "/v2", (), (), _read_server_metadata), now))

    def ready(self, *, model: str | None, version: str | None, now: datetime) -> SealedFlow[bool]:
        """Whether the server, or one of its models, is ready to predict."""

        def prepare(keys: AttestedKeys) -> Call[bool]:
            if model is None and version is None:
                path = "/v2/health/ready"
            else:
                path = f"{model_path(select(keys, model, version))}/ready"
            return Call("GET", path, (), (), _read_ready)

        return (yield from self._call(prepare, now))

    def _call(self, prepare: Callable[[AttestedKeys], Call[T]], now: datetime) -> SealedFlow[T]:
        """Makes a call, with at most one re-attestation and one correction of the date."""
        reattested = date_corrected = False
        while True:
            keys = yield from self.usable_keys(now)
            now = max(now, keys.verified_at)  # waiting for keys took time
            # Prepared again for other keys: their models and limits may be others.
            call = prepare(keys)
            request, opener = self._seal(call, keys, now)
            response = yield from _sent(request)
            now = response.received_at
            if answers.could_not_open(response):
                if reattested:
                    raise answers.unopened_error()
                reattested = True
                yield from keys_wanted(keys)
                continue
            answers.check_answer(request, response)
            answer = bhttp.parse_response(opener.open(response.body))
            if answers.is_date_problem(answer):
                if date_corrected:
                    raise answers.date_error()
                date_corrected = True
                self.state.clock_offset = clock_offset_by(answers.sealed_date(answer), now)
                continue
            if answer.status != 200:
                raise answers.sealed_error(answer, inference=call.inference)
            return call.read(answer)

    def usable_keys(self, now: datetime) -> SealedFlow[AttestedKeys]:
        """Keys that were verified and have time left at ``now``."""
        keys = self.state.keys
        if keys is None or now >= keys.valid_until or now < keys.verified_at - keys.clock_skew:
            return (yield from keys_wanted(keys))
        if now < _renewal_time(keys):
            return keys
        try:
            return (yield from keys_wanted(keys))
        except (TransportError, OverloadedError):
            return keys  # these still hold; a server found to be another one is an error at once, though

    def inner_request(self, method: str, path: str, fields: Fields, now: datetime) -> bhttp.Request:
        """A request without content, as it goes into the seal: dated, and with the credentials."""
        date = format_datetime(now + self.state.clock_offset, usegmt=True)  # RFC 9110 §5.6.7 IMF-fixdate
        credentials = self.options.sealed_authorization
        authorization = () if credentials is None else (("authorization", credentials),)
        url = self.options.connection.url
        return bhttp.Request(
            method, url.scheme, url.authority, path, (("date", date), *fields, *authorization)
        )

    def _seal(
        self, call: Call[object], keys: AttestedKeys, now: datetime
    ) -> tuple[HttpRequest, ResponseOpener]:
        limits = keys.statement.limits
        parts = self._encode(call, now)
        if self.options.sessions:
            media_type, accept = SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE
            sealed, opener = self._seal_in_session(parts, keys, now)
        else:
            media_type, accept = REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE
            sealed, opener = keys.encapsulate(parts, now=now, pad=self.options.pad)
        _check_size(len(sealed), limits.max_request_bytes)
        request = HttpRequest(
            "POST",
            "/ohttp",
            accept=accept,
            max_response_bytes=min(self.options.max_response_bytes, limits.max_response_bytes),
            fields=(("content-type", media_type),),
            body=sealed,
            relayed=self.options.connection.relay is not None,
        )
        return request, opener

    def _encode(self, call: Call[object], now: datetime) -> Sequence[Buffer]:
        """The Binary HTTP request, in parts; with the last one's beginning where that is the same."""
        second = int((now + self.state.clock_offset).timestamp())
        size = sum(map(len, call.body))
        key = (second, size, call.method, call.path, call.fields)
        known = self.state.beginning
        if known is not None and known[0] == key:
            return (known[1][0], *call.body, known[1][1])
        message = self.inner_request(call.method, call.path, call.fields, now)
        # ``enc`` is a multiple of 16 bytes long.
        offset = HEADER_SIZE + (SEQ_SIZE if self.options.sessions else 0)
        parts = bhttp.encode_request(message, call.body, offset=offset)
        if size:
            self.state.beginning = key, (parts[0], parts[-1])
        return parts

    def _seal_in_session(
        self, parts: Sequence[Buffer], keys: AttestedKeys, now: datetime
    ) -> tuple[bytearray, ResponseOpener]:
        session = session_with(keys, now=now, instead_of=self.state.session)
        sealed = session.sender.seal(parts, pad=self.options.pad)
        if sealed is None:  # other calls took its last numbers
            session = session_with(keys, now=now, instead_of=None)
            sealed = session.sender.seal(parts, pad=self.options.pad)
            assert sealed is not None  # nobody else has it yet
        self.state.session = session
        return sealed


def attestation_request(nonce: bytes) -> HttpRequest:
    """Asks for evidence that answers ``nonce`` (16 to 64 bytes)."""
    return HttpRequest(
        "GET",
        f"/attestation?nonce={base64url.encode(nonce)}",
        accept=bundle.MEDIA_TYPE,
        max_response_bytes=bundle.BundleLimits().max_bundle_bytes,
    )


def read_bundle(request: HttpRequest, response: HttpResponse) -> bundle.Bundle:
    """The bundle in the answer to `attestation_request`, not verified.

    Raises BundleError, and what `answers.check_answer` raises.
    """
    answers.check_answer(request, response)
    return bundle.parse_bundle(bytes(response.body))


def clock_offset_by(servers_date: datetime, now: datetime) -> timedelta:
    """What to add to the local clock to have the server's. Raises ReplayError for more than a day."""
    offset = servers_date - now
    if abs(offset) > _MAX_CLOCK_OFFSET:
        raise answers.date_error()
    return offset


def keys_wanted(instead_of: AttestedKeys | None) -> SealedFlow[AttestedKeys]:
    """Keys that were verified, other than ``instead_of``."""
    reply = yield KeysWanted(instead_of)
    assert isinstance(reply, AttestedKeys)
    return reply


def _endorsed(found: bundle.Bundle, now: datetime) -> SealedFlow[Endorsements]:
    reply = yield EndorsementsWanted(found, now)
    assert isinstance(reply, tuple)
    return reply


def _sent(request: HttpRequest) -> SealedFlow[HttpResponse]:
    reply = yield request
    assert isinstance(reply, HttpResponse)
    return reply


def _read_server_metadata(answer: bhttp.Response) -> ServerMetadata:
    return parse_server_metadata(answer.body)


def _read_ready(answer: bhttp.Response) -> bool:
    return parse_health(answer.body)


def _renewal_time(keys: AttestedKeys) -> datetime:
    lifetime = keys.valid_until - keys.verified_at
    return keys.valid_until - min(lifetime / _RENEWAL_FRACTION, _RENEWAL_AT_MOST)


def select(keys: AttestedKeys, name: str | None, version: str | None) -> ModelDescription:
    """The model that a call means. Raises ModelNotFoundError."""
    names = sorted({description.name for description in keys.models})
    if name is None and len(names) > 1:
        raise ModelNotFoundError(
            f"the server has several models; say which one with model=: {', '.join(names)}"
        )
    return keys.select_model(name, version)


def model_path(description: ModelDescription) -> str:
    """Where a model is inside the seal."""
    path = f"/v2/models/{quote(description.name, safe='')}"
    return f"{path}/versions/{quote(description.version, safe='')}" if description.version else path


def _check_size(found: int, limit: int) -> None:
    if found > limit:
        raise TooLargeError(
            f"the request is too large: the server attests to a limit of {limit} bytes, {found} found; send "
            "fewer or smaller tensors at a time"
        )
