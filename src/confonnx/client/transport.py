"""HTTP: the only place where the client touches a network.

Both transports keep connections open between requests, follow no redirect, and ignore the environment: a
proxy is used only where the client was told one. Bodies go through an `AnswerReader`, so no answer takes more
memory than its limit.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol, runtime_checkable

from confonnx.client.duplex import AsyncDuplex, BlockingDuplex, Duplex, TaskDuplex
from confonnx.client.exchange import AnswerReader, HttpRequest, HttpResponse
from confonnx.client.options import Connection
from confonnx.client.outgoing import Requests, told
from confonnx.http import blocking, tasks
from confonnx.http.message import Head, Outgoing, Sink


class Transport(Protocol):
    """Carries one request at a time per thread; many threads may call it."""

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """The answer, within ``timeout`` seconds. Raises TransportError, and what `AnswerReader` raises."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...

    def now(self) -> datetime:
        """The local clock, aware UTC. It dates answers, and decides how long verified keys may be used."""
        ...


class AsyncTransport(Protocol):
    """`Transport` for asyncio."""

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`."""
        ...

    async def close(self) -> None:
        """See `Transport.close`."""
        ...

    def now(self) -> datetime:
        """See `Transport.now`."""
        ...


@runtime_checkable
class DuplexTransport(Transport, Protocol):
    """A `Transport` over which streams can go."""

    def open(self, request: HttpRequest, *, timeout: float | None) -> Duplex:
        """Begins ``request``, whose own body is empty: it goes out in pieces while the answer comes in. Each
        step may take ``timeout`` seconds. Raises TransportError.
        """
        ...


@runtime_checkable
class AsyncDuplexTransport(AsyncTransport, Protocol):
    """`DuplexTransport` for asyncio."""

    async def open(self, request: HttpRequest, *, timeout: float | None) -> AsyncDuplex:
        """See `DuplexTransport.open`."""
        ...


class HttpTransport:
    """`DuplexTransport` over a pool of connections."""

    def __init__(self, connection: Connection) -> None:
        """Opens nothing yet. Raises ConfigurationError for a CA file or proxy that cannot be used."""
        self._requests = Requests(connection)
        self._pool = blocking.Pool(self._requests.route)

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`."""
        deadline = None if timeout is None else monotonic() + timeout
        outgoing = self._requests.make(request)
        reading = _Reading(request)
        with told(outgoing, timeout):
            self._pool.exchange(outgoing, reading.open, deadline=deadline)
        return reading.finish(self._requests, outgoing, self.now())

    def open(self, request: HttpRequest, *, timeout: float | None) -> Duplex:
        """See `DuplexTransport.open`."""
        return BlockingDuplex(self._pool, request, self._requests.make_open(request), timeout, self.now)

    def close(self) -> None:
        """See `Transport.close`."""
        self._pool.close()

    def now(self) -> datetime:
        """See `Transport.now`."""
        return datetime.now(UTC)


class AsyncHttpTransport:
    """`AsyncDuplexTransport` over a pool of connections of one event loop."""

    def __init__(self, connection: Connection) -> None:
        """Opens nothing yet. Raises ConfigurationError for a CA file or proxy that cannot be used."""
        self._requests = Requests(connection)
        self._pool = tasks.Pool(self._requests.route)

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`."""
        outgoing = self._requests.make(request)
        reading = _Reading(request)
        with told(outgoing, timeout):
            async with asyncio.timeout(timeout):
                await self._pool.exchange(outgoing, reading.open)
        return reading.finish(self._requests, outgoing, self.now())

    async def open(self, request: HttpRequest, *, timeout: float | None) -> AsyncDuplex:
        """See `DuplexTransport.open`."""
        outgoing = self._requests.make_open(request)
        with told(outgoing, timeout):
            async with asyncio.timeout(timeout):
                connection = await self._pool.open(outgoing.url.origin)
        duplex = TaskDuplex(self._pool, connection, request, outgoing, timeout, self.now)
        await duplex.begin()
        return duplex

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._pool.close()

    def now(self) -> datetime:
        """See `Transport.now`."""
        return datetime.now(UTC)


class _Reading:
    """Reads the answer to one request. Mutable."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._reader: AnswerReader | None = None

    def open(self, head: Head) -> Sink | None:
        """An `OpenBody`."""
        self._reader = AnswerReader(self._request, head.status, head.fields)
        return self._reader if self._reader.wants_body else None

    def finish(self, requests: Requests, outgoing: Outgoing, received_at: datetime) -> HttpResponse:
        """The answer, once it is complete."""
        assert self._reader is not None  # an answer has a head
        response = self._reader.finish(received_at)
        requests.heard(outgoing, response.fields)
        return response
