"""Long-lived clients lose no request: keys roll over under load, servers restart, clocks differ."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from confonnx.client import AsyncClient, Client
from confonnx.client.options import Connection, parse_url
from confonnx.client.transport import HttpTransport
from confonnx.errors import PolicyError, TransportError
from confonnx.models.digest import model_digest
from tests.support.models import add_model, identity_model
from tests.support.recording_proxy import recording_proxy
from tests.support.running import RunningServer, running_server

THREADS = 4
INTERVAL = 2.0  # seconds between keys
ROLLOVERS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("model") / "add.onnx")


def test_keys_roll_over_under_load_without_a_lost_request(model: Path) -> None:
    with (
        running_server(str(model), "--key-rollover-interval", f"{INTERVAL:g}s") as server,
        recording_proxy(server.port) as proxy,
        _client(server, proxy.url) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        end = threading.Event()
        work = [pool.submit(_ask_until, end, client, number) for number in range(THREADS)]
        try:
            _wait_for_rollovers(server, ROLLOVERS)
        finally:
            end.set()
        answered = [future.result(30) for future in work]

    assert min(answered) > 20
    attestations = proxy.requests(b"GET /attestation")
    assert 2 <= attestations <= 2 * ROLLOVERS + 2, "threads share a verification"
    assert proxy.to_client.count(b"HTTP/1.1 200 ") == sum(answered) + attestations
    # None is refused and sent again, unless this machine stood still for a whole interval.
    assert proxy.requests(b"POST /ohttp ") <= sum(answered) + THREADS


def test_keys_roll_over_under_a_client_of_many_tasks(model: Path) -> None:
    async def main(server: RunningServer) -> int:
        async with AsyncClient(
            server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client:
            end = time.monotonic() + 2.5 * INTERVAL
            return sum(await asyncio.gather(*(_ask_for_a_while(client, number, end) for number in range(8))))

    with running_server(str(model), "--key-rollover-interval", f"{INTERVAL:g}s") as server:
        assert asyncio.run(main(server)) > 50
        assert len([entry for entry in server.log() if entry["event"] == "key rollover"]) >= 2


def test_a_client_that_slept_through_several_keys(model: Path) -> None:
    """Its keys are long gone when it wakes: it verifies again before it seals, and is never refused."""
    with (
        running_server(str(model), "--key-rollover-interval", "1s", "--key-grace", "0s") as server,
        recording_proxy(server.port) as proxy,
        _client(server, proxy.url) as client,
    ):
        _ask(client, 1)
        _wait_for_rollovers(server, 3)
        _ask(client, 2)
        assert proxy.requests(b"GET /attestation") == 2
        assert proxy.requests(b"POST /ohttp ") == 2


def test_a_restarted_server_costs_one_verification(model: Path) -> None:
    with ExitStack() as stack:
        with running_server(str(model)) as first:
            proxy = stack.enter_context(recording_proxy(first.port))
            client = stack.enter_context(_client(first, proxy.url))
            _ask(client, 1)
        with pytest.raises(TransportError):
            _ask(client, 2)
        second = stack.enter_context(running_server(str(model)))
        proxy.target = second.port
        _ask(client, 3)
        assert proxy.requests(b"GET /attestation") == 2
        assert proxy.requests(b"POST /ohttp ") == 3, "one answered, one that no longer opened, one again"
        _ask(client, 4)
        assert proxy.requests(b"GET /attestation") == 2


def test_many_threads_share_the_verification_of_a_restarted_server(model: Path) -> None:
    with ExitStack() as stack:
        with running_server(str(model)) as first:
            proxy = stack.enter_context(recording_proxy(first.port))
            client = stack.enter_context(_client(first, proxy.url))
            _ask(client, 1)
        second = stack.enter_context(running_server(str(model)))
        proxy.target = second.port
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: _ask(client, number), range(64)))
        assert proxy.requests(b"GET /attestation") == 2


def test_a_server_that_comes_back_with_another_model_is_sent_nothing(model: Path, tmp_path: Path) -> None:
    other = identity_model(tmp_path / "add.onnx")
    with ExitStack() as stack:
        with running_server(str(model)) as first:
            proxy = stack.enter_context(recording_proxy(first.port))
            client = stack.enter_context(_client(first, proxy.url, model_hash=model_digest(model)))
            _ask(client, 1)
        second = stack.enter_context(running_server(str(other)))
        proxy.target = second.port
        with pytest.raises(PolicyError, match="model"):
            _ask(client, 2)
        sealed_to_the_old_key = proxy.requests(b"POST /ohttp ")
        with pytest.raises(PolicyError, match="model"):
            _ask(client, 3)
        assert sealed_to_the_old_key == proxy.requests(b"POST /ohttp ") == 2


@pytest.mark.parametrize("offset", [timedelta(minutes=-4), timedelta(minutes=4)])
def test_a_client_whose_clock_is_off_corrects_its_date_once(offset: timedelta, model: Path) -> None:
    with (
        running_server(str(model)) as server,
        recording_proxy(server.port) as proxy,
        Client(
            proxy.url,
            enclave_hash=server.measurement,
            dangerous_any_model=True,
            allow_simulated=True,
            transport=_OtherClock(proxy.url, offset),
        ) as client,
    ):
        for number in range(3):
            _ask(client, number)
        assert proxy.requests(b"POST /ohttp ") == 4, "one was refused for its date"


class _OtherClock(HttpTransport):
    """The network, and a clock that is off."""

    def __init__(self, url: str, offset: timedelta) -> None:
        super().__init__(Connection(url=parse_url(url)))
        self._offset = offset

    def now(self) -> datetime:
        """The wrong time."""
        return datetime.now(UTC) + self._offset


def _client(server: RunningServer, url: str, *, model_hash: str | None = None) -> Client:
    return Client(
        url,
        enclave_hash=server.measurement,
        enclave_model_hash=model_hash,
        dangerous_any_model=model_hash is None,
        allow_simulated=True,
    )


def _ask(client: Client, number: int) -> None:
    answer = client.predict({"a": [number], "b": [0.5]})["sum"]
    assert answer.tolist() == [number + 0.5]  # type: ignore[union-attr]


def _ask_until(end: threading.Event, client: Client, number: int) -> int:
    count = 0
    while not end.is_set():
        _ask(client, number)
        count += 1
    return count


async def _ask_for_a_while(client: AsyncClient, number: int, end: float) -> int:
    count = 0
    while time.monotonic() < end:
        answer = (await client.predict({"a": [number], "b": [0.5]}))["sum"]
        assert answer.tolist() == [number + 0.5]  # type: ignore[union-attr]
        count += 1
    return count


def _wait_for_rollovers(server: RunningServer, count: int) -> None:
    deadline = time.monotonic() + 60
    while len([entry for entry in server.log() if entry["event"] == "key rollover"]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
