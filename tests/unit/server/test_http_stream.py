"""A connection that carries a stream: who waits for whom, who is too slow, and when it is cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from confonnx.server import http_stream
from confonnx.server.connection import Connection, HttpLimits
from confonnx.server.head import HeadLimits, Rejection, RequestParser
from confonnx.server.http import HttpServer
from confonnx.server.http_stream import Exchange, IdleError
from confonnx.server.messages import HttpRequest, HttpResponse, problem
from tests.unit.server.test_connection import FakeTransport

LIMITS = HttpLimits(
    transfer_grace=5.0, min_rate=1000, linger=1.0, header_timeout=10.0, idle_timeout=20.0, max_buffered=100
)
HEAD = b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: a/stream\r\n\r\n"

Work = Callable[[Exchange], Coroutine[Any, Any, HttpResponse | None]]


class Streams:
    """Takes streams, and does with them what a test says."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.requests: list[HttpRequest] = []

    def wants_stream(self, method: str, path: str, media_type: str) -> bool:
        return (method, path, media_type) == ("POST", "/stream", "a/stream")

    async def stream(self, request: HttpRequest, exchange: Exchange) -> HttpResponse | None:
        self.requests.append(request)
        return await self.work(exchange)

    def wants_body(self, method: str, path: str) -> bool:
        return True

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return problem(415)


class Peer:
    """A client's connection and the fake transport below it."""

    def __init__(self, work: Work) -> None:
        self.streams = Streams(work)
        self.server = HttpServer(self.streams, LIMITS, streams=self.streams)
        self.connection = Connection(self.server)
        self.transport = FakeTransport()
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    async def send(self, data: bytes) -> None:
        while data:
            buffer = self.connection.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.connection.buffer_updated(size)
            data = data[size:]
        await turns()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def after(self, seconds: float) -> list[str]:
        """What the server did to the transport when it looked again ``seconds`` later."""
        self.transport.calls.clear()
        self.connection.check_time(asyncio.get_running_loop().time() + seconds)
        await turns()
        return self.transport.calls


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def echo(exchange: Exchange) -> None:
    exchange.begin({"x": "y"})
    while (piece := await exchange.read(idle=True)) is not None:
        await exchange.write(piece)
    exchange.end()


async def read_slowly(exchange: Exchange) -> None:
    exchange.begin({})
    while await exchange.read(idle=False) is not None:
        pass
    exchange.end()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_body_and_answer_flow() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(HEAD)
        assert peer.transport.written.startswith(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n")
        assert b"connection: close\r\nx: y\r\ndate: " in peer.transport.written
        peer.transport.written = b""
        await peer.chunk(b"one")
        assert peer.transport.written == b"3\r\none\r\n"
        await peer.chunk(b"x" * 20_000)
        await peer.send(b"0\r\n\r\n")
        assert peer.transport.written.endswith(b"\r\n0\r\n\r\n")
        assert peer.transport.calls == ["write_eof"]  # and what still comes is dropped
        assert peer.streams.requests[0].fields["content-type"] == "a/stream"

    run(scenario)


def test_the_body_may_begin_and_end_with_the_head() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(HEAD + b"3\r\none\r\n0\r\n\r\n")
        assert peer.transport.written.endswith(b"3\r\none\r\n0\r\n\r\n")

    run(scenario)


def test_expect_continue() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(HEAD[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert peer.transport.written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")

    run(scenario)


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"/stream HTTP", b"/other HTTP"),
        HEAD.replace(b"a/stream", b"b/stream"),
        HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    ],
)
def test_everything_else_goes_the_usual_way(head: bytes) -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(head)
        await peer.send(b"hello" if b"Length" in head else b"0\r\n\r\n")
        assert peer.transport.written.startswith(b"HTTP/1.1 415 ")
        assert peer.streams.requests == []

    run(scenario)


