"""Requests whose body comes while their answer goes: the state of a connection that carries one.

Strategy. Pieces of the body wait in a queue; when it holds more than a few, reading from the socket pauses,
so a handler that is behind holds up its own client and no memory. Writing waits while the socket is full.
As everywhere in the front no timer is armed: the sweeper asks whether the peer is too slow for what is going
on, by the same limits as for other requests; between two messages a client may be idle for as long as between
two requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from confonnx.errors import TransportError
from confonnx.server.head import RequestParser
from confonnx.server.messages import Buffer, HttpRequest, HttpResponse

READ_BUFFER = 1 << 18
"""Bytes that are read from a socket at once; what comes is copied out in the same step, so all share them."""

_QUEUE_HIGH = 1 << 17  # bytes of the body that may wait for the handler before reading pauses
_JOINED_WRITE = 16384
_STATUS = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
_END = b"0\r\n\r\n"


class IdleError(TransportError):
    """The client may be idle no longer, or the server drains."""


class Exchange(Protocol):
    """What a handler sees of one request with a flowing body. For use by one task."""

    @property
    def draining(self) -> bool:
        """Whether the server wants to end: what is begun should be finished, and nothing new begun."""

    async def read(self, *, idle: bool) -> bytes | None:
        """The next piece of the body, ``None`` at its end. ``idle``: the client may take its time, as between
        two requests; then IdleError says when that is over.
        """

    def begin(self, fields: Mapping[str, str]) -> None:
        """Begin an answer with status 200 and these fields."""

    async def write(self, data: Buffer) -> None:
        """Send a piece of the answer, none of them empty; waits while the client does not read."""

    def end(self) -> None:
        """The answer is complete. An answer without it is cut off, so that the client can tell."""

    def reserve(self, size: int) -> bool:
        """Take ``size`` bytes of what all requests together may hold; ``False`` where there is no room."""

    def release(self, size: int) -> None:
        """Give back."""


class StreamHandler(Protocol):
    """What the socket side needs of an application that takes streams."""

    def wants_stream(self, method: str, path: str, media_type: str) -> bool:
        """Whether :meth:`stream` answers such a request."""

    async def stream(self, request: HttpRequest, exchange: Exchange) -> HttpResponse | None:
        """Answer ``request``, whose body is empty here: by ``exchange``, and give ``None``; or by a response,
        where the exchange was not begun. Raises nothing but ``asyncio.CancelledError``.
        """


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """Seconds, and bytes a second, as in ``HttpLimits``."""

    idle_timeout: float
    transfer_grace: float
    min_rate: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The connection's share of the memory that all requests may hold."""

    reserve: Callable[[int], bool]
    release: Callable[[int], None]


