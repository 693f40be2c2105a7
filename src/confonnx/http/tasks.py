"""asyncio: a pool of connections of one event loop. Deadlines are the caller's (``asyncio.timeout``): what is
cancelled closes its connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from confonnx.errors import ConfonnxError, TransportError
from confonnx.http.blocking import ADDRESS_SECONDS, Waiter
from confonnx.http.idle import Idle
from confonnx.http.message import (
    Answer,
    Inlet,
    OpenBody,
    Outgoing,
    check_tunnel,
    may_repeat,
    tunnel_request,
)
from confonnx.http.route import Route
from confonnx.http.url import Origin, Proxy

_PIECE_BYTES: Final = 256 * 1024  # the event loop copies what does not go out at once; this bounds the copy
_HELD_BYTES: Final = 256 * 1024  # read ahead of whoever takes the pieces of an answer


class Connection(asyncio.BufferedProtocol):
    """One connection, for one exchange at a time. Mutable."""

    def __init__(self) -> None:
        """For ``loop.create_connection``."""
        self.inlet = Inlet()
        self.idle_since = 0.0
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._failure: ConfonnxError | None = None
        self._ended = False  # nothing more comes
        self._may_write = True
        self._sending = False  # what waits until it may write
        self._paused = False
        self._encrypted = False
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def begin(self, answer: Answer) -> None:
        """What comes from now on is ``answer``."""
        self._answer = answer

    async def send(self, octets: bytes | memoryview, answer: Answer) -> bool:
        """Sends ``octets``. False: not all of them, since the answer ended the request.

        Raises TransportError and what the sink raises.
        """
        view = memoryview(octets)
        while not self._transport.is_closing():
            if not view:
                return True
            await self._writable(answer)
            if answer.ends_request:
                return False
            if not self._transport.is_closing():
                self._transport.write(view[:_PIECE_BYTES])
                view = view[_PIECE_BYTES:]
        await self.read_until(lambda: answer.ends_request)  # why it cannot be written
        return False

    async def read_until(self, condition: Callable[[], bool]) -> None:
        """Reads until ``condition`` holds. Raises TransportError and what the sink raises."""
        while not condition():
            if self._failure is not None:
                raise self._failure
            self._resume()
            waiting = (condition, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            try:
                await waiting[1]
            finally:
                self._waiting.remove(waiting)

    def is_quiet(self) -> bool:
        """Whether an idle connection is still open, and nothing came that nobody asked for."""
        return not (self.is_over or self._waiter.is_readable())

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Verifies the peer; what comes and goes from then on is encrypted. Raises OSError."""
        loop = asyncio.get_running_loop()
        encrypted = await loop.start_tls(self._transport, _Decrypted(self), tls, server_hostname=host)
        assert encrypted is not None  # it is for a loop that is closed
        if self.is_over:  # the event loop takes the end of a connection that we gave up for no failure
            raise ConnectionResetError("the peer spoke before TLS began")
        self._transport = encrypted
        self._encrypted = True

    def close(self) -> None:
        """Closes it at once, whatever was going on; the event loop does so in its next turn."""
        self._transport.abort()

    async def abort(self) -> None:
        """`close`, and a wait until that is done."""
        self.close()
        for _ in range(2):  # TLS: first what encrypts, then the socket
            await asyncio.sleep(0)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read."""
        return self._ended or self._failure is not None

    # What the event loop calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        # Under TLS too it is the TCP connection that pauses: uvloop drops what came before the peer closed if
        # it is asked to hold back what is decrypted.
        self._tcp = self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        connected = transport.get_extra_info("socket")
        self._descriptor = connected.fileno()
        self._waiter = Waiter(connected)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        answer = self._answer
        return self.inlet.scratch if answer is None or answer.complete else answer.room()

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        answer = self._answer
        if answer is None or answer.complete:
            self._ended = True  # what nobody asked for
            self._transport.abort()
            return
        self._receive(answer, nbytes)
        if answer.held > _HELD_BYTES and not self._sending:
            self._pause()

    def eof_received(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._ended = True
        if self._answer is not None and not self._answer.complete:
            self._receive(self._answer, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if exc is None and not self.is_over:
            self.eof_received()  # which uvloop leaves out under TLS
        self._ended = True
        if exc is not None and self._answer is not None and self._failure is None:
            self._read_rest(self._answer)
        self._failure = self._failure or _failed(exc)
        self._wake()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._may_write = False

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._may_write = True
        self._wake()

    # What both sides use:

    async def _writable(self, answer: Answer) -> None:
        self._sending = True  # read on, or neither side could write
        try:
            await self.read_until(lambda: self._may_write or answer.ends_request)
        finally:
            self._sending = False

    def _receive(self, answer: Answer, count: int) -> None:
        try:
            answer.received(count)
        except ConfonnxError as error:
            self._failure = error
            self._transport.abort()
        self._wake()

    def _read_rest(self, answer: Answer) -> None:
        """What came before a reset: the event loop gives a connection up when it cannot write, with the
        answer that says why. Under TLS that answer is lost.
        """
        if self._encrypted:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as rest:  # does not block
            while not answer.complete and self._failure is None:
                count = rest.recv_into(answer.room())
                if not count:  # after a reset, this is no proper end
                    return
                self._receive(answer, count)

    def _wake(self) -> None:
        for condition, future in self._waiting:
            if not future.done() and (self._failure is not None or condition()):
                future.set_result(None)

    def _pause(self) -> None:
        if not self._paused and not self.is_over:
            self._paused = True
            self._tcp.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.is_over:
            self._paused = False
            self._tcp.resume_reading()


class _Decrypted(asyncio.Protocol):
    """What TLS hands on to a connection. Not as a `BufferedProtocol`: asyncio gives such a one only what fits
    into one buffer when the peer closes, and drops the rest.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._connection.is_over:
            room = self._connection.get_buffer(len(view))
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self._connection.buffer_updated(count)
            view = view[count:]

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


