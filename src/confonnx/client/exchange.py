"""The HTTP requests that flows ask for and the answers they get: values, no I/O.

A flow yields an `HttpRequest`; whoever drives it (a socket, a test) sends back an `HttpResponse`. Everything
outside the seal is under the control of the host, so an answer is distrusted from its first header on:
`AnswerReader` decides, before a byte of the body is kept, whether the body is wanted at all and how long it
may be.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar

from confonnx.errors import NotConfonnxError, TooLargeError, TransportError
from confonnx.http.fields import Fields, field_value
from confonnx.http.message import Sink
from confonnx.ohttp.hpke import Buffer

PROBLEM_MEDIA_TYPE = "application/problem+json"  # RFC 9457 §3
MAX_PROBLEM_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. ``path`` is relative to the server's base URL and starts with a slash; a ``relayed``
    request goes to the relay's URL instead, and ``path`` is where the relay should take it.

    ``accept`` is the one media type whose body is wanted; such a body may have ``max_response_bytes`` bytes.
    """

    method: str
    path: str
    accept: str
    max_response_bytes: int
    fields: Fields = ()
    body: Buffer = b""
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer. ``received_at`` is the client's clock (aware UTC) when the answer was complete.

    ``body`` is empty where `AnswerReader` did not want it. A ``bytearray`` may be overwritten when it is
    opened.
    """

    status: int
    fields: Fields
    body: Buffer
    received_at: datetime

    def field(self, name: str) -> str | None:
        """The value of the field (lower-case ``name``), joined as RFC 9110 §5.3 says where it repeats."""
        return field_value(self.fields, name)

    @property
    def media_type(self) -> str:
        """Lower case, without parameters; empty where there is no ``content-type``."""
        return media_type(self.fields)


T = TypeVar("T")
Flow: TypeAlias = Generator[HttpRequest, HttpResponse, T]


class AnswerReader(Sink):
    """Takes an answer's head, then its body piece by piece; refuses what no confonnx server sends. Mutable.

    Only a body of the accepted media type, or a problem document, is
    read; of anything else (an ingress's HTML page, a redirect) the status and the media type say enough, so
    `wants_body` is false.
    """

    def __init__(self, request: HttpRequest, status: int, fields: Fields) -> None:
        """Raises NotConfonnxError (compressed, malformed length) and TooLargeError (announced over the
        limit)."""
        self._what = _what(request)
        self._status, self._fields = status, fields
        self._limit = _body_limit(request, fields)
        refuse_compression(request, fields)
        self._announced = self._announced_length()
        self.wants_body = self._limit > 0 and self._announced != 0
        # One allocation for a body of known length, which is then opened in place. Bounded by the limit.
        self._body = bytearray(self._announced or 0) if self.wants_body else bytearray()
        self._filled = 0

    def room(self) -> memoryview | None:
        """Where the next bytes of a body of announced length go, without another copy."""
        return None if self._announced is None else memoryview(self._body)[self._filled :]

    def filled(self, count: int) -> None:
        """``count`` bytes are in what `room` gave."""
        self._filled += count

    def feed(self, piece: bytes) -> None:
        """Keeps ``piece``. Raises TooLargeError as soon as the body is over its limit."""
        end = self._filled + len(piece)
        if end > self._limit:
            raise self._too_large(f"more than {self._limit} bytes")
        self._body[self._filled : end] = piece
        self._filled = end

    def finish(self, received_at: datetime) -> HttpResponse:
        """The whole answer. Raises TransportError where the body ended before the announced length."""
        if self.wants_body and self._announced is not None and self._filled != self._announced:
            raise TransportError(
                f"the answer to {self._what} broke off: {self._announced} bytes announced, {self._filled} "
                "came"
            )
        return HttpResponse(self._status, self._fields, self._body, received_at)

    def _announced_length(self) -> int | None:
        text = field_value(self._fields, "content-length")
        if text is None or self._limit == 0:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise NotConfonnxError(f"the answer to {self._what} has a content-length that is no number")
        if int(text) > self._limit:
            raise self._too_large(f"{int(text)} bytes")
        return int(text)

    def _too_large(self, found: str) -> TooLargeError:
        return TooLargeError(
            f"the answer to {self._what} is too large: at most {self._limit} bytes expected, {found} found"
        )


def refuse_compression(request: HttpRequest, fields: Fields) -> None:
    """Raises NotConfonnxError for an answer in a coding that was not asked for."""
    # Ciphertext does not compress, so a coding can only be a mistake or a decompression bomb.
    coding = field_value(fields, "content-encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise NotConfonnxError(
            f"the answer to {_what(request)} is compressed although identity was asked for: something "
            "between client and server changes messages; switch compression off there"
        )


def _what(request: HttpRequest) -> str:
    return f"{request.method} {request.path.partition('?')[0]}"


def media_type(fields: Fields) -> str:
    """The media type in lower case, without parameters; empty where there is no ``content-type``."""
    return (field_value(fields, "content-type") or "").partition(";")[0].strip().lower()


def _body_limit(request: HttpRequest, fields: Fields) -> int:
    found = media_type(fields)
    if found == request.accept:
        return request.max_response_bytes
    return MAX_PROBLEM_BYTES if found == PROBLEM_MEDIA_TYPE else 0
