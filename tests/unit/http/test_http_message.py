"""The answer to one request, as its bytes come in whatever pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from confonnx.errors import TooLargeError, TransportError
from confonnx.http.message import (
    Answer,
    Head,
    Inlet,
    Outgoing,
    Sink,
    chunk,
    request_head,
)
from confonnx.http.url import parse_url


@dataclass
class Kept(Sink):
    """Keeps the body; ``direct`` of it in its own room."""

    direct: bool = False
    limit: int = 1 << 20
    body: bytearray = field(default_factory=bytearray)
    heads: list[Head] = field(default_factory=list)
    wanted: bool = True
    at: int = 0

    def open(self, head: Head) -> Sink | None:
        self.heads.append(head)
        if self.direct and head.length is not None:
            self.body = bytearray(head.length)
        return self if self.wanted else None

    def room(self) -> memoryview | None:
        return memoryview(self.body)[self.at :] if self.direct else None

    def filled(self, count: int) -> None:
        self.at += count

    def feed(self, piece: bytes) -> None:
        self.body[self.at : self.at + len(piece)] = piece
        self.at += len(piece)
        if len(self.body) > self.limit:
            raise TooLargeError("too large")


class Stream(Kept):
    """A body beside which the request goes on."""

    duplex = True


def give(answer: Answer, data: bytes) -> None:
    """As a socket does: only what there is room for, and nothing after the end."""
    while data and not answer.complete:
        room = answer.room()
        assert len(room)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        data = data[count:]
        answer.received(count)


def close(answer: Answer) -> None:
    answer.room()
    answer.received(0)


def read(sink: Kept, *pieces: bytes, method: str = "GET", inlet: Inlet | None = None) -> Answer:
    answer = Answer(method, inlet or Inlet(), sink.open)
    for piece in pieces:
        give(answer, piece)
    return answer


LENGTH = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_body_of_known_length(size: int, direct: bool) -> None:
    sink = Kept(direct)
    octets = LENGTH + b"hello"
    answer = read(sink, *[octets[at : at + size] for at in range(0, len(octets), size)])
    assert answer.complete
    assert answer.reusable
    assert answer.began
    assert answer.head == Head(200, (("a", "b"), ("content-length", "5")), 5, keep_alive=True)
    assert sink.body == b"hello"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_body_in_chunks(size: int) -> None:
    sink = Kept(direct=True)
    octets = CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: a\r\n\r\n"
    answer = read(sink, *[octets[at : at + size] for at in range(0, len(octets), size)])
    assert answer.complete
    assert answer.reusable
    assert answer.head is not None
    assert answer.head.length is None
    assert sink.body == b"hello"


def test_a_body_that_ends_with_its_connection() -> None:
    sink = Kept()
    answer = read(sink, b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert not answer.complete
    close(answer)
    assert answer.complete
    assert not answer.reusable
    assert sink.body == b"hello"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_that_have_no_body(status: bytes) -> None:
    answer = read(Kept(), b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n")
    assert answer.complete
    assert answer.reusable


def test_interim_answers_are_skipped() -> None:
    sink = Kept()
    answer = read(sink, b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + LENGTH)
    assert [head.status for head in sink.heads] == [200]
    assert not answer.complete
    give(answer, b"hello")
    assert answer.complete


@pytest.mark.parametrize(
    ("octets", "wanted", "reusable"),
    [
        (LENGTH + b"hello", True, True),
        (LENGTH + b"hello!", True, False),  # a byte too many
        (LENGTH.replace(b"5", b"0") + b"!", True, False),
        (CHUNKED + b"0\r\n\r\n!", True, False),
        (LENGTH.replace(b"A: b", b"Connection: close") + b"hello", True, False),
        (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0") + b"hello", True, False),
        (LENGTH + b"hello", False, True),  # not wanted, and all here
        (LENGTH + b"hell", False, False),
        (LENGTH + b"hello!", False, False),
        (CHUNKED + b"0\r\n\r\n", False, False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False, False),
    ],
)
def test_when_a_connection_may_serve_again(octets: bytes, wanted: bool, reusable: bool) -> None:
    answer = read(Kept(wanted=wanted), octets)
    assert answer.complete
    assert answer.reusable == reusable


@pytest.mark.parametrize(
    "octets", [b"", LENGTH[:5], LENGTH + b"hel", CHUNKED + b"2\r\nhe\r\n", CHUNKED + b"2\r\nh"]
)
@pytest.mark.parametrize("direct", [True, False])
def test_what_breaks_off(octets: bytes, direct: bool) -> None:
    answer = read(Kept(direct), octets)
    with pytest.raises(TransportError, match="the connection failed"):
        close(answer)
    assert not answer.reusable


@pytest.mark.parametrize(
    "octets",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * (65 << 10),
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x2\r\nhe\r\n",
        CHUNKED + b"f" * 5000 + b"\r\n",
    ],
)
def test_what_is_no_answer(octets: bytes) -> None:
    with pytest.raises(TransportError, match="no HTTP answer") as caught:
        read(Kept(), octets)
    assert "OpenSSH" not in str(caught.value)  # nothing of what came


def test_a_length_and_chunks_are_chunks() -> None:
    """RFC 9112 §6.3: the coding counts; what it carries is all that there is."""
    sink = Kept(direct=True)
    answer = read(sink, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + CHUNKED[17:] + b"2\r\nhe\r\n0\r\n\r\n")
    assert answer.complete
    assert answer.head is not None
    assert answer.head.length is None
    assert sink.body[:2] == b"he"


def test_what_a_sink_raises_ends_the_answer() -> None:
    with pytest.raises(TooLargeError):
        read(Kept(limit=3), LENGTH + b"hello")


def test_an_answer_ends_its_request_unless_it_is_a_stream() -> None:
    sink = Kept()
    answer = read(sink, LENGTH)
    assert answer.ends_request
    stream = Stream()
    answer = read(stream, LENGTH)
    assert not answer.ends_request
    give(answer, b"hello")
    assert answer.ends_request


# The head that is kept


def test_the_same_head_is_parsed_once_and_means_the_same() -> None:
    inlet = Inlet()
    first, second, third = Kept(), Kept(), Kept()
    read(first, LENGTH + b"hello", inlet=inlet)
    kept = inlet.head
    answer = read(second, LENGTH + b"world", inlet=inlet)
    assert second.heads[0] is kept
    assert answer.complete
    assert answer.reusable
    assert second.body == b"world"
    other = read(third, LENGTH.replace(b"5", b"2") + b"he", inlet=inlet)
    assert other.complete
    assert third.heads[0].length == 2


@pytest.mark.parametrize("cut", range(1, len(LENGTH)))
def test_a_kept_head_that_comes_in_two_pieces(cut: int) -> None:
    inlet, sink = Inlet(), Kept()
    read(Kept(), LENGTH + b"hello", inlet=inlet)
    answer = read(sink, LENGTH[:cut], LENGTH[cut:] + b"world", inlet=inlet)
    assert answer.complete
    assert sink.body == b"world"


@pytest.mark.parametrize(
    "octets",
    [
        CHUNKED + b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"hello",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_heads_that_are_not_kept(octets: bytes) -> None:
    inlet = Inlet()
    read(Kept(), octets, inlet=inlet)
    assert inlet.head is None


# What goes out


def test_the_head_of_a_request() -> None:
    head = request_head("POST", "/a?b=c", (("host", "example.org"), ("accept", "a/b")))
    assert head == b"POST /a?b=c HTTP/1.1\r\nhost: example.org\r\naccept: a/b\r\n"


@pytest.mark.parametrize(
    ("target", "value"), [("/a b", "x"), ("/a\r\nb", "x"), ("/", "x\r\ny: z"), ("/", "x\n"), ("/", "x\0")]
)
def test_no_second_line_comes_into_a_head(target: str, value: str) -> None:
    with pytest.raises(ValueError, match="does not allow"):
        request_head("GET", target, (("host", "a"), ("a", value)))


def test_credentials_are_in_no_text() -> None:
    with pytest.raises(ValueError, match="a GET request") as caught:
        request_head("GET", "/", (("host", "a"), ("authorization", "Bearer hunter2\n")))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    outgoing = Outgoing("GET", parse_url("http://a/"), b"authorization: hunter2", b"sealed")
    assert "hunter2" not in repr(outgoing)
    assert "sealed" not in repr(outgoing)


@pytest.mark.parametrize("size", [1, 17, 64 << 10, (64 << 10) + 1])
def test_chunks(size: int) -> None:
    data = bytes(size)
    assert b"".join(chunk(data)) == b"%x\r\n" % size + data + b"\r\n"


@pytest.mark.parametrize(("size", "writes"), [(0, 1), (64 << 10, 1), ((64 << 10) + 1, 2)])
def test_small_bodies_go_out_with_their_head(size: int, writes: int) -> None:
    outgoing = Outgoing("POST", parse_url("http://a/"), b"head", bytes(size))
    octets = outgoing.octets()
    assert len(octets) == writes
    assert b"".join(octets) == b"head" + bytes(size)
