"""What only `Client` does: threads, time-outs, closing, and the options of its constructor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from confonnx import Client, errors
from confonnx.attestation.result import AttestedKeys
from confonnx.client.base import Deadline
from confonnx.client.exchange import HttpRequest, HttpResponse
from tests.support.fake_server import BASE_URL, MEASUREMENT, FakeServer, policy

INPUTS = {"a": [1.0], "b": [2.0]}
THREADS = 8


class WatchedClient(Client):
    """Counts the calls that came to need keys."""

    def _new_keys(self, instead_of: AttestedKeys | None, deadline: Deadline) -> AttestedKeys:
        self.waiting.release()
        return super()._new_keys(instead_of, deadline)

    def _prepare(self) -> None:
        super()._prepare()
        self.waiting = threading.Semaphore(0)


@dataclass
class Gate:
    """Holds an attestation until as many calls as given wait for it; then answers with ``answer`` once."""

    client: WatchedClient | None = None
    calls: int = THREADS
    answer: HttpResponse | Exception | None = None
    answers: list[HttpResponse | Exception | None] = field(default_factory=list)

    def __call__(self, request: HttpRequest) -> HttpResponse | Exception | None:
        assert self.client is not None
        if request.method != "GET" or self.answers:
            return None
        for _ in range(self.calls):
            assert self.client.waiting.acquire(timeout=10)
        time.sleep(0.05)  # from the count to the wait
        self.answers.append(self.answer)
        return self.answer


def gated(server: FakeServer, gate: Gate) -> WatchedClient:
    client = WatchedClient(BASE_URL, transport=server, policy=policy())
    gate.client, server.outer = client, gate
    return client


def in_threads(call: Callable[[], object]) -> list[object]:
    def outcome() -> object:
        try:
            return call()
        except errors.ConfonnxError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result(20) for future in [pool.submit(outcome) for _ in range(THREADS)]]


def test_threads_share_one_attestation() -> None:
    server = FakeServer()
    client = gated(server, Gate())
    results = in_threads(lambda: np.asarray(client.predict(INPUTS)["sum"]).tolist())
    assert results == [[3.0]] * THREADS
    assert sorted(server.paths) == ["GET /attestation", *["POST /ohttp"] * THREADS]


def test_threads_share_one_attestation_after_a_restart() -> None:
    server = FakeServer()
    client = gated(server, Gate(calls=1))
    client.predict(INPUTS)
    server.restart(same_key_ids=True)
    server.outer = Gate(client)
    results = in_threads(lambda: np.asarray(client.predict(INPUTS)["sum"]).tolist())
    assert results == [[3.0]] * THREADS
    assert server.paths.count("GET /attestation") == 2
    assert server.paths.count("POST /ohttp") == 1 + 2 * THREADS


def test_threads_share_the_verdict_on_a_wrong_server() -> None:
    server = FakeServer()
    client = gated(server, Gate(answer=server.answer(200, "text/html")))
    outcomes = in_threads(lambda: client.predict(INPUTS))
    assert {type(outcome) for outcome in outcomes} == {errors.NotConfonnxError}
    assert server.paths == ["GET /attestation"]


def test_a_network_failure_of_one_thread_is_no_verdict_for_the_others() -> None:
    server = FakeServer()
    client = gated(server, Gate(answer=errors.TransportError("timed out")))
    outcomes = in_threads(lambda: client.predict(INPUTS))
    assert sum(isinstance(outcome, errors.TransportError) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == THREADS - 1
    assert server.paths.count("GET /attestation") == 2


def test_a_thread_waits_no_longer_than_its_time() -> None:
    server = FakeServer()
    release, started = threading.Event(), threading.Event()

    def slow(request: HttpRequest) -> None:
        if request.method == "GET":
            started.set()
            assert release.wait(10)

    server.outer = slow
    client = Client(BASE_URL, transport=server, policy=policy())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.predict, INPUTS)
        try:
            assert started.wait(10)
            with pytest.raises(errors.TransportError, match=r"no answer within 0\.05 s.*timeout="):
                client.predict(INPUTS, timeout=0.05)
        finally:
            release.set()
        assert first.result(10).keys() == {"sum", "product"}


def test_the_time_left_goes_to_the_transport() -> None:
    server = FakeServer()
    seen: list[float | None] = []
    send = server.send

    def watched(request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        seen.append(timeout)
        return send(request, timeout=timeout)

    server.send = watched  # type: ignore[method-assign]
    Client(BASE_URL, transport=server, policy=policy(), timeout=5).predict(INPUTS)
    assert all(timeout is not None and 4 < timeout <= 5 for timeout in seen)
    seen.clear()
    Client(BASE_URL, transport=server, policy=policy(), timeout=5).predict(INPUTS, timeout=9)
    assert all(timeout is not None and 8 < timeout <= 9 for timeout in seen)
    seen.clear()
    Client(BASE_URL, transport=server, policy=policy(), timeout=None).predict(INPUTS)
    assert seen == [None, None]


def test_a_call_whose_time_is_over_sends_nothing_more() -> None:
    server = FakeServer()

    def slow(request: HttpRequest) -> None:
        time.sleep(0.06)

    server.outer = slow
    client = Client(BASE_URL, transport=server, policy=policy())
    with pytest.raises(errors.TransportError, match="within"):
        client.predict(INPUTS, timeout=0.05)
    assert server.paths == ["GET /attestation"]
    assert client.predict(INPUTS).keys() == {"sum", "product"}  # what was verified is kept
    assert server.paths == ["GET /attestation", "POST /ohttp"]


def test_bad_timeouts_of_one_call() -> None:
    server = FakeServer()
    client = Client(BASE_URL, transport=server, policy=policy())
    with pytest.raises(errors.ConfigurationError, match="timeout"):
        client.predict(INPUTS, timeout=0)
    assert server.paths == []


def test_closing() -> None:
    server = FakeServer()
    with Client(BASE_URL, transport=server, policy=policy()) as client:
        client.predict(INPUTS)
    assert server.closed
    client.close()
    for call in (lambda: client.predict(INPUTS), client.verify, client.models, client.ready):
        with pytest.raises(errors.ConfigurationError, match="closed"):
            call()
    with pytest.raises(errors.ConfigurationError, match="closed"):
        client.server_metadata()


def test_a_client_that_is_closed_in_the_middle_of_a_call_sends_nothing_more() -> None:
    server = FakeServer()
    client = Client(BASE_URL, transport=server, policy=policy())
    server.outer = lambda _: client.close()
    with pytest.raises(errors.ConfigurationError, match="closed"):
        client.predict(INPUTS)
    assert server.paths == ["GET /attestation"]


def test_repr_shows_address_and_state_and_no_secret() -> None:
    server = FakeServer(authorization="Bearer hunter2")
    client = Client(BASE_URL, transport=server, policy=policy(), auth_key="hunter2", ingress_auth="hunter3")
    assert repr(client) == f"<Client {BASE_URL}/ not verified yet>"
    client.predict(INPUTS)
    assert repr(client) == f"<Client {BASE_URL}/ simulated verified until 2026-11-25T12:00:00+00:00>"
    client.close()
    assert repr(client) == f"<Client {BASE_URL}/ closed>"


def test_simple_options_become_a_policy() -> None:
    server = FakeServer()
    client = Client(
        BASE_URL,
        transport=server,
        enclave_hash=MEASUREMENT.hex(),
        enclave_model_hash="aa" * 32,
        allow_simulated=True,
        auth={"key": "k"},
    )
    server.authorization = "Bearer k"
    assert client.predict(INPUTS).keys() == {"sum", "product"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enclave_hash": "ab" * 32},
        {"enclave_model_hash": "ab" * 32},
        {"allow_simulated": True, "dangerous_any_model": True},
        {"policy": policy(), "enclave_hash": "ab" * 32},
        {"policy": policy(), "enclave_model_hash": "ab" * 32},
        {"policy": policy(), "enclave_signing_key": "PEM"},
        {"policy": policy(), "allow_simulated": True},
        {"policy": policy(), "enclave_allow_debug": True},
        {"policy": policy(), "dangerous_any_model": True},
        {"policy": policy(), "auth_key": "k", "auth_user": "u", "auth_pass": "p"},
        {"policy": policy(), "timeout": 0},
    ],
)
def test_options_that_are_missing_or_contradict(options: dict[str, object]) -> None:
    server = FakeServer()
    with pytest.raises(errors.ConfigurationError):
        Client(BASE_URL, transport=server, **options)  # type: ignore[arg-type]
    assert server.paths == []
