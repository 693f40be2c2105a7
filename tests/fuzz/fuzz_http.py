"""HTTP/1.1 answers: any bytes, in whatever pieces, are an answer, or a ``TransportError`` that quotes none of
them.

``python -m tests.fuzz.fuzz_http --seconds 600``
"""

from __future__ import annotations

from confonnx.errors import TransportError
from confonnx.http.message import Answer, Head, Inlet, Sink
from tests.fuzz.mutator import main

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-res\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\n"
_MARK = b"m4rk"  # so rare that an error text has it only from the input
_TEXTS = (
    "the connection failed: it was closed before the answer ended",
    "the connection failed: what came is no HTTP answer",
    "the connection failed: it was closed before the last ",
)

CORPUS = [
    b"\x10" + _OK + b"Content-Length: 10\r\n\r\n" + _MARK + b"123456",
    b"\x03" + _OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\n" + _MARK + b"\r\n6;a=b\r\n123456\r\n0\r\n\r\n",
    b"\x80" + _OK + b"Connection: close\r\n\r\n" + _MARK,
    b"\x01HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: " + _MARK + b"\r\n\r\n" + _OK + b"\r\n",
    b"\x42HTTP/1.1 204 No Content\r\n\r\n",
    b"\x20HTTP/1.0 413 " + _MARK + b"\r\nContent-Length: 2\r\n\r\n{}",
    b"\xffHTTP/1.1 200 Connection established\r\n\r\n",
]


class _Body(Sink):
    def __init__(self) -> None:
        self.octets = b""

    def open(self, head: Head) -> Sink | None:
        return self

    def feed(self, piece: bytes) -> None:
        self.octets += piece


def fuzz_http(data: bytes) -> None:
    """The target. The first byte is the size of the pieces, and odd ones answer ``CONNECT``."""
    size = max(1, data[0] if data else 1)
    whole = read(data[1:], 1 << 20, connect=size % 2 == 1)
    assert read(data[1:], size, connect=size % 2 == 1) == whole
    if (text := whole[0]) is not None:
        assert text.startswith(_TEXTS)
        assert _MARK.decode() not in text


def read(octets: bytes, size: int, *, connect: bool) -> tuple[str | None, Head | None, bytes]:
    """The error, the head and the body for ``octets``, which come in pieces of ``size`` and then end."""
    body = _Body()
    answer = Answer("CONNECT" if connect else "POST", Inlet(), (lambda _: None) if connect else body.open)
    at = 0
    try:
        while not answer.complete:
            room = answer.room()
            piece = octets[at : at + min(size, len(room))]
            room[: len(piece)] = piece
            at += len(piece)
            answer.received(len(piece))
    except TransportError as error:
        return (str(error), answer.head, body.octets)
    return (None, answer.head, body.octets)


if __name__ == "__main__":
    main(fuzz_http, CORPUS)
