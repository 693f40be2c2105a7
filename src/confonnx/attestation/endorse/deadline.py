"""A deadline for a whole exchange over httpx2, whose time-outs are of one read or write each: a peer that
sends a byte now and then, of a TLS handshake, a head or a body, could hold a call for ever.

Looking up a name is outside: the system's resolver has time-outs of its own. Connecting is per address.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer, local
from time import monotonic
from typing import Any, Final, TypeAlias

import httpcore2
import httpx2

_SLICE: Final = 64 * 1024  # bytes that go out before the clock is read again
_SocketOptions: TypeAlias = Iterable[
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
]


class DeadlineTransport(httpx2.HTTPTransport):
    """``httpx2.HTTPTransport`` whose exchanges end by a deadline. Many threads may use it, each with
    its own.
    """

    def __init__(
        self, *, verify: ssl.SSLContext | bool, proxy: str | httpx2.Proxy | None, limits: httpx2.Limits
    ) -> None:
        """See ``httpx2.Client`` for the arguments. The environment is not read."""
        super().__init__(verify=verify, trust_env=False, limits=limits, proxy=proxy)
        self._deadline = _Deadline()
        # httpcore2's pool can be given a backend, but httpx2 makes the pool and has no argument for one.
        self._pool._network_backend = _Backend(self._pool._network_backend, self._deadline)

    @contextmanager
    def until(self, deadline: float | None) -> Iterator[None]:
        """What this thread sends and reads in the block ends at ``deadline`` on the monotonic clock, with an
        ``httpx2.RequestError``; never, if it is None.
        """
        self._deadline.at = deadline
        try:
            yield
        finally:
            self._deadline.at = None


class _Deadline(local):
    """The deadline of the exchange that the running thread is in. Mutable; a value for each thread."""

    at: float | None = None

    def left(self, timeout: float | None, error: type[httpcore2.TimeoutException]) -> float | None:
        """Seconds for the next operation, of which the library would give ``timeout``. Raises ``error``."""
        if self.at is None:
            return timeout
        left = self.at - monotonic()
        if left <= 0:
            raise error("the deadline passed")
        return left if timeout is None else min(timeout, left)


class _Backend(httpcore2.NetworkBackend):
    """Makes the connections of ``backend``, which then heed the deadline."""

    def __init__(self, backend: httpcore2.NetworkBackend, deadline: _Deadline) -> None:
        self._backend = backend
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        stream = self._backend.connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore2.NetworkStream):
    """A connection. Pooled, so it may serve one thread after another."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _SLICE):
            left = self._deadline.left(timeout, httpcore2.WriteTimeout)
            # A view, not bytes: sockets take any buffer, and a large request is not copied once more.
            self._stream.write(view[start : start + _SLICE], left)  # type: ignore[arg-type]

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        with _cut_off(self._stream.get_extra_info("socket"), left):
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextmanager
def _cut_off(connected: socket.socket, left: float | None) -> Iterator[None]:
    """Ends the connection after ``left`` seconds, since a handshake is many reads in one call."""

    def cut() -> None:
        with suppress(OSError):  # the other side was faster
            connected.shutdown(socket.SHUT_RDWR)

    if left is None:
        yield
        return
    timer = Timer(left, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