class StreamedExchange:
    """An :class:`Exchange` on a connection. Mutable throughout; the event loop's thread alone uses it."""

    def __init__(
        self,
        transport: asyncio.Transport,
        parser: RequestParser,
        times: StreamTimes,
        budget: Budget,
        date: Callable[[], str],
    ) -> None:
        """``parser`` has read the head; ``date`` gives the field's value."""
        loop = asyncio.get_running_loop()
        self._clock: Callable[[], float] = loop.time
        self._future: Callable[[], asyncio.Future[None]] = loop.create_future
        self._call_soon = loop.call_soon
        self._transport = transport
        self._times = times
        self._budget = budget
        self._date = date
        self._pieces: deque[bytes] = deque()
        self._parser = parser
        parser.start_stream(self._pieces)
        self._queued = 0  # bytes of the body that wait
        self._taken = 0  # … and that came
        self._complete = False
        self.reading = True
        self._reader: asyncio.Future[None] | None = None
        self._idle = False
        self._read_since = self._clock()  # when the message began that is being read
        self._read_bytes = 0
        self._writer: asyncio.Future[None] | None = None
        self._held: list[Buffer] = []  # of the answer, until the event loop's next turn
        self._held_bytes = 0
        self._write_since = 0.0
        self._unsent = 0
        self.ended = False
        self.draining = False

    # For the connection.

    def feed(self, data: Buffer) -> bool:
        """Take bytes of the body, copied; ``False`` where it is malformed."""
        outcome = self._parser.feed_stream(data)
        if not isinstance(outcome, bool):
            return False
        self._complete = outcome
        size = self._parser.streamed - self._taken
        self._taken += size
        self._queued += size
        self._read_bytes += size
        if self._queued > _QUEUE_HIGH and self.reading:
            self.reading = False
            self._transport.pause_reading()
        self._wake(self._reader)
        return True

    @property
    def complete(self) -> bool:
        """Whether the end of the body has come."""
        return self._complete

    def resume_writing(self) -> None:
        """The socket takes more."""
        writer, self._writer = self._writer, None
        self._wake(writer)

    def pause_writing(self) -> None:
        """The socket is full."""
        self._writer = self._future()
        self._write_since = self._clock()
        self._unsent = self._transport.get_write_buffer_size()

    def check_time(self, now: float) -> bool:
        """Whether the peer keeps up; wakes a handler that has waited long enough for an idle one."""
        if self._writer is not None:
            moved = self._unsent - self._transport.get_write_buffer_size()
            return not self._too_slow(now - self._write_since, moved)
        if self._reader is None:
            return True
        if not self._idle:
            return not self._too_slow(now - self._read_since, self._read_bytes)
        if now - self._read_since > self._times.idle_timeout:
            self._interrupt()
        return True

    def drain(self) -> None:
        """The server wants to end."""
        self.draining = True
        if self._idle:
            self._interrupt()

    # For the handler: see `Exchange`.

    async def read(self, *, idle: bool) -> bytes | None:
        """See :class:`Exchange`."""
        if idle or idle is not self._idle:
            self._read_since, self._read_bytes = self._clock(), self._queued
        self._idle = idle
        while not self._pieces:
            if self._complete:
                return None
            if idle and self.draining:
                raise IdleError
            self._reader = self._future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        self._queued -= len(piece)
        if not self.reading and self._queued <= _QUEUE_HIGH:
            self.reading = True
            self._transport.resume_reading()
        return piece

    def begin(self, fields: Mapping[str, str]) -> None:
        """See :class:`Exchange`."""
        lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
        head = f"{_STATUS}{''.join(lines)}date: {self._date()}\r\n\r\n"
        self._hold(head.encode("latin-1"))

    async def write(self, data: Buffer) -> None:
        """See :class:`Exchange`. Small pieces of one turn of the event loop go out together, since a small
        answer costs less than a system call.
        """
        self._hold(b"%x\r\n" % len(data), data, b"\r\n")
        if self._held_bytes > _JOINED_WRITE:
            self._flush()
            await asyncio.sleep(0)  # a large answer is many pieces, and there are other clients
        if self._writer is not None:
            await self._writer

    def end(self) -> None:
        """See :class:`Exchange`."""
        self.ended = True
        self._hold(_END)
        self._flush()

    def _hold(self, *parts: Buffer) -> None:
        if not self._held:
            self._call_soon(self._flush)
        self._held += parts
        self._held_bytes += sum(map(len, parts))

    def _flush(self) -> None:
        held, self._held = self._held, []
        size, self._held_bytes = self._held_bytes, 0
        if not held or self._transport.is_closing():
            return
        if size > _JOINED_WRITE:
            self._transport.writelines(held)
        else:
            self._transport.write(b"".join(held))

    def reserve(self, size: int) -> bool:
        """See :class:`Exchange`."""
        return self._budget.reserve(size)

    def release(self, size: int) -> None:
        """See :class:`Exchange`."""
        self._budget.release(size)

    def _interrupt(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(IdleError())

    def _too_slow(self, elapsed: float, moved: int) -> bool:
        return moved < (elapsed - self._times.transfer_grace) * self._times.min_rate

    @staticmethod
    def _wake(waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
