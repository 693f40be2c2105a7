"""Connections of both transports: TLS, proxies, kept ones that the peer closes, early answers."""

from __future__ import annotations

import asyncio
import base64
import gc
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from confonnx.client.exchange import HttpRequest
from confonnx.client.transport import AsyncHttpTransport, HttpTransport
from confonnx.errors import ConfigurationError, TransportError
from tests.support.loopback_tls import server_tls, write_ca_file
from tests.support.peer import Line, peer
from tests.support.transports import BlockingDriver, Driver, TaskDriver, UvloopDriver, connection

GET = HttpRequest("GET", "/attestation", accept="a/b", max_response_bytes=1 << 20)
POST = HttpRequest("POST", "/ohttp", accept="a/b", max_response_bytes=1 << 20, body=b"sealed")
LARGE = replace(POST, body=bytes(16 << 20))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\nx"
TOO_LARGE = (  # in one write: a reset drops what is not on the way yet
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}"
)
NO_LINGER = struct.pack("ii", 1, 0)  # close sends a reset


@pytest.fixture(params=[BlockingDriver, TaskDriver, UvloopDriver], ids=["sync", "async", "uvloop"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    made: Driver = request.param()
    yield made
    made.close()


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return write_ca_file(tmp_path)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return server_tls(tmp_path)


def answer(line: Line) -> None:
    """Every request gets the same answer."""
    while request(line):
        line.say(ANSWER)


def request(line: Line) -> bytes:
    """A request with its body; empty: there is none."""
    head = line.head()
    for field in head.lower().split(b"\r\n"):
        if field.startswith(b"content-length:"):
            return head + line.reader.read(int(field[15:]))
    return head


def hear(line: Line) -> None:
    """Until the other side closes."""
    assert line.reader.read()


def reset(line: Line) -> None:
    """What was not read makes the kernel say so, at once."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


# TLS


def test_tls_with_an_authority_of_its_own(driver: Driver, tls: ssl.SSLContext, ca_file: Path) -> None:
    with peer(answer, tls=tls) as found:
        to = connection(found.url, ca_file=ca_file)
        for sent in (GET, POST, LARGE, GET):
            assert driver.send(to, sent).body == b"x"
        assert found.connections == 1


def test_large_answers_over_tls(driver: Driver, tls: ssl.SSLContext, ca_file: Path) -> None:
    body = bytes(range(256)) * (16 << 10)

    def serve(line: Line) -> None:
        while request(line):
            line.say(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n" % len(body), body)

    with peer(serve, tls=tls) as found:
        to = connection(found.url, ca_file=ca_file)
        for _ in range(2):
            assert driver.send(to, replace(GET, max_response_bytes=len(body))).body == body
        assert found.connections == 1


def test_an_answer_that_ends_with_its_tls_connection(
    driver: Driver, tls: ssl.SSLContext, ca_file: Path
) -> None:
    """What came before the end is more than any buffer between."""
    body = bytes(range(256)) * (2 << 10)

    def serve(line: Line) -> None:
        request(line)
        line.say(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n", body)

    with peer(serve, tls=tls) as found:
        to = connection(found.url, ca_file=ca_file)
        assert driver.send(to, GET).body == body


def test_both_directions_over_tls(driver: Driver, tls: ssl.SSLContext, ca_file: Path) -> None:
    piece = bytes(range(256)) * 1024

    def serve(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := line.chunk():
            line.say(b"%x\r\n" % len(data), data, b"\r\n")
        line.say(b"0\r\n\r\n")

    with peer(serve, tls=tls) as found:
        stream = replace(GET, method="POST", max_response_bytes=64 << 20)
        exchange = driver.open(connection(found.url, ca_file=ca_file), stream)
        for _ in range(64):
            exchange.send(piece)
        exchange.finish()
        received = bytearray()
        while (some := exchange.receive()) is not None:
            received += some
        exchange.close()
    assert received == piece * 64


def test_a_stranger_is_refused(driver: Driver, tls: ssl.SSLContext) -> None:
    with (
        peer(answer, tls=tls) as found,
        pytest.raises(TransportError, match=r"cannot connect: .*[Cc]ertificate"),
    ):
        driver.send(connection(found.url), GET)


def test_a_certificate_for_another_name_is_refused(
    driver: Driver, tls: ssl.SSLContext, ca_file: Path
) -> None:
    with (
        peer(answer, tls=tls) as found,
        pytest.raises(TransportError, match=r"cannot connect: .*[Cc]ertificate"),
    ):
        driver.send(connection(f"https://localhost:{found.port}", ca_file=ca_file), GET)


def test_any_certificate_where_that_was_asked_for(driver: Driver, tls: ssl.SSLContext) -> None:
    with peer(answer, tls=tls) as found:
        assert driver.send(connection(found.url, skip_tls_verification=True), GET).body == b"x"


@pytest.mark.parametrize("silent", [True, False])
def test_a_handshake_that_is_cut_leaves_no_socket(driver: Driver, silent: bool) -> None:
    """A socket that is left to the garbage collector would be a warning, which fails the test."""

    def serve(line: Line) -> None:
        line.reader.read(1)
        if not silent:
            line.say(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 KiB, which comes a byte at a time
        while not done.wait(0.02):
            if not silent:
                line.say(b"\0")

    done = threading.Event()
    with peer(serve) as found:
        to = connection(found.url.replace("http:", "https:"))
        with pytest.raises(TransportError, match=r"no complete answer within 0\.2 s"):
            driver.send(to, GET, 0.2)
        gc.collect()
        done.set()


def test_a_server_that_speaks_before_tls(driver: Driver) -> None:
    with (
        peer(lambda line: line.say(b"220 mail.example ESMTP\r\n")) as found,
        pytest.raises(TransportError, match="cannot connect"),
    ):
        driver.send(connection(found.url.replace("http:", "https:")), GET)


# Proxies


def _tunnel(line: Line, heads: list[bytes], target: int) -> None:
    heads.append(line.head())
    with socket.create_connection(("127.0.0.1", target)) as onward:
        line.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_pump, args=(onward, line.socket))
        back.start()
        _pump(line.socket, onward)
        back.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_https_goes_through_a_tunnel(driver: Driver, tls: ssl.SSLContext, ca_file: Path) -> None:
    heads: list[bytes] = []
    requests: list[bytes] = []

    def serve(line: Line) -> None:
        while head := request(line):
            requests.append(head)
            line.say(ANSWER)

    with (
        peer(serve, tls=tls) as server,
        peer(lambda line: _tunnel(line, heads, server.port)) as proxy,
    ):
        to = connection(server.url, ca_file=ca_file, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        for _ in range(2):
            assert driver.send(to, GET).body == b"x"
        driver.close()
    (head,) = heads
    lines = head.split(b"\r\n")
    assert lines[0] == b"CONNECT 127.0.0.1:%d HTTP/1.1" % server.port
    assert b"host: 127.0.0.1:%d" % server.port in [line.lower() for line in lines]
    assert b"proxy-authorization: Basic " + base64.b64encode(b"user:p@ss") in lines
    assert len(requests) == 2
    assert not [found for found in requests if b"proxy-authorization" in found.lower()]


def test_http_goes_to_the_proxy_with_its_credentials(driver: Driver) -> None:
    heads: list[bytes] = []

    def serve(line: Line) -> None:
        heads.append(request(line))
        line.say(ANSWER)

    with peer(serve) as proxy:
        to = connection("http://example.invalid:81/x", proxy=f"http://user:pass@127.0.0.1:{proxy.port}")
        assert driver.send(to, POST).body == b"x"
    lines = heads[0].lower().split(b"\r\n")
    assert lines[0] == b"post http://example.invalid:81/x/ohttp http/1.1"
    assert b"host: example.invalid:81" in lines
    assert b"proxy-authorization: basic " + base64.b64encode(b"user:pass").lower() in lines


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            b"HTTP/1.1 407 Denied\r\nContent-Length: 0\r\n\r\n",
            "CONNECT with status 407",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03", "more than its answer to CONNECT"),
        (b"no HTTP\r\n", "the connection failed"),
        (b"", "the connection failed"),
    ],
)
def test_a_proxy_that_opens_no_tunnel(driver: Driver, said: bytes, text: str) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(said)

    with peer(serve) as proxy, pytest.raises(TransportError, match=text):
        driver.send(connection("https://example.invalid", proxy=f"http://127.0.0.1:{proxy.port}"), GET)


def test_a_proxy_that_is_silent(driver: Driver) -> None:
    with (
        peer(hear) as proxy,
        pytest.raises(TransportError, match=r"no complete answer within 0\.2 s"),
    ):
        driver.send(connection("https://example.invalid", proxy=f"http://127.0.0.1:{proxy.port}"), GET, 0.2)


@pytest.mark.parametrize("proxy", ["https://a", "socks5://a:1", "http://", "http://a:b", "a:1"])
def test_proxies_that_cannot_be_used(proxy: str) -> None:
    for transport in (HttpTransport, AsyncHttpTransport):
        with pytest.raises(ConfigurationError, match="proxy"):
            transport(connection("https://a", proxy=proxy))


# Kept connections


def test_a_kept_connection_that_was_closed_is_not_used(driver: Driver) -> None:
    closed = threading.Event()

    def serve(line: Line) -> None:
        request(line)
        line.say(ANSWER)
        line.socket.shutdown(socket.SHUT_RDWR)
        closed.set()

    with peer(serve) as found:
        for _ in range(3):
            assert driver.send(connection(found.url), POST).body == b"x"
            assert closed.wait(10)
            closed.clear()
        assert found.connections == 3


def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used(driver: Driver) -> None:
    """Or the next request would get an answer that was there before it."""
    said = threading.Event()

    def serve(line: Line) -> None:
        while request(line):
            line.say(ANSWER)
            line.say(ANSWER.replace(b"x", b"y"))
            said.set()

    with peer(serve) as found:
        for _ in range(2):
            assert driver.send(connection(found.url), POST).body == b"x"
            assert said.wait(10)
            said.clear()
        assert found.connections == 2


@pytest.mark.parametrize(
    "ending",
    [
        ANSWER + ANSWER,
        ANSWER.replace(b"Content-Length", b"Connection: close\r\nContent-Length"),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nab",
    ],
)
def test_connections_that_are_not_kept(driver: Driver, ending: bytes) -> None:
    def serve(line: Line) -> None:
        while request(line):
            line.say(ending)

    with peer(serve) as found:
        for _ in range(2):
            assert driver.send(connection(found.url), GET).status == 200
        assert found.connections == 2


def test_an_unwanted_body_that_came_along_ends_no_connection(driver: Driver) -> None:
    def serve(line: Line) -> None:
        while request(line):
            line.say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc")

    with peer(serve) as found:
        for _ in range(2):
            assert driver.send(connection(found.url), GET).status == 404
        assert found.connections == 1


def test_a_get_is_repeated_where_the_kept_connection_was_just_closed(driver: Driver) -> None:
    requests: list[bytes] = []

    def serve(line: Line) -> None:
        while found := request(line):
            requests.append(found)
            if len(requests) == 2:
                return  # without an answer
            line.say(ANSWER)

    with peer(serve) as found:
        for _ in range(2):
            assert driver.send(connection(found.url), GET).body == b"x"
        assert (len(requests), found.connections) == (3, 2)


def test_a_post_that_may_have_been_processed_is_not_repeated(driver: Driver) -> None:
    requests: list[bytes] = []

    def serve(line: Line) -> None:
        while found := request(line):
            requests.append(found)
            if len(requests) == 2:
                return
            line.say(ANSWER)

    with peer(serve) as found:
        assert driver.send(connection(found.url), POST).body == b"x"
        with pytest.raises(TransportError, match="the connection failed"):
            driver.send(connection(found.url), POST)
        assert (len(requests), found.connections) == (2, 1)


def test_a_post_whose_end_was_not_sent_is_repeated(driver: Driver) -> None:
    requests: list[bytes] = []

    def serve(line: Line) -> None:
        requests.append(request(line))
        line.say(ANSWER)
        if len(requests) == 1:
            line.head()
            reset(line)
        else:
            answer(line)

    with peer(serve) as found:
        assert driver.send(connection(found.url), POST).body == b"x"
        assert driver.send(connection(found.url), LARGE).body == b"x"
        assert found.connections == 2
    assert len(requests[1].partition(b"\r\n\r\n")[2]) == len(LARGE.body)


def test_a_reset_instead_of_an_answer(driver: Driver) -> None:
    def serve(line: Line) -> None:
        request(line)
        reset(line)

    with peer(serve) as found, pytest.raises(TransportError, match=r"the connection failed: .*reset"):
        driver.send(connection(found.url), POST)


def test_a_new_connection_is_not_repeated(driver: Driver) -> None:
    def serve(line: Line) -> None:
        request(line)

    with peer(serve) as found:
        with pytest.raises(TransportError, match="the connection failed"):
            driver.send(connection(found.url), GET)
        assert found.connections == 1


def test_an_answer_that_began_is_not_repeated(driver: Driver) -> None:
    requests: list[bytes] = []

    def serve(line: Line) -> None:
        while found := request(line):
            requests.append(found)
            line.say(ANSWER if len(requests) == 1 else ANSWER[:10])
            if len(requests) == 2:
                return

    with peer(serve) as found:
        assert driver.send(connection(found.url), GET).body == b"x"
        with pytest.raises(TransportError, match="the connection failed"):
            driver.send(connection(found.url), GET)
        assert len(requests) == 2


# Answers before the request ended


def test_an_early_answer_ends_the_request(driver: Driver) -> None:
    """The server reads a little, answers and resets the connection: what most do with what is too large."""

    def serve(line: Line) -> None:
        line.head()
        line.reader.read(1000)
        line.say(TOO_LARGE)
        reset(line)

    with peer(serve) as found:
        for _ in range(2):
            response = driver.send(connection(found.url), LARGE)
            assert (response.status, response.body) == (413, b"{}")
        assert found.connections == 2


def test_an_early_answer_on_a_connection_that_stays_open(driver: Driver) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        done.wait(10)

    done = threading.Event()
    with peer(serve) as found:
        assert driver.send(connection(found.url), LARGE).status == 413
        done.set()


# Names, addresses, threads, tasks


def test_looking_up_a_name_is_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, done = threading.Event(), threading.Event()

    def wait(*_: object, **__: object) -> list[object]:
        asked.set()
        done.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    with pytest.raises(TransportError, match=r"no complete answer within 0\.1 s"):
        BlockingDriver().send(connection("http://slow.invalid"), GET, 0.1)
    assert asked.is_set()
    done.set()


@pytest.mark.parametrize("kind", [BlockingDriver, TaskDriver])  # uvloop looks up by itself
def test_the_next_address_is_tried(kind: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = kind()
    with peer(answer) as found, socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
        nobody.close()
        found_addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (closed, found.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found_addresses)
        assert driver.send(connection("http://two.invalid"), GET).body == b"x"
    driver.close()


def test_an_address_that_this_machine_cannot_reach_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(answer) as found:
        address = ("127.0.0.1", found.port)
        unknown = socket.AF_INET, socket.SOCK_STREAM, 9999, "", address  # no such protocol
        known = socket.AF_INET, socket.SOCK_STREAM, 6, "", address
        driver = BlockingDriver()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown, known])
        assert driver.send(connection("http://two.invalid"), GET).body == b"x"
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown])
        with pytest.raises(TransportError, match="cannot connect"):
            BlockingDriver().send(connection("http://two.invalid"), POST, None)
        driver.close()


def test_a_name_that_is_none(driver: Driver) -> None:
    with pytest.raises(TransportError, match="cannot connect"):
        driver.send(connection(f"http://{'a' * 64}.invalid"), GET)


def test_many_threads_share_a_transport() -> None:
    with peer(answer) as found:
        transport = HttpTransport(connection(found.url))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: transport.send(POST, timeout=10).body, range(64)))
        assert answers == [b"x"] * 64
        assert found.connections <= 8
        transport.close()


def test_many_tasks_share_a_transport() -> None:
    async def main(url: str) -> None:
        transport = AsyncHttpTransport(connection(url))
        answers = await asyncio.gather(*(transport.send(POST, timeout=10) for _ in range(8)))
        assert [found.body for found in answers] == [b"x"] * 8
        await transport.send(POST, timeout=10)
        await transport.close()

    with peer(answer) as found:
        asyncio.run(main(found.url))
        assert found.connections == 8


def test_a_task_that_is_cancelled_closes_its_connection() -> None:
    heard, ended = threading.Event(), threading.Event()

    def serve(line: Line) -> None:
        request(line)
        heard.set()
        assert line.reader.read() == b""
        ended.set()

    async def main(url: str) -> None:
        transport = AsyncHttpTransport(connection(url))
        sending = asyncio.create_task(transport.send(POST, timeout=None))
        assert await asyncio.to_thread(heard.wait, 10)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await asyncio.to_thread(ended.wait, 10)
        await transport.close()

    with peer(serve) as found:
        asyncio.run(main(found.url))


def test_an_idle_connection_on_which_something_comes_is_closed_by_the_loop() -> None:
    go, ended = threading.Event(), threading.Event()

    def serve(line: Line) -> None:
        request(line)
        line.say(ANSWER)
        assert go.wait(10)
        line.say(ANSWER)
        with suppress(ConnectionResetError):  # what it did not read it says so
            assert line.reader.read() == b""
        ended.set()

    async def main(url: str) -> None:
        transport = AsyncHttpTransport(connection(url))
        assert (await transport.send(POST, timeout=10)).body == b"x"
        go.set()
        assert await asyncio.to_thread(ended.wait, 10)
        await transport.close()

    with peer(serve) as found:
        asyncio.run(main(found.url))


def test_what_is_put_back_after_the_end_is_closed() -> None:
    heard, go = threading.Event(), threading.Event()

    def serve(line: Line) -> None:
        request(line)
        heard.set()
        go.wait(10)
        line.say(ANSWER)
        assert line.reader.read() == b""

    with peer(serve) as found, ThreadPoolExecutor(1) as pool:
        transport = HttpTransport(connection(found.url))
        sending = pool.submit(transport.send, POST, timeout=10)
        assert heard.wait(10)
        transport.close()
        go.set()
        assert sending.result(10).body == b"x"
