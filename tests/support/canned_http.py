"""A TCP server on loopback that says what a test tells it to, and keeps what it heard."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class CannedServer:
    """``pieces`` go out for every request, ``pause`` seconds apart; then it hangs up, or not. ``first`` goes
    out at once for the first request instead."""

    pieces: Sequence[bytes]
    pause: float = 0.0
    keep_open: bool = False
    first: bytes | None = None
    heard: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/prefix/"

    def serve(self, listener: socket.socket) -> None:
        """Accepts until the listener is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.settimeout(10)
                try:
                    while self._exchange(connection) and self.keep_open:
                        pass
                except OSError:
                    continue

    def _exchange(self, connection: socket.socket) -> bool:
        request = b""
        while b"\r\n\r\n" not in request or len(request) < _expected(request):
            data = connection.recv(65536)
            if not data:
                return False
            request += data
            if request.startswith(b"\x16"):
                break  # a TLS handshake, which is answered in plain text at once
        self.heard.append(request)
        if self.first is not None and len(self.heard) == 1:
            connection.sendall(self.first)
            return True
        for piece in self.pieces:
            connection.sendall(piece)
            time.sleep(self.pause)
        return True


def _expected(request: bytes) -> int:
    head, _, _ = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return len(head) + 4 + length


@contextmanager
def canned(
    *pieces: bytes, pause: float = 0.0, keep_open: bool = False, first: bytes | None = None
) -> Iterator[CannedServer]:
    """A `CannedServer` in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = CannedServer(pieces, pause, keep_open, first, port=listener.getsockname()[1])
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()
