from __future__ import annotations

import pytest

from confonnx.errors import EncapsulationError, KeyConfigError, UnknownKeyError
from confonnx.ohttp.aead import OPEN_FAILED
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    ResponseOpener,
    encapsulate_request,
    open_request,
    response_nonce_size,
)
from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.padding import padme
from tests.unit.ohttp.single_key import SingleKey

KEMS = pytest.mark.parametrize("kem", Kem)


def sealed(kem: Kem, plaintext: bytes = b"request") -> tuple[SingleKey, bytearray, ResponseOpener]:
    keys = SingleKey.derived(kem)
    message, opener = encapsulate_request(keys.config(), [plaintext])
    return keys, message, opener


@KEMS
@pytest.mark.parametrize("aead", Aead)
def test_request_and_response(kem: Kem, aead: Aead) -> None:
    keys = SingleKey.derived(kem)
    message, opener = encapsulate_request(keys.config(), [b"re", b"quest"], aead=aead, pad=False)
    assert message[0] == keys.key_id
    assert len(message) == HEADER_SIZE + kem.enc_size + 7 + 16
    opened = open_request(keys, bytes(message))
    assert bytes(opened.plaintext) == b"request"
    assert opened.key_id == keys.key_id
    assert opened.enc == message[HEADER_SIZE : HEADER_SIZE + kem.enc_size]
    response = opened.sealer.seal([b"resp", b"onse"], pad=False)
    assert len(response) == response_nonce_size(aead) + 8 + 16
    assert bytes(opener.open(response)) == b"response"


def test_padding_in_both_directions() -> None:
    keys, message, opener = sealed(Kem.X25519, b"x" * 1025)
    assert len(message) == HEADER_SIZE + 32 + padme(1025) + 16
    opened = open_request(keys, message)
    assert bytes(opened.plaintext) == b"x" * 1025 + bytes(padme(1025) - 1025)
    response = opened.sealer.seal([b"y" * 1025])
    assert len(response) == 16 + padme(1025) + 16
    assert bytes(opener.open(response)) == b"y" * 1025 + bytes(padme(1025) - 1025)


def test_opens_in_place_only_where_writable() -> None:
    keys, message, opener = sealed(Kem.X25519)
    copy = bytes(message)
    assert open_request(keys, copy).plaintext.obj is not copy
    opened = open_request(keys, message)
    assert opened.plaintext.obj is message
    response = opened.sealer.seal([b"response"])
    assert opener.open(response).obj is response


@KEMS
def test_every_changed_byte_of_a_request_is_refused(kem: Kem) -> None:
    """One text for all of it, and no cause that tells where; only another key identifier differs."""
    keys, message, _ = sealed(kem)
    for position in (*range(1, 50), *range(HEADER_SIZE + 32, len(message), 61), len(message) - 1):
        changed = bytearray(message)
        changed[position] ^= 0x80
        for data in (bytes(changed), changed):
            with pytest.raises(EncapsulationError) as caught:
                open_request(keys, data)
            assert type(caught.value) is EncapsulationError
            assert str(caught.value) == OPEN_FAILED
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None or caught.value.__suppress_context__
    changed = bytearray(message)
    changed[0] ^= 0x80
    with pytest.raises(UnknownKeyError):
        open_request(keys, changed)


@KEMS
def test_every_truncation_of_a_request_is_refused(kem: Kem) -> None:
    keys, message, _ = sealed(kem)
    for size in (*range(50), *range(50, len(message), 37), len(message) - 1):
        with pytest.raises(EncapsulationError) as caught:
            open_request(keys, bytes(message[:size]))
        assert str(caught.value) == OPEN_FAILED


def test_failed_request_leaves_no_plaintext() -> None:
    keys, message, _ = sealed(Kem.X25519, b"secret" * 100)
    message[-1] ^= 1
    with pytest.raises(EncapsulationError):
        open_request(keys, message)
    assert not any(message[HEADER_SIZE + 32 :])


def test_request_for_another_key_of_that_identifier() -> None:
    _, message, _ = sealed(Kem.X25519)
    for key in (PrivateKey.generate(Kem.X25519), PrivateKey.generate(Kem.MLKEM768_X25519)):
        with pytest.raises(EncapsulationError, match=OPEN_FAILED):
            open_request(SingleKey(7, key), bytes(message))


