"""Binary HTTP of indeterminate length (RFC 9292 §3.2), read as it comes and written as it is made.

The head of a message is a :class:`confonnx.ohttp.bhttp.Request` or ``Response`` without content, so the rules
for it are those of ``bhttp``. The content is never held: it comes out in the pieces in which it came in.

Strategy. The grammar is one generator that yields how many bytes it needs next and is sent just those, so it
reads like a parser of a whole message and can stop between any two bytes. Content alone goes past it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import (
    DEFAULT_LIMITS,
    BhttpLimits,
    Fields,
    InformationalResponse,
    Request,
    Response,
)
from confonnx.ohttp.reader import Buffer, encode_varint

HeadT = TypeVar("HeadT", bound=Request | Response)
T = TypeVar("T")
_Parse = Generator[int, bytes, T]

CONTENT_END = b"\0\0"
"""What ends the content and an empty trailer section."""

SMALLEST_AVERAGE_CHUNK = 64
"""Bytes that chunks of content must have on average once there are more of them than the limits say: a chunk
costs its receiver far more time than its sender."""

_REQUEST, _RESPONSE = 2, 3  # RFC 9292 §3.3
_MAY_END = 0
"""What the grammar yields, instead of a number of bytes, where RFC 9292 §3.8 lets a message end."""


def encode_request_head(request: Request) -> bytes:
    """Everything of ``request`` before its content, which is to be written in chunks."""
    control = (request.method, request.scheme, request.authority, request.path)
    return encode_varint(_REQUEST) + b"".join(map(_text, control)) + _section(request.fields)


def encode_response_head(response: Response) -> bytes:
    """As :func:`encode_request_head`."""
    informational = [
        encode_varint(before.status) + _section(before.fields) for before in response.informational
    ]
    status = encode_varint(response.status)
    return encode_varint(_RESPONSE) + b"".join(informational) + status + _section(response.fields)


def content_chunks(parts: Sequence[Buffer], *, size: int) -> Iterator[list[Buffer]]:
    """The concatenation of ``parts`` as chunks of content, of ``size`` bytes and a last one of the rest.

    Each is a list whose concatenation is the chunk with its length; nothing is copied.
    """
    chunk: list[Buffer] = []
    room = size
    for part in parts:
        rest = memoryview(part)
        while rest:
            chunk.append(rest[:room])
            room -= len(chunk[-1])
            rest = rest[len(chunk[-1]) :]
            if not room:
                yield [encode_varint(size), *chunk]
                chunk, room = [], size
    if chunk:
        yield [encode_varint(size - room), *chunk]


def request_reader(limits: BhttpLimits = DEFAULT_LIMITS) -> StreamReader[Request]:
    """What reads one request of indeterminate length."""
    return StreamReader(_request_head(limits), limits)


def response_reader(limits: BhttpLimits = DEFAULT_LIMITS) -> StreamReader[Response]:
    """What reads one response of indeterminate length."""
    return StreamReader(_response_head(limits), limits)


class StreamReader(Generic[HeadT]):
    """Takes one message in pieces, cut anywhere. Mutable: how far the message has come.

    ``head`` is ``None`` until the header section is complete; ``ended`` says whether the content is.
    After an error it must not be used again.
    """

    def __init__(self, head: _Parse[HeadT], limits: BhttpLimits) -> None:
        """Use :func:`request_reader` or :func:`response_reader`."""
        self.head: HeadT | None = None
        self.ended = False
        self._limits = limits
        self._content_left = 0
        self._held = bytearray()
        self._may_end = False
        self._complete = False
        self._parser = self._message(head)
        self._wanted = next(self._parser)

    def feed(self, data: Buffer) -> list[memoryview]:
        """The content in ``data``, as read-only views of it, none of them empty. Raises BhttpError."""
        pieces = []
        rest = memoryview(data).toreadonly()
        while rest:
            if self._content_left:
                piece = rest[: self._content_left]
                self._content_left -= len(piece)
                rest = rest[len(piece) :]
                pieces.append(piece)
            elif self._complete:
                _check_padding(rest)
                break
            else:
                missing = self._wanted - len(self._held)
                self._held += rest[:missing]
                rest = rest[missing:]
                if len(self._held) == self._wanted:
                    taken = bytes(self._held)
                    self._held.clear()
                    self._advance(taken)
        return pieces

    def finish(self) -> None:
        """No more bytes come. Raises BhttpError where the message may not end (RFC 9292 §3.8): it may after
        the control data, and after each section that follows it.
        """
        if not self._complete and (self._held or self._content_left or not self._may_end):
            raise BhttpError("the message is truncated in the middle of a part of it (RFC 9292 §3.8)")
        while not self._complete:  # a section that is not there is an empty one
            self._advance(b"\0")

    def _advance(self, taken: bytes) -> None:
        self._may_end = False
        try:
            self._wanted = self._parser.send(taken)
            if self._wanted == _MAY_END:
                self._may_end = True
                self._wanted = self._parser.send(b"")
        except StopIteration:
            self._complete = True

    def _message(self, head: _Parse[HeadT]) -> _Parse[None]:
        found = yield from head
        if any(name == "content-length" for name, _ in found.fields):
            raise BhttpError("a message of indeterminate length announces a content-length")
        self.head = found
        yield _MAY_END
        chunks = content = 0
        while size := (yield from _varint()):
            chunks += 1
            if chunks > self._limits.max_chunks + content // SMALLEST_AVERAGE_CHUNK:
                raise BhttpError(
                    f"the content has more than {self._limits.max_chunks} chunks of less than "
                    f"{SMALLEST_AVERAGE_CHUNK} bytes on average"
                )
            content += size
            self._content_left = size
        self.ended = True
        yield _MAY_END
        trailers = yield from _fields(self._limits)
        replace(found, trailers=trailers)  # checks them


def _request_head(limits: BhttpLimits) -> _Parse[Request]:
    framing = yield from _varint()
    if framing != _REQUEST:
        raise BhttpError(f"the framing indicator of a request of indeterminate length is 2, not {framing}")
    limit = limits.max_control_bytes
    method = yield from _string("method", limit)
    scheme = yield from _string("scheme", limit)
    authority = yield from _string("authority", limit)
    path = yield from _string("path", limit)
    yield _MAY_END
    return Request(method, scheme, authority, path, (yield from _fields(limits)))


def _response_head(limits: BhttpLimits) -> _Parse[Response]:
    framing = yield from _varint()
    if framing != _RESPONSE:
        raise BhttpError(f"the framing indicator of a response of indeterminate length is 3, not {framing}")
    informational: list[InformationalResponse] = []
    while (status := (yield from _varint())) < 200:
        if len(informational) == limits.max_informational:
            raise BhttpError(f"more than {limits.max_informational} informational responses")
        informational.append(InformationalResponse(status, (yield from _fields(limits))))
    yield _MAY_END
    return Response(status, (yield from _fields(limits)), informational=tuple(informational))


def _fields(limits: BhttpLimits) -> _Parse[Fields]:
    """Field lines and a zero (RFC 9292 §3.2)."""
    left = limits.max_field_section_bytes
    lines: list[tuple[str, str]] = []
    while size := (yield from _varint()):
        if len(lines) == limits.max_fields:
            raise BhttpError(f"a field section has more than {limits.max_fields} field lines")
        if size > left:
            raise BhttpError(f"a field section has more than {limits.max_field_section_bytes} bytes")
        name = str((yield size), "latin-1")
        left -= size
        value = yield from _string("field value", left)
        left -= len(value)
        lines.append((name, value))
    return tuple(lines)


def _string(what: str, limit: int) -> _Parse[str]:
    size = yield from _varint()
    if size > limit:
        raise BhttpError(f"{what} has {size} bytes, the limit is {limit}")
    return str((yield size), "latin-1") if size else ""


def _varint() -> _Parse[int]:
    """A variable-length integer (RFC 9000 §16)."""
    first = (yield 1)[0]
    width = 1 << (first >> 6)
    if width == 1:
        return first
    return int.from_bytes(bytes((first & 0x3F,)) + (yield width - 1), "big")


def _check_padding(padding: memoryview) -> None:
    if bytes(padding).strip(b"\0"):
        raise BhttpError("bytes other than zero follow the message (RFC 9292 §3.8)")


def _section(fields: Fields) -> bytes:
    return b"".join([_text(name) + _text(value) for name, value in fields]) + b"\0"


def _text(text: str) -> bytes:
    return encode_varint(len(text)) + text.encode("latin-1")
