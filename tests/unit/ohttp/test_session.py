"""Sessions: what is sealed where, what opens, and what a window remembers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from confonnx.errors import EncapsulationError, KeyConfigError, UnknownKeyError
from confonnx.ohttp import encapsulation
from confonnx.ohttp.aead import OPEN_FAILED
from confonnx.ohttp.encapsulation import ResponseOpener, open_request, read_prefix
from confonnx.ohttp.hkdf import expand, extract, key_and_nonce
from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey, Suite, setup_receiver
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.padding import padme
from confonnx.ohttp.session import (
    MAX_REQUESTS,
    WINDOW,
    ReceiverSession,
    ReplayWindow,
    SenderSession,
    SessionRequest,
)
from tests.unit.ohttp.single_key import SingleKey

KEMS = [Kem.X25519, Kem.MLKEM768_X25519]
RESPONSE_NONCE = bytes(range(32))


def sealed(
    sender: SenderSession, plaintext: bytes = b"question", *, pad: bool = True
) -> tuple[bytearray, ResponseOpener]:
    found = sender.seal([plaintext], pad=pad)
    assert found is not None
    return found


def receiver(gateway: SingleKey, message: bytes | bytearray) -> ReceiverSession:
    return ReceiverSession(*read_prefix(gateway, memoryview(message)))


def jump(sender: SenderSession, seq: int) -> None:
    """Make ``seq`` the number of the next request."""
    sender._context._numbers = count(seq)


@pytest.mark.parametrize("kem", KEMS)
@pytest.mark.parametrize("aead", list(Aead))
def test_many_requests_and_their_responses(kem: Kem, aead: Aead) -> None:
    gateway = SingleKey.derived(kem)
    sender = SenderSession(gateway.config(), aead=aead)
    first, _ = sealed(sender, b"first")
    session = receiver(gateway, first)
    for number in range(1, 4):
        message, opener = sealed(sender, b"question %d" % number)
        request = session.open(message)
        assert bytes(request.plaintext).rstrip(b"\0") == b"question %d" % number
        assert request.seq == number
        assert bytes(opener.open(request.sealer.seal([b"answer"]))).rstrip(b"\0") == b"answer"
    assert bytes(session.open(first).plaintext).rstrip(b"\0") == b"first"  # in any order


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salts of which keys for answers were derived, as they are."""
    salts: list[bytes] = []

    def noted(salt: bytes, secret: bytes, key_size: int) -> tuple[bytes, bytes]:
        salts.append(salt)
        return key_and_nonce(salt, secret, key_size)

    monkeypatch.setattr(encapsulation, "key_and_nonce", noted)
    return salts


def test_the_key_of_the_next_answer_may_be_made_before_its_request(derived: list[bytes]) -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    first, _ = sealed(sender)
    session = receiver(gateway, first)
    session.open(first)
    session.prepare()
    session.prepare()
    assert len(derived) == 1
    message, opener = sealed(sender)
    answer = session.open(message).sealer.seal([b"answer"], pad=False)
    assert len(derived) == 1
    assert bytes(opener.open(answer)) == b"answer"


def test_no_two_requests_get_what_was_prepared(derived: list[bytes]) -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    messages = [sealed(sender) for _ in range(4)]
    session = receiver(gateway, messages[0][0])
    session.open(bytes(messages[0][0]))
    session.prepare()  # for the second, which is overtaken
    answers = []
    for number in (2, 1, 1, 3):  # and comes twice, at which its owner would look
        request = session.open(bytes(messages[number][0]))
        answers.append(request.sealer.seal([b"answer"], pad=False))
    assert len(set(derived)) == len(derived) == 4
    assert len({bytes(answer[:16]) for answer in answers}) == 4
    assert bytes(messages[1][1].open(answers[1])) == b"answer"


def test_nothing_is_prepared_for_a_number_that_no_request_has(derived: list[bytes]) -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    jump(sender, MAX_REQUESTS - 1)
    last, _ = sealed(sender)
    session = receiver(gateway, last)
    session.open(last)
    session.prepare()
    assert derived == []


def test_every_byte_follows_from_the_specification() -> None:
    """Sealed here, opened by hand from docs/spec/sessions.md over HPKE alone."""
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config(), aead=Aead.AES_256_GCM)
    sealed(sender)
    message, opener = sealed(sender, b"question", pad=False)
    header, enc, seq, ciphertext = message[:7], message[7:39], message[39:47], message[47:]
    assert (header.hex(), seq.hex()) == ("07002000010002", "0000000000000001")
    suite = Suite(Kem.X25519, Kdf.HKDF_SHA256, Aead.AES_256_GCM)
    context = setup_receiver(suite, gateway.key, enc, info=b"confonnx session request\0" + bytes(header))
    assert bytes(context.open_at(1, bytes(ciphertext))) == b"question"
    secret = context.export(b"confonnx session response", 32)
    prk = extract(bytes(enc + seq) + RESPONSE_NONCE, secret)
    cipher = Aead.AES_256_GCM.cipher(expand(prk, b"key", 32)).one_shot
    answer = RESPONSE_NONCE + cipher.encrypt(expand(prk, b"nonce", 12), b"answer", b"")
    assert bytes(opener.open(answer)) == b"answer"
    request = receiver(gateway, message).open(message)
    assert request.sealer.seal([b"answer"], pad=False, randomness=RESPONSE_NONCE) == answer
    assert request.identity == hashlib.sha256(header + enc).digest()[:16] + seq


def test_padding() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    overhead = 7 + 32 + 8 + 16
    assert len(sealed(sender, b"x" * 999)[0]) == padme(999) + overhead
    assert len(sealed(sender, b"x" * 999, pad=False)[0]) == 999 + overhead


