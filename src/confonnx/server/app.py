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
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from pathlib import PurePath
from typing import TypeVar

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
from confonnx.ohttp.encapsulation import (
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    ResponseSealer,
    open_request,
)
from confonnx.ohttp.key_config import KEYS_MEDIA_TYPE
from confonnx.ohttp.padding import padme
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE
from confonnx.server.attestation import Attestation
from confonnx.server.auth import Authenticator
from confonnx.server.logs import EvidenceFailed, InternalError, Log, RequestAnswered, RequestRefused
from confonnx.server.messages import (
    PROBLEM_MEDIA_TYPE,
    Buffer,
    HttpRequest,
    HttpResponse,
    problem,
    problem_body,
    text,
)
from confonnx.server.metrics import Metrics, Outcome, Unopened
from confonnx.server.replay import DateRefusedError, ReplayCache, SeenBeforeError
from confonnx.server.routes import Reply, Routes, error_reply, plain_error
from confonnx.server.sessions import MAX_SESSIONS, SessionCache

T = TypeVar("T")

KEY_PROBLEM = "https://iana.org/assignments/http-problem-types#ohttp-key"  # RFC 9458 §5.3
DATE_PROBLEM = "https://iana.org/assignments/http-problem-types#date"  # RFC 9458 §6.5.2
RESPONSE_TYPES = {
    REQUEST_MEDIA_TYPE: RESPONSE_MEDIA_TYPE,
    SESSION_REQUEST_MEDIA_TYPE: SESSION_RESPONSE_MEDIA_TYPE,
}
GATEWAYS = ("/ohttp", "/.well-known/ohttp-gateway")  # the latter: RFC 9540