class Pool:
    """Connections, kept for the next exchange. Mutable; any number of tasks of one event loop may use it."""

    def __init__(self, route: Route) -> None:
        """Opens nothing yet."""
        self._route = route
        self._idle: Idle[Connection] = Idle()

    async def exchange(self, request: Outgoing, open_body: OpenBody) -> None:
        """See `confonnx.http.blocking.Pool.exchange`; without a deadline."""
        kept = self._idle.take(request.url.origin)
        if kept is None or not await self._attempt(kept, request, open_body, is_new=False):
            connection = await _connect(request.url.origin, self._route)
            await self._attempt(connection, request, open_body, is_new=True)

    async def open(self, origin: Origin) -> Connection:
        """See `confonnx.http.blocking.Pool.open`."""
        return self._idle.take(origin) or await _connect(origin, self._route)

    def put(self, origin: Origin, connection: Connection) -> None:
        """See `confonnx.http.blocking.Pool.put`."""
        self._idle.put(origin, connection)

    async def close(self) -> None:
        """See `confonnx.http.blocking.Pool.close`."""
        self._idle.close()
        for _ in range(2):  # see Connection.abort
            await asyncio.sleep(0)

    async def _attempt(
        self, connection: Connection, request: Outgoing, open_body: OpenBody, *, is_new: bool
    ) -> bool:
        answer = Answer(request.method, connection.inlet, open_body)
        connection.begin(answer)
        reusable = sent = False
        try:
            sent = await _send_all(connection, request, answer)
            await connection.read_until(lambda: answer.complete)
            reusable = sent and answer.reusable
        except TransportError:
            if not is_new and may_repeat(request, answer, sent=sent):
                return False
            raise
        finally:
            if reusable:
                self.put(request.url.origin, connection)
            else:
                await connection.abort()
        return True


async def _connect(origin: Origin, route: Route) -> Connection:
    first = origin if route.proxy is None else route.proxy.origin
    try:
        connection = await _connect_tcp(first.host, first.port)
        try:
            if origin.scheme == "https":
                if route.proxy is not None:
                    await _open_tunnel(connection, origin, route.proxy)
                await connection.start_tls(route.tls, origin.host)
        except BaseException:
            await connection.abort()
            raise
    except (OSError, ValueError) as error:  # the latter: a name that no host can have
        raise TransportError(f"cannot connect: {error}") from error
    return connection


async def _connect_tcp(host: str, port: int) -> Connection:
    """A connection to the first address that accepts one. Raises OSError and ValueError."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError | None = None
    for tried, (*_, address) in enumerate(addresses, 1):
        try:
            async with asyncio.timeout(None if tried == len(addresses) else ADDRESS_SECONDS):
                _, connection = await loop.create_connection(Connection, *address[:2])
                return connection
        except OSError as error:  # TimeoutError is one
            failed = error
    assert failed is not None  # there was an address
    raise failed


async def _send_all(connection: Connection, request: Outgoing, answer: Answer) -> bool:
    for octets in request.octets():
        if not await connection.send(octets, answer):
            return False
    return True


async def _open_tunnel(connection: Connection, origin: Origin, proxy: Proxy) -> None:
    answer = Answer("CONNECT", Inlet(), lambda _: None)
    connection.begin(answer)
    await connection.send(tunnel_request(origin, proxy), answer)
    await connection.read_until(lambda: answer.complete)
    check_tunnel(answer)


def _failed(error: Exception | None) -> TransportError:
    return TransportError(f"the connection failed: {error or 'it was closed'}")
