"""A server of a few lines that answers as a test wants it to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n"


def echo(body: bytes) -> list[bytes]:
    return [HEAD + body]


@contextmanager
def answering(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A server for requests with four bytes of body. It sends the pieces of the answer, and closes at an
    empty one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            # A client that gave up resets its connection.
            with suppress(ConnectionError), connection, connection.makefile("rb") as stream:
                while message := stream.read(len(REQUEST) + 4):
                    for piece in answer(message[len(REQUEST) :]):
                        if not piece:
                            return
                        connection.sendall(piece)
                        time.sleep(0.001)  # so that pieces arrive as pieces

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)
