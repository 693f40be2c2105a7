"""Binary HTTP (RFC 9292): the request or response inside the seal.

:class:`Request` and :class:`Response` cannot hold a message that breaks the rules: building one checks them,
so the encoder and the parser share one set. Where the RFC leaves a choice, the stricter one is taken: field
names in upper case and pseudo-fields of extensions are refused, and so are a ``host`` that contradicts the
authority and a ``content-length`` that contradicts the body. Error texts hold names of our own, positions and
sizes, never the bytes of the message, which came out of a seal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from confonnx.errors import BhttpError
from confonnx.ohttp.reader import Buffer, Reader, encode_varint, only_zeros

MEDIA_TYPE = "message/bhttp"
"""RFC 9292 §7."""

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""Field lines in order: lower-case name, value. Bytes above ASCII stand for themselves (Latin-1)."""

_REQUEST_KNOWN, _RESPONSE_KNOWN, _REQUEST_INDETERMINATE, _RESPONSE_INDETERMINATE = range(4)  # RFC 9292 §3.3

# The grammar of each part, for fullmatch(). Loops in loops are possessive (``++``): they never go back.
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §9.1, a token
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*")  # RFC 3986 §3.1
# RFC 3986 §3.2, without user information (RFC 9113 §8.3.1)
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:\[\]]++|%[0-9A-Fa-f]{2})*+")
# RFC 3986 §3.3 and §3.4: path and query
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]++|%[0-9A-Fa-f]{2})*+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1, and lower case as in RFC 9113 §8.2.1
# RFC 9110 §5.5: no NUL, CR, LF or other control character, and no white space at the ends (RFC 9113 §8.2.1)
_VALUE = re.compile(r"(?![ \t])[\t -~\x80-\xff]*(?<![ \t])")
_DIGITS = re.compile(r"[0-9]{1,19}")

KEPT_REQUESTS = 4
"""Sizes of messages of which a :class:`RequestParser` keeps the beginning of the last one: as many shapes."""

_ALIGNMENT = 16
"""Bytes: where tensors lie in other multiples, onnxruntime sums them in another order (ADR 17)."""
_VARINT_SIZES = ((0, 1), (1, 2), (2, 4), (3, 8))
"""The two bits with which an integer begins, and how many bytes it has (RFC 9000 §16)."""
_KEPT_BEGINNING = 2048
"""Bytes of a beginning that a :class:`RequestParser` keeps, to know it again."""
_LARGE_CONTENT = 1 << 16
"""Bytes from which on a copy costs more than the search for a placement that spares it."""


@dataclass(frozen=True, slots=True)
class BhttpLimits:
    """What a parser accepts before it allocates. The body is bounded by the message that it is a view of."""

    max_control_bytes: int = 8192
    """Bytes of a method, scheme, authority or path."""
    max_field_section_bytes: int = 65536
    """Bytes of one header or trailer section."""
    max_fields: int = 256
    """Field lines of one section."""
    max_informational: int = 8
    """Informational responses before the final one."""
    max_chunks: int = 65536
    """Chunks of an indeterminate-length body."""


