"""Blocking sockets: a pool of connections whose exchanges end by a deadline.

The sockets themselves do not block, so a request goes out and its answer comes in on one thread, whichever is
ready, and nothing lasts beyond the deadline: looking up a name, a TLS handshake, a peer that sends or takes a
byte now and then.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias

from confonnx.errors import TransportError
from confonnx.http.idle import Idle
from confonnx.http.message import (
    Answer,
    Inlet,
    OpenBody,
    Outgoing,
    OutOfTimeError,
    check_tunnel,
    may_repeat,
    tunnel_request,
)
from confonnx.http.route import Route
from confonnx.http.url import Origin, Proxy

ADDRESS_SECONDS: Final = 2.0  # for an address to answer, if there are others (RFC 8305 §5)
_LONGEST_WAIT: Final = 1e6  # seconds; the system counts milliseconds in 32 bits

_Address: TypeAlias = tuple[int, int, int, str, Any]  # as getaddrinfo gives it


class Connection:
    """One connection, for one exchange and thread at a time. Mutable."""

    def __init__(self, connected: socket.socket) -> None:
        """Takes over ``connected``, which does not block."""
        self.inlet = Inlet()
        self.idle_since = 0.0
        self._socket = connected
        self._tls = connected if isinstance(connected, ssl.SSLSocket) else None
        self._waiter = Waiter(connected)

    def send(self, octets: bytes | memoryview, answer: Answer, deadline: float | None) -> bool:
        """Sends ``octets``, and reads meanwhile what comes of ``answer``. False: not all of them, since the
        answer ended the request.

        Raises OutOfTimeError, TransportError and what the sink raises.
        """
        view = memoryview(octets)
        while view and not answer.ends_request:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if self._waiter.wait(deadline, write=True):
                    self._receive(answer, deadline)
            except ssl.SSLWantReadError:
                self.read(answer, deadline)
            except OSError as error:  # the peer closed, maybe after an answer
                if not self._receive(answer, deadline):
                    raise TransportError(f"the connection failed: {error}") from error
        return not view

    def read(self, answer: Answer, deadline: float | None) -> None:
        """Waits for more of ``answer``. Raises OutOfTimeError, TransportError and what the sink raises."""
        if self._tls is None or not self._tls.pending():
            self._waiter.wait(deadline)
        while not self._receive(answer, deadline):
            self._waiter.wait(deadline)

    def read_what_came(self, answer: Answer) -> None:
        """As `read`, without a wait. Raises TransportError and what the sink raises."""
        self._receive(answer, None)

    def is_quiet(self) -> bool:
        """Whether an idle connection is still open, and nothing came that nobody asked for."""
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Closes it at once, whatever was going on."""
        self._socket.close()

    def _receive(self, answer: Answer, deadline: float | None) -> bool:
        try:
            count = self._socket.recv_into(answer.room())
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:  # a key update (RFC 8446 §4.6.3)
            self._waiter.wait(deadline, write=True)
            return False
        except OSError as error:
            raise TransportError(f"the connection failed: {error}") from error
        answer.received(count)
        return True


