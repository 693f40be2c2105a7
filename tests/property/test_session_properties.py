"""Sessions, whatever the order, the loss, the repetition and the evictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.errors import EncapsulationError, ReplayError
from confonnx.ohttp.encapsulation import ResponseOpener, read_prefix
from confonnx.ohttp.hpke import Aead, Kem
from confonnx.ohttp.session import MAX_REQUESTS, WINDOW, ReceiverSession, ReplayWindow, SenderSession
from confonnx.server.replay import ReplayCache
from confonnx.server.sessions import SessionCache
from tests.unit.ohttp.single_key import SingleKey

GATEWAY = SingleKey.derived(Kem.X25519)
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DATE_WINDOW = timedelta(minutes=2)


def sealed(sender: SenderSession, plaintext: bytes, *, pad: bool = True) -> tuple[bytearray, ResponseOpener]:
    found = sender.seal([plaintext], pad=pad)
    assert found is not None
    return found


@given(
    plaintexts=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    aead=st.sampled_from(Aead),
    pad=st.booleans(),
    data=st.data(),
)
def test_any_order_opens_and_answers(
    plaintexts: list[bytes], aead: Aead, pad: bool, data: st.DataObject
) -> None:
    sender = SenderSession(GATEWAY.config(), aead=aead)
    exchanges = [(text, *sealed(sender, text, pad=pad)) for text in plaintexts]
    session: ReceiverSession | None = None
    for number, (text, message, opener) in data.draw(st.permutations(list(enumerate(exchanges)))):
        if session is None or data.draw(st.booleans()):  # kept, or made again
            session = ReceiverSession(*read_prefix(GATEWAY, memoryview(message)))
        request = session.open(message)
        assert request.seq == number
        assert bytes(request.plaintext[: len(text)]) == text
        assert not any(request.plaintext[len(text) :])
        assert bytes(opener.open(request.sealer.seal([text], pad=False))) == text


@given(st.lists(st.integers(0, 3 * WINDOW) | st.integers(0, MAX_REQUESTS - 1), max_size=60))
def test_a_window_is_what_it_says(numbers: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for seq in numbers:
        known = seq in seen and seq > max(seen) - WINDOW
        assert window.mark(seq) is not known
        seen.add(seq)


class Server:
    """What a server does with a session's request, as ``app`` does it."""

    def __init__(self, capacity: int) -> None:
        self.sessions = SessionCache(GATEWAY, capacity=capacity)
        self.replays = ReplayCache(window=DATE_WINDOW, capacity=10_000)

    def serve(self, message: bytes, *, now: datetime) -> bytes:
        session = self.sessions.find(message)
        request = session.receiver.open(message)
        self.sessions.admit(session, request)
        date = bytes(request.plaintext).rstrip(b"\0").decode()
        self.replays.admit(request.identity, date, now=now)
        return request.identity


@settings(deadline=None, max_examples=60)
@given(
    capacity=st.integers(1, 3),
    events=st.lists(
        st.tuples(st.sampled_from(["new", "again", "wait", "back"]), st.integers(0, 400)), max_size=60
    ),
)
def test_nothing_is_served_twice_whatever_is_evicted(
    capacity: int, events: Sequence[tuple[str, int]]
) -> None:
    """Several sessions compete for few contexts; old messages come back; the clock moves either way."""
    server, now = Server(capacity), START
    senders = [SenderSession(GATEWAY.config()) for _ in range(4)]
    sent: list[bytes] = []
    served: list[bytes] = []
    for event, number in events:
        if event == "wait":
            now += timedelta(seconds=number)
            continue
        if event == "back":
            now -= timedelta(seconds=number)
            continue
        if event == "new" or not sent:
            date = format_datetime(now + timedelta(seconds=number % 100 - 50), usegmt=True)
            sent.append(bytes(sealed(senders[number % 4], date.encode())[0]))
            message = sent[-1]
        else:
            message = sent[number % len(sent)]
        try:
            served.append(server.serve(message, now=now))
        except ReplayError:
            continue
    assert len(served) == len(set(served))
    assert len(server.sessions) <= capacity


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_bit_opens_nothing(position: int, bit: int) -> None:
    sender = SenderSession(GATEWAY.config())
    message, _ = sealed(sender, b"x" * 160)
    session = ReceiverSession(*read_prefix(GATEWAY, memoryview(message)))
    at = 39 + position % (len(message) - 39)  # the number, the ciphertext, the tag
    message[at] ^= 1 << bit
    with pytest.raises(EncapsulationError):
        session.open(message)