def test_a_response_opens_for_its_own_request_alone() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    (one, _), (_, other) = sealed(sender), sealed(sender)
    answer = receiver(gateway, one).open(one).sealer.seal([b"answer"])
    with pytest.raises(EncapsulationError):
        other.open(answer)


def test_the_kinds_of_sealed_request_do_not_pass_for_each_other() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    message, _ = sealed(SenderSession(gateway.config()))
    without_number = bytes(message[:39] + message[47:])
    with pytest.raises(EncapsulationError):
        open_request(gateway, without_number)


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: message[:46],  # no whole number
        lambda message: message[:47],  # no tag
        lambda message: message[:-1],
        lambda message: message + b"\0",
        lambda message: message[:39] + (1).to_bytes(8, "big") + message[47:],  # another number
        lambda message: message[:39] + MAX_REQUESTS.to_bytes(8, "big") + message[47:],
        lambda message: message[:39] + b"\xff" * 8 + message[47:],
        lambda message: message[:-1] + bytes([message[-1] ^ 1]),
    ],
)
def test_what_does_not_open(damage: Callable[[bytes], bytes]) -> None:
    gateway = SingleKey.derived(Kem.X25519)
    message, _ = sealed(SenderSession(gateway.config()))
    session = receiver(gateway, message)
    with pytest.raises(EncapsulationError) as caught:
        session.open(damage(bytes(message)))
    assert str(caught.value) == OPEN_FAILED


def test_a_writable_message_that_does_not_open_is_wiped() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    message, _ = sealed(SenderSession(gateway.config()))
    message[-1] ^= 1
    with pytest.raises(EncapsulationError):
        receiver(gateway, message).open(message)
    assert not any(message[47:])


def test_prefixes_that_are_refused() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    message = bytes(sealed(SenderSession(gateway.config()))[0])
    for cut in (0, 6, 7, 38):
        with pytest.raises(EncapsulationError, match=OPEN_FAILED):
            receiver(gateway, message[:cut])
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        receiver(gateway, message[:6] + b"\x09" + message[7:])
    with pytest.raises(UnknownKeyError):
        receiver(gateway, b"\x01" + message[1:])
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):  # a point of low order (RFC 7748 §6.1)
        receiver(gateway, message[:7] + bytes(32) + message[39:])


def test_the_last_request_of_a_session() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    jump(sender, MAX_REQUESTS - 1)
    message, _ = sealed(sender)
    assert receiver(gateway, message).open(message).seq == MAX_REQUESTS - 1
    assert sender.seal([b"one more"]) is None
    assert sender.seal([b"and another"]) is None


def test_a_number_over_the_last_does_not_open_even_where_it_was_sealed() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    jump(sender, MAX_REQUESTS)
    _, ciphertext = sender._context.seal_parts([b"question"])
    message = sender._prefix + MAX_REQUESTS.to_bytes(8, "big") + bytes(ciphertext)
    with pytest.raises(EncapsulationError):
        receiver(gateway, message).open(message)


def test_threads_never_share_a_number() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(lambda _: bytes(sealed(sender)[0]), range(400)))
    session = receiver(gateway, messages[0])
    assert sorted(session.open(message).seq for message in messages) == list(range(400))


def test_sessions_are_fresh_unless_told_otherwise() -> None:
    config = SingleKey.derived(Kem.X25519).config()
    assert sealed(SenderSession(config))[0] != sealed(SenderSession(config))[0]
    fixed = [sealed(SenderSession(config, randomness=bytes(range(32))))[0] for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_an_aead_that_is_not_offered() -> None:
    key = PrivateKey.derive(Kem.X25519, bytes(32))
    config = KeyConfig(7, Kem.X25519, key.public_key, ((Kdf.HKDF_SHA256, Aead.AES_128_GCM),))
    with pytest.raises(KeyConfigError, match="CHACHA20"):
        SenderSession(config, aead=Aead.CHACHA20_POLY1305)


def test_nothing_secret_is_shown() -> None:
    gateway = SingleKey.derived(Kem.X25519)
    sender = SenderSession(gateway.config())
    message, _ = sealed(sender, b"a secret")
    session = receiver(gateway, message)
    request: SessionRequest = session.open(message)
    assert repr(sender) == "SenderSession(key_id=7)"
    assert repr(session) == "ReceiverSession(key_id=7)"
    assert repr(request) == "SessionRequest(seq=0, sealer=ResponseSealer(key_id=7))"


# The window.


def test_a_window_tells_the_numbers_in_it_apart() -> None:
    window = ReplayWindow()
    assert [window.mark(seq) for seq in (0, 0, 1, 3, 2, 3, 2, 1, 0)] == [
        True, False, True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_the_edge_of_a_window() -> None:
    window = ReplayWindow()
    assert window.mark(WINDOW)
    assert [window.mark(1), window.mark(1)] == [True, False]  # the lowest that it tells apart
    assert [window.mark(0), window.mark(0)] == [True, True]  # below it nothing is known
    assert window.mark(WINDOW + 1)
    assert [window.mark(1), window.mark(2), window.mark(2)] == [True, True, False]


def test_a_number_far_ahead_empties_the_window_and_takes_no_memory() -> None:
    window = ReplayWindow()
    assert window.mark(0)
    assert window.mark(MAX_REQUESTS - 1)
    assert not window.mark(MAX_REQUESTS - 1)
    assert window.mark(MAX_REQUESTS - 2)
    assert window._bits.bit_length() <= WINDOW


def test_a_window_does_not_grow() -> None:
    window = ReplayWindow()
    assert all(window.mark(seq) for seq in range(0, 5 * WINDOW, 3))
    assert window._bits.bit_length() <= WINDOW
