"""Timing of a connection against a transport that does what a test says: moments that sockets do not show."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any, cast

import pytest

from confonnx.server import connection
from confonnx.server.connection import Connection, HttpLimits
from confonnx.server.head import HeadLimits, RequestParser
from confonnx.server.http import HttpServer
from confonnx.server.messages import HttpRequest, HttpResponse

LIMITS = HttpLimits(transfer_grace=5.0, min_rate=1000, linger=1.0, header_timeout=10.0, idle_timeout=20.0)


class Answers:
    """A handler that answers 5000 bytes."""

    def wants_body(self, method: str, path: str) -> bool:
        return True

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, {}, (bytes(5000),))


class FakeTransport:
    """Takes what is written; ``unsent`` bytes of it have not left."""

    def __init__(self) -> None:
        self.unsent = 0
        self.written = b""
        self.calls: list[str] = []

    def set_write_buffer_limits(self, **_: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Iterable[Any]) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)


class Peer:
    """A connection and the fake transport below it."""

    def __init__(self) -> None:
        self.server = HttpServer(Answers(), LIMITS)
        self.connection = Connection(self.server)
        self.transport = FakeTransport()
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    async def send(self, data: bytes) -> None:
        buffer = self.connection.get_buffer(len(data))
        buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))
        for _ in range(3):
            await asyncio.sleep(0)

    def after(self, seconds: float) -> list[str]:
        """What the server did to the transport when it looked again ``seconds`` later."""
        self.transport.calls.clear()
        self.connection.check_time(asyncio.get_running_loop().time() + seconds)
        return self.transport.calls


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_last_bytes_of_an_answer_get_their_time_before_the_connection_is_cut() -> None:
    async def scenario() -> None:
        peer = Peer()
        await peer.send(GET + b"Connection: close\r\n\r\n")
        assert peer.transport.calls == ["write_eof"]
        assert len(peer.transport.written) > 5000
        peer.transport.unsent = 3000
        assert peer.after(4.0) == []  # far over the linger time, but not too slow
        assert peer.after(8.0) == ["abort"]
        peer.transport.unsent = 0
        assert peer.after(0.9) == []
        assert peer.after(1.1) == ["abort"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("unsent", "seconds", "cut"),
    [(5000, 4.9, False), (5000, 5.5, True), (2000, 7.5, False), (2000, 8.5, True)],
)
def test_slow_reader_is_measured_by_what_has_left(unsent: int, seconds: float, cut: bool) -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.connection.pause_writing()
        await peer.send(GET + b"\r\n")
        peer.transport.unsent = unsent + len(peer.transport.written) - 5000
        assert peer.after(seconds) == (["abort"] if cut else [])

    asyncio.run(scenario())


def test_next_request_waits_until_the_reader_caught_up() -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.connection.pause_writing()
        await peer.send(GET + b"\r\n" + GET + b"\r\n")
        assert peer.transport.written.count(b"HTTP/1.1 200") == 1
        peer.connection.resume_writing()
        await asyncio.sleep(0.01)
        assert peer.transport.written.count(b"HTTP/1.1 200") == 2

    asyncio.run(scenario())


def test_idle_times() -> None:
    async def scenario() -> None:
        peer = Peer()
        assert peer.after(9.0) == []
        assert peer.after(11.0) == ["close"]
        peer = Peer()
        await peer.send(GET + b"\r\n")
        assert peer.after(19.0) == []
        assert peer.after(21.0) == ["close"]

    asyncio.run(scenario())


def test_an_answer_to_nobody_is_dropped() -> None:
    class Later(Answers):
        async def handle(self, request: HttpRequest) -> HttpResponse:
            await asyncio.sleep(0)
            return await super().handle(request)

    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Later()
        buffer = peer.connection.get_buffer(100)
        data = GET + b"\r\n"
        buffer[: len(data)] = data
        peer.connection.buffer_updated(len(data))
        peer.connection.connection_lost(None)
        await asyncio.sleep(0.01)
        assert peer.transport.written == b""
        assert peer.server.connections == 0

    asyncio.run(scenario())


def test_handler_that_breaks_its_promise_costs_the_connection() -> None:
    class Breaks(Answers):
        async def handle(self, request: HttpRequest) -> HttpResponse:
            raise ValueError

    async def scenario() -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        peer = Peer()
        peer.server.handler = Breaks()
        await peer.send(GET + b"\r\n")
        assert [type(report["exception"]) for report in reports] == [ValueError]
        assert "abort" in peer.transport.calls
        assert peer.transport.written == b""

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_may_wait_wherever_it_likes(fails: bool) -> None:
    """The first step of a handler runs in no task, the others in one; what it waits for ends as it does."""
    seen: list[object] = []

    class Waits(Answers):
        async def handle(self, request: HttpRequest) -> HttpResponse:
            seen.append(asyncio.current_task())
            await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0))})
            seen.append(asyncio.current_task())
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(
                *((future.set_exception, KeyError()) if fails else (future.set_result, b"later"))
            )
            try:
                return HttpResponse(200, {}, (await future,))
            except KeyError:
                return HttpResponse(200, {}, (b"failed",))

    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Waits()
        await peer.send(GET + b"\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        assert peer.transport.written.endswith(b"failed" if fails else b"later")
        assert seen[1] is not None
        assert seen[1] is not seen[0]

    asyncio.run(scenario())


def test_who_goes_away_ends_the_work_for_it() -> None:
    ended: list[str] = []

    class Waits(Answers):
        async def handle(self, request: HttpRequest) -> HttpResponse:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append("ended")
            raise AssertionError

    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Waits()
        await peer.send(GET + b"\r\n")
        assert ended == []
        peer.connection.connection_lost(None)
        await asyncio.sleep(0.01)
        assert ended == ["ended"]

    asyncio.run(scenario())


def test_many_requests_in_one_read_are_answered_in_order_and_in_little_stack() -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Echo()
        requests = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(400)]
        await peer.send(b"".join(requests))
        await peer.send(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(500):
            await asyncio.sleep(0)
        asked = re.findall(rb"asked: /(\w+) ", peer.transport.written)
        assert asked == [b"%d" % number for number in range(400)] + [b"last"]

    asyncio.run(scenario())


class Echo(Answers):
    """A handler that tells what it was asked."""

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(
            200, {"asked": f"{request.target} {request.fields.get('x', '-')}"}, (request.body,)
        )


def _answers(*requests: bytes) -> list[tuple[str, bytes]]:
    """What one connection says to each request, sent one after the other: ``asked`` and the body."""
    found: list[tuple[str, bytes]] = []

    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Echo()
        for request in requests:
            peer.transport.written = b""
            await peer.send(request)
            head, _, body = peer.transport.written.partition(b"\r\n\r\n")
            asked = [line[7:].decode() for line in head.split(b"\r\n") if line.startswith(b"asked: ")]
            found.append((asked[0] if asked else head.decode(), body))

    asyncio.run(scenario())
    return found


def _post(body: bytes, *, x: str = "1", target: str = "/a") -> bytes:
    return (
        f"POST {target} HTTP/1.1\r\nHost: a\r\nX: {x}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


def test_a_head_that_comes_again_means_the_same_and_a_similar_one_does_not() -> None:
    requests = [
        _post(b"one"),
        _post(b"two"),
        _post(b"two", x="2"),
        _post(b"four"),
        _post(b"six", target="/b"),
        _post(b"one"),
    ]
    assert _answers(*requests) == [
        ("/a 1", b"one"),
        ("/a 1", b"two"),
        ("/a 2", b"two"),
        ("/a 1", b"four"),
        ("/b 1", b"six"),
        ("/a 1", b"one"),
    ]


def test_a_kept_head_is_parsed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    parsers: list[object] = []
    real = RequestParser

    def parser(limits: HeadLimits) -> RequestParser:
        parsers.append(limits)
        return real(limits)

    monkeypatch.setattr(connection, "RequestParser", parser)
    _answers(_post(b"one"), _post(b"two"), _post(b"six"))
    assert len(parsers) == 1
    parsers.clear()
    long = "l" * 3000  # too much to keep for each of many connections
    assert _answers(_post(b"one", x=long), _post(b"two", x=long))[1] == (f"/a {long}", b"two")
    assert len(parsers) == 2


def test_a_kept_head_in_pieces_or_with_more_behind_it() -> None:
    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Echo()
        first, second = _post(b"one"), _post(b"two")
        await peer.send(first)
        await peer.send(second[:20])
        await peer.send(second[20:-1])
        await peer.send(second[-1:])
        await peer.send(_post(b"six") + _post(b"ten", x="3"))
        for _ in range(6):
            await asyncio.sleep(0)
        answers = [part.partition(b"\r\n\r\n")[2] for part in peer.transport.written.split(b"HTTP/1.1 ")[1:]]
        assert answers == [b"one", b"two", b"six", b"ten"]

    asyncio.run(scenario())


def test_what_a_kept_head_says_of_the_connection_holds_again() -> None:
    async def scenario() -> None:
        peer = Peer()
        await peer.send(GET + b"\r\n")
        await peer.send(GET + b"Connection: close\r\n\r\n")
        assert peer.transport.calls == ["write_eof"]
        assert peer.transport.written.count(b"connection: close") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "writes"), [(16384, 1), (16385, 2)])
def test_a_small_body_goes_out_with_its_head(size: int, writes: int) -> None:
    written: list[Iterable[Any]] = []

    class Sized(Answers):
        async def handle(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(200, {}, (bytes(size),))

    async def scenario() -> None:
        peer = Peer()
        peer.server.handler = Sized()
        peer.transport.writelines = written.append  # type: ignore[method-assign,assignment]
        peer.transport.write = lambda data: written.append((data,))  # type: ignore[method-assign]
        await peer.send(GET + b"\r\n")

    asyncio.run(scenario())
    assert len(written) == 1
    pieces = list(written[0])
    assert len(pieces) == writes
    assert len(b"".join(pieces).partition(b"\r\n\r\n")[2]) == size