_LARGE = 1 << 18
"""Bytes from which on opening and sealing go to a thread: AES releases the GIL, and the loop stays free."""
_SEAL_OVERHEAD = 64
"""Bytes that sealing adds at most: nonce (32) and tag (16) of RFC 9458 §4.4."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class AppOptions:
    """``url_prefix`` is served with and without it; sizes in bytes; contexts of ``max_sessions`` are kept."""

    url_prefix: str
    max_response_bytes: int
    pad: bool
    max_sessions: int = MAX_SESSIONS


@dataclass(frozen=True, slots=True)
class _Opened:
    """A sealed request that was opened; ``identity`` is what a replay of it shares with it alone."""

    plaintext: memoryview = field(repr=False)
    identity: bytes = field(repr=False)
    sealer: ResponseSealer


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
        self._sessions = SessionCache(ring, capacity=options.max_sessions)

    def forget_ended_sessions(self) -> None:
        """Drop what still opens messages to keys that the ring has erased; call it after each ``advance``."""
        self._sessions.forget_ended()

    def wants_body(self, method: str, path: str) -> bool:
        """Only what may be a sealed request is worth reading."""
        return method == "POST" and self._inside_prefix(path) in GATEWAYS

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The outer answer to ``request``. Raises nothing but ``asyncio.CancelledError``."""
        started = time.monotonic()
        request_id = self._request_id(request)
        route = self._route(request)
        response = await self._guarded(self._answer(route, request), lambda _: problem(500))
        milliseconds = round((time.monotonic() - started) * 1000)
        kind = RequestRefused if response.status >= 400 else RequestAnswered
        self._log.emit(
            kind(request_id=request_id, route=route, status=response.status, milliseconds=milliseconds)
        )
        return HttpResponse(response.status, {**response.fields, "x-request-id": request_id}, response.body)

    async def _answer(self, route: str, request: HttpRequest) -> HttpResponse:
        reads = request.method in ("GET", "HEAD")
        match route:
            case "unknown":
                return problem(404)
            case "gateway" if request.method == "POST":
                return await self._sealed(request)
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
        path = self._inside_prefix(request.path)
        if path in GATEWAYS:
            return "gateway"
        return {"/": "root", "/healthz": "healthz", "/readyz": "readyz", "/attestation": "attestation"}.get(
            path, "unknown"
        )

    def _inside_prefix(self, path: str) -> str:
        prefix = self._options.url_prefix
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            return path[len(prefix) :] or "/"
        return path

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
        media_type = request.fields.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in RESPONSE_TYPES:
            return problem(415)
        metrics = self._metrics
        with metrics.request_seconds.time(), metrics.in_flight.track_inprogress():
            try:
                with metrics.decrypt_seconds.time():
                    opened = await self._open(media_type, request.body)
                sealer = opened.sealer
                reply = await self._guarded(self._reply(opened), _internal_reply)
                del opened  # the last view of the request, whose buffer a large answer takes over
            except UnknownKeyError:
                metrics.count_unopened(Unopened.UNKNOWN_KEY)
                return problem(400, problem_type=KEY_PROBLEM)
            except EncapsulationError:
                metrics.count_unopened(Unopened.UNOPENABLE)
                return problem(400)
            except SeenBeforeError:
                metrics.count_unopened(Unopened.REPLAYED)
                return problem(400)
            metrics.count_request(reply.model, reply.version, reply.outcome)
            with metrics.seal_seconds.time():
                message = await self._seal(reply, sealer, request.body)
        return HttpResponse(200, {"content-type": RESPONSE_TYPES[media_type]}, (message,))

    async def _open(self, media_type: str, message: bytearray) -> _Opened:
        """Step 2, and what a session's own window knows of step 3.

        Raises UnknownKeyError, EncapsulationError and SeenBeforeError.
        """
        if media_type == REQUEST_MEDIA_TYPE:
            opened = await _off_loop(len(message), lambda: open_request(self._ring, message))
            return _Opened(opened.plaintext, opened.enc, opened.sealer)
        session = self._sessions.find(message)
        request = await _off_loop(len(message), lambda: session.open(message))
        self._sessions.admit(session, request)
        return _Opened(request.plaintext, request.identity, request.sealer)

    async def _reply(self, opened: _Opened) -> Reply:
        """Steps 3 to 6. Raises SeenBeforeError for a replay; every other failure is a reply."""
        try:
            inner = bhttp.parse_request(opened.plaintext)
            self._replays.admit(opened.identity, inner.field("date"), now=self._now())
            if inner.field("content-encoding") is not None:
                return plain_error(
                    415, "content-encoding is not used inside the seal; send the body as it is"
                )
            await self._authenticator.check(inner.field("authorization"))
            return await self._routes.answer(inner)
        except SeenBeforeError:
            raise
        except DateRefusedError:
            body = problem_body(400, DATE_PROBLEM)
            return Reply(400, (body,), PROBLEM_MEDIA_TYPE, outcome=Outcome.STALE)
        except AuthenticationError as error:
            challenge = (("www-authenticate", self._authenticator.challenge),)
            return plain_error(401, str(error), fields=challenge, outcome=Outcome.UNAUTHENTICATED)
        except ConfonnxError as error:
            return error_reply(error)

    async def _seal(self, reply: Reply, sealer: ResponseSealer, used: bytearray) -> bytearray:
        now = self._now()
        size = sum(map(len, reply.body))
        into = used if size >= _LARGE else None
        return await _off_loop(size, lambda: _seal(reply, sealer, self._options, now, into))

    async def _guarded(self, work: Awaitable[T], instead: Callable[[str], T]) -> T:
        """``work``, or ``instead`` of an error that nobody expected: the server's last handler.

        Its text may hold what was sealed, so only its class and places in our code are logged, under an id.
        """
        try:
            return await work
        except SeenBeforeError:
            raise
        except Exception as error:  # noqa: BLE001  the one place, style rule 7
            error_id = secrets.token_hex(8)
            frames = traceback.extract_tb(error.__traceback__)
            places = tuple(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames)
            self._log.emit(InternalError(error_id=error_id, exception=type(error).__name__, frames=places))
            return instead(error_id)

    @staticmethod
    def _request_id(request: HttpRequest) -> str:
        """The ingress's id where it is a plain one; it is never brought together with anything inside."""
        given = request.fields.get("x-request-id", "")
        return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _internal_reply(error_id: str) -> Reply:
    return plain_error(
        500, f"internal error {error_id}; the server's log has an entry under this id", outcome=Outcome.FAILED
    )


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


def _seal(
    reply: Reply, sealer: ResponseSealer, options: AppOptions, now: datetime, into: bytearray | None
) -> bytearray:
    parts = _encode(reply, now)
    size = sum(map(len, parts))
    limit = options.max_response_bytes
    if (padme(size) if options.pad else size) + _SEAL_OVERHEAD > limit:
        error = TooLargeError(f"the answer is over the server's limit of {limit} bytes")
        parts = _encode(error_reply(error), now)
    return sealer.seal(parts, pad=options.pad, into=into)


def _encode(reply: Reply, now: datetime) -> list[Buffer]:
    fields = (
        ("date", _http_date(int(now.timestamp()))),
        ("content-type", reply.content_type),
        *reply.fields,
    )
    # A response nonce is a multiple of eight bytes long: aligned in the plaintext is aligned in the message.
    return bhttp.encode_response(bhttp.Response(reply.status, fields), reply.body, offset=0)


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    """``work()``, in a thread if it handles many bytes."""
    return work() if size < _LARGE else await asyncio.to_thread(work)
