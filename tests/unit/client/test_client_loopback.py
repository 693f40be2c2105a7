"""Both clients over real HTTP on loopback, with an ingress path prefix before a server in memory."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from confonnx import AsyncClient, Client, errors
from confonnx.client.exchange import HttpRequest
from confonnx.oip.values import Value
from tests.support.fake_server import FakeServer, policy

INPUTS = {"a": [1.0, 2.0], "b": [3.0, 5.0]}


@contextmanager
def over_http(server: FakeServer) -> Iterator[str]:
    """The URL at which ``server`` answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            fields = tuple((name.lower(), value) for name, value in self.headers.items())
            path = self.path.removeprefix("/mymodel")
            request = HttpRequest(
                self.command,
                path if path != self.path else "/outside",
                accept=self.headers["accept"],
                max_response_bytes=1 << 20,
                fields=fields,
                body=body,
            )
            answer = server.send(request, timeout=None)
            self.send_response_only(answer.status)
            for name, value in answer.fields:
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join(10)


def now_server() -> FakeServer:
    """A server on the real clock, which the network transports use."""
    return FakeServer(clock=datetime.now(UTC), authorization="Bearer sealed-key")


def test_threads_over_http() -> None:
    server = now_server()
    with (
        over_http(server) as url,
        Client(
            f"{url}/mymodel/", policy=policy(), auth_key="sealed-key", ingress_auth=("user", "password")
        ) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        results = list(pool.map(lambda _: np.asarray(client.predict(INPUTS)["sum"]).tolist(), range(8)))
    assert results == [[4.0, 7.0]] * 8
    assert server.paths.count("GET /attestation") == 1
    for request in server.received:
        fields = dict(request.fields)
        assert fields["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
        assert fields["accept-encoding"] == "identity"
        assert fields["user-agent"] == "confonnx"
        assert "sealed-key" not in repr(request)


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not even by libraries, at their most talkative."""
    server = now_server()
    with (
        caplog.at_level(logging.DEBUG),
        over_http(server) as url,
        Client(
            f"{url}/mymodel", policy=policy(), auth_key="sealed-key", ingress_auth="ingress-key"
        ) as client,
    ):
        client.predict({"a": [1.0], "b": [1.0]})
        logging.getLogger("confonnx").debug("to see that it would be caught")
    assert [record.message for record in caplog.records] == ["to see that it would be caught"]


def test_tasks_over_http() -> None:
    server = now_server()

    async def main(url: str) -> list[dict[str, Value]]:
        async with AsyncClient(f"{url}/mymodel", policy=policy(), auth_key="sealed-key") as client:
            return list(await asyncio.gather(*(client.predict(INPUTS) for _ in range(8))))

    with over_http(server) as url:
        results = asyncio.run(main(url))
    assert [np.asarray(result["sum"]).tolist() for result in results] == [[4.0, 7.0]] * 8
    assert server.paths.count("GET /attestation") == 1
    assert all("authorization" not in dict(request.fields) for request in server.received)


def test_the_wrong_prefix() -> None:
    server = now_server()
    with (
        over_http(server) as url,
        Client(url, policy=policy()) as client,
        pytest.raises(errors.NotConfonnxError, match="path prefix"),
    ):
        client.predict(INPUTS)
    assert server.paths == ["GET /outside"]
