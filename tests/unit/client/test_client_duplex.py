"""Requests whose body and answer flow at the same time, over both transports."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from confonnx.client.answers import check_answer
from confonnx.client.duplex import Duplex
from confonnx.client.exchange import HttpRequest
from confonnx.client.transport import AsyncHttpTransport
from confonnx.errors import NotConfonnxError, TooLargeError, TransportError
from tests.support.peer import Line, peer
from tests.support.transports import BlockingDriver, Driver, TaskDriver, UvloopDriver, connection

MEDIA_TYPE = "message/ohttp-chunked-res"
STREAM = HttpRequest(
    "POST",
    "/ohttp",
    accept=MEDIA_TYPE,
    max_response_bytes=64 << 20,
    fields=(("content-type", "message/ohttp-chunked-req"), ("incremental", "?1")),
)
OK = f"HTTP/1.1 200 OK\r\nContent-Type: {MEDIA_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
PROBLEM = b'{"status": 413}'
REFUSED = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
    % len(PROBLEM)
    + PROBLEM
)


@pytest.fixture(params=[BlockingDriver, TaskDriver, UvloopDriver], ids=["sync", "async", "uvloop"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    made: Driver = request.param()
    yield made
    made.close()


def echo(line: Line) -> None:
    """Every chunk comes back at once; then the connection may serve the next."""
    while line.head():
        line.say(OK)
        while data := line.chunk():
            line.say(b"%x\r\n" % len(data), data, b"\r\n")
        line.say(b"0\r\n\r\n")


def send_much(exchange: Duplex) -> None:
    """More than the buffers between take."""
    for _ in range(64):
        exchange.send(bytes(1 << 20))


def rest(exchange: Duplex) -> bytes:
    found = bytearray()
    while (piece := exchange.receive()) is not None:
        assert piece
        found += piece
    return bytes(found)


def receive(exchange: Duplex, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = exchange.receive()
        assert piece is not None
        found += piece
    return found


def test_pieces_come_back_before_the_request_ended(driver: Driver) -> None:
    heads: list[bytes] = []

    def serve(line: Line) -> None:
        heads.append(line.head())
        line.say(OK)
        while data := line.chunk():
            line.say(b"%x\r\n" % len(data), data, b"\r\n")
        line.say(b"0\r\n\r\n")

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        for piece in (b"one", b"", bytearray(b"two"), b"x" * 100_000):
            exchange.send(piece)
            assert receive(exchange, len(piece)) == piece
            assert not exchange.answered
        exchange.finish()
        assert exchange.receive() is None
        assert exchange.answered
        assert exchange.refusal is None
        exchange.close()
    lines = heads[0].lower().split(b"\r\n")
    assert lines[0] == b"post /ohttp http/1.1"
    assert {b"transfer-encoding: chunked", b"incremental: ?1", b"accept: " + MEDIA_TYPE.encode()} <= set(
        lines
    )
    assert not [line for line in lines if line.startswith(b"content-length")]


def test_neither_side_waits_for_the_other(driver: Driver) -> None:
    """More than all buffers between take goes out before anything is received."""
    piece = bytes(range(256)) * 4096
    with peer(echo) as found:
        exchange = driver.open(connection(found.url), STREAM)
        for _ in range(32):
            exchange.send(piece)
        exchange.finish()
        assert rest(exchange) == piece * 32
        exchange.close()


def test_what_nobody_receives_has_a_limit(driver: Driver) -> None:
    with peer(echo) as found:
        exchange = driver.open(connection(found.url), replace(STREAM, max_response_bytes=1 << 20))
        with pytest.raises(TooLargeError, match="faster than it was received"):
            send_much(exchange)
        exchange.close()


def test_a_long_answer_is_no_large_one(driver: Driver) -> None:
    with peer(echo) as found:
        exchange = driver.open(connection(found.url), replace(STREAM, max_response_bytes=300_000))
        for _ in range(16):
            exchange.send(bytes(100_000))
            receive(exchange, 100_000)
        exchange.close()


def test_a_connection_serves_the_next_after_a_proper_end(driver: Driver) -> None:
    with peer(echo) as found:
        for _ in range(2):
            exchange = driver.open(connection(found.url), STREAM)
            exchange.send(b"a")
            exchange.finish()
            assert rest(exchange) == b"a"
            exchange.close()
            exchange.close()
        assert found.connections == 1
        unfinished = driver.open(connection(found.url), STREAM)
        unfinished.send(b"a")
        unfinished.close()
        another = driver.open(connection(found.url), STREAM)
        another.send(b"a")
        assert receive(another, 1) == b"a"
        another.close()
        assert found.connections == 2


def test_an_early_refusal_is_not_lost(driver: Driver) -> None:
    """The server answers, reads no more and resets the connection."""

    def serve(line: Line) -> None:
        line.head()
        line.chunk()
        line.say(REFUSED)
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        send_much(exchange)
        assert exchange.answered
        exchange.finish()
        assert exchange.receive() is None
        refusal = exchange.refusal
        exchange.close()
    assert refusal is not None
    assert (refusal.status, bytes(refusal.body)) == (413, PROBLEM)
    with pytest.raises(TooLargeError):
        check_answer(STREAM, refusal)


def test_an_answer_may_end_before_the_request(driver: Driver) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(OK, b"3\r\nabc\r\n0\r\n\r\n")
        line.chunk()

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        assert rest(exchange) == b"abc"
        assert exchange.answered
        exchange.send(bytes(4 << 20))  # nobody reads it
        exchange.close()
        another = driver.open(connection(found.url), STREAM)
        assert rest(another) == b"abc"
        another.close()
        assert found.connections == 2


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", 200, b""),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nabc", 502, b""),
        (REFUSED, 413, PROBLEM),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + REFUSED, 413, PROBLEM),
    ],
)
def test_other_answers_are_refusals(driver: Driver, answer: bytes, status: int, body: bytes) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(answer)

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        assert exchange.receive() is None
        refusal = exchange.refusal
        exchange.close()
    assert refusal is not None
    assert (refusal.status, bytes(refusal.body)) == (status, body)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"3\r\nabc\r\n",  # the last chunk is missing
        OK + b"5\r\nabc",
        OK + b"x\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
    ],
)
def test_truncation_and_garbage_are_failures(driver: Driver, answer: bytes) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(answer)

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        with pytest.raises(
            TransportError, match=r"POST http://127\.0\.0\.1:\d+/ohttp: the connection failed"
        ):
            rest(exchange)
        exchange.close()


def test_a_compressed_answer_is_refused(driver: Driver) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"))

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM)
        with pytest.raises(NotConfonnxError, match="compressed"):
            exchange.receive()
        exchange.close()


def test_silence_has_an_end(driver: Driver) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.reader.read(1)

    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM, timeout=0.1)
        with pytest.raises(TransportError, match=r"no complete answer within 0\.1 s"):
            exchange.receive()
        exchange.close()


def test_a_peer_that_takes_nothing_is_given_up(driver: Driver) -> None:
    def serve(line: Line) -> None:
        line.head()
        done.wait(10)

    done = threading.Event()
    with peer(serve) as found:
        exchange = driver.open(connection(found.url), STREAM, timeout=0.2)
        with pytest.raises(TransportError, match=r"no complete answer within 0\.2 s"):
            send_much(exchange)
        exchange.close()
        done.set()


def test_tasks_may_send_and_receive_at_once() -> None:
    piece = bytes(1 << 16)

    async def main(url: str) -> None:
        transport = AsyncHttpTransport(connection(url))
        exchange = await transport.open(STREAM, timeout=10)

        async def send() -> None:
            for _ in range(256):
                await exchange.send(piece)
            await exchange.finish()

        sending = asyncio.create_task(send())
        total = 0
        while (found := await exchange.receive()) is not None:
            total += len(found)
        await sending
        assert total == 256 * len(piece)
        await exchange.close()
        await transport.close()

    with peer(echo) as found:
        asyncio.run(main(found.url))


def test_what_came_can_be_told_without_a_wait(driver: Driver) -> None:
    with peer(echo) as found:
        exchange = driver.open(connection(found.url), STREAM)
        assert not exchange.is_ready()
        exchange.send(b"piece")
        while not exchange.is_ready():
            pass
        assert exchange.receive() == b"piece"
        exchange.finish()
        assert exchange.receive() is None
        assert exchange.is_ready()
        exchange.close()
