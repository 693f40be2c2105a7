"""The head of an HTTP/1.1 request: llhttp parses it, this module decides whether it is acceptable.

Strict on purpose: a proxy before us and this parser must never disagree about where a request ends (request
smuggling). llhttp in its default mode already refuses bare LF, obsolete line folding, blanks before the
colon, control characters, repeated or malformed Content-Length, and Content-Length beside Transfer-Encoding;
what it lets pass is checked here. A request whose transfer coding is chunked is the last one of its
connection, so that nothing behind it is ever parsed.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httptools

from confonnx.server.messages import Buffer

_TARGET = re.compile(rb"/[!-~]*")  # origin form, visible ASCII only (RFC 9112 §3.2.1)
_ABSOLUTE_FORM = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)  # RFC 9112 §3.2.2: servers must accept it
_LENGTH = re.compile(rb"[0-9]{1,18}")

HEAD_END = b"\r\n\r\n"
MAX_CHUNK_OVERHEAD = 65536
"""Bytes of chunk sizes, extensions and trailers that are tolerated beyond one byte for each byte of content.
"""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What a request head may be at most; all in bytes but ``max_fields``."""

    max_bytes: int = 16384
    max_target: int = 4096
    max_fields: int = 100


@dataclass(frozen=True, slots=True)
class Head:
    """An acceptable request head. ``length`` is the announced body length; 0 without a body or when
    ``chunked``.
    """

    method: str
    target: str
    fields: Mapping[str, str]
    length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool


@dataclass(frozen=True, slots=True)
class Rejection:
    """The status with which to refuse a request and close its connection."""

    status: int


class RequestParser:
    """Feeds llhttp for exactly one request: its head, and its body if that is chunked. Used once, then
    dropped.
    """

    def __init__(self, limits: HeadLimits) -> None:
        """``limits`` bound the head; the chunked body is bounded by :meth:`start_chunked`."""
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._size = 0
        self._tail = b""
        self._target: list[bytes] = []
        self._raw_fields: list[tuple[bytes, bytes]] = []
        self._head_complete = False
        self._keep_alive = False
        self._upgrade = False
        self._content: bytearray | None = None
        self._sink: deque[bytes] | None = None
        self.streamed = 0
        self._max_content = 0
        self._overfull = False
        self._complete = False

    def feed_head(self, data: bytes) -> tuple[Head | Rejection, bytes] | None:
        """Take bytes up to the end of the head. ``None``: more are needed; else the verdict and the bytes
        left over.
        """
        end = (self._tail + data).find(HEAD_END)
        used = data if end < 0 else data[: end + len(HEAD_END) - len(self._tail)]
        self._size += len(used)
        if not self._feed(used):
            return Rejection(400), b""
        if sum(map(len, self._target)) > self._limits.max_target:
            return Rejection(414), b""
        if self._size > self._limits.max_bytes:
            return Rejection(431), b""
        if end < 0:
            self._tail = (self._tail + data)[-len(HEAD_END) + 1 :]
            return None
        return self._judge(), data[len(used) :]

    def start_chunked(self, *, max_content: int) -> bytearray:
        """Prepare for a chunked body of at most ``max_content`` bytes; they arrive in the returned buffer."""
        self._content = bytearray()
        self._max_content = max_content
        self._size = 0
        return self._content

    def feed_chunked(self, data: bytes) -> Rejection | bool:
        """Take bytes of a chunked body: ``True`` once it is complete, ``False`` while not, or why it is
        refused.
        """
        assert self._content is not None, "start_chunked comes first"
        self._size += len(data)
        fed = self._feed(data)
        if self._overfull or self._size > 2 * len(self._content) + MAX_CHUNK_OVERHEAD:
            return Rejection(413)
        if self._complete:  # what follows the last chunk is never looked at: the connection ends here
            return True
        return False if fed else Rejection(400)

    def start_stream(self, sink: deque[bytes]) -> None:
        """Prepare for a chunked body that is handed on as it comes; its content goes into ``sink``."""
        self._sink = sink
        self._size = 0

    def feed_stream(self, data: Buffer) -> Rejection | bool:
        """As :meth:`feed_chunked`. The content may have any size; ``streamed`` is that of what came."""
        assert self._sink is not None, "start_stream comes first"
        self._size += len(data)
        fed = self._feed(data)
        if self._size > 2 * self.streamed + MAX_CHUNK_OVERHEAD:
            return Rejection(413)
        if self._complete:
            return True
        return False if fed else Rejection(400)

    def _feed(self, data: Buffer) -> bool:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade = True  # h2c, WebSocket, CONNECT: we go on in HTTP/1.1 (RFC 9110 §7.8)
        except httptools.HttpParserError:
            return False
        return True

    def _judge(self) -> Head | Rejection:
        """The checks that llhttp leaves to us."""
        version = self._parser.get_http_version()
        if not self._head_complete:
            return Rejection(400)
        if version not in ("1.1", "1.0"):
            return Rejection(505)
        if len(self._raw_fields) > self._limits.max_fields:
            return Rejection(431)
        fields = _join(self._raw_fields)
        target = b"".join(self._target)
        framing = self._framing(version)
        if isinstance(framing, Rejection):
            return framing
        length, chunked = framing
        expect = fields.get("expect")
        if expect is not None and expect.lower() != "100-continue":
            return Rejection(417)
        target = _ABSOLUTE_FORM.sub(b"", target, count=1) or b"/" if not target.startswith(b"/") else target
        if not _TARGET.fullmatch(target) and target != b"*":
            return Rejection(400)
        return Head(
            method=self._parser.get_method().decode("ascii"),
            target=target.decode("ascii"),
            fields=MappingProxyType(fields),
            length=length,
            chunked=chunked,
            keep_alive=self._keep_alive and version == "1.1" and not chunked,
            expects_continue=expect is not None and version == "1.1",
        )

    def _framing(self, version: str) -> tuple[int, bool] | Rejection:
        """Body length and whether it is chunked (RFC 9112 §6.3), refusing everything ambiguous."""
        lengths = [value for name, value in self._raw_fields if name == b"content-length"]
        codings = [value for name, value in self._raw_fields if name == b"transfer-encoding"]
        hosts = sum(name == b"host" for name, _ in self._raw_fields)
        if hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112 §3.2
            return Rejection(400)
        if codings:
            # RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0 is faulty framing; after an upgrade llhttp reads no
            # body.
            chunked = len(codings) == 1 and codings[0].lower() == b"chunked"
            return (
                (0, True)
                if chunked and not lengths and version == "1.1" and not self._upgrade
                else Rejection(400)
            )
        if not lengths:
            return 0, False
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            return Rejection(400)
        return int(lengths[0]), False

    # Callbacks of httptools.

    def on_url(self, part: bytes) -> None:
        """A piece of the request target."""
        self._target.append(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line; those after the head are trailers, which nothing here reads (RFC 9110 §6.5.1)."""
        if not self._head_complete:
            self._raw_fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The empty line after the fields."""
        self._head_complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        """Content of a chunk."""
        if self._complete:
            return
        if self._sink is not None:
            self.streamed += len(part)
            self._sink.append(part)
            return
        if self._content is None:
            return
        if len(self._content) + len(part) > self._max_content:
            self._overfull = True
        else:
            self._content += part

    def on_message_complete(self) -> None:
        """The last chunk and the trailers are through."""
        self._complete = self._content is not None or self._sink is not None


def _join(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("ascii"), value.strip(b" \t").decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields
