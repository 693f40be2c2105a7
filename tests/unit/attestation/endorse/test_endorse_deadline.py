"""The deadline of exchanges: whose it is, and that it ends with its block. What it cuts off is tested at its
two users, ``test_endorse_download.py`` and ``test_client_transport.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx2
import pytest

from confonnx.attestation.endorse.deadline import DeadlineTransport
from tests.support.canned_http import CannedServer, canned


@pytest.fixture
def server() -> Iterator[CannedServer]:
    with canned(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") as found:
        yield found


@pytest.fixture
def transport() -> Iterator[DeadlineTransport]:
    with DeadlineTransport(
        verify=False, proxy=None, limits=httpx2.Limits(max_keepalive_connections=0)
    ) as made:
        yield made


def test_a_deadline_is_of_its_thread_and_ends_with_its_block(
    server: CannedServer, transport: DeadlineTransport
) -> None:
    client = httpx2.Client(transport=transport, trust_env=False)
    with transport.until(monotonic() - 1):
        with pytest.raises(httpx2.ConnectTimeout, match="the deadline passed"):
            client.get(server.url)
        assert server.connections == 0
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(client.get, server.url).result(5).content == b"x"
    assert client.get(server.url).content == b"x"


def test_without_a_deadline_the_time_outs_are_the_librarys(
    server: CannedServer, transport: DeadlineTransport
) -> None:
    client = httpx2.Client(transport=transport, trust_env=False, timeout=None)
    with transport.until(None):
        assert client.get(server.url).content == b"x"
    with canned(b"", pause=0.4) as silent, transport.until(monotonic() + 10):
        started = monotonic()
        with pytest.raises(httpx2.ReadTimeout):
            client.get(silent.url, timeout=0.1)
        assert monotonic() - started < 0.35