DEFAULT_LIMITS = BhttpLimits()


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A request. Building one that breaks RFC 9292 §3.4 or §3.6 raises :class:`BhttpError`."""

    method: str
    scheme: str
    authority: str
    """Host and port, or empty."""
    path: str
    """Path with query; ``*`` for ``OPTIONS``."""
    fields: Fields = ()
    body: Buffer = b""
    trailers: Fields = ()

    def __post_init__(self) -> None:
        _check_request_control(self.method, self.scheme, self.authority, self.path)
        _check_fields(self.fields)
        _check_fields(self.trailers)
        _check_host(self.authority, self.fields)
        _check_content_length(self.fields, len(self.body))

    def __repr__(self) -> str:
        return f"Request({len(self.fields)} fields, {len(self.body)} bytes)"  # never what was sealed

    def field(self, name: str) -> str | None:
        """The value of the header field ``name`` (lower case), several joined by ``, `` (RFC 9110 §5.2)."""
        return _field(self.fields, name)


@dataclass(frozen=True, slots=True, repr=False)
class RequestHead:
    """A request without its content. Building one that breaks the rules raises :class:`BhttpError`."""

    method: str
    scheme: str
    authority: str
    path: str
    fields: Fields = ()
    _values: dict[str, str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check_request_control(self.method, self.scheme, self.authority, self.path)
        _check_fields(self.fields)
        _check_host(self.authority, self.fields)
        values = {name: _field(self.fields, name) or "" for name, _ in self.fields}
        object.__setattr__(self, "_values", values)

    def __repr__(self) -> str:
        return f"RequestHead({len(self.fields)} fields)"  # never what was sealed

    def field(self, name: str) -> str | None:
        """The value of the header field ``name`` (lower case), several joined by ``, `` (RFC 9110 §5.2)."""
        return self._values.get(name)


@dataclass(frozen=True, slots=True, repr=False)
class InformationalResponse:
    """A response that comes before the final one: a status of 100 to 199, and header fields."""

    status: int
    fields: Fields = ()

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 199:
            raise BhttpError(f"the status of an informational response is 100..199, not {self.status}")
        _check_fields(self.fields)

    def __repr__(self) -> str:
        return f"InformationalResponse({self.status}, {len(self.fields)} fields)"


@dataclass(frozen=True, slots=True, repr=False)
class Response:
    """A response. Building one that breaks RFC 9292 §3.5 or §3.6 raises :class:`BhttpError`."""

    status: int
    """200 to 599."""
    fields: Fields = ()
    body: Buffer = b""
    trailers: Fields = ()
    informational: tuple[InformationalResponse, ...] = ()

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise BhttpError(f"the status of a final response is 200..599, not {self.status}")
        _check_fields(self.fields)
        _check_fields(self.trailers)
        if len(self.body):  # without one it may answer HEAD, with the length of GET (RFC 9110 §8.6)
            _check_content_length(self.fields, len(self.body))

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.fields)} fields, {len(self.body)} bytes)"

    def field(self, name: str) -> str | None:
        """The value of the header field ``name`` (lower case), several joined by ``, `` (RFC 9110 §5.2)."""
        return _field(self.fields, name)


def parse_request(data: Buffer, limits: BhttpLimits = DEFAULT_LIMITS) -> Request:
    """The request in ``data``, of known or indeterminate length, padded, truncated or neither.

    The body is a read-only view of ``data`` where it lies there in one piece. Raises :class:`BhttpError`.
    """
    reader = Reader(data, BhttpError)
    known, control = _parse_request_control(reader, limits)
    fields = _parse_header_section(reader, known=known, limits=limits)
    body, trailers = _parse_content(reader, known=known, limits=limits)
    return Request(*control, fields, body, trailers)


class RequestParser:
    """Parses the requests of one sender, which often begin with the same bytes. Mutable: the beginnings of
    the last few sizes of messages, and what they say; for one thread.

    The verdict on a beginning depends on its bytes and on nothing that follows, so the same bytes are not
    parsed twice.
    """

    __slots__ = ("_known", "_limits", "_sizes")

    def __init__(self, limits: BhttpLimits = DEFAULT_LIMITS, *, sizes: int = KEPT_REQUESTS) -> None:
        """Nothing is known yet. ``sizes`` of messages are told apart; with none, nothing is kept."""
        self._limits = limits
        self._sizes = sizes
        self._known: dict[int, _Beginning] = {}  # by the size of the whole message

    def parse(self, data: Buffer) -> tuple[RequestHead, Buffer]:
        """Head and content of the request in ``data``, as :func:`parse_request` has them, its errors
        included. While everything before the content repeats, the head is the same object.
        """
        view = memoryview(data).toreadonly()
        known = self._known.get(len(view))
        if known is not None:
            start, end = known.start, known.end
            if bytes(view[:start]) == known.octets and only_zeros(view[end:]):
                return known.head, view[start:end]
        return self._parse(view)

    def _parse(self, view: memoryview) -> tuple[RequestHead, Buffer]:
        reader = Reader(view, BhttpError)
        known, control = _parse_request_control(reader, self._limits)
        head = RequestHead(*control, _parse_header_section(reader, known=known, limits=self._limits))
        before_content = len(view) - reader.remaining
        body, trailers = _parse_content(reader, known=known, limits=self._limits)
        if trailers:
            _check_fields(trailers)
        if head.field("content-length") is not None:
            _check_content_length(head.fields, len(body))
        if self._sizes and known and len(body) and not trailers:
            start = before_content + (1 << (view[before_content] >> 6))  # behind the content's length
            self._keep(view, _Beginning(bytes(view[:start]), head, start, start + len(body)))
        return head, body

    def _keep(self, view: memoryview, beginning: _Beginning) -> None:
        if beginning.start > _KEPT_BEGINNING:
            return
        if len(self._known) >= self._sizes and len(view) not in self._known:
            del self._known[next(iter(self._known))]
        self._known[len(view)] = beginning


@dataclass(frozen=True, slots=True, repr=False)
class _Beginning:
    """What comes before the content of a message, and where that lies if the message is as long again."""

    octets: bytes
    head: RequestHead
    start: int
    end: int


def parse_response(data: Buffer, limits: BhttpLimits = DEFAULT_LIMITS) -> Response:
    """The response in ``data``; as :func:`parse_request`."""
    reader = Reader(data, BhttpError)
    framing = reader.varint("framing indicator")
    if framing not in (_RESPONSE_KNOWN, _RESPONSE_INDETERMINATE):
        raise BhttpError(f"the framing indicator of a response is 1 or 3, not {framing}")
    known = framing == _RESPONSE_KNOWN
    informational: list[InformationalResponse] = []
    while (status := reader.varint("status")) < 200:
        if len(informational) == limits.max_informational:
            raise BhttpError(f"more than {limits.max_informational} informational responses")
        informational.append(InformationalResponse(status, _parse_fields(reader, known=known, limits=limits)))
    fields = _parse_header_section(reader, known=known, limits=limits)
    body, trailers = _parse_content(reader, known=known, limits=limits)
    return Response(status, fields, body, trailers, tuple(informational))


def encode_request(
    request: Request, content: Sequence[Buffer] | None = None, *, offset: int | None = None
) -> list[Buffer]:
    """The request, of known length, as parts whose concatenation is the message. The body is not copied.

    ``content`` is the body in parts, for a request that was made without one. With an ``offset``, at which
    the message will lie in a larger one, a large body begins at a multiple of 16 bytes there, so that the
    receiver need not copy numbers to read them. Raises :class:`BhttpError` for a ``content-length`` that is
    not the size of ``content``, and ``ValueError`` for two bodies.
    """
    parts = _body_parts(request.body, request.fields, content)
    control = [
        text.encode("latin-1") for text in (request.method, request.scheme, request.authority, request.path)
    ]
    values = [_REQUEST_KNOWN, *map(len, control)]
    return _encode_message(values, [b"", *control], request.fields, parts, request.trailers, offset)


def encode_response(
    response: Response, content: Sequence[Buffer] | None = None, *, offset: int | None = None
) -> list[Buffer]:
    """The response, of known length; as :func:`encode_request`."""
    parts = _body_parts(response.body, response.fields, content)
    before = b"".join(
        encode_varint(informational.status) + _encode_fields(informational.fields)
        for informational in response.informational
    )
    values = [_RESPONSE_KNOWN, response.status]
    return _encode_message(values, [before, b""], response.fields, parts, response.trailers, offset)


def _parse_request_control(reader: Reader, limits: BhttpLimits) -> tuple[bool, tuple[str, str, str, str]]:
    """Whether lengths are known, and method, scheme, authority, path (RFC 9292 §3.3, §3.4)."""
    framing = reader.varint("framing indicator")
    if framing not in (_REQUEST_KNOWN, _REQUEST_INDETERMINATE):
        raise BhttpError(f"the framing indicator of a request is 0 or 2, not {framing}")
    limit = limits.max_control_bytes
    method = reader.text("method", limit)
    scheme = reader.text("scheme", limit)
    authority = reader.text("authority", limit)
    return framing == _REQUEST_KNOWN, (method, scheme, authority, reader.text("path", limit))


def _parse_header_section(reader: Reader, *, known: bool, limits: BhttpLimits) -> Fields:
    """It may be cut off with all that follows (RFC 9292 §3.8)."""
    return _parse_fields(reader, known=known, limits=limits) if reader.remaining else ()


def _parse_content(reader: Reader, *, known: bool, limits: BhttpLimits) -> tuple[Buffer, Fields]:
    """Content, trailer section, padding. Each may be cut off with all that follows (RFC 9292 §3.8)."""
    body: Buffer = b""
    if reader.remaining:
        body = (
            reader.take(reader.varint("content length"), "content")
            if known
            else _parse_chunks(reader, limits)
        )
    if reader.only_zeros():  # no trailers, in either form, and padding: nearly always
        return body, ()
    trailers = _parse_fields(reader, known=known, limits=limits)
    if not reader.only_zeros():
        raise BhttpError("bytes other than zero follow the message (RFC 9292 §3.8)")
    return body, trailers


def _parse_fields(reader: Reader, *, known: bool, limits: BhttpLimits) -> Fields:
    """A field section: its length and its lines, or its lines and a zero (RFC 9292 §3.1, §3.2)."""
    limit = limits.max_field_section_bytes
    lines: list[tuple[str, str]] = []
    if known:
        size = reader.varint("length of a field section")
        if size > limit:
            raise BhttpError(f"a field section has {size} bytes, the limit is {limit}")
        section = Reader(reader.take(size, "field section"), BhttpError)
        while section.remaining:
            _check_count(lines, limits)
            lines.append((section.text("field name", limit), section.text("field value", limit)))
        return tuple(lines)
    start = reader.remaining
    while name_size := reader.varint("length of a field name or end of the field section"):
        _check_count(lines, limits)
        if start - reader.remaining + name_size > limit:
            raise BhttpError(f"a field section has more than {limit} bytes")
        name = str(reader.take(name_size, "field name"), "latin-1")
        lines.append((name, reader.text("field value", limit - (start - reader.remaining))))
    return tuple(lines)


def _check_count(lines: list[tuple[str, str]], limits: BhttpLimits) -> None:
    if len(lines) == limits.max_fields:
        raise BhttpError(f"a field section has more than {limits.max_fields} field lines")


def _parse_chunks(reader: Reader, limits: BhttpLimits) -> Buffer:
    """Indeterminate-length content: chunks up to a length of zero (RFC 9292 §3.2). One chunk stays a view."""
    chunks: list[memoryview] = []
    while size := reader.varint("length of a chunk or end of the content"):
        if len(chunks) == limits.max_chunks:
            raise BhttpError(f"the content has more than {limits.max_chunks} chunks")
        chunks.append(reader.take(size, "chunk"))
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_request_control(method: str, scheme: str, authority: str, path: str) -> None:
    """RFC 9113 §8.3.1."""
    if not _METHOD.fullmatch(method):
        raise BhttpError("the method is not a token (RFC 9110 §9.1)")
    if method == "CONNECT":
        raise BhttpError("the method is CONNECT, but a sealed message cannot open a tunnel (RFC 9110 §9.3.6)")
    if not _SCHEME.fullmatch(scheme):
        raise BhttpError("the scheme is not one (RFC 3986 §3.1)")
    if not _AUTHORITY.fullmatch(authority):
        raise BhttpError("the authority is not host and port (RFC 9113 §8.3.1)")
    if not _PATH.fullmatch(path) and (method, path) != ("OPTIONS", "*"):
        raise BhttpError(
            "the path does not start with '/' or has characters that a URI has not (RFC 9113 §8.3.1)"
        )


def _check_fields(fields: Fields) -> None:
    for position, (name, value) in enumerate(fields):
        if not _NAME.fullmatch(name):
            raise BhttpError(f"the name of field {position} is not a lower-case token (RFC 9113 §8.2.1)")
        # The usual value, printable ASCII, is known by three scans that cost less than the expression.
        usual = value.isascii() and value.isprintable() and value.strip() == value
        if not usual and not _VALUE.fullmatch(value):
            raise BhttpError(
                f"the value of field {position} has control characters, white space at an end or characters "
                "beyond Latin-1 (RFC 9110 §5.5, RFC 9113 §8.2.1)"
            )


def _check_host(authority: str, fields: Fields) -> None:
    """One ``host`` at most, and the same as the authority where both are there (RFC 9113 §8.3.1)."""
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) > 1:
        raise BhttpError(f"the request has {len(hosts)} host fields, one is the most (RFC 9110 §7.2)")
    if hosts and authority and hosts[0].lower() != authority.lower():
        raise BhttpError("the host field differs from the authority (RFC 9113 §8.3.1)")


def _check_content_length(fields: Fields, size: int) -> None:
    """Each ``content-length`` is the size of the body (RFC 9113 §8.1.1)."""
    for name, value in fields:
        if name == "content-length" and (not _DIGITS.fullmatch(value) or int(value) != size):
            raise BhttpError(f"content-length is not the size of the body, which has {size} bytes")


def _field(fields: Fields, name: str) -> str | None:
    values = [value for key, value in fields if key == name]
    return ", ".join(values) if values else None


def _body_parts(body: Buffer, fields: Fields, content: Sequence[Buffer] | None) -> Sequence[Buffer]:
    if content is None:
        return (body,)
    if len(body):
        raise ValueError("the message has a body, and content was given as well")
    _check_content_length(fields, sum(map(len, content)))
    return content


def _encode_message(
    values: Sequence[int],
    texts: Sequence[bytes],
    fields: Fields,
    content: Sequence[Buffer],
    trailers: Fields,
    offset: int | None,
) -> list[Buffer]:
    """Integers ``values``, each with one of ``texts`` behind it; header section, content, trailers."""
    section = _encode_lines(fields)
    size = sum(map(len, content))
    numbers = (*values, len(section), size)
    following = (*texts, section, b"")
    integers: Sequence[bytes] = tuple(map(encode_varint, numbers))
    if offset is not None and size >= _LARGE_CONTENT:
        end = offset + sum(map(len, integers)) + sum(map(len, following))
        integers = _aligning(-end % _ALIGNMENT, numbers)
    start = b"".join([part for pair in zip(integers, following, strict=True) for part in pair])
    tail = _encode_fields(trailers)
    return [start, *content, tail] if size else [start + tail]


@lru_cache(maxsize=64)  # a sender's messages are much alike
def _aligning(extra: int, values: Sequence[int]) -> Sequence[bytes]:
    """Encodings of ``values`` that are together ``extra`` bytes longer than the shortest, or more by a
    multiple of the alignment; the shortest where there are none. RFC 9292 §3 lets a sender choose the length
    of an integer.
    """
    found: dict[int, tuple[bytes, ...]] = {0: ()}  # by how many bytes longer
    for value in values:
        short = len(encode_varint(value))
        longer = [
            (size - short, (value | bits << 8 * size - 2).to_bytes(size, "big"))
            for bits, size in _VARINT_SIZES
            if size >= short
        ]
        found = {more + by: (*before, encoding) for more, before in found.items() for by, encoding in longer}
    fitting = [more for more in found if (more - extra) % _ALIGNMENT == 0]
    return found[min(fitting, default=0)]


def _encode_fields(fields: Fields) -> bytes:
    section = _encode_lines(fields)
    return encode_varint(len(section)) + section


def _encode_lines(fields: Fields) -> bytes:
    return b"".join([_encode_text(name) + _encode_text(value) for name, value in fields])


def _encode_text(text: str) -> bytes:
    return encode_varint(len(text)) + text.encode("latin-1")
