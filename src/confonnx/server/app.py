"""The server without its sockets: an outer request in, an outer response out (D10).

A sealed request goes through these steps; up to the third, whatever fails gets an outer answer without
content, from the fourth on every answer is sealed:

1. method, media type;
2. open (RFC 9458 §4.3, or a session): an unknown key identifier has its own problem type, all other failures
   have one answer;
3. not a replay: what was opened before is answered as if it did not open;
4. Binary HTTP, date within the window (RFC 9458 §6.5), no content coding;
5. credentials;
6. the route (``routes``), which sees the inner request alone.

A replay can only be told after step 4 gave its date; that its answer looks like that of step 2 is the point.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from pathlib import PurePath
from types import MappingProxyType
from typing import TypeAlias

from confonnx.attestation import base64url, bundle
from confonnx.attestation.statement import NONCE_SIZES
from confonnx.errors import (
    AuthenticationError,
    BundleError,
    ConfigurationError,
    ConfonnxError,
    EncapsulationError,
    OverloadedError,
    TeeError,
    TooLargeError,
    UnknownKeyError,
)
from confonnx.keys.ring import KeyRing
from confonnx.ohttp import bhttp
from confonnx.ohttp.chunked import CHUNKED_REQUEST_MEDIA_TYPE
from confonnx.ohttp.encapsulation import (
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    OpenedRequest,
    ResponseSealer,
    open_request,
)
from confonnx.ohttp.key_config import KEYS_MEDIA_TYPE
from confonnx.ohttp.padding import padme
from confonnx.ohttp.session import (
    SESSION_REQUEST_MEDIA_TYPE,
    SESSION_RESPONSE_MEDIA_TYPE,
    SessionRequest,
)
from confonnx.server.attestation import Attestation
from confonnx.server.auth import Authenticator
from confonnx.server.cohort import end_of_stage
from confonnx.server.http_stream import Exchange
from confonnx.server.logs import EvidenceFailed, InternalError, Log, RequestAnswered, RequestRefused
from confonnx.server.messages import (
    DATE_PROBLEM,
    KEY_PROBLEM,
    PROBLEM_MEDIA_TYPE,
    Buffer,
    HttpRequest,
    HttpResponse,
    problem,
    problem_body,
    text,
)
from confonnx.server.metrics import Metrics, Outcome, Unopened
from confonnx.server.recall import Recall
from confonnx.server.replay import DateRefusedError, ReplayCache, SeenBeforeError
from confonnx.server.routes import Reply, Routes, error_reply, plain_error
from confonnx.server.sessions import MAX_SESSIONS, LiveSession, SessionCache
from confonnx.server.streams import StreamGateway, StreamOptions

Opened: TypeAlias = OpenedRequest | SessionRequest

_ANSWER_FIELDS: Mapping[str, Mapping[str, str]] = {
    REQUEST_MEDIA_TYPE: MappingProxyType({"content-type": RESPONSE_MEDIA_TYPE}),
    SESSION_REQUEST_MEDIA_TYPE: MappingProxyType({"content-type": SESSION_RESPONSE_MEDIA_TYPE}),
}
"""The outer fields of a sealed answer, by the media type of the request."""
GATEWAYS = ("/ohttp", "/.well-known/ohttp-gateway")  # the latter: RFC 9540

_LARGE = 2 << 20
"""Bytes from which on opening and sealing go to a thread: AES releases the GIL, and the loop stays free. Two
MiB take a third of a millisecond; to hand them over takes as long where the caches are cold."""
_SEAL_OVERHEAD = 64
"""Bytes that sealing adds at most: nonce (32) and tag (16) of RFC 9458 §4.4."""
_HEAD_BYTES = 1024
"""More than sealing and all but the body of an answer add to it; padding adds an eighth at most."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class AppOptions:
    """``url_prefix`` is served with and without it; sizes in bytes; contexts of ``max_sessions`` are kept."""

    url_prefix: str
    max_response_bytes: int
    pad: bool
    max_sessions: int = MAX_SESSIONS
    max_request_bytes: int = 128 << 20


