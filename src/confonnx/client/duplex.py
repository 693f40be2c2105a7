"""One request whose body and whose answer flow at the same time: what streams go over.

Nothing is sent twice, so an exchange that breaks is the caller's to begin anew. An answer may come before the
request ended: `Duplex.answered` is then true, and what is still sent is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from time import monotonic
from typing import Protocol

from confonnx.client.exchange import (
    AnswerReader,
    HttpRequest,
    HttpResponse,
    media_type,
    refuse_compression,
)
from confonnx.client.outgoing import told
from confonnx.errors import TooLargeError
from confonnx.http import blocking, tasks
from confonnx.http.message import LAST_CHUNK, Answer, Head, Inlet, Outgoing, Sink, chunk
from confonnx.ohttp.hpke import Buffer


class Duplex(Protocol):
    """One exchange, for one thread at a time. Each method ends within the time-out that it was opened
    with."""

    @property
    def answered(self) -> bool:
        """Whether the answer is complete, or is none of those wanted: the server reads no more of the
        request."""
        ...

    @property
    def refusal(self) -> HttpResponse | None:
        """The whole answer, if its status is not 200 or its media type not the accepted one; for
        `check_answer`. None before `receive` gave None."""
        ...

    def send(self, data: Buffer) -> None:
        """Sends a piece of the request's body, and reads meanwhile what comes, so that neither side waits for
        the other. Empty pieces are no pieces. Raises TransportError and what `receive` raises.
        """
        ...

    def finish(self) -> None:
        """Ends the request's body. Raises as `send` does."""
        ...

    def receive(self) -> bytes | None:
        """The next piece of the answer's body, as it came. None: it ended properly, or there is a `refusal`.

        Raises TransportError where it breaks off or nothing comes in time, NotConfonnxError for a compressed
        answer, TooLargeError for a refusal that is too long, and where ``max_response_bytes`` of the request
        came that were not yet received.
        """
        ...

    def is_ready(self) -> bool:
        """Whether `receive` has something to tell without waiting: a piece, the end or an error. Raises as
        `receive` does.
        """
        ...

    def close(self) -> None:
        """Ends the exchange, at any time, also twice. Its connection is kept only if both bodies ended."""
        ...


class AsyncDuplex(Protocol):
    """`Duplex` for asyncio. One task may send while another receives."""

    @property
    def answered(self) -> bool:
        """See `Duplex.answered`."""
        ...

    @property
    def refusal(self) -> HttpResponse | None:
        """See `Duplex.refusal`."""
        ...

    async def send(self, data: Buffer) -> None:
        """See `Duplex.send`."""
        ...

    async def finish(self) -> None:
        """See `Duplex.finish`."""
        ...

    async def receive(self) -> bytes | None:
        """See `Duplex.receive`."""
        ...

    def is_ready(self) -> bool:
        """See `Duplex.is_ready`; of what the event loop has read."""
        ...

    async def close(self) -> None:
        """See `Duplex.close`."""
        ...


class Incoming(Sink):
    """The pieces of an answer that came and were not yet received; or the reader of a refusal. A sink.
    Mutable."""

    duplex = True

    def __init__(self, request: HttpRequest) -> None:
        self.held = 0
        self.refusal: AnswerReader | None = None
        self._request = request
        self._pieces: deque[bytes] = deque()

    def open(self, head: Head) -> Sink | None:
        """The sink for the answer that begins with ``head``. Raises NotConfonnxError and TooLargeError."""
        if head.status == 200 and media_type(head.fields) == self._request.accept:
            refuse_compression(self._request, head.fields)
            return self
        self.refusal = AnswerReader(self._request, head.status, head.fields)
        return self.refusal if self.refusal.wants_body else None

    def feed(self, piece: bytes) -> None:
        """Keeps ``piece`` until it is taken. Raises TooLargeError."""
        self.held += len(piece)
        if self.held > self._request.max_response_bytes:
            raise TooLargeError(
                f"{self._request.method} {self._request.path}: the answer came faster than it was received: "
                f"at most {self._request.max_response_bytes} bytes expected at once, {self.held} found"
            )
        self._pieces.append(piece)

    def take(self) -> bytes | None:
        """The oldest piece; None: there is none now."""
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self.held -= len(piece)
        return piece


