"""Answers of any bytes in any pieces: the same outcome, and one kind of error."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from confonnx.errors import TransportError
from confonnx.http.message import Answer, Head, Inlet, Sink

_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"a:b\r\n",
        b"\r\n",
        b"\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\0",
    ]
)
_OCTETS = st.one_of(st.binary(max_size=200), st.lists(_LINES, max_size=12).map(b"".join))


class _Whole(Sink):
    def __init__(self, direct: bool) -> None:
        self.body = b""
        self._room = memoryview(bytearray(4)) if direct else None

    def open(self, head: Head) -> Sink | None:
        self.head = head
        return self

    def room(self) -> memoryview | None:
        return self._room

    def filled(self, count: int) -> None:
        assert self._room is not None
        self.body += bytes(self._room[:count])

    def feed(self, piece: bytes) -> None:
        self.body += piece


def outcome(octets: bytes, sizes: list[int], *, direct: bool, inlet: Inlet) -> tuple[object, ...]:
    """What became of ``octets``, which came in pieces of at most ``sizes`` and then the end of the
    connection."""
    sink = _Whole(direct)
    answer = Answer("POST", inlet, sink.open)
    at, turn = 0, 0
    try:
        while not answer.complete:
            room = answer.room()
            count = min(len(room), len(octets) - at, sizes[turn % len(sizes)])
            turn += 1
            room[:count] = octets[at : at + count]
            at += count
            answer.received(count)
    except TransportError:
        return ("failed", answer.head, sink.body)
    return (answer.head, sink.body)


@given(_OCTETS, st.lists(st.integers(1, 50), min_size=1, max_size=8), st.booleans(), st.booleans())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", [1], True, True)
def test_pieces_make_no_difference(octets: bytes, sizes: list[int], direct: bool, again: bool) -> None:
    whole = outcome(octets, [1 << 20], direct=False, inlet=Inlet())
    inlet = Inlet()
    if again:  # now the head is known
        assert outcome(octets, [1 << 20], direct=direct, inlet=inlet) == whole
    assert outcome(octets, sizes, direct=direct, inlet=inlet) == whole