class App:
    """Answers outer requests, any number at a time in one event loop."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        attestation: Attestation,
        authenticator: Authenticator,
        replays: ReplayCache,
        routes: Routes,
        metrics: Metrics,
        log: Log,
        now: Callable[[], datetime],
        is_ready: Callable[[], bool],
        options: AppOptions,
    ) -> None:
        """``now`` gives aware UTC time; ``is_ready`` is false while the server drains."""
        self._ring = ring
        self._attestation = attestation
        self._authenticator = authenticator
        self._replays = replays
        self._routes = routes
        self._metrics = metrics
        self._log = log
        self._now = now
        self._is_ready = is_ready
        self._options = options
        self._paths = _paths(options.url_prefix)
        self._sessions = SessionCache(ring, capacity=options.max_sessions)
        self._answered: list[LiveSession] = []  # in this turn of the event loop
        self._streams = StreamGateway(
            keys=ring,
            authenticator=authenticator,
            replays=replays,
            routes=routes,
            metrics=metrics,
            log=log,
            now=now,
            log_defect=self._log_defect,
            options=StreamOptions(options.max_request_bytes, options.max_response_bytes, options.pad),
        )

    def forget_ended_sessions(self) -> None:
        """Drop what still opens messages to keys that the ring has erased; call it after each ``advance``."""
        self._sessions.forget_ended()

    def wants_body(self, method: str, path: str) -> bool:
        """Only what may be a sealed request is worth reading."""
        return method == "POST" and self._paths.get(path) == "gateway"

    def wants_stream(self, method: str, path: str, media_type: str) -> bool:
        """Sealed requests that come in chunks."""
        return media_type == CHUNKED_REQUEST_MEDIA_TYPE and self.wants_body(method, path)

    async def stream(self, request: HttpRequest, exchange: Exchange) -> HttpResponse | None:
        """Answers a sealed request that comes in chunks. Raises nothing but ``asyncio.CancelledError``."""
        request_id = _request_id(request) or os.urandom(8).hex()
        return await self._streams.answer(exchange, request_id=request_id)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The outer answer to ``request``. Raises nothing but ``asyncio.CancelledError``."""
        started = time.monotonic()
        route = self._route(request)
        try:
            if route == "gateway" and request.method == "POST":
                response = await self._sealed(request)
            else:
                response = await self._answer(route, request)
        except Exception as error:  # noqa: BLE001  the server's last handler, style rule 7
            self._log_defect(error)
            response = problem(500)
        kind = RequestRefused if response.status >= 400 else RequestAnswered
        request_id = _request_id(request)
        if self._log.writes(kind.level):
            request_id = request_id or os.urandom(8).hex()
            milliseconds = round((time.monotonic() - started) * 1000)
            self._log.emit(
                kind(request_id=request_id, route=route, status=response.status, milliseconds=milliseconds)
            )
        await end_of_stage()
        if request_id is None:
            return response
        return HttpResponse(response.status, {**response.fields, "x-request-id": request_id}, response.body)

    async def _answer(self, route: str, request: HttpRequest) -> HttpResponse:
        reads = request.method in ("GET", "HEAD")
        match route:
            case "unknown":
                return problem(404)
            case _ if not reads:
                return problem(
                    405, fields={"allow": "GET, HEAD, POST" if route == "gateway" else "GET, HEAD"}
                )
            case "root":
                return text(200, "Healthy")
            case "healthz":
                return text(200, "ok")
            case "readyz":
                return text(200, "ready") if self._is_ready() else text(503, "draining")
            case "attestation":
                return await self._attest(request)
            case _:
                return self._key_configs()

    def _route(self, request: HttpRequest) -> str:
        """A name from a closed set, fit for a log."""
        return self._paths.get(request.path, "unknown")

    def _key_configs(self) -> HttpResponse:
        try:
            content = self._attestation.key_configs()
        except ConfigurationError as error:  # the clock jumped too far for the key ring
            self._log.emit(EvidenceFailed(reason=str(error)))
            return problem(503, fields={"retry-after": "5"})
        return HttpResponse(200, {"content-type": KEYS_MEDIA_TYPE}, (content,))

    async def _attest(self, request: HttpRequest) -> HttpResponse:
        try:
            nonce = _nonce(request.query)
        except BundleError:
            return problem(400)
        try:
            content = await self._attestation.bundle(nonce)
        except OverloadedError as error:
            self._metrics.count_attestation(Outcome.OVERLOADED)
            return problem(429, fields={"retry-after": str(error.retry_after)})
        except (TeeError, ConfigurationError) as error:  # no device, or a clock that jumped too far
            self._metrics.count_attestation(Outcome.FAILED)
            self._log.emit(EvidenceFailed(reason=str(error)))
            return problem(503, fields={"retry-after": "5"})
        self._metrics.count_attestation(Outcome.OK)
        return HttpResponse(200, {"content-type": bundle.MEDIA_TYPE, "cache-control": "no-store"}, (content,))

    async def _sealed(self, request: HttpRequest) -> HttpResponse:
        media_type = request.fields.get("content-type", "")
        if media_type not in _ANSWER_FIELDS:  # written in another way, or another type
            media_type = media_type.partition(";")[0].strip().lower()
        if media_type not in _ANSWER_FIELDS:
            return problem(415)
        metrics = self._metrics
        with metrics.sealed_request() as times:
            try:
                if len(request.body) < _LARGE:
                    opened, session = self._open(media_type, request.body)
                else:
                    opened, session = await self._open_in_thread(media_type, request.body)
                recall = Recall(sizes=0) if session is None else session.recall
                times.opened()
                await end_of_stage()
                reply = await self._reply(opened, recall)
            except UnknownKeyError:
                metrics.count_unopened(Unopened.UNKNOWN_KEY)
                return problem(400, problem_type=KEY_PROBLEM)
            except EncapsulationError:
                metrics.count_unopened(Unopened.UNOPENABLE)
                return problem(400)
            except SeenBeforeError:
                metrics.count_unopened(Unopened.REPLAYED)
                return problem(400)
            times.answered(reply.model, reply.version, reply.outcome)
            sealer = opened.sealer
            del opened  # the last view of the request, whose buffer a large answer takes over
            await end_of_stage()
            size = sum(map(len, reply.body))
            if size < _LARGE:
                message = self._seal(reply, size, sealer, recall, request.body)
            else:
                nothing = Recall(sizes=0)  # a memory is for one thread
                message = await asyncio.to_thread(self._seal, reply, size, sealer, nothing, request.body)
            if session is not None:
                self._prepare_later(session)
        return HttpResponse(200, _ANSWER_FIELDS[media_type], (message,))

    def _open(self, media_type: str, message: bytearray) -> tuple[Opened, LiveSession | None]:
        """Step 2, and what a session's own window knows of step 3.

        Raises UnknownKeyError, EncapsulationError and SeenBeforeError.
        """
        if media_type == REQUEST_MEDIA_TYPE:
            return open_request(self._ring, message), None
        session = self._sessions.find(message)
        opened = session.receiver.open(message)
        self._sessions.admit(session, opened)
        return opened, session

    async def _open_in_thread(self, media_type: str, message: bytearray) -> tuple[Opened, LiveSession | None]:
        """As :meth:`_open`, for what takes long to open."""
        if media_type == REQUEST_MEDIA_TYPE:
            return await asyncio.to_thread(open_request, self._ring, message), None
        session = self._sessions.find(message)
        opened = await asyncio.to_thread(session.receiver.open, message)
        self._sessions.admit(session, opened)
        return opened, session

    def _prepare_later(self, session: LiveSession) -> None:
        """Let ``session``, which has its answer, make ready for its next request once this turn of the event
        loop is over, unless others were answered too: then there is no time to spare.
        """
        if not self._answered:
            asyncio.get_running_loop().call_soon(self._prepare)
        self._answered.append(session)

    def _prepare(self) -> None:
        answered, self._answered = self._answered, []
        if len(answered) == 1:
            answered[0].receiver.prepare()

    async def _reply(self, opened: Opened, recall: Recall) -> Reply:
        """Steps 3 to 6. Raises SeenBeforeError for a replay; every other failure is a reply."""
        try:
            head, body = recall.requests.parse(opened.plaintext)
            self._replays.admit(opened.identity, head.field("date"), now=self._now())
            if head.field("content-encoding") is not None:
                return plain_error(
                    415, "content-encoding is not used inside the seal; send the body as it is"
                )
            if self._authenticator.schemes:
                await self._authenticator.check(head.field("authorization"))
            return await self._routes.answer(head, body, recall)
        except SeenBeforeError:
            raise
        except DateRefusedError:
            content = problem_body(400, DATE_PROBLEM)
            return Reply(400, (content,), PROBLEM_MEDIA_TYPE, outcome=Outcome.STALE)
        except AuthenticationError as error:
            challenge = (("www-authenticate", self._authenticator.challenge),)
            return plain_error(401, str(error), fields=challenge, outcome=Outcome.UNAUTHENTICATED)
        except ConfonnxError as error:
            return error_reply(error)
        except Exception as error:  # noqa: BLE001  a defect is answered under the seal too, style rule 7
            return plain_error(
                500,
                f"internal error {self._log_defect(error)}; the server's log has an entry under this id",
                outcome=Outcome.FAILED,
            )

    def _seal(
        self, reply: Reply, size: int, sealer: ResponseSealer, recall: Recall, used: bytearray
    ) -> bytearray:
        """``reply``, whose body has ``size`` bytes, as a sealed message, in the ``used`` buffer where
        that pays.
        """
        second, options = int(self._now().timestamp()), self._options
        parts = _encode(reply, size, second, recall)
        limit = options.max_response_bytes
        if 2 * (size + _HEAD_BYTES) > limit and _sealed_size(parts, options) > limit:
            error = TooLargeError(f"the answer is over the server's limit of {limit} bytes")
            refusal = error_reply(error)
            parts = _encode(refusal, len(refusal.body[0]), second, Recall(sizes=0))
        return sealer.seal(parts, pad=options.pad, into=used)

    def _log_defect(self, error: Exception) -> str:
        """Log an error that nobody expected; the id of the entry.

        Its text may hold what was sealed, so only its class and places in our code are logged.
        """
        error_id = secrets.token_hex(8)
        frames = traceback.extract_tb(error.__traceback__)
        places = tuple(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames)
        self._log.emit(InternalError(error_id=error_id, exception=type(error).__name__, frames=places))
        return error_id


