"""A network observer for the demonstration: a loopback relay that stands between client and server, remembers
what passes, and on request changes one bit of an answer. It sees what any host, ingress or router sees."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65536


class NetworkObserver:
    """Relays TCP connections from a port of its own to ``port`` on loopback.

    Mutable state: what was seen so far, and whether to tamper. A context manager; leaving it closes all.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._seen_requests: list[bytes] = []
        self._tamper = threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((_LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(self._listener)
        with self._lock:
            connections, self._open = self._open, []
        for connection in connections:
            self._close(connection)

    def last_request(self) -> bytes:
        """Everything that went towards the server since the last request began."""
        with self._lock:
            sent = b"".join(self._seen_requests)
        return sent[sent.rfind(b"POST ") :]

    def tamper_with_next_answer(self) -> None:
        """Flip one bit in the last byte of the next sealed answer."""
        self._tamper.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((_LOOPBACK, self._target))
            except OSError:
                return  # closed
            with self._lock:
                self._open += [client, server]
            for source, sink, pump in (
                (client, server, self._watch_request),
                (server, client, self._pass_answer),
            ):
                threading.Thread(target=self._relay, args=(source, sink, pump), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, pump: Callable[[bytes], bytes]) -> None:
        with suppress(OSError):  # the other side has gone; both are closed below
            while data := source.recv(_CHUNK):
                sink.sendall(pump(data))
        self._close(source)
        self._close(sink)

    def _watch_request(self, data: bytes) -> bytes:
        with self._lock:
            self._seen_requests.append(data)
        return data

    def _pass_answer(self, data: bytes) -> bytes:
        if not self._tamper.is_set() or data.endswith(b"\r\n\r\n"):  # a head alone: the sealed body follows
            return data
        self._tamper.clear()
        return data[:-1] + bytes([data[-1] ^ 1])

    @staticmethod
    def _close(connection: socket.socket) -> None:
        with suppress(OSError):  # it may not be connected any more
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
