"""A proxy on loopback that ends a chunked body early, and properly, as a hostile intermediary may."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def cutting_proxy(
    port: int, *, request_chunks: int | None = None, answer_chunks: int | None = None
) -> Iterator[str]:
    """The URL before the server at ``port``. Of chunked bodies it passes on so many chunks, then their end;
    None: all of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_accept, args=(listener, port, request_chunks, answer_chunks), daemon=True
        ).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def _accept(
    listener: socket.socket, port: int, request_chunks: int | None, answer_chunks: int | None
) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        for source, target, chunks in ((client, server, request_chunks), (server, client, answer_chunks)):
            threading.Thread(target=_pass_on, args=(source, target, chunks), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, chunks: int | None) -> None:
    try:
        with source.makefile("rb") as stream:
            while head := _head(stream):
                target.sendall(head)
                if b"transfer-encoding: chunked" in head.lower():
                    _pass_chunks(stream, target, chunks)
                else:
                    target.sendall(stream.read(_length(head)))
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


def _pass_chunks(stream: BinaryIO, target: socket.socket, chunks: int | None) -> None:
    passed = 0
    while line := stream.readline():
        data = stream.read(int(line, 16) + 2)
        if chunks is not None and passed == chunks:
            target.sendall(b"0\r\n\r\n")
            return
        target.sendall(line + data)
        passed += 1
        if line.strip() == b"0":
            return


def _head(stream: BinaryIO) -> bytes:
    lines = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