def test_a_refusal_is_an_answer_like_any_other() -> None:
    async def refuse(exchange: Exchange) -> HttpResponse:
        await exchange.read(idle=False)
        return problem(400)

    async def scenario() -> None:
        peer = Peer(refuse)
        await peer.send(HEAD)
        await peer.chunk(b"one")
        assert peer.transport.written.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in peer.transport.written
        await peer.chunk(b"two")
        assert peer.transport.calls == ["write_eof"]

    run(scenario)


def test_an_answer_without_an_end_is_cut() -> None:
    async def stop(exchange: Exchange) -> None:
        exchange.begin({})
        await exchange.write(b"x")

    async def scenario() -> None:
        peer = Peer(stop)
        await peer.send(HEAD)
        assert peer.transport.calls == ["abort"]
        assert not peer.transport.written.endswith(b"0\r\n\r\n")

    run(scenario)


@pytest.mark.parametrize("bad", [b"x\r\n", b"1\r\nab\r\n", b"-1\r\n"])
def test_a_malformed_body_is_cut(bad: bytes) -> None:
    async def scenario() -> None:
        for parts in ((HEAD, bad), (HEAD + bad,)):
            peer = Peer(echo)
            for part in parts:
                await peer.send(part)
            assert "abort" in peer.transport.calls

    run(scenario)


def test_chunk_sizes_must_not_outweigh_their_content() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed_head(HEAD)
    sink: deque[bytes] = deque()
    parser.start_stream(sink)
    outcome: Rejection | bool = False
    for _ in range(20_000):
        outcome = parser.feed_stream(b"1\r\nx\r\n")
        if outcome:
            break
    assert outcome == Rejection(413)
    assert len(sink) < 20_000


def test_small_pieces_of_one_turn_go_out_together() -> None:
    async def answer(exchange: Exchange) -> None:
        exchange.begin({})
        await exchange.write(b"one")
        await exchange.write(b"two")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await exchange.write(b"three")
        exchange.end()

    async def scenario() -> None:
        peer = Peer(answer)
        writes: list[bytes] = []
        peer.transport.write = writes.append  # type: ignore[method-assign, assignment]
        await peer.send(HEAD)
        first, second = writes
        assert first.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
        assert second == b"5\r\nthree\r\n0\r\n\r\n"

    run(scenario)


def test_nothing_is_written_to_a_connection_that_was_cut() -> None:
    async def stop(exchange: Exchange) -> None:
        exchange.begin({})

    async def scenario() -> None:
        peer = Peer(stop)
        await peer.send(HEAD)
        assert peer.transport.written == b""
        assert peer.transport.calls == ["abort"]

    run(scenario)


def test_who_lags_behind_is_not_sent_more() -> None:
    gate = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        exchange.begin({})
        await gate.wait()
        while await exchange.read(idle=True) is not None:
            pass
        exchange.end()

    async def scenario() -> None:
        peer = Peer(wait)
        await peer.send(HEAD)
        for _ in range(3):
            await peer.chunk(bytes(60_000))
        assert peer.transport.calls == ["pause_reading"]
        gate.set()
        await turns()
        assert peer.transport.calls == ["pause_reading", "resume_reading"]

    run(scenario)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(HEAD)
        peer.connection.pause_writing()
        peer.transport.written = b""
        await peer.chunk(b"one")
        await peer.chunk(b"two")
        assert peer.transport.written == b"3\r\none\r\n"  # and its handler waits
        peer.connection.resume_writing()
        await turns()
        assert peer.transport.written == b"3\r\none\r\n3\r\ntwo\r\n"

    run(scenario)


def test_a_peer_that_does_not_keep_up_is_noticed() -> None:
    async def scenario() -> None:
        reader = Peer(echo)
        await reader.send(HEAD)
        reader.transport.unsent = 10_000
        reader.connection.pause_writing()
        assert await reader.after(4) == []
        reader.transport.unsent = 8_000  # 2,000 bytes left in 6 s, of which 5 are free
        assert await reader.after(6) == []
        assert await reader.after(8) == ["abort"]

        sender = Peer(read_slowly)
        await sender.send(HEAD)
        assert await sender.after(4) == []
        await sender.chunk(bytes(2_000))
        assert await sender.after(6) == []
        assert await sender.after(8) == ["abort"]

    run(scenario)


