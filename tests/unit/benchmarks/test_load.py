"""The closed loop, against a server of a few lines that answers as a test wants it to."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.load import LoadError, Timings, ask_once, run_closed_loop, split_answer
from tests.support.answering import HEAD, REQUEST, answering, echo

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def run(port: int, *, total: int = 20, concurrency: int = 3, lead: int = 4, room: int = 64) -> list[bytes]:
    """The bodies of the answers, in the order of the requests."""
    answers = [bytearray(room) for _ in range(total)]
    timings, lengths = run_closed_loop(
        port=port,
        pids=(os.getpid(),),
        messages=[REQUEST + b"%04d" % number for number in range(total)],
        answers=answers,
        concurrency=concurrency,
        lead=lead,
    )
    check(timings, total - concurrency - lead)
    return [
        bytes(split_answer(memoryview(answer)[:length])[1])
        for answer, length in zip(answers, lengths, strict=True)
    ]


def check(timings: Timings, requests: int) -> None:
    assert len(timings.latencies) == requests
    assert np.all(timings.latencies > 0)
    assert timings.elapsed > 0
    assert timings.server_cpu >= 0


def test_every_answer_goes_to_its_request() -> None:
    with answering(echo) as port:
        assert run(port) == [b"%04d" % number for number in range(20)]


def test_an_answer_may_come_in_pieces() -> None:
    with answering(lambda body: [HEAD[:10], HEAD[10:] + body[:1], body[1:]]) as port:
        assert run(port, total=10) == [b"%04d" % number for number in range(10)]
        assert ask_once(port, REQUEST + b"once") == HEAD + b"once"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"4\r\n%b\r\n0\r\n\r\n"],
        [b"1\r\n", b"%.1b\r\n3\r\n%b\r\n", b"0\r\n", b"\r\n"],
    ],
)
def test_an_answer_may_come_in_chunks(pieces: list[bytes]) -> None:
    def answer(body: bytes) -> list[bytes]:
        one, rest = (body[:1], body[1:]) if len(pieces) > 1 else (b"", body)
        return [CHUNKED_HEAD] + [piece.replace(b"%.1b", one).replace(b"%b", rest) for piece in pieces]

    with answering(answer) as port:
        assert run(port, total=10, room=len(CHUNKED_HEAD) + 40) == [b"%04d" % n for n in range(10)]
        assert bytes(split_answer(memoryview(ask_once(port, REQUEST + b"once")))[1]) == b"once"


def test_chunks_that_break_off_are_an_error() -> None:
    with answering(lambda _: [CHUNKED_HEAD + b"4\r\nonce\r\n", b""]) as port:
        with pytest.raises(LoadError, match="broke off"):
            run(port, room=200)
        with pytest.raises(LoadError, match="broke off"):
            ask_once(port, REQUEST + b"once")


@pytest.mark.parametrize("pieces", [[b""], [HEAD[:10], b""], [HEAD + b"12", b""]])
def test_an_answer_that_breaks_off_is_an_error(pieces: list[bytes]) -> None:
    with answering(lambda _: pieces) as port:
        with pytest.raises(LoadError, match="broke off"):
            run(port)
        with pytest.raises(LoadError, match="broke off"):
            ask_once(port, REQUEST + b"once")


def test_an_answer_that_is_longer_than_the_one_before_is_an_error() -> None:
    with answering(echo) as port, pytest.raises(LoadError, match="longer"):
        run(port, room=len(HEAD) + 3)


def test_an_answer_without_a_length_is_an_error() -> None:
    with (
        answering(lambda body: [b"HTTP/1.1 200 OK\r\n\r\n" + body]) as port,
        pytest.raises(LoadError, match="Content-Length"),
    ):
        run(port)


@pytest.mark.parametrize(("total", "concurrency", "lead"), [(5, 3, 2), (5, 1, 0)])
def test_a_window_without_a_middle_is_refused(total: int, concurrency: int, lead: int) -> None:
    with answering(echo) as port, pytest.raises(ValueError, match="too few"):
        run(port, total=total, concurrency=concurrency, lead=lead)


def test_an_answer_is_split_into_status_and_body() -> None:
    status, body = split_answer(
        memoryview(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno")
    )
    assert (status, bytes(body)) == (503, b"no")
