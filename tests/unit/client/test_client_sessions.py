"""Sessions and relays, through `Client` against a server in memory: which request goes where, in what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest

from confonnx import Client, errors
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.session import session_with
from confonnx.ohttp.encapsulation import REQUEST_MEDIA_TYPE
from confonnx.ohttp.session import MAX_REQUESTS, SESSION_REQUEST_MEDIA_TYPE
from tests.support.fake_server import BASE_URL, PROBLEM, FakeServer, policy

INPUTS = {"a": [1.0, 2.0], "b": [3.0, 5.0]}
RELAY = "https://relay.example/to-confonnx?gateway=1"
ENC = slice(0, 7 + 1120)


def client_of(server: FakeServer, **options: object) -> Client:
    return Client(BASE_URL, transport=server, policy=policy(), **options)  # type: ignore[arg-type]


def sealed_to(server: FakeServer) -> list[HttpRequest]:
    return [request for request in server.received if request.method == "POST"]


def sessions(server: FakeServer) -> list[bytes]:
    """``hdr ‖ enc`` of every sealed request."""
    return [bytes(request.body[ENC]) for request in sealed_to(server)]


def numbers(server: FakeServer) -> list[int]:
    return [int.from_bytes(request.body[ENC.stop : ENC.stop + 8], "big") for request in sealed_to(server)]


def test_calls_share_a_session_by_default() -> None:
    server = FakeServer()
    client = client_of(server)
    for _ in range(3):
        client.predict(INPUTS)
    client.ready()
    assert len(set(sessions(server))) == 1
    assert numbers(server) == [0, 1, 2, 3]
    assert {dict(request.fields)["content-type"] for request in sealed_to(server)} == {
        SESSION_REQUEST_MEDIA_TYPE
    }


def test_plain_oblivious_http_on_request() -> None:
    server = FakeServer()
    client = client_of(server, sessions=False)
    for _ in range(3):
        client.predict(INPUTS)
    assert len(set(sessions(server))) == 3
    assert {dict(request.fields)["content-type"] for request in sealed_to(server)} == {REQUEST_MEDIA_TYPE}
    assert not any(request.relayed for request in server.received)


@pytest.mark.parametrize(
    ("minutes", "expected"), [([59], 1), ([20, 39], 1), ([60], 2), ([40, 40], 2), ([-59], 1), ([-60], 2)]
)
def test_a_session_lasts_an_hour_at_most(minutes: list[int], expected: int) -> None:
    server = FakeServer()
    client = client_of(server)
    keys = client.verify()
    now = server.clock + timedelta(hours=3)  # so that a clock that steps back keeps the keys
    found = [session_with(keys, now=now, instead_of=None)]
    for step in minutes:
        now += timedelta(minutes=step)
        found.append(session_with(keys, now=now, instead_of=found[-1]))
    assert len({id(session.sender) for session in found}) == expected


def test_an_hour_of_calls() -> None:
    server = FakeServer()
    client = client_of(server)
    for _ in range(4):
        client.predict(INPUTS)
        server.clock += timedelta(minutes=25)
    assert [session == sessions(server)[0] for session in sessions(server)] == [True, True, True, False]


def test_a_session_ends_with_the_key() -> None:
    server = FakeServer(lifetime=timedelta(hours=2))
    client = client_of(server)
    server.clock += timedelta(minutes=90)
    epochs = []
    for _ in range(3):
        client.predict(INPUTS)
        epochs.append(server.ring.epoch)
        server.clock += timedelta(minutes=20)
    assert epochs == [0, 0, 1]
    found = sessions(server)
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[2][0]  # the key identifier
    assert (len(server.opened), server.paths.count("GET /attestation")) == (3, 1)


def test_a_new_verification_begins_a_new_session() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    client.verify()
    client.predict(INPUTS)
    assert len(set(sessions(server))) == 2
    assert numbers(server) == [0, 0]


def test_the_last_number_of_a_session() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    session = client._state.session
    assert session is not None
    session.sender._context._numbers = count(MAX_REQUESTS - 1)
    for _ in range(3):
        client.predict(INPUTS)
    assert numbers(server) == [0, MAX_REQUESTS - 1, 0, 1]
    assert len(set(sessions(server))) == 2


@pytest.mark.parametrize("same_key_ids", [False, True])
def test_a_restart_in_mid_session_loses_nothing(same_key_ids: bool) -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    server.restart(same_key_ids=same_key_ids)
    assert client.predict(INPUTS).keys() == {"sum", "product"}
    assert server.paths == [
        "GET /attestation",
        "POST /ohttp",
        "POST /ohttp",
        "GET /attestation",
        "POST /ohttp",
    ]
    assert sessions(server)[1] != sessions(server)[2]


def test_an_answer_to_another_request_of_the_session_is_refused() -> None:
    server = FakeServer()
    client = client_of(server)
    kept: list[HttpResponse] = []

    def swapped(request: HttpRequest) -> HttpResponse | None:
        if request.method == "GET":
            return None
        kept.append(server._answer(request))
        return kept[0]

    server.outer = swapped
    client.predict(INPUTS)
    with pytest.raises(errors.EncapsulationError):
        client.predict(INPUTS)


def test_threads_share_sessions_and_never_a_number() -> None:
    server = FakeServer()
    client = client_of(server)
    start = threading.Barrier(8)

    def calls(_: int) -> None:
        start.wait(10)
        for _ in range(25):
            client.predict(INPUTS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(calls, range(8)))
    pairs = list(zip(sessions(server), numbers(server), strict=True))
    assert len(pairs) == len(set(pairs)) == 200
    assert len(set(sessions(server))) <= 8  # at most one begun by each, all at the start


# ── relays ──────────────────────────────────────────────────────────────────────────────────────────


def test_through_a_relay_nothing_links_requests() -> None:
    server = FakeServer()
    client = client_of(server, relay=RELAY)
    for _ in range(3):
        client.predict(INPUTS)
    assert [(request.method, request.relayed) for request in server.received] == [
        ("GET", False),  # evidence, from the server itself
        *[("POST", True)] * 3,
    ]
    assert len(set(sessions(server))) == 3
    assert {request.fields for request in sealed_to(server)} == {(("content-type", REQUEST_MEDIA_TYPE),)}


def test_a_relay_that_wants_credentials() -> None:
    server = FakeServer()
    server.outer = lambda request: server.answer(401, PROBLEM) if request.relayed else None
    with pytest.raises(errors.AuthenticationError, match=r"the relay wants credentials.*as relay_auth"):
        client_of(server, relay=RELAY).predict(INPUTS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"relay": RELAY, "sessions": True}, "relay and sessions exclude each other"),
        ({"relay_auth": "token"}, "give relay= too"),
        ({"relay": RELAY, "relay_auth": "two words"}, "relay_auth must be printable"),
        ({"relay": "relay.example"}, "relay must start with http"),
        ({"relay": "https://relay.example/#a"}, "relay must have no query and no fragment"),
        ({"relay": "https://u:p@relay.example/"}, "relay holds credentials.*relay_auth"),
        ({"relay": 'https://relay.example/?"'}, "relay has a query"),
        ({"relay": "https://relay.example/?a#b"}, "relay has a query"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=text):
        client_of(FakeServer(), **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda server: client_of(server, relay=RELAY, sessions=False),
        lambda server: client_of(server, relay=RELAY, relay_auth=("u", "p")),
        lambda server: client_of(server, sessions=True),
    ],
)
def test_options_that_go_together(make: Callable[[FakeServer], Client]) -> None:
    assert make(FakeServer()).predict(INPUTS).keys() == {"sum", "product"}