def test_between_records_a_client_may_be_idle_for_a_while() -> None:
    outcomes: list[str] = []

    async def wait(exchange: Exchange) -> None:
        exchange.begin({})
        try:
            await exchange.read(idle=True)
        except IdleError:
            outcomes.append("idle")
        exchange.end()

    async def scenario() -> None:
        peer = Peer(wait)
        await peer.send(HEAD)
        assert await peer.after(19) == []
        assert outcomes == []
        assert await peer.after(21) == ["write_eof"]
        assert outcomes == ["idle"]

    run(scenario)


@pytest.mark.parametrize("idle", [True, False])
def test_a_server_that_drains_wakes_who_waits_for_an_idle_client(idle: bool) -> None:
    outcomes: list[object] = []

    async def wait(exchange: Exchange) -> None:
        exchange.begin({})
        try:
            outcomes.append(await exchange.read(idle=idle))
        except IdleError:
            outcomes.append("idle")
        outcomes.append(exchange.draining)
        exchange.end()

    async def scenario() -> None:
        peer = Peer(wait)
        await peer.send(HEAD)
        peer.connection.close_if_idle()
        await turns()
        if not idle:
            assert outcomes == []
            await peer.chunk(b"x")
        assert outcomes == ["idle" if idle else b"x", True]

    run(scenario)


def test_a_draining_server_waits_for_nobody() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        await peer.send(HEAD)
        peer.connection.close_if_idle()
        await turns()
        assert peer.transport.calls == ["abort"]  # the echo does not catch what it is told

    asyncio.run(_quietly(scenario))


async def _quietly(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await scenario()


def test_memory_is_shared_with_all_other_requests() -> None:
    outcomes: list[bool] = []

    async def reserve(exchange: Exchange) -> None:
        exchange.begin({})
        outcomes.append(exchange.reserve(60))
        outcomes.append(exchange.reserve(60))
        exchange.release(60)
        outcomes.append(exchange.reserve(60))
        await exchange.read(idle=True)

    async def scenario() -> None:
        peer = Peer(reserve)
        await peer.send(HEAD)
        assert outcomes == [True, False, True]
        assert peer.server.buffered == 60
        peer.connection.connection_lost(None)
        await turns()
        assert peer.server.buffered == 0

    run(scenario)


def test_a_client_that_goes_away_cancels_the_handler() -> None:
    cancelled: list[bool] = []

    async def wait(exchange: Exchange) -> None:
        try:
            await exchange.read(idle=True)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario() -> None:
        peer = Peer(wait)
        await peer.send(HEAD)
        assert peer.connection.eof_received() is False  # the transport closes, and the connection is lost
        peer.connection.connection_lost(None)
        await turns()
        assert cancelled == [True]

    run(scenario)


def test_a_client_may_shut_its_side_behind_a_whole_request() -> None:
    async def wait(exchange: Exchange) -> None:
        while await exchange.read(idle=True) is not None:
            pass
        await asyncio.Event().wait()

    async def scenario() -> None:
        peer = Peer(wait)
        await peer.send(HEAD + b"0\r\n\r\n")
        assert peer.connection.eof_received() is True
        peer.connection.connection_lost(None)
        await turns()

    run(scenario)


def test_a_read_buffer_is_no_larger_than_it_need_be() -> None:
    async def scenario() -> None:
        peer = Peer(echo)
        before = len(peer.connection.get_buffer(0))
        await peer.send(HEAD)
        assert before < len(peer.connection.get_buffer(0)) == http_stream.READ_BUFFER

    run(scenario)
