"""The HTTP front on real sockets: smuggling, slow peers, pipelining and every limit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest

from confonnx.errors import ConfigurationError
from confonnx.server.connection import HttpLimits
from confonnx.server.head import HeadLimits
from confonnx.server.http import HttpServer
from confonnx.server.messages import HttpRequest, HttpResponse, text

CANARY = "canary7f3a"
LIMITS = HttpLimits(
    max_connections=8,
    head=HeadLimits(max_bytes=2048, max_target=256, max_fields=20),
    max_body=1 << 20,
    max_buffered=2 << 20,
    header_timeout=0.3,
    idle_timeout=0.4,
    transfer_grace=0.3,
    min_rate=1 << 16,
    linger=0.3,
)


@dataclass
class Echo:
    """Answers with the body; remembers what it saw; ``/slow`` waits for ``gate``; ``/big`` is 8 MiB."""

    seen: list[HttpRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    def wants_body(self, method: str, path: str) -> bool:
        return path != "/nobody"

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        if request.path == "/slow":
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request.path == "/big":
            return HttpResponse(200, {}, (bytes(4 << 20), memoryview(bytes(4 << 20))))
        if request.path == "/text":
            return text(200, "words")
        return HttpResponse(200, {"x-length": str(len(request.body))}, (request.body,))


@dataclass
class Front:
    """A running server and how to reach it."""

    server: HttpServer
    echo: Echo
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(
        self, *, receive_buffer: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = socket.socket()
        try:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def exchange(self, *data: bytes, pause: float = 0.0) -> bytes:
        """Send the pieces and read until the server closes."""
        reader, writer = await self.connect()
        for piece in data:
            writer.write(piece)
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer


@asynccontextmanager
async def running(limits: HttpLimits = LIMITS) -> AsyncIterator[Front]:
    echo = Echo()
    server = HttpServer(echo, limits)
    port = await server.listen("127.0.0.1", 0, option="--http-port")
    front = Front(server, echo, port)
    try:
        yield front
    finally:
        await front.close()
        await server.drain(0.1)


class Run(Protocol):
    """Runs a scenario against a server of its own."""

    def __call__(self, scenario: Callable[[Front], Awaitable[None]], limits: HttpLimits = LIMITS) -> None: ...


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario against a server, on both event loops: their transports differ in more than speed."""
    runner = asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run

    def run_scenario(scenario: Callable[[Front], Awaitable[None]], limits: HttpLimits = LIMITS) -> None:
        async def main() -> None:
            async with running(limits) as front:
                await scenario(front)

        runner(main())

    return run_scenario


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), fields, await reader.readexactly(int(fields["content-length"]))


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_keep_alive_serves_several_requests_with_bodies_in_several_pieces(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        for size in (0, 1, 100, 70_000):
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            writer.write(POST + b"Content-Length: %d\r\n" % size)
            await asyncio.sleep(0.01)
            writer.write(b"\r\n" + body[:10])
            await asyncio.sleep(0.01)
            writer.write(body[10:])
            status, fields, answer = await read_response(reader)
            assert (status, answer) == (200, body)
            assert "connection" not in fields
            assert fields["date"].endswith("GMT")
        assert front.server.buffered == 0

    run(scenario)


REFUSED = {
    "length and coding": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "signed length": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "negative length": (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    "hex length": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello", 400),
    "length of 19 digits": (POST + b"Content-Length: 1000000000000000000\r\n\r\nhello", 400),
    "tunnel": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 400),
    "two codings": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding list": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "coding with tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "coding in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and upgrade": (
        POST + b"Upgrade: h2c\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding and upgrade, a request as body": (
        POST + b"Upgrade: h2c\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n" + GET + b"\r\n",
        400,
    ),
    "folded field": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "blank before colon": (GET + b"X : a\r\n\r\n", 400),
    "NUL in value": (GET + b"X: a\x00b\r\n\r\n", 400),
    "bare CR": (GET + b"X: a\rb\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "non-ASCII name": (GET + b"X\x80: a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "blank in target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "control in target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0 in text": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "blank lines first": (b"\r\n\r\n" + GET + b"\r\n", 400),
    "long target": (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "very long target": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "long head": (GET + b"X: " + b"a" * 3000 + b"\r\n\r\n", 431),
    "many fields": (GET + b"X: a\r\n" * 30 + b"\r\n", 431),
    "other expectation": (POST + b"Expect: a-pony\r\nContent-Length: 5\r\n\r\nhello", 417),
    "compressed": (POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", 415),
    "too large": (POST + b"Content-Length: 1048577\r\n\r\n", 413),
    "too large with expectation": (POST + b"Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413),
    "chunk size with prefix": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk size with blank": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", 400),
    "chunk ended by LF": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    "chunk longer than said": (CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", 400),
    "chunk size overflow": (CHUNKED + b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n", 400),
    "chunks too large": (CHUNKED + b"100001\r\n" + bytes(0x100001) + b"\r\n0\r\n\r\n", 413),
    "endless chunk extension": (CHUNKED + b"5;" + b"a" * 70_000, 413),
    "endless trailer": (CHUNKED + b"0\r\nX: " + b"a" * 70_000, 413),
    "tiny chunks": (CHUNKED + b"1;aaaaaaaaaaaaa\r\nx\r\n" * 20_000, 413),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_without_reaching_the_handler_and_closes(run: Run, case: str) -> None:
    message, expected = REFUSED[case]

    async def scenario(front: Front) -> None:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX: " + CANARY.encode() + b"\r\n\r\n"
        answer = await front.exchange(message + smuggled)
        assert status_of(answer) == expected
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer
        assert CANARY.encode() not in answer
        assert front.echo.seen == []
        assert front.server.buffered == 0

    run(scenario)


def test_refusal_does_not_depend_on_how_the_bytes_are_cut(run: Run) -> None:
    async def scenario(front: Front) -> None:
        for case in ("length and coding", "two equal lengths", "folded field", "no host"):
            message, expected = REFUSED[case]
            pieces = [message[index : index + 7] for index in range(0, message.index(b"\r\n\r\n") + 4, 7)]
            assert status_of(await front.exchange(*pieces, pause=0.001)) == expected, case
        assert front.echo.seen == []

    run(scenario)


def test_head_cut_anywhere_is_understood(run: Run) -> None:
    async def scenario(front: Front) -> None:
        message = POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
        for cut in range(1, len(message)):
            answer = await front.exchange(message[:cut], message[cut:], pause=0.001)
            assert answer.endswith(b"\r\n\r\nhello"), cut

    run(scenario)


def test_pipelined_requests_are_answered_one_by_one_in_order(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        bodies = [b"%d" % index * (index * 100) for index in range(1, 9)]
        writer.write(b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
        for body in bodies:
            assert (await read_response(reader))[2] == body

    run(scenario)


def test_pipelining_behind_a_busy_request_stays_in_the_kernel(run: Run) -> None:
    async def scenario(front: Front) -> None:
        _reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        flood = (GET + b"\r\n") * 400_000  # 10 MiB
        writer.write(flood)
        await asyncio.sleep(0.3)
        assert len(front.echo.seen) == 1
        unsent = writer.transport.get_write_buffer_size()
        assert unsent > len(flood) // 4, "the server keeps reading although it is busy"
        writer.transport.abort()

    run(scenario)


def test_what_waited_behind_a_busy_request_is_answered_in_order(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        count = 2000  # 66 kB: reading pauses, and goes on
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count)))
        await asyncio.sleep(0.1)
        front.echo.gate.set()
        for _ in range(count + 1):
            assert (await read_response(reader))[0] == 200
        assert [request.target for request in front.echo.seen[1:]] == [
            f"/{number}" for number in range(count)
        ]

    run(scenario)


def test_what_waits_behind_the_last_request_of_a_connection_is_dropped(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + (GET + b"\r\n") * 2000)
        await asyncio.sleep(0.1)
        front.echo.gate.set()
        assert (await asyncio.wait_for(reader.read(), 3)).count(b"HTTP/1.1 200") == 1
        assert len(front.echo.seen) == 1

    run(scenario)


def test_client_that_stays_after_the_answer_is_let_go(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(GET + b"Connection: close\r\n\r\n")
        await asyncio.wait_for(reader.read(), 3)
        for _ in range(40):  # it keeps sending, and never closes
            await asyncio.sleep(0.02)
            if front.server.connections == 0:
                break
            with suppress(OSError):
                writer.write(b"x")
        assert front.server.connections == 0

    run(scenario)


def test_chunked_body_is_read_and_the_connection_ends_after_it(run: Run) -> None:
    async def scenario(front: Front) -> None:
        body = CHUNKED + b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
        answer = await front.exchange(body + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhello world")
        assert b"connection: close" in answer
        assert [request.target for request in front.echo.seen] == ["/"]
        answer = await front.exchange(*(body[i : i + 3] for i in range(0, len(body), 3)), pause=0.001)
        assert answer.endswith(b"\r\n\r\nhello world")

    run(scenario)


def test_absolute_form_and_upgrade_requests_are_plain_requests(run: Run) -> None:
    async def scenario(front: Front) -> None:
        for message, target in (
            (b"GET http://x:1/y?z HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "/y?z"),
            (b"GET http://x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "/"),
            (b"GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n\r\n", "/u"),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "*"),
        ):
            assert status_of(await front.exchange(message)) == 200
            assert front.echo.seen[-1].target == target

    run(scenario)


def test_repeated_fields_are_joined_and_names_are_lower_case(run: Run) -> None:
    async def scenario(front: Front) -> None:
        await front.exchange(GET + b"X-One: 1\r\nx-one:  2 \r\nConnection: close\r\n\r\n")
        assert front.echo.seen[0].fields["x-one"] == "1, 2"

    run(scenario)


def test_head_has_the_length_but_no_body(run: Run) -> None:
    async def scenario(front: Front) -> None:
        answer = await front.exchange(b"HEAD /text HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"content-length: 5\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")

    run(scenario)


def test_http_1_0_is_answered_and_closed(run: Run) -> None:
    async def scenario(front: Front) -> None:
        answer = await front.exchange(b"GET /text HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert status_of(answer) == 200
        assert b"connection: close" in answer

    run(scenario)


def test_continue_is_sent_only_when_the_body_is_waited_for(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(25), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await read_response(reader))[2] == b"hello"
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        assert (await read_response(reader))[2] == b"hello"

    run(scenario)


def test_unwanted_body_is_not_read(run: Run) -> None:
    async def scenario(front: Front) -> None:
        answer = await front.exchange(
            b"POST /nobody HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nhello"
        )
        assert status_of(answer) == 200
        assert front.echo.seen[0].body == b""
        assert b"connection: close" in answer

    run(scenario)


SLOW = {
    "silent from the connect": (b"", b"", None),
    "half a head": (b"GET / HT", b"", 408),
    "head byte by byte": (b"GET / HTTP/1.1\r\nX: ", b"a", 408),
    "stalled body": (POST + b"Content-Length: 1000\r\n\r\nabc", b"", 408),
    "dripping body": (POST + b"Content-Length: 100000\r\n\r\nabc", b"a", 408),
    "dripping chunks": (CHUNKED, b"1\r\na\r\n", 408),
}


@pytest.mark.parametrize("case", SLOW)
def test_slow_sender_is_cut_off(run: Run, case: str) -> None:
    first, drip, expected = SLOW[case]

    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        answer = asyncio.create_task(reader.read())
        writer.write(first)
        for _ in range(100):
            await asyncio.sleep(0.03)
            if answer.done() or writer.is_closing():
                break
            writer.write(drip)
        assert answer.done(), "the server still waits after three seconds"
        assert answer.exception() is None
        assert (status_of(answer.result()) if expected else answer.result()) == (expected or b"")
        assert front.echo.seen == []
        assert front.server.buffered == 0

    run(scenario)


def test_first_head_is_timed_from_the_connect(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        await asyncio.sleep(0.8)
        writer.write(b"GET / HT")  # a first byte buys no time
        assert status_of(await asyncio.wait_for(reader.read(), 0.7)) == 408

    run(scenario, replace(LIMITS, header_timeout=1.0, idle_timeout=5.0))


def test_idle_connection_is_closed_silently(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(GET + b"\r\n")
        await read_response(reader)
        assert await asyncio.wait_for(reader.read(), 3) == b""

    run(scenario)


def test_slow_reader_is_cut_off_and_does_not_keep_the_server_from_others(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect(receive_buffer=4096)
        writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        assert status_of(await front.exchange(GET + b"Connection: close\r\n\r\n")) == 200
        await asyncio.sleep(1.0)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(8 << 20)

    run(scenario, replace(LIMITS, min_rate=64 << 20))  # the kernel alone takes several MiB at once


def test_reader_that_keeps_the_rate_gets_everything(run: Run) -> None:
    async def scenario(front: Front) -> None:
        answer = await front.exchange(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert len(answer.partition(b"\r\n\r\n")[2]) == 8 << 20

    run(scenario)


def test_disconnect_in_the_middle_of_a_body_is_an_abort(run: Run) -> None:
    async def scenario(front: Front) -> None:
        for message in (POST + b"Content-Length: 1000\r\n\r\nabc", CHUNKED + b"5\r\nhel"):
            _reader, writer = await front.connect()
            writer.write(message)
            await asyncio.sleep(0.05)
            writer.write_eof()
            await asyncio.sleep(0.05)
            assert front.server.connections == 0
        assert front.echo.seen == []
        assert front.server.buffered == 0

    run(scenario)


def test_reset_cancels_the_handler_and_half_close_still_gets_the_answer(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        writer.write_eof()
        await asyncio.sleep(0.05)
        front.echo.gate.set()
        assert (await read_response(reader))[2] == b"hi"
        assert await reader.read() == b""
        writer.close()
        front.echo.gate.clear()
        _reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
        await asyncio.sleep(0.1)
        assert front.echo.cancelled == 1

    run(scenario)


def test_connections_beyond_the_limit_are_refused_and_room_comes_back(run: Run) -> None:
    async def scenario(front: Front) -> None:
        held = [await front.connect() for _ in range(LIMITS.max_connections)]
        await asyncio.sleep(0.02)
        assert status_of(await front.exchange()) == 503
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert status_of(await front.exchange(GET + b"Connection: close\r\n\r\n")) == 200

    run(scenario)


def test_bodies_together_are_bounded_before_they_are_allocated(run: Run) -> None:
    async def scenario(front: Front) -> None:
        held = []
        for _ in range(2):
            _reader, writer = await front.connect()
            writer.write(POST + b"Content-Length: 1048576\r\n\r\nab")
            held.append(writer)
        await asyncio.sleep(0.05)
        assert front.server.buffered == 2 << 20
        answer = await front.exchange(POST + b"Content-Length: 1\r\n\r\na")
        assert status_of(answer) == 503
        assert b"retry-after: 1" in answer
        assert status_of(await front.exchange(CHUNKED + b"1\r\na\r\n0\r\n\r\n")) == 503
        for writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert front.server.buffered == 0
        assert (
            status_of(await front.exchange(POST + b"Content-Length: 1\r\nConnection: close\r\n\r\na")) == 200
        )

    run(scenario)


def test_drain_lets_the_request_in_flight_finish_and_closes_idle_connections(run: Run) -> None:
    async def scenario(front: Front) -> None:
        idle_reader, _ = await front.connect()
        reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        drained = asyncio.create_task(front.server.drain(3))
        assert await asyncio.wait_for(idle_reader.read(), 1) == b""
        with pytest.raises(ConnectionRefusedError):
            await front.connect()
        front.echo.gate.set()
        status, fields, _ = await read_response(reader)
        assert (status, fields["connection"]) == (200, "close")
        writer.close()
        assert await drained

    run(scenario)


def test_drain_cuts_what_does_not_finish(run: Run) -> None:
    async def scenario(front: Front) -> None:
        reader, writer = await front.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        assert not await front.server.drain(0.1)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    run(scenario)


def test_port_in_use_names_address_port_and_remedy(run: Run) -> None:
    async def scenario(front: Front) -> None:
        other = HttpServer(front.echo, LIMITS)
        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1 port {front.port}: another program.*--http-port"
        ):
            await other.listen("127.0.0.1", front.port, option="--http-port")
        with pytest.raises(ConfigurationError, match=r"cannot listen on 203\.0\.113\.1 port"):
            await other.listen("203.0.113.1", front.port, option="--http-port")

    run(scenario)


def test_a_connection_that_somebody_else_accepted_is_served_under_the_same_limits(run: Run) -> None:
    async def scenario(front: Front) -> None:
        ended = 0

        def count() -> None:
            nonlocal ended
            ended += 1

        server = HttpServer(front.echo, replace(LIMITS, max_connections=1), ended=count)
        server.watch_time()
        pairs = [socket.socketpair() for _ in range(2)]
        for _, theirs in pairs:
            theirs.setblocking(False)
            await server.adopt(theirs)
        (reader, writer), (refused, other) = [
            await asyncio.open_unix_connection(sock=ours) for ours, _ in pairs
        ]
        assert status_of(await refused.read()) == 503
        writer.write(b"GET /text HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_response(reader))[0] == 200
        assert await reader.read() == b"", "idle for too long"
        for each in (writer, other):
            each.close()
        while ended < 2:
            await asyncio.sleep(0.01)
        assert server.connections == 0
        await server.drain(0)

    run(scenario)