def test_every_changed_byte_of_a_response_is_refused() -> None:
    keys = SingleKey.derived(Kem.X25519)
    for position in range(16 + 8 + 16):
        message, opener = encapsulate_request(keys.config(), [b"request"])
        response = open_request(keys, message).sealer.seal([b"response"])
        response[position] ^= 1
        with pytest.raises(EncapsulationError) as caught:
            opener.open(response)
        assert str(caught.value) == OPEN_FAILED
        assert not any(response[16:])


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31])
def test_response_that_is_too_short(size: int) -> None:
    _, _, opener = sealed(Kem.X25519)
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        opener.open(bytes(size))


def test_response_opens_for_its_own_request_only() -> None:
    keys, first, first_opener = sealed(Kem.X25519)
    _, second, second_opener = sealed(Kem.X25519)
    responses = [bytes(open_request(keys, message).sealer.seal([b"r"])) for message in (first, second)]
    with pytest.raises(EncapsulationError):
        first_opener.open(responses[1])
    assert bytes(second_opener.open(responses[1])) == b"r"


def test_response_objects_are_one_shot() -> None:
    keys, message, opener = sealed(Kem.X25519)
    sealer = open_request(keys, message).sealer
    response = bytes(sealer.seal([b"response"]))
    with pytest.raises(RuntimeError, match="this ResponseSealer was used already"):
        sealer.seal([b"response"])
    assert opener.open(response)
    with pytest.raises(RuntimeError, match="this ResponseOpener was used already"):
        opener.open(response)


def test_a_prepared_sealer_is_one_shot_too() -> None:
    keys, message, opener = sealed(Kem.X25519)
    sealer = open_request(keys, message).sealer
    sealer.prepare()
    with pytest.raises(RuntimeError, match="used already"):
        sealer.prepare()
    with pytest.raises(RuntimeError, match="used already"):
        sealer.seal([b"response"], randomness=bytes(16))  # its response nonce was chosen
    response = bytes(sealer.seal([b"response"]))
    for again in (sealer.prepare, lambda: sealer.seal([b"response"])):
        with pytest.raises(RuntimeError, match="used already"):
            again()
    assert bytes(opener.open(response)).rstrip(b"\0") == b"response"


def test_opener_is_used_up_by_a_failure() -> None:
    _, _, opener = sealed(Kem.X25519)
    with pytest.raises(EncapsulationError):
        opener.open(bytes(64))
    with pytest.raises(RuntimeError, match="used already"):
        opener.open(bytes(64))


def test_representations_show_the_key_identifier_only() -> None:
    keys, message, opener = sealed(Kem.X25519)
    opened = open_request(keys, message)
    assert repr(opener) == "ResponseOpener(key_id=7)"
    assert repr(opened) == "OpenedRequest(key_id=7, sealer=ResponseSealer(key_id=7))"


def test_choice_of_the_aead() -> None:
    keys = SingleKey.derived(Kem.X25519)
    config = keys.config(((Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305), (Kdf.HKDF_SHA256, Aead.AES_128_GCM)))
    message, _ = encapsulate_request(config, [b""])
    assert message[5:7] == b"\x00\x03", "the server's first choice"
    message, _ = encapsulate_request(config, [b""], aead=Aead.AES_128_GCM)
    assert message[5:7] == b"\x00\x01"
    with pytest.raises(KeyConfigError, match="7 offers CHACHA20_POLY1305, AES_128_GCM, not AES_256_GCM"):
        encapsulate_request(config, [b""], aead=Aead.AES_256_GCM)


def test_key_of_low_order() -> None:
    with pytest.raises(KeyConfigError, match="low order"):
        encapsulate_request(KeyConfig(1, Kem.X25519, bytes(32)), [b""])


def test_response_nonce_length() -> None:
    keys, message, _ = sealed(Kem.X25519)
    sealer = open_request(keys, message).sealer
    with pytest.raises(ValueError, match="the response nonce has 16 bytes, not 12"):
        sealer.seal([b""], randomness=bytes(12))
    assert sealer.seal([b""], randomness=bytes(16))[:16] == bytes(16), "a refused nonce does not use it up"


def test_randomness_is_fresh() -> None:
    _, first, _ = sealed(Kem.X25519)
    keys, second, _ = sealed(Kem.X25519)
    assert first[HEADER_SIZE : HEADER_SIZE + 32] != second[HEADER_SIZE : HEADER_SIZE + 32]
    nonces = {bytes(open_request(keys, bytes(second)).sealer.seal([b""])[:16]) for _ in range(3)}
    assert len(nonces) == 3
