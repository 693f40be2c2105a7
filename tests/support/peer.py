"""A peer on loopback that a test writes as a function of its connection; each connection has a thread."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

Serve: TypeAlias = Callable[["Line"], None]


@dataclass
class Line:
    """One accepted connection: what a peer reads from, and the socket it answers to."""

    socket: socket.socket
    reader: BinaryIO

    def head(self) -> bytes:
        """The head of the next request with its empty line; empty where there is none."""
        lines = []
        while line := self.reader.readline():
            lines.append(line)
            if line == b"\r\n":
                break
        return b"".join(lines)

    def chunk(self) -> bytes:
        """The next chunk of a request's body; empty: it ended."""
        line = self.reader.readline()
        data = self.reader.read(int(line or b"0", 16))
        if self.reader.read(2) != b"\r\n":
            raise ConnectionResetError("the request broke off")
        return data

    def say(self, *pieces: bytes) -> None:
        """Sends ``pieces``."""
        for piece in pieces:
            self.socket.sendall(piece)


@dataclass
class Peer:
    """Where a peer listens. ``failures`` are what its function raised, but for broken connections."""

    port: int
    scheme: str = "http"
    connections: int = 0
    failures: list[Exception] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its URL, without a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextmanager
def peer(serve: Serve, *, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A `Peer` that calls ``serve`` for every connection, and ends them all with the block."""
    threads: list[tuple[threading.Thread, socket.socket]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Peer(listener.getsockname()[1], "http" if tls is None else "https")
        accepting = threading.Thread(target=_accept, args=(listener, serve, tls, found, threads), daemon=True)
        accepting.start()
        try:
            yield found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    accepting.join(10)
    for thread, connected in threads:
        with suppress(OSError):  # it is closed
            connected.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()
    assert not found.failures


def _accept(
    listener: socket.socket,
    serve: Serve,
    tls: ssl.SSLContext | None,
    found: Peer,
    threads: list[tuple[threading.Thread, socket.socket]],
) -> None:
    with suppress(OSError):  # the listener is closed
        while True:
            connected, _ = listener.accept()
            found.connections += 1
            thread = threading.Thread(target=_serve, args=(connected, serve, tls, found), daemon=True)
            threads.append((thread, connected))
            thread.start()


def _serve(connected: socket.socket, serve: Serve, tls: ssl.SSLContext | None, found: Peer) -> None:
    with connected, suppress(OSError):  # the other side went away
        connected.settimeout(10)
        if tls is not None:
            with tls.wrap_socket(connected.dup(), server_side=True) as encrypted:
                _call(encrypted, serve, found)
        else:
            _call(connected, serve, found)


def _call(connected: socket.socket, serve: Serve, found: Peer) -> None:
    try:
        with connected.makefile("rb") as reader:
            serve(Line(connected, reader))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - of a test, which shall fail by it
        found.failures.append(error)
