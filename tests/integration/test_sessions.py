"""Sessions and relays against a server in a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from confonnx.client import AsyncClient, Client
from confonnx.errors import UnknownKeyError
from confonnx.ohttp import bhttp
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE, SenderSession
from confonnx.server.lifecycle import running
from confonnx.server.logs import Log, LogFormat, LogLevel
from confonnx.server.messages import HttpRequest
from confonnx.server.settings_sources import load_settings
from tests.support.models import add_model
from tests.support.recording_proxy import recording_proxy
from tests.support.running import RunningServer, running_server

LARGE = 200_000  # float32 elements: opened and sealed in a thread


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(str(add_model(tmp_path_factory.mktemp("model") / "add.onnx"))) as running:
        yield running


def client_of(server: RunningServer, url: str | None = None, **options: object) -> Client:
    return Client(
        url or server.url,
        enclave_hash=server.measurement,
        dangerous_any_model=True,
        allow_simulated=True,
        **options,  # type: ignore[arg-type]
    )


def check(client: Client, number: int) -> None:
    a = np.full(LARGE if number % 20 == 0 else 3, number, np.float32)
    np.testing.assert_array_equal(client.predict({"a": a, "b": a})["sum"], a + a)


def encapsulations(recorded: bytes, media_type: str) -> list[bytes]:
    """``hdr ‖ enc`` of every sealed request of this kind that passed."""
    found = []
    for request in recorded.split(b"POST /ohttp HTTP/1.1\r\n")[1:]:
        head, _, body = request.partition(b"\r\n\r\n")
        if f"content-type: {media_type}".encode() in head.lower():
            found.append(body[:1127])
    return found


def test_threads_share_a_session(server: RunningServer) -> None:
    with recording_proxy(server.port) as proxy, client_of(server, proxy.url) as client:
        check(client, 0)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: check(client, number), range(1, 161)))
    assert proxy.requests(b"content-type: " + SESSION_REQUEST_MEDIA_TYPE.encode()) == 161
    assert proxy.to_client.count(b"HTTP/1.1 200 ") == 162


def test_tasks_share_a_session(server: RunningServer) -> None:
    async def main() -> None:
        async with AsyncClient(
            server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client:

            async def ask(number: int) -> None:
                a = np.full(LARGE if number % 20 == 0 else 3, number, np.float32)
                np.testing.assert_array_equal((await client.predict({"a": a, "b": a}))["sum"], a + a)

            await asyncio.gather(*(ask(number) for number in range(100)))

    asyncio.run(main())


def test_calls_one_after_another_show_one_encapsulation(server: RunningServer) -> None:
    with recording_proxy(server.port) as proxy, client_of(server, proxy.url) as client:
        for number in range(1, 6):
            check(client, number)
    seen = encapsulations(bytes(proxy.to_server), SESSION_REQUEST_MEDIA_TYPE)
    assert (len(seen), len(set(seen))) == (5, 1)


def test_through_a_relay_every_request_has_its_own(server: RunningServer) -> None:
    with (
        recording_proxy(server.port) as proxy,
        recording_proxy(server.port) as relay,
        client_of(server, proxy.url, relay=f"{relay.url}ohttp", ingress_auth="for-the-ingress") as client,
    ):
        for number in range(1, 6):
            check(client, number)
    seen = encapsulations(bytes(relay.to_server), "message/ohttp-req")
    assert (len(seen), len(set(seen))) == (5, 5)
    assert b"for-the-ingress" not in relay.to_server
    assert proxy.requests(b"POST ") == 0
    assert relay.requests(b"GET ") == 0


def test_a_replayed_request_of_a_session(server: RunningServer) -> None:
    with client_of(server) as client:
        keys = client.verify()
    _, session = keys.begin_session(now=datetime.now(UTC))
    sealed = session.seal(live_request())
    assert sealed is not None
    message, opener = sealed
    status, media_type, body = post(server, bytes(message))
    assert (status, media_type) == (200, SESSION_RESPONSE_MEDIA_TYPE)
    assert bhttp.parse_response(opener.open(body)).status == 200
    assert post(server, bytes(message))[:2] == (400, "application/problem+json")
    assert post(server, b"nonsense")[:2] == (400, "application/problem+json")


def post(server: RunningServer, body: bytes) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", "/ohttp", body, {"content-type": SESSION_REQUEST_MEDIA_TYPE})
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type", ""), answer.read()
    finally:
        connection.close()


def test_contexts_go_when_the_ring_erases_their_key(tmp_path: Path) -> None:
    """Driven from inside, as nothing outside the process shows what it has in memory."""
    settings, _ = load_settings(
        {
            "model_path": add_model(tmp_path / "add.onnx"),
            "address": "127.0.0.1",
            "http_port": 0,
            "metrics": False,
            "key_rollover_interval": "2s",
            "key_grace": "1s",
        }
    )

    async def main() -> None:
        log = Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=io.StringIO())
        async with running(settings, log) as server:
            config = server.ring.attested_keys(datetime.now(UTC))[0].config
            sealed = SenderSession(config).seal(live_request())
            assert sealed is not None
            fields = {"content-type": SESSION_REQUEST_MEDIA_TYPE}
            answer = await server.app.handle(HttpRequest("POST", "/ohttp", fields, sealed[0]))
            assert (answer.status, len(server.app._sessions)) == (200, 1)
            async with asyncio.timeout(20):
                while len(server.app._sessions):
                    await asyncio.sleep(0.05)
            with pytest.raises(UnknownKeyError):
                server.ring.private_key(config.key_id)

    asyncio.run(main())


def live_request() -> list[bytes | bytearray | memoryview]:
    date = format_datetime(datetime.now(UTC), usegmt=True)
    return bhttp.encode_request(bhttp.Request("GET", "http", "x", "/v2/health/live", (("date", date),)))
