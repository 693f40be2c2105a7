"""Sessions at the server: the cache of contexts, and what the application does with it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from confonnx.errors import EncapsulationError, UnknownKeyError
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import ResponseOpener
from confonnx.ohttp.hpke import Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.session import (
    SESSION_REQUEST_MEDIA_TYPE,
    SESSION_RESPONSE_MEDIA_TYPE,
    ReceiverSession,
    SenderSession,
)
from confonnx.server.app import AppOptions
from confonnx.server.cohort import Cohort, Work
from confonnx.server.messages import HttpRequest, HttpResponse
from confonnx.server.replay import SeenBeforeError
from confonnx.server.sessions import MAX_SESSIONS, SessionCache
from tests.unit.server.harness import START, WINDOW, GatedSession, Gateway, gated_model, run


class Keys:
    """Private keys that tests exchange."""

    def __init__(self) -> None:
        self.live = {number: PrivateKey.generate(Kem.X25519) for number in (1, 2)}

    def private_key(self, key_id: int) -> PrivateKey:
        if key_id not in self.live:
            raise UnknownKeyError(f"no key {key_id}")
        return self.live[key_id]

    def sender(self, key_id: int = 1) -> SenderSession:
        return SenderSession(KeyConfig(key_id, Kem.X25519, self.live[key_id].public_key))


def sealed(sender: SenderSession, plaintext: bytes = b"question") -> bytes:
    found = sender.seal([plaintext])
    assert found is not None
    return bytes(found[0])


def opened(cache: SessionCache, message: bytes) -> bytes:
    session = cache.find(message)
    request = session.receiver.open(message)
    cache.admit(session, request)
    return bytes(request.plaintext).rstrip(b"\0")


# The cache.


def test_a_kept_context_opens_later_requests() -> None:
    keys = Keys()
    cache, sender = SessionCache(keys), keys.sender()
    first, second = sealed(sender), sealed(sender)
    assert opened(cache, second) == b"question"
    session = cache.find(first)
    assert session is cache.find(second)
    assert opened(cache, first) == b"question"
    assert len(cache) == 1


def test_a_replay_to_a_kept_context() -> None:
    keys = Keys()
    cache, message = SessionCache(keys), sealed(keys.sender())
    opened(cache, message)
    with pytest.raises(SeenBeforeError):
        opened(cache, message)


def test_the_least_recently_used_goes_and_is_made_again() -> None:
    keys = Keys()
    cache, senders = SessionCache(keys, capacity=2), [keys.sender() for _ in range(3)]
    firsts = [sealed(sender) for sender in senders]
    kept = cache.find(firsts[0])
    for message in firsts[:2]:
        opened(cache, message)
    opened(cache, sealed(senders[0]))  # so that the second is the older one
    opened(cache, firsts[2])
    assert len(cache) == 2
    assert cache.find(firsts[0]) is cache.find(firsts[0]) is not kept
    assert cache.find(firsts[1]) is not cache.find(firsts[1])
    assert opened(cache, sealed(senders[1])) == b"question"


def test_what_does_not_open_evicts_nothing() -> None:
    keys = Keys()
    cache, message = SessionCache(keys, capacity=1), sealed(keys.sender())
    opened(cache, message)
    session = cache.find(message)
    for _ in range(3):
        garbage = sealed(keys.sender())[:-1] + b"\0"
        with pytest.raises(EncapsulationError):
            opened(cache, garbage)
    assert cache.find(message) is session


def test_two_first_requests_at_the_same_time_share_one_window() -> None:
    keys = Keys()
    cache, message = SessionCache(keys), sealed(keys.sender())
    one, other = cache.find(message), cache.find(message)
    assert one is not other
    cache.admit(one, one.receiver.open(message))
    with pytest.raises(SeenBeforeError):
        cache.admit(other, other.receiver.open(message))


def test_contexts_go_with_their_key() -> None:
    keys = Keys()
    cache = SessionCache(keys)
    messages = {key_id: sealed(keys.sender(key_id)) for key_id in (1, 2)}
    for message in messages.values():
        opened(cache, message)
    cache.forget_ended()
    assert len(cache) == 2
    del keys.live[1]
    with pytest.raises(UnknownKeyError):
        cache.find(messages[1])
    cache.forget_ended()
    assert len(cache) == 1
    kept = cache.find(messages[2])
    assert kept is cache.find(messages[2])


@pytest.mark.parametrize("swept", [False, True])
def test_another_key_under_the_same_identifier_opens_nothing_of_the_old_one(swept: bool) -> None:
    keys = Keys()
    cache, message, later = SessionCache(keys), sealed(sender := keys.sender()), sealed(sender)
    opened(cache, message)
    keys.live[1] = PrivateKey.generate(Kem.X25519)
    if swept:
        cache.forget_ended()
        assert len(cache) == 0
    with pytest.raises(EncapsulationError):
        opened(cache, later)
    assert len(cache) == 0
    assert opened(cache, sealed(keys.sender())) == b"question"


def test_a_request_that_outlives_its_key_leaves_no_context() -> None:
    keys = Keys()
    cache, message = SessionCache(keys), sealed(keys.sender())
    session = cache.find(message)
    request = session.receiver.open(message)
    keys.live[1] = PrivateKey.generate(Kem.X25519)
    opened(cache, sealed(keys.sender()))
    cache.admit(session, request)
    assert len(cache) == 1
    with pytest.raises(EncapsulationError):
        opened(cache, message)


def test_a_capacity_of_nothing() -> None:
    with pytest.raises(ValueError, match="1 or more, not 0"):
        SessionCache(Keys(), capacity=0)


# The application.


class Talk:
    """A session with a gateway."""

    def __init__(self, gateway: Gateway, *, current: bool = False) -> None:
        self.gateway = gateway
        # The first configuration is of the current epoch, the last of the next.
        self.sender = SenderSession(gateway.ring.attested_keys(gateway.now)[0 if current else -1].config)

    def seal(self, *, date: str | None = None) -> tuple[bytes, ResponseOpener]:
        fields = (("date", date or self.gateway.date()),)
        parts = bhttp.encode_request(bhttp.Request("GET", "https", "x", "/v2/health/live", fields))
        found = self.sender.seal(parts)
        assert found is not None
        return bytes(found[0]), found[1]

    async def post(self, message: bytes, **fields: str) -> HttpResponse:
        return await self.gateway.post(message, content_type=SESSION_REQUEST_MEDIA_TYPE, **fields)

    async def ask(self) -> bhttp.Response:
        message, opener = self.seal()
        return self.open(await self.post(message), opener)

    @staticmethod
    def open(response: HttpResponse, opener: ResponseOpener) -> bhttp.Response:
        assert response.status == 200, response
        assert response.fields["content-type"] == SESSION_RESPONSE_MEDIA_TYPE
        return bhttp.parse_response(opener.open(b"".join(response.body)))


def gateway(*, max_sessions: int = MAX_SESSIONS) -> Gateway:
    found = Gateway([gated_model("slow", GatedSession())])
    if max_sessions != MAX_SESSIONS:
        found.app._sessions = SessionCache(found.ring, capacity=max_sessions)
    return found


def test_many_requests_of_one_session() -> None:
    async def scenario() -> None:
        server = gateway()
        talk = Talk(server)
        assert [(await talk.ask()).status for _ in range(3)] == [200, 200, 200]
        answers = await asyncio.gather(*(talk.ask() for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert len(server.app._sessions) == 1
        message, _ = talk.seal()
        assert server.app._sessions.find(message) is server.app._sessions.find(message)

    run(scenario)


def test_a_session_that_is_heard_alone_makes_ready_for_its_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[object] = []
    monkeypatch.setattr(ReceiverSession, "prepare", lambda session: happened.append(session.name))

    async def scenario() -> None:
        server = gateway()
        cohort = Cohort()

        async def arrive(*talks: Talk) -> None:
            happened.clear()
            for talk in talks:
                message, _ = talk.seal()
                fields = {"content-type": SESSION_REQUEST_MEDIA_TYPE}
                request = HttpRequest("POST", "/ohttp", fields, bytearray(message))
                answer = server.app.handle(request)
                cohort.add(Work(answer, lambda answer: happened.append(answer and answer.status), size=1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        one, other = Talk(server), Talk(server)
        await arrive(one)
        assert happened[0] == 200  # the answer comes first
        assert len(happened) == 2
        names = set(happened[1:])
        await arrive(one, other)
        assert happened == [200, 200]  # there was no time to spare
        await arrive(other)
        assert len(happened) == 2
        assert len(names | set(happened[1:])) == 2

    run(scenario)


def test_sessions_with_the_same_numbers_and_dates_are_no_replays_of_each_other() -> None:
    async def scenario() -> None:
        server = gateway()
        talks = [Talk(server) for _ in range(3)]
        assert [(await talk.ask()).status for talk in talks * 2] == [200] * 6

    run(scenario)


def test_a_kept_context_refuses_replays_whatever_the_clock_says() -> None:
    async def scenario() -> None:
        server = gateway()
        talk = Talk(server)
        message, _ = talk.seal()
        assert (await talk.post(message)).status == 200
        for minutes in (0, 10, -20):  # outside the window of dates the answer would be a sealed one
            server.now += timedelta(minutes=minutes)
            assert (await talk.post(message)).status == 400

    run(scenario)


def test_whatever_does_not_open_in_a_session_gets_the_one_answer() -> None:
    async def scenario() -> None:
        server = gateway()
        talk = Talk(server)
        message, _ = talk.seal()
        other, _ = talk.seal()
        assert (await talk.post(message)).status == 200
        plain = server.seal()[0]
        size = len(message) - len(plain)
        assert size == 8
        broken = {
            "replay": message,
            "flipped tag": other[:-1] + bytes([other[-1] ^ 1]),
            "flipped enc": other[:8] + bytes([other[8] ^ 1]) + other[9:],
            "other aead": other[:5] + b"\x00\x02" + other[7:],
            "cut in ct": other[:-20],
            "cut in enc": other[:20],
            "header alone": other[:7],
            "empty": b"",
            "plain request": plain,
        }
        answers = {}
        for name, bad in broken.items():
            response = await talk.post(bad, x_request_id="same")
            answers[name] = (response.status, dict(response.fields), b"".join(response.body))
        as_plain = await server.post(other, x_request_id="same")
        answers["as plain"] = (as_plain.status, dict(as_plain.fields), b"".join(as_plain.body))
        assert len({repr(answer) for answer in answers.values()}) == 1, answers
        assert json.loads(answers["replay"][2]) == {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
        }
        assert server.count("confonnx_unopened_total", reason="replayed") == 1
        assert (await talk.post(other)).status == 200  # none of it did any harm

    run(scenario)


def test_eviction_opens_no_door_to_a_replay() -> None:
    async def scenario() -> None:
        server = gateway(max_sessions=1)
        talk, other = Talk(server), Talk(server)
        message, _ = talk.seal(date=server.date(WINDOW))
        assert (await talk.post(message)).status == 200
        while server.now.timestamp() < START.timestamp() + 2 * WINDOW.total_seconds():
            assert (await other.ask()).status == 200  # evicts the context of ``talk``, with its window
            assert (await talk.post(message)).status == 400
            server.now += timedelta(seconds=20)

    run(scenario)


def test_a_request_overtaken_by_thousands_is_served() -> None:
    async def scenario() -> None:
        server = gateway()
        server.replays._capacity = 10_000
        talk = Talk(server)
        slow, opener = talk.seal()
        for _ in range(1100):
            talk.seal()
        assert (await talk.ask()).status == 200
        assert talk.open(await talk.post(slow), opener).status == 200
        assert (await talk.post(slow)).status == 400

    run(scenario)


def test_any_replica_serves_any_request() -> None:
    async def scenario() -> None:
        one, two = gateway(), gateway()
        two.app._sessions = SessionCache(one.ring)
        talk = Talk(one)
        for server in (one, two, one, two):
            talk.gateway = server
            assert (await talk.ask()).status == 200

    run(scenario)


def test_a_session_ends_with_the_grace_of_its_key() -> None:
    async def scenario() -> None:
        server = gateway()
        talk = Talk(server, current=True)
        assert (await talk.ask()).status == 200
        server.now += timedelta(hours=24, minutes=59)
        server.ring.advance(server.now)
        server.app.forget_ended_sessions()
        assert (await talk.ask()).status == 200
        server.now += timedelta(minutes=2)
        server.ring.advance(server.now)
        server.app.forget_ended_sessions()
        assert len(server.app._sessions) == 0
        message, _ = talk.seal()
        response = await talk.post(message)
        assert response.status == 400
        assert json.loads(b"".join(response.body))["type"].endswith("#ohttp-key")

    run(scenario)


def test_a_date_outside_the_window_is_a_sealed_problem() -> None:
    async def scenario() -> None:
        server = gateway()
        talk = Talk(server)
        message, opener = talk.seal(date=server.date(timedelta(seconds=121)))
        assert talk.open(await talk.post(message), opener).status == 400
        assert (await talk.ask()).status == 200

    run(scenario)


def test_the_default_number_of_contexts() -> None:
    assert AppOptions("", 1, pad=True).max_sessions == MAX_SESSIONS
