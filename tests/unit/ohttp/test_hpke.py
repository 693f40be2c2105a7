from __future__ import annotations

import threading

import pytest

from confonnx.errors import EncapsulationError, KeyConfigError
from confonnx.ohttp import hpke
from confonnx.ohttp.aead import OPEN_FAILED
from confonnx.ohttp.hpke import (
    Aead,
    Kdf,
    Kem,
    PrivateKey,
    ReceiverContext,
    SenderContext,
    Suite,
    setup_receiver,
    setup_sender,
)

SUITES = [Suite(kem, Kdf.HKDF_SHA256, aead) for kem in Kem for aead in Aead]


def pair(suite: Suite, info: bytes = b"info") -> tuple[SenderContext, ReceiverContext]:
    key = PrivateKey.derive(suite.kem, b"k" * 32)
    enc, sender = setup_sender(suite, key.public_key, info=info)
    return sender, setup_receiver(suite, key, enc, info=info)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_messages_and_exports_agree(suite: Suite) -> None:
    sender, receiver = pair(suite)
    for number in range(3):
        aad = bytes((number,))
        assert receiver.open(sender.seal(b"message %d" % number, aad), aad) == b"message %d" % number
    assert sender.export(b"label", 32) == receiver.export(b"label", 32) != receiver.export(b"other", 32)


def test_ids() -> None:
    assert Suite(Kem.MLKEM768_X25519, Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305).ids.hex() == "647a00010003"


def test_seal_parts_numbers_its_messages() -> None:
    sender, receiver = pair(SUITES[0])
    assert sender.seal(b"zero") is not None
    seq, message = sender.seal_parts([b"o", b"ne"], prefix=b"head", pad_to=8, aad=b"aad")
    assert (seq, bytes(message[:4])) == (1, b"head")
    assert receiver.open_at(1, message[4:], b"aad") == b"one" + bytes(5)


def test_any_order() -> None:
    """What sessions stand on: the receiver opens by number, in any order, and again after a failure."""
    sender, receiver = pair(SUITES[0])
    sealed = [sender.seal(b"%d" % number) for number in range(5)]
    for number in (4, 0, 3, 3, 1, 2):
        assert receiver.open_at(number, sealed[number]) == b"%d" % number
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        receiver.open_at(2, sealed[3])
    assert bytes(receiver.open(sealed[0])) == b"0", "open_at does not move the order of open"


def test_failure_does_not_advance_the_order() -> None:
    sender, receiver = pair(SUITES[0])
    first, second = sender.seal(b"first"), sender.seal(b"second")
    with pytest.raises(EncapsulationError):
        receiver.open(second)
    assert bytes(receiver.open(first)) == b"first"
    assert bytes(receiver.open(second)) == b"second"
    with pytest.raises(EncapsulationError):
        receiver.open(second)


def test_message_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9180 §5.2, MessageLimitReachedError."""
    sender, receiver = pair(SUITES[0])
    for number in (-1, (1 << 96) - 1, 1 << 96):
        with pytest.raises(ValueError, match="numbers its messages 0"):
            receiver.open_at(number, bytes(16))
    with pytest.raises(EncapsulationError):
        receiver.open_at((1 << 96) - 2, bytes(16))
    monkeypatch.setattr(hpke, "_MAX_SEQ", 1)
    assert sender.seal(b"the only one") is not None
    with pytest.raises(ValueError, match="not 1"):
        sender.seal(b"one too many")
    with pytest.raises(ValueError, match="not 2"):
        sender.seal_parts([b"and it stays so"])


def test_threads_never_share_a_nonce() -> None:
    sender, receiver = pair(SUITES[0])
    sealed: list[tuple[int, bytearray]] = []
    threads = [
        threading.Thread(target=lambda: sealed.extend(sender.seal_parts([b"m"]) for _ in range(200)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seq for seq, _ in sealed) == list(range(1600))
    assert all(bytes(receiver.open_at(seq, message)) == b"m" for seq, message in sealed)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_what_binds_the_keys(suite: Suite) -> None:
    """Another info, private key, enc or AEAD gives other keys."""
    key = PrivateKey.derive(suite.kem, b"k" * 32)
    enc, sender = setup_sender(suite, key.public_key, info=b"info")
    sealed = sender.seal(b"message")
    assert setup_receiver(suite, key, memoryview(enc), info=b"info").open(sealed).tobytes() == b"message"
    other_enc, _ = setup_sender(suite, key.public_key, info=b"info")
    other_aead = Suite(suite.kem, suite.kdf, next(aead for aead in Aead if aead is not suite.aead))
    for receiver in (
        setup_receiver(suite, key, enc, info=b"other"),
        setup_receiver(suite, PrivateKey.generate(suite.kem), enc, info=b"info"),
        setup_receiver(suite, key, other_enc, info=b"info"),
        setup_receiver(other_aead, key, enc, info=b"info"),
    ):
        with pytest.raises(EncapsulationError, match=OPEN_FAILED):
            receiver.open(sealed)


def test_key_of_another_kem() -> None:
    suite = SUITES[0]
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        setup_receiver(suite, PrivateKey.generate(Kem.MLKEM768_X25519), bytes(32), info=b"")
    with pytest.raises(KeyConfigError, match="X25519 has 32 bytes, this one has 1216"):
        setup_sender(suite, PrivateKey.generate(Kem.MLKEM768_X25519).public_key, info=b"")


def test_contexts_are_opaque() -> None:
    sender, receiver = pair(SUITES[0])
    assert (repr(sender), repr(receiver)) == ("SenderContext()", "ReceiverContext()")


def test_export_length() -> None:
    sender, _ = pair(SUITES[0])
    assert len(sender.export(b"", 255 * 32)) == 255 * 32
    with pytest.raises(ValueError, match="at most 8160"):
        sender.export(b"", 255 * 32 + 1)
