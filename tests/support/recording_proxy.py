"""A TCP proxy on loopback that remembers every byte that passes, as the network would see it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 1 << 16


@dataclass
class RecordingProxy:
    """What passed so far, each way. The target may change: a restarted server has another port."""

    target: int
    port: int = 0
    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    _connections: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}/"

    def requests(self, start: bytes) -> int:
        """How many requests began like this, such as ``b"POST /ohttp "``."""
        return bytes(self.to_server).count(start)

    def serve(self, listener: socket.socket) -> None:
        """Accepts until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._connections += [client, server]
            for source, sink, record in (
                (client, server, self.to_server),
                (server, client, self.to_client),
            ):
                threading.Thread(target=_relay, args=(source, sink, record), daemon=True).start()

    def close(self) -> None:
        """Cuts every connection."""
        for connection in self._connections:
            _shut(connection)
            connection.close()


@contextmanager
def recording_proxy(target: int) -> Iterator[RecordingProxy]:
    """A proxy to the port ``target`` on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = RecordingProxy(target, listener.getsockname()[1])
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            _shut(listener)
            thread.join(10)
            proxy.close()


def _relay(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with suppress(OSError):  # one of them has gone
        while data := source.recv(_CHUNK):
            record += data
            sink.sendall(data)
    _shut(source)
    _shut(sink)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may not be connected any more
        connection.shutdown(socket.SHUT_RDWR)