def _request_id(request: HttpRequest) -> str | None:
    """The ingress's id where it is a plain one; it is never brought together with anything inside."""
    given = request.fields.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else None


def _paths(prefix: str) -> dict[str, str]:
    """The route of every path that there is, without and with the prefix."""
    routes = {**dict.fromkeys(GATEWAYS, "gateway"), "/": "root"}
    routes |= {f"/{name}": name for name in ("healthz", "readyz", "attestation")}
    behind = {f"{prefix}{path}": name for path, name in routes.items()} | {prefix: "root"} if prefix else {}
    return routes | behind


def _nonce(query: str) -> bytes | None:
    """The one parameter of ``/attestation``. Raises BundleError."""
    if not query:
        return None
    name, _, value = query.partition("=")
    if name != "nonce":
        raise BundleError("expected the parameter nonce alone")
    nonce = base64url.decode(value, what="nonce")
    if len(nonce) not in NONCE_SIZES:
        raise BundleError("a nonce has 16 to 64 bytes")
    return nonce


def _sealed_size(parts: Sequence[Buffer], options: AppOptions) -> int:
    """Bytes of the sealed message."""
    size = sum(map(len, parts))
    return (padme(size) if options.pad else size) + _SEAL_OVERHEAD


def _encode(reply: Reply, size: int, second: int, recall: Recall) -> Sequence[Buffer]:
    """The Binary HTTP response, in parts; ``recall`` may know all of it but the body, of ``size`` bytes."""
    key = (second, size, reply.status, reply.content_type, reply.fields)
    if key == recall.answer_key:
        before, after = recall.answer_parts
        return (before, *reply.body, after)
    fields = (("date", _http_date(second)), ("content-type", reply.content_type), *reply.fields)
    # A response nonce is a multiple of 16 bytes long: aligned in the plaintext is aligned in the message.
    parts = bhttp.encode_response(bhttp.Response(reply.status, fields), reply.body, offset=0)
    if size:
        recall.answer_key, recall.answer_parts = key, (parts[0], parts[-1])
    return parts


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
