"""Both transports against a server on loopback that says whatever a test wants."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.options import Connection, parse_url
from confonnx.client.transport import AsyncHttpTransport, HttpTransport
from confonnx.errors import ConfigurationError, NotConfonnxError, TooLargeError, TransportError
from tests.support.canned_http import canned

POST = HttpRequest(
    "POST",
    "/ohttp",
    accept="message/ohttp-res",
    max_response_bytes=1000,
    fields=(("content-type", "message/ohttp-req"),),
    body=bytearray(b"sealed"),
)
GET = HttpRequest("GET", "/attestation?nonce=abc", accept="application/cmw+json", max_response_bytes=1000)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-res\r\n"
BUNDLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/cmw+json\r\nContent-Length: 1\r\n\r\nx"

Send: TypeAlias = Callable[[Connection, list[HttpRequest], float | None], list[HttpResponse]]


def _send(connection: Connection, requests: list[HttpRequest], timeout: float | None) -> list[HttpResponse]:
    transport = HttpTransport(connection)
    try:
        return [transport.send(request, timeout=timeout) for request in requests]
    finally:
        transport.close()


def _send_async(
    connection: Connection, requests: list[HttpRequest], timeout: float | None
) -> list[HttpResponse]:
    async def main() -> list[HttpResponse]:
        transport = AsyncHttpTransport(connection)
        try:
            return [await transport.send(request, timeout=timeout) for request in requests]
        finally:
            await transport.close()

    return asyncio.run(main())


@pytest.fixture(params=[_send, _send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    chosen: Send = request.param
    return chosen


def connection(url: str, **changes: str | bool | None) -> Connection:
    return Connection(parse_url(url), **changes)  # type: ignore[arg-type]


def test_a_request_and_its_answer(send: Send) -> None:
    with canned(OK + b"X-A: 1\r\nContent-Length: 6\r\n\r\nanswer") as server:
        [response] = send(connection(server.url), [POST], 10)
    assert (response.status, bytes(response.body), response.field("x-a")) == (200, b"answer", "1")
    assert isinstance(response.body, bytearray)  # it is opened in place
    assert abs(datetime.now(UTC) - response.received_at) < timedelta(seconds=10)
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert (lines[0], body) == (b"post /prefix/ohttp http/1.1", b"sealed")
    names = [line.partition(b":")[0] for line in lines[1:]]
    assert sorted(names) == sorted(
        [
            b"host",
            b"connection",
            b"accept",
            b"accept-encoding",
            b"user-agent",
            b"content-type",
            b"content-length",
        ]
    )
    assert b"accept-encoding: identity" in lines
    assert b"accept: message/ohttp-res" in lines
    assert b"content-length: 6" in lines
    assert b"user-agent: confonnx" in lines


def test_the_query_is_kept_and_a_get_has_no_body(send: Send) -> None:
    with canned(OK + b"\r\n") as server:
        send(connection(server.url), [GET], 10)
    assert server.heard[0].startswith(b"GET /prefix/attestation?nonce=abc HTTP/1.1\r\n")
    assert b"content-length" not in server.heard[0].lower()


def test_ingress_credentials_go_outside(send: Send) -> None:
    with canned(OK + b"\r\n") as server:
        send(connection(server.url, ingress_authorization="Bearer token"), [GET], 10)
        send(connection(server.url), [GET], 10)
    assert b"authorization: bearer token\r\n" in server.heard[0].lower()
    assert b"authorization" not in server.heard[1].lower()


def test_a_large_body_in_pieces(send: Send) -> None:
    body = bytes(range(256)) * 4096
    request = HttpRequest("POST", "/ohttp", accept="a/b", max_response_bytes=1, body=bytearray(body))
    with canned(OK + b"Content-Length: 0\r\n\r\n") as server:
        send(connection(server.url), [request], 10)
    head, _, heard = server.heard[0].partition(b"\r\n\r\n")
    assert heard == body
    assert b"transfer-encoding" not in head.lower()


def test_connections_are_reused(send: Send) -> None:
    with canned(BUNDLE, keep_open=True) as server:
        assert len(send(connection(server.url), [GET, GET, GET], 10)) == 3
    assert (len(server.heard), server.connections) == (3, 1)


def test_redirects_are_handed_on_and_not_followed(send: Send) -> None:
    with canned(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 3\r\n\r\nabc") as server:
        [response] = send(connection(server.url), [GET], 10)
    assert (response.status, response.body, len(server.heard)) == (302, b"", 1)


def test_a_page_of_an_ingress_is_not_read(send: Send) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000000000\r\n\r\n<html>"
    with canned(page) as server:
        [response] = send(connection(server.url), [GET], 10)
    assert (response.media_type, response.body) == ("text/html", b"")


def test_too_much_is_cut_off_while_it_is_read(send: Send) -> None:
    pieces = [b"%x\r\n" % 100 + b"a" * 100 + b"\r\n"] * 1000
    with (
        canned(OK + b"Transfer-Encoding: chunked\r\n\r\n", *pieces) as server,
        pytest.raises(TooLargeError, match="more than 1000 bytes"),
    ):
        send(connection(server.url), [POST], 10)


def test_compression_is_refused(send: Send) -> None:
    with (
        canned(OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc") as server,
        pytest.raises(NotConfonnxError, match="compressed"),
    ):
        send(connection(server.url), [POST], 10)


def test_an_answer_that_breaks_off(send: Send) -> None:
    with (
        canned(OK + b"Content-Length: 600\r\n\r\nabc") as server,
        pytest.raises(
            TransportError, match=r"POST http://127\.0\.0\.1:\d+/prefix/ohttp: the connection failed"
        ),
    ):
        send(connection(server.url), [POST], 10)


def test_what_speaks_no_http(send: Send) -> None:
    with canned(b"SSH-2.0-OpenSSH_9.9\r\n") as server, pytest.raises(TransportError, match="failed"):
        send(connection(server.url), [POST], 10)


def test_nobody_listens(send: Send) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        TransportError, match=rf"GET http://127\.0\.0\.1:{port}/attestation: cannot connect: ."
    ):
        send(connection(f"http://127.0.0.1:{port}"), [GET], 10)


def test_no_such_host(send: Send) -> None:
    with pytest.raises(
        TransportError, match=r"GET http://no-such-host\.invalid/attestation: cannot connect: ."
    ):
        send(connection("http://no-such-host.invalid"), [GET], 10)


def test_https_to_a_server_without_tls(send: Send) -> None:
    with canned(OK + b"\r\n") as server, pytest.raises(TransportError, match="cannot connect"):
        send(connection(server.url.replace("http:", "https:")), [GET], 10)


def test_a_silent_server(send: Send) -> None:
    with canned(b"", pause=0.5) as server, pytest.raises(TransportError, match=r"no (complete )?answer"):
        send(connection(server.url), [GET], 0.1)


def test_a_slow_sender_is_cut_off(send: Send) -> None:
    started = time.monotonic()
    pieces = [b"a"] * 60
    with (
        canned(OK + b"Content-Length: 600\r\n\r\n", *pieces, pause=0.05) as server,
        pytest.raises(TransportError, match=r"no complete answer within 0\.3 s"),
    ):
        send(connection(server.url), [POST], 0.3)
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx-filler: "])
@pytest.mark.parametrize("reused", [False, True])
def test_a_sender_that_trickles_its_head_is_cut_off(send: Send, head: bytes, reused: bool) -> None:
    first = BUNDLE if reused else None
    with canned(head, *[b"x"] * 60, pause=0.05, keep_open=True, first=first) as server:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"no complete answer within 0\.3 s"):
            send(connection(server.url), [GET] * (1 + reused), 0.3)
        assert time.monotonic() - started < 0.9
        assert (len(server.heard), server.connections) == (1 + reused, 1)


def test_a_server_that_trickles_its_tls_handshake_is_cut_off() -> None:
    record = b"\x16\x03\x03\x40\x00"  # a handshake record of 16 KiB begins, and comes a byte at a time
    with canned(record, *[b"\0"] * 60, pause=0.05) as server:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"no complete answer within 0\.3 s"):
            _send(connection(server.url.replace("http:", "https:")), [GET], 0.3)
        assert time.monotonic() - started < 0.9


def test_a_server_that_takes_a_request_slowly_is_cut_off() -> None:
    request = replace(POST, body=bytearray(32 << 20))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        taker = threading.Thread(target=_take_slowly, args=(listener, stop), daemon=True)
        taker.start()
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"no complete answer within 0\.3 s"):
            _send(connection(f"http://127.0.0.1:{listener.getsockname()[1]}"), [request], 0.3)
        assert time.monotonic() - started < 0.9
        stop.set()
        taker.join(10)


def _take_slowly(listener: socket.socket, stop: threading.Event) -> None:
    accepted, _ = listener.accept()
    with accepted, suppress(OSError):
        while not stop.wait(0.02) and accepted.recv(256 * 1024):
            pass


def test_the_environment_is_not_read(send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with canned(BUNDLE) as server:
        [response] = send(connection(server.url), [GET], 10)
    assert response.body == b"x"
    assert b"authorization" not in server.heard[0].lower()


def test_a_proxy_that_was_named_is_used(send: Send) -> None:
    with canned(BUNDLE) as proxy:
        [response] = send(
            connection("http://example.invalid", proxy=f"http://127.0.0.1:{proxy.port}"), [GET], 10
        )
    assert response.body == b"x"
    assert proxy.heard[0].startswith(b"GET http://example.invalid/attestation?nonce=abc HTTP/1.1\r\n")


@pytest.mark.parametrize("transport", [HttpTransport, AsyncHttpTransport])
def test_options_that_cannot_be_used(
    transport: type[HttpTransport | AsyncHttpTransport], tmp_path: Path
) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing\n")
    for changes in ({"ca_file": str(empty)}, {"ca_file": str(tmp_path / "none")}, {"proxy": "gopher://a"}):
        with pytest.raises(ConfigurationError, match="ca_file or proxy"):
            transport(connection("https://a", **changes))


def test_https_with_its_own_authority_or_without_verification_can_be_set_up() -> None:
    HttpTransport(connection("https://a", skip_tls_verification=True)).close()