class _Exchange:
    """What both kinds know of their exchange. Mutable."""

    def __init__(self, request: HttpRequest, inlet: Inlet, now: Callable[[], datetime]) -> None:
        self._incoming = Incoming(request)
        self._answer = Answer(request.method, inlet, self._incoming.open)
        self._now = now
        self._sent = True  # all of the request so far
        self._finished = False
        self._closed = False

    @property
    def answered(self) -> bool:
        """See `Duplex.answered`."""
        return self._answer.ends_request

    @property
    def refusal(self) -> HttpResponse | None:
        """See `Duplex.refusal`."""
        reader = self._incoming.refusal
        return reader.finish(self._now()) if reader is not None and self._answer.complete else None

    @property
    def _reusable(self) -> bool:
        return self._finished and self._sent and self._answer.reusable


class BlockingDuplex(_Exchange):
    """`Duplex` over a connection of a pool."""

    def __init__(
        self,
        pool: blocking.Pool,
        request: HttpRequest,
        outgoing: Outgoing,
        timeout: float | None,
        now: Callable[[], datetime],
    ) -> None:
        """Connects and sends the head. Raises TransportError."""
        self._pool, self._outgoing, self._timeout = pool, outgoing, timeout
        with told(outgoing, timeout):
            self._connection = pool.open(outgoing.url.origin, deadline=self._deadline())
        super().__init__(request, self._connection.inlet, now)
        try:
            self._send(outgoing.octets())
        except BaseException:
            self.close()
            raise

    def send(self, data: Buffer) -> None:
        """See `Duplex.send`."""
        if data:
            self._send(chunk(data))

    def finish(self) -> None:
        """See `Duplex.finish`."""
        self._finished = True
        self._send((LAST_CHUNK,))

    def receive(self) -> bytes | None:
        """See `Duplex.receive`."""
        deadline = self._deadline()
        with told(self._outgoing, self._timeout):
            while (piece := self._incoming.take()) is None and not self._answer.complete:
                self._connection.read(self._answer, deadline)
        return piece

    def is_ready(self) -> bool:
        """See `Duplex.is_ready`."""
        if not self._incoming.held and not self._answer.complete:
            with told(self._outgoing, self._timeout):
                self._connection.read_what_came(self._answer)
        return self._incoming.held > 0 or self._answer.complete

    def close(self) -> None:
        """See `Duplex.close`."""
        if self._closed:
            return
        self._closed = True
        if self._reusable:
            self._pool.put(self._outgoing.url.origin, self._connection)
        else:
            self._connection.close()

    def _send(self, parts: Iterable[bytes | memoryview]) -> None:
        deadline = self._deadline()
        with told(self._outgoing, self._timeout):
            sent, self._sent = self._sent, False  # after a failure nothing may follow half a chunk
            self._sent = sent and all(
                self._connection.send(octets, self._answer, deadline) for octets in parts
            )

    def _deadline(self) -> float | None:
        return None if self._timeout is None else monotonic() + self._timeout


class TaskDuplex(_Exchange):
    """`AsyncDuplex` over a connection of a pool."""

    def __init__(
        self,
        pool: tasks.Pool,
        connection: tasks.Connection,
        request: HttpRequest,
        outgoing: Outgoing,
        timeout: float | None,
        now: Callable[[], datetime],
    ) -> None:
        """``connection`` is of ``pool``; nothing was sent yet."""
        super().__init__(request, connection.inlet, now)
        self._pool, self._connection = pool, connection
        self._outgoing, self._timeout = outgoing, timeout
        connection.begin(self._answer)

    async def begin(self) -> None:
        """Sends the head. Raises TransportError."""
        try:
            await self._send(self._outgoing.octets())
        except BaseException:
            await self.close()
            raise

    async def send(self, data: Buffer) -> None:
        """See `Duplex.send`."""
        if data:
            await self._send(chunk(data))

    async def finish(self) -> None:
        """See `Duplex.finish`."""
        self._finished = True
        await self._send((LAST_CHUNK,))

    async def receive(self) -> bytes | None:
        """See `Duplex.receive`."""
        with told(self._outgoing, self._timeout):
            async with asyncio.timeout(self._timeout):
                await self._connection.read_until(lambda: self._incoming.held > 0 or self._answer.complete)
        return self._incoming.take()

    def is_ready(self) -> bool:
        """See `AsyncDuplex.is_ready`."""
        return self._incoming.held > 0 or self._answer.complete

    async def close(self) -> None:
        """See `Duplex.close`."""
        if self._closed:
            return
        self._closed = True
        if self._reusable:
            self._pool.put(self._outgoing.url.origin, self._connection)
        else:
            await self._connection.abort()

    async def _send(self, parts: Iterable[bytes | memoryview]) -> None:
        with told(self._outgoing, self._timeout):
            async with asyncio.timeout(self._timeout):
                sent, self._sent = self._sent, False  # after a failure nothing may follow half a chunk
                for octets in parts:
                    sent = sent and await self._connection.send(octets, self._answer)
                self._sent = sent
