"""One HTTP/1.1 connection: a state machine driven by the event loop.

Strategy. A connection is in one state at a time and serves one request at a time; what a client pipelines
behind it waits in a small buffer, then in the kernel. A body of announced length is received by the kernel
straight into the one buffer that the handler gets. No timer is armed per request: a connection notes when its
state began, and its server asks it, a few times a second at most, whether its peer is too slow.

Every limit is enforced before the memory is spent, and every error of this layer is an empty-handed problem
document: what a client sent never comes back in one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol, cast

from .cohort import Cohort, Work
from .head import Head, HeadLimits, Rejection, RequestParser
from .http_stream import Budget, StreamedExchange, StreamHandler, StreamTimes
from .messages import Handler, HttpRequest, HttpResponse, problem

_READ_BUFFER = 16384
_WRITE_HIGH_WATER = 65536
_JOINED_WRITE = 16384
"""Bytes of a body that is copied behind its head, because one small write is cheaper than two."""
_KEPT_HEAD = 2048
"""Bytes of a head that a connection keeps, to know it again."""
_CLOSE = "connection: close\r\n\r\n"
_KEEP = "\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of the HTTP front: sizes in bytes, times in seconds.

    ``max_body`` bounds one body, ``max_buffered`` all bodies in memory together. ``header_timeout`` runs from
    the connect and from the first byte of each later request; ``idle_timeout`` between requests.
    ``transfer_grace`` and ``min_rate`` (bytes a second) bound slow bodies and slow readers: after ``t``
    seconds at least ``(t - transfer_grace) * min_rate`` bytes must have moved.
    """

    max_connections: int = 1000
    head: HeadLimits = field(default_factory=HeadLimits)
    max_body: int = 128 << 20
    max_buffered: int = 512 << 20
    header_timeout: float = 10.0
    idle_timeout: float = 75.0
    transfer_grace: float = 20.0
    min_rate: int = 65536
    linger: float = 1.0


class _State(Enum):
    HEAD = auto()  # waiting for a request, or in the middle of its head
    BODY = auto()  # receiving a body of announced length
    CHUNKED = auto()
    STREAM = auto()  # body and answer flow: http_stream
    BUSY = auto()  # the handler works
    WRITING = auto()  # the response waits for a slow reader
    LINGER = auto()  # answered and shut for writing; what still comes is dropped (RFC 9112 §9.6)
    CLOSED = auto()


class Server(Protocol):
    """What a connection needs of its server. ``buffered`` bytes are held by all connections together."""

    handler: Handler
    cohort: Cohort
    streams: StreamHandler | None
    limits: HttpLimits
    draining: bool
    buffered: int

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for ``connection``, which is counted then."""

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""

    def stream_buffer(self) -> bytearray:
        """What streams read into."""

    def date(self) -> str:
        """The Date field's value."""


