"""What goes to a relay and what to the server, on the wire, by both transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import pytest

from confonnx.client.exchange import HttpRequest
from confonnx.client.options import Connection, parse_relay, parse_url
from confonnx.client.transport import AsyncHttpTransport, HttpTransport
from tests.support.canned_http import canned

OK = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-res\r\nContent-Length: 1\r\nSet-Cookie: a=b\r\n\r\nx"
SEALED = HttpRequest("POST", "/ohttp", accept="message/ohttp-res", max_response_bytes=9, body=b"sealed")
RELAYED = HttpRequest(
    "POST", "/ohttp", accept="message/ohttp-res", max_response_bytes=9, body=b"sealed", relayed=True
)
Send: TypeAlias = Callable[[Connection, list[HttpRequest]], None]


def _send(connection: Connection, requests: list[HttpRequest]) -> None:
    transport = HttpTransport(connection)
    for request in requests:
        transport.send(request, timeout=10)
    transport.close()


def _send_async(connection: Connection, requests: list[HttpRequest]) -> None:
    async def main() -> None:
        transport = AsyncHttpTransport(connection)
        for request in requests:
            await transport.send(request, timeout=10)
        await transport.close()

    asyncio.run(main())


@pytest.fixture(params=[_send, _send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    chosen: Send = request.param
    return chosen


def heads(heard: list[bytes]) -> list[list[bytes]]:
    return [message.partition(b"\r\n\r\n")[0].lower().split(b"\r\n") for message in heard]


def test_a_relay_gets_sealed_requests_and_its_own_credentials(send: Send) -> None:
    with canned(OK, keep_open=True) as server, canned(OK, keep_open=True) as relay:
        connection = Connection(
            parse_url(server.url),
            ingress_authorization="Bearer for-ingress",
            relay=parse_relay(relay.url + "?to=1"),
            relay_authorization="Bearer for-relay",
        )
        send(connection, [SEALED, RELAYED])
    [to_server], [to_relay] = heads(server.heard), heads(relay.heard)
    assert to_server[0] == b"post /prefix/ohttp http/1.1"
    assert to_relay[0] == b"post /prefix/?to=1 http/1.1"
    assert b"authorization: bearer for-ingress" in to_server
    assert b"authorization: bearer for-relay" in to_relay


def test_a_relay_gets_no_credentials_and_no_cookies_unless_given(send: Send) -> None:
    with canned(OK, keep_open=True) as relay:
        connection = Connection(
            parse_url("http://127.0.0.1:9/"), ingress_authorization="Bearer x", relay=relay.url
        )
        send(connection, [RELAYED, RELAYED])
    for head in heads(relay.heard):
        assert not [line for line in head if line.startswith((b"authorization", b"cookie"))]
    assert len(relay.heard) == 2


def test_an_ingress_may_keep_a_client_at_one_replica_by_a_cookie(send: Send) -> None:
    with canned(OK, keep_open=True) as server:
        send(Connection(parse_url(server.url)), [SEALED, SEALED])
    first, second = heads(server.heard)
    assert b"cookie: a=b" not in first
    assert b"cookie: a=b" in second


@pytest.mark.parametrize(
    "relay", ["https://relay.example", "http://r:8080/a/?b=c/d&e=%20", "https://[::1]/x?", "https://r/?"]
)
def test_a_relays_url_is_kept_as_it_is(relay: str) -> None:
    assert parse_relay(relay) == relay
