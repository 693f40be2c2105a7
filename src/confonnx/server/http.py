"""The listening socket, and the connections behind it (`connection`)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from email.utils import formatdate
from time import time

from confonnx.errors import ConfigurationError

from .cohort import Cohort
from .connection import Connection, HttpLimits
from .http_stream import READ_BUFFER, StreamHandler
from .messages import Handler


class HttpServer:
    """A listening socket and its connections. Mutable: which connections, and the bytes that they hold."""

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        *,
        streams: StreamHandler | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """``handler`` answers, and ``streams`` what it wants; ``limits`` hold for every connection, refused
        ones included; ``ended`` is called at the end of each.
        """
        self.handler = handler
        self.cohort = Cohort()
        self.streams = streams
        self.limits = limits
        self._ended = ended
        self.buffered = 0
        self.draining = False
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, "")
        self._stream_buffer = bytearray()

    async def listen(self, address: str, port: int, *, option: str) -> int:
        """Start listening and give the port (chosen by the system when ``port`` is 0).

        ``option`` is the name of the port's option, for the text of :class:`ConfigurationError`.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._connection, address, port, backlog=1024)
        except OSError as error:
            raise ConfigurationError(listen_problem(error, address, port, option)) from error
        self.watch_time()
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    def watch_time(self) -> None:
        """Start to enforce time limits; ``listen`` does it itself."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that somebody else accepted. Raises OSError where it is gone already."""
        await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def drain(self, timeout: float) -> bool:
        """Stop accepting, let requests in flight finish for up to ``timeout`` seconds, then cut. ``True``:
        none was cut.
        """
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.close_if_idle()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
        complete = not self._connections
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return complete

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, unless there are too many."""
        if self.draining or len(self._connections) >= self.limits.max_connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._ended()

    def stream_buffer(self) -> bytearray:
        """What streams read into, all of them: what came is taken out before the next one reads."""
        if not self._stream_buffer:
            self._stream_buffer = bytearray(READ_BUFFER)
        return self._stream_buffer

    def date(self) -> str:
        """The Date field's value, made once a second."""
        now = int(time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    def _connection(self) -> Connection:
        return Connection(self)

    async def _sweep(self) -> None:
        limits = self.limits
        shortest = min(limits.header_timeout, limits.idle_timeout, limits.transfer_grace, limits.linger)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, shortest / 4))
            now = loop.time()
            for connection in tuple(self._connections):
                connection.check_time(now)


def listen_problem(error: OSError, address: str, port: int, option: str) -> str:
    """Why nothing can listen there, and what to do."""
    where = f"cannot listen on {address} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: another program uses it. Stop that program, or choose another port with {option}"
    if error.errno == errno.EACCES:
        return f"{where}: ports below 1024 need privileges. Choose another port with {option}"
    return f"{where}: {error.strerror or error}. Check the address and {option}"