class Connection(asyncio.BufferedProtocol):
    """One client connection; a state machine driven by the event loop. Mutable throughout."""

    def __init__(self, server: Server) -> None:
        """One of ``server``'s."""
        self._server = server
        self._limits = server.limits
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._transport: asyncio.Transport
        self._state = _State.HEAD
        self._since = self._clock()  # when the state, or the wait for the next request, began
        self._read_buffer = bytearray(_READ_BUFFER)
        self._pipelined = b""
        self._served = 0
        self._parser: RequestParser | None = None
        self._head: Head | None = None
        self._kept: tuple[bytes, Head] | None = None
        self._sent: tuple[tuple[object, ...], bytes] = ((), b"")  # the last answer's head, and what made it
        self._body = bytearray()
        self._exchange: StreamedExchange | None = None
        self._received = 0
        self._reserved = 0
        self._method = ""
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._close_after = False
        self._half_closed = False
        self._reading = True
        self._write_blocked = False
        self._written = 0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass of it
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        if not self._server.admit(self):
            self._write(problem(503, fields={"retry-after": "1"}), method="GET", close=True)
            self._state = _State.CLOSED
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.CLOSED
        self._server.forget(self)
        self._release()
        if self._work is not None:
            self._work.cancel()
        if self._task is not None:
            self._task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._state is _State.BODY:
            return memoryview(self._body)[self._received :]
        return memoryview(self._read_buffer)

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is _State.HEAD:
            self._take_head(bytes(memoryview(self._read_buffer)[:nbytes]))
        elif self._state is _State.BODY:
            self._received += nbytes
            if self._received == len(self._body):
                self._dispatch()
        elif self._state is _State.STREAM:
            if self._exchange is not None and not self._exchange.feed(memoryview(self._read_buffer)[:nbytes]):
                self._transport.abort()
        else:
            self._take(bytes(memoryview(self._read_buffer)[:nbytes]))

    def eof_received(self) -> bool:
        self._half_closed = True
        # A client may shut its sending side and wait for the answer; a request cut off in the middle is void.
        if self._exchange is not None and self._state is _State.STREAM:
            return self._exchange.complete
        return self._state in (_State.BUSY, _State.WRITING)

    def pause_writing(self) -> None:
        self._write_blocked = True
        if self._exchange is not None:
            self._exchange.pause_writing()

    def resume_writing(self) -> None:
        self._write_blocked = False
        if self._exchange is not None:
            self._exchange.resume_writing()
        if self._state is _State.WRITING:
            self._finish()

    # Called by the server.

    def check_time(self, now: float) -> None:
        """Refuse or cut a peer that is too slow for the state in which it is."""
        elapsed = now - self._since
        if self._state is _State.HEAD:
            started = self._parser is not None
            if started and elapsed > self._limits.header_timeout:
                self._reject(408)
            elif not started and elapsed > (
                self._limits.idle_timeout if self._served else self._limits.header_timeout
            ):
                self._transport.close()
        elif self._state in (_State.BODY, _State.CHUNKED):
            if self._too_slow(elapsed, self._received):
                self._reject(408)
        elif self._state is _State.STREAM:
            if self._exchange is not None and not self._exchange.check_time(now):
                self._transport.abort()
        elif self._state is _State.WRITING:
            if self._too_slow(elapsed, self._written - self._transport.get_write_buffer_size()):
                self._transport.abort()
        elif self._state is _State.LINGER:
            unsent = self._transport.get_write_buffer_size()
            if self._too_slow(elapsed, self._written - unsent) if unsent else elapsed > self._limits.linger:
                self._transport.abort()

    def close_if_idle(self) -> None:
        """While draining: end a connection that is not in the middle of a request."""
        if self._state is _State.HEAD and self._parser is None:
            self._transport.close()
        elif self._state is _State.STREAM and self._exchange is not None:
            self._exchange.drain()

    def abort(self) -> None:
        """Cut the connection now."""
        self._transport.abort()

    # Receiving.

    def _take(self, data: bytes) -> None:
        if self._state is _State.CHUNKED:
            self._received += len(data)
            self._take_chunked(data)
        elif self._state in (_State.BUSY, _State.WRITING):
            self._pipelined += data
            if len(self._pipelined) >= _READ_BUFFER and self._reading:
                self._reading = False
                self._transport.pause_reading()

    def _take_head(self, data: bytes) -> None:
        first = self._parser is None
        if self._parser is None:
            if self._served:  # the first request's time runs from the connect
                self._since = self._clock()
            if self._kept is not None and data.startswith(self._kept[0]):
                # A client sends one head again and again. The verdict on it depends on nothing else.
                self._accept(self._kept[1], data[len(self._kept[0]) :])
                return
            self._parser = RequestParser(self._limits.head)
        verdict = self._parser.feed_head(data)
        if verdict is None:
            return
        head, rest = verdict
        if isinstance(head, Rejection):
            self._reject(head.status)
            return
        size = len(data) - len(rest)
        self._begin(head, rest, data[:size] if first and size <= _KEPT_HEAD else None)

    def _begin(self, head: Head, rest: bytes, octets: bytes | None) -> None:
        """A head is complete: decide about its body. ``octets`` are the whole head, where it may be kept."""
        self._head = head
        self._close_after = not head.keep_alive
        if not head.length and not head.chunked:
            self._pipelined = rest
            self._dispatch()
        elif not self._server.handler.wants_body(head.method, head.target.partition("?")[0]):
            self._close_after = True  # the body stays unread, so nothing can follow it
            self._dispatch()
        elif head.fields.get("content-encoding", "identity").lower() != "identity":
            self._reject(415)
        elif head.chunked and self._wants_stream(head):
            self._start_stream(head, rest)
        elif head.length > self._limits.max_body:
            self._reject(413)
        else:
            if octets is not None and not head.chunked:
                self._kept = octets, head
            self._accept(head, rest)

    def _accept(self, head: Head, rest: bytes) -> None:
        """There is nothing against the body, where there is room for it."""
        self._head = head
        self._close_after = not head.keep_alive
        if self._reserve(head.length):
            self._receive(head, rest)
        else:
            self._reject(503)

    def _receive(self, head: Head, rest: bytes) -> None:
        if head.expects_continue and not rest:
            self._transport.write(_CONTINUE)
        if head.chunked:
            assert self._parser is not None
            self._since = self._clock()
            self._state = _State.CHUNKED
            self._received = len(rest)
            self._body = self._parser.start_chunked(max_content=self._limits.max_body)
            if rest:
                self._take_chunked(rest)
            return
        if len(rest) >= head.length:
            self._body, self._pipelined = bytearray(rest[: head.length]), rest[head.length :]
            self._dispatch()
        else:
            self._since = self._clock()
            self._body = bytearray(head.length)
            self._body[: len(rest)] = rest
            self._received = len(rest)
            self._state = _State.BODY

    def _take_chunked(self, data: bytes) -> None:
        assert self._parser is not None
        outcome = self._parser.feed_chunked(data)
        if isinstance(outcome, Rejection):
            self._reject(outcome.status)
        elif not self._reserve(len(self._body) - self._reserved):
            self._reject(503)
        elif outcome:
            self._dispatch()

    def _dispatch(self) -> None:
        head, body = self._head, self._body
        assert head is not None
        self._state = _State.BUSY
        self._parser = self._head = None
        self._body = bytearray()
        self._method = head.method
        request = HttpRequest(head.method, head.target, head.fields, body)
        self._work = Work(self._server.handler.handle(request), self._answered, size=len(body))
        self._server.cohort.add(self._work)

    def _answered(self, response: HttpResponse | None) -> None:
        """The handler is done. One that breaks its promise, and raises, costs the connection."""
        self._work = None
        if response is None:
            self._transport.abort()
        elif self._state is _State.BUSY:
            self._respond(response, self._method)

    def _wants_stream(self, head: Head) -> bool:
        media_type = head.fields.get("content-type", "").partition(";")[0].strip().lower()
        streams = self._server.streams
        return streams is not None and streams.wants_stream(
            head.method, head.target.partition("?")[0], media_type
        )

    def _start_stream(self, head: Head, rest: bytes) -> None:
        assert self._parser is not None  # a chunked head is never a kept one
        if head.expects_continue and not rest:
            self._transport.write(_CONTINUE)
        limits = self._limits
        exchange = self._exchange = StreamedExchange(
            self._transport,
            self._parser,
            StreamTimes(limits.idle_timeout, limits.transfer_grace, limits.min_rate),
            Budget(self._reserve, self._give_back),
            self._server.date,
        )
        self._parser = self._head = None
        self._state = _State.STREAM
        self._read_buffer = self._server.stream_buffer()
        if rest and not exchange.feed(rest):
            self._transport.abort()
            return
        request = HttpRequest(head.method, head.target, head.fields, bytearray())
        self._task = asyncio.get_running_loop().create_task(self._stream(request, exchange))

    async def _stream(self, request: HttpRequest, exchange: StreamedExchange) -> None:
        """Let the handler answer a stream. What it leaves without an end is cut."""
        assert self._server.streams is not None  # it wanted the request
        response: HttpResponse | None = None
        try:
            response = await self._server.streams.stream(request, exchange)
        finally:
            self._task = None
            if response is None and not exchange.ended:
                self._transport.abort()
        if self._state is not _State.STREAM:
            return
        self._exchange = None
        self._close_after = True
        self._reading = exchange.reading
        if response is not None:
            self._respond(response, request.method)
        elif not self._transport.is_closing():
            self._written = self._transport.get_write_buffer_size()
            self._finish()

    def _reserve(self, size: int) -> bool:
        if self._server.buffered + size > self._limits.max_buffered:
            return False
        self._server.buffered += size
        self._reserved += size
        return True

    def _give_back(self, size: int) -> None:
        self._server.buffered -= size
        self._reserved -= size

    def _release(self) -> None:
        self._server.buffered -= self._reserved
        self._reserved = 0

    # Sending.

    def _reject(self, status: int) -> None:
        fields = {"retry-after": "1"} if status == 503 else {}
        self._close_after = True
        self._respond(problem(status, fields=fields), "GET")

    def _respond(self, response: HttpResponse, method: str) -> None:
        self._close_after = self._close_after or self._server.draining or self._half_closed
        self._write(response, method=method, close=self._close_after)
        if self._write_blocked:
            self._since = self._clock()
            self._state = _State.WRITING
        else:
            self._finish()

    def _write(self, response: HttpResponse, *, method: str, close: bool) -> None:
        length = sum(map(len, response.body))
        head = self._head_of(response, length, close=close)
        parts = (head, *(() if method == "HEAD" else response.body))
        self._written = len(head) + (0 if method == "HEAD" else length)
        if length <= _JOINED_WRITE:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

    def _head_of(self, response: HttpResponse, length: int, *, close: bool) -> bytes:
        """The head of an answer; the last one's, where it is the same."""
        key = (response.status, response.fields, length, close, self._server.date())
        if key != self._sent[0]:
            status, fields, _, _, date = key
            lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}content-length: {length}\r\n"
                f"date: {date}\r\n{_CLOSE if close else _KEEP}"
            )
            self._sent = key, head.encode("latin-1")
        return self._sent[1]

    def _finish(self) -> None:
        """The response is out, or in the last buffer: go on to the next request, or end the connection."""
        self._release()
        self._served += 1
        self._since = self._clock()
        self._body = bytearray()
        self._parser = None
        if self._transport.is_closing():
            return
        if self._close_after:
            self._linger()
            return
        self._state = _State.HEAD
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._pipelined:
            data, self._pipelined = self._pipelined, b""
            self._take_head(data)

    def _linger(self) -> None:
        """Close so that a client that still sends gets to read our answer before a reset (RFC 9112 §9.6)."""
        self._state = _State.LINGER
        self._pipelined = b""
        if self._half_closed:
            self._transport.close()
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        self._transport.write_eof()

    def _too_slow(self, elapsed: float, moved: int) -> bool:
        return moved < (elapsed - self._limits.transfer_grace) * self._limits.min_rate