class Pool:
    """Connections, kept for the next exchange. Mutable; many threads may use it."""

    def __init__(self, route: Route) -> None:
        """Opens nothing yet."""
        self._route = route
        self._idle: Idle[Connection] = Idle()

    def exchange(self, request: Outgoing, open_body: OpenBody, *, deadline: float | None) -> None:
        """Sends ``request``, and gives its answer to what ``open_body`` makes, by ``deadline`` (monotonic
        clock).

        Raises OutOfTimeError, TransportError (whose text lacks what was asked for) and what the sink raises.
        """
        kept = self._idle.take(request.url.origin)
        if kept is None or not self._attempt(kept, request, open_body, deadline, is_new=False):
            connection = _connect(request.url.origin, self._route, deadline)
            self._attempt(connection, request, open_body, deadline, is_new=True)

    def open(self, origin: Origin, *, deadline: float | None) -> Connection:
        """A connection for an exchange that the caller drives; it is then put back or closed. Raises
        OutOfTimeError and TransportError."""
        return self._idle.take(origin) or _connect(origin, self._route, deadline)

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keeps ``connection``, which is between two exchanges, for the next."""
        self._idle.put(origin, connection)

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are put back."""
        self._idle.close()

    def _attempt(
        self,
        connection: Connection,
        request: Outgoing,
        open_body: OpenBody,
        deadline: float | None,
        *,
        is_new: bool,
    ) -> bool:
        """False: it failed, and may be done again elsewhere."""
        answer = Answer(request.method, connection.inlet, open_body)
        reusable = sent = False
        try:
            sent = all(connection.send(octets, answer, deadline) for octets in request.octets())
            while not answer.complete:
                connection.read(answer, deadline)
            reusable = sent and answer.reusable
        except TransportError:
            if not is_new and may_repeat(request, answer, sent=sent):
                return False
            raise
        finally:
            if reusable:
                self.put(request.url.origin, connection)
            else:
                connection.close()
        return True


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Waiter:
    """Waits until a socket is ready."""

    def __init__(self, connected: _HasDescriptor) -> None:
        self._socket = connected
        if sys.platform != "win32":
            self._poll = select.poll()
            self._poll.register(connected, select.POLLIN)

    def is_readable(self) -> bool:
        """Whether something came, or the peer closed."""
        if sys.platform == "win32":
            return bool(select.select([self._socket], [], [], 0)[0])
        self._poll.modify(self._socket, select.POLLIN)
        return bool(self._poll.poll(0))

    def wait(self, deadline: float | None, *, write: bool = False) -> bool:
        """Waits until the socket can be read, or with ``write`` also until it can be written. Whether it can
        be read.

        Raises OutOfTimeError.
        """
        left = _left(deadline)
        if sys.platform == "win32":  # it has no poll
            readable, writable, _ = select.select([self._socket], [self._socket] if write else [], [], left)
            if not readable and not writable:
                raise OutOfTimeError
            return bool(readable)
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if write else 0))
        found = self._poll.poll(None if left is None else left * 1000)
        if not found:
            raise OutOfTimeError
        return found[0][1] & ~select.POLLOUT != 0


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise OutOfTimeError
    return min(left, _LONGEST_WAIT)


def _connect(origin: Origin, route: Route, deadline: float | None) -> Connection:
    first = origin if route.proxy is None else route.proxy.origin
    try:
        connected = _connect_tcp(first.host, first.port, deadline)
        try:
            if origin.scheme == "https":
                if route.proxy is not None:
                    _open_tunnel(Connection(connected), origin, route.proxy, deadline)
                connected = _start_tls(connected, route.tls, origin.host, deadline)
            return Connection(connected)
        except BaseException:
            connected.close()
            raise
    except (OSError, ValueError) as error:  # the latter: a name that no host can have
        raise TransportError(f"cannot connect: {error}") from error


def _connect_tcp(host: str, port: int, deadline: float | None) -> socket.socket:
    """A connection to the first address that accepts one. Raises OSError."""
    addresses = _look_up(host, port, deadline)
    failed: OSError | None = None
    for tried, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        left = _left(deadline)
        if tried < len(addresses):
            left = ADDRESS_SECONDS if left is None else min(left, ADDRESS_SECONDS)
        try:
            connected = socket.socket(family, kind, protocol)
        except OSError as error:  # an address family that this machine does not have
            failed = error
            continue
        try:
            connected.settimeout(left)
            connected.connect(address)
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connected.close()
            failed = error
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    _left(deadline)
    assert failed is not None  # there was an address
    raise failed


def _look_up(host: str, port: int, deadline: float | None) -> Sequence[_Address]:
    """The addresses of ``host``. The system's resolver takes no time-out, so it runs in a thread that may
    outlive the wait."""
    found: Future[Sequence[_Address]] = Future()

    def ask() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:  # the latter: a name that IDNA refuses
            found.set_exception(error)

    if deadline is None or ":" in host or host.replace(".", "").isdigit():
        ask()
    else:
        threading.Thread(target=ask, name="confonnx-look-up", daemon=True).start()
    try:
        return found.result(_left(deadline))
    except TimeoutError:
        raise OutOfTimeError from None


def _open_tunnel(connection: Connection, origin: Origin, proxy: Proxy, deadline: float | None) -> None:
    answer = Answer("CONNECT", Inlet(), lambda _: None)
    connection.send(tunnel_request(origin, proxy), answer, deadline)
    while not answer.complete:
        connection.read(answer, deadline)
    check_tunnel(answer)


def _start_tls(
    connected: socket.socket, tls: ssl.SSLContext, host: str, deadline: float | None
) -> ssl.SSLSocket:
    """Takes over ``connected``."""
    encrypted = tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
    waiter = Waiter(encrypted)
    try:
        while True:
            try:
                encrypted.do_handshake()
            except ssl.SSLWantReadError:
                waiter.wait(deadline)
            except ssl.SSLWantWriteError:
                waiter.wait(deadline, write=True)
            else:
                return encrypted
    except BaseException:
        encrypted.close()
        raise
