from __future__ import annotations

from array import array

import pytest

from confonnx.errors import EncapsulationError, TooLargeError
from confonnx.ohttp import aead as aead_module
from confonnx.ohttp.aead import OPEN_FAILED, TAG_SIZE, Aead, open_sealed, seal_parts, wipe
from confonnx.ohttp.reader import Buffer

NONCE = bytes(range(12))
SIZES = (0, 1, 15, 16, 17, 1000, 1 << 16, (1 << 20) + 3)


def key_of(aead: Aead) -> bytes:
    return bytes(range(aead.key_size))


@pytest.mark.parametrize("aead", Aead)
@pytest.mark.parametrize("size", SIZES)
def test_in_place_is_the_same_as_apart(aead: Aead, size: int) -> None:
    """``encrypt_into`` and ``decrypt_into`` on one buffer: undocumented in the library, and we rely on it."""
    cipher = aead.cipher(key_of(aead))
    plaintext = bytes(range(256)) * (size // 256 + 1)
    plaintext = plaintext[:size]
    expected = cipher.one_shot.encrypt(NONCE, plaintext, b"aad")
    message = seal_parts(cipher, NONCE, b"aad", [plaintext], pad_to=None)
    assert bytes(message) == expected
    opened = open_sealed(cipher, NONCE, b"aad", message)
    assert opened == plaintext
    assert bytes(message[:size]) == plaintext, "opened elsewhere, not in place"


@pytest.mark.parametrize("aead", Aead)
def test_parts_prefix_and_padding_end_up_in_one_buffer(aead: Aead) -> None:
    cipher = aead.cipher(key_of(aead))
    parts: list[Buffer] = [b"one", bytearray(b"two"), b"", memoryview(b"three")]
    message = seal_parts(cipher, NONCE, b"", parts, prefix=b"clear", pad_to=20)
    assert message[:5] == b"clear"
    assert len(message) == 5 + 20 + TAG_SIZE
    assert open_sealed(cipher, NONCE, b"", message[5:]) == b"onetwothree" + bytes(9)


@pytest.mark.parametrize("aead", Aead)
@pytest.mark.parametrize("pad_to", [None, 200_000, 300_001])
@pytest.mark.parametrize("used", [None, 400_000])
def test_large_messages_in_pieces_are_the_same(aead: Aead, pad_to: int | None, used: int | None) -> None:
    cipher = aead.cipher(key_of(aead))
    parts: list[Buffer] = [
        b"",
        b"a",
        b"b" * 15,
        bytearray(b"c" * 17),
        memoryview(b"d" * 70_001),
        b"",
        b"e" * 99,
    ]
    into = None if used is None else bytearray(b"u" * used)
    message = seal_parts(cipher, NONCE, b"aad", parts, prefix=b"clear", pad_to=pad_to, into=into)
    plaintext = b"".join(parts).ljust(pad_to or 0, b"\0")
    assert message == b"clear" + cipher.one_shot.encrypt(NONCE, plaintext, b"aad")
    assert (message is into) == (used is not None)


def test_a_cipher_does_not_show_its_key() -> None:
    assert repr(Aead.AES_128_GCM.cipher(b"k" * 16)) == "Cipher(AES_128_GCM)"


@pytest.mark.parametrize(("room", "taken"), [(5006 + TAG_SIZE, True), (5005 + TAG_SIZE, False), (3, False)])
def test_a_used_buffer_becomes_the_message_if_it_is_larger(room: int, taken: bool) -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    used = bytearray(b"u" * room)
    message = seal_parts(cipher, NONCE, b"", [b"one"], prefix=b"clear", pad_to=5000, into=used)
    assert (message is used) == taken
    assert message == seal_parts(cipher, NONCE, b"", [b"one"], prefix=b"clear", pad_to=5000)
    assert taken or used == b"u" * room


def test_a_buffer_that_somebody_looks_at_is_left_alone() -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    used = bytearray(b"u" * 10_000)
    with memoryview(used) as view:
        message = seal_parts(cipher, NONCE, b"", [view[:5000]], pad_to=None, into=used)
        assert view == b"u" * 10_000
    assert open_sealed(cipher, NONCE, b"", message) == b"u" * 5000


def test_a_small_message_is_a_new_one() -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    used = bytearray(b"u" * 100)
    message = seal_parts(cipher, NONCE, b"", [b"one"], pad_to=None, into=used)
    assert bytes(open_sealed(cipher, NONCE, b"", message)) == b"one"
    assert used == b"u" * 100


def test_read_only_ciphertext_is_left_alone() -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    sealed = bytes(seal_parts(cipher, NONCE, b"", [b"plain"], pad_to=None))
    before = sealed[:]
    assert bytes(open_sealed(cipher, NONCE, b"", sealed)) == b"plain"
    assert sealed == before


@pytest.mark.parametrize("aead", Aead)
@pytest.mark.parametrize("size", SIZES)
def test_wrong_tag_leaves_zeros(aead: Aead, size: int) -> None:
    """``decrypt_into`` leaves unauthenticated plaintext behind; nothing of it may survive."""
    cipher = aead.cipher(key_of(aead))
    message = seal_parts(cipher, NONCE, b"", [b"s" * size], pad_to=None)
    message[-1] ^= 1
    with pytest.raises(EncapsulationError) as caught:
        open_sealed(cipher, NONCE, b"", message)
    assert str(caught.value) == OPEN_FAILED
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not any(message)


def test_wrong_tag_on_read_only_bytes() -> None:
    cipher = Aead.CHACHA20_POLY1305.cipher(bytes(32))
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        open_sealed(cipher, NONCE, b"", bytes(40))


@pytest.mark.parametrize("size", range(TAG_SIZE))
def test_shorter_than_a_tag(size: int) -> None:
    cipher = Aead.AES_256_GCM.cipher(bytes(32))
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        open_sealed(cipher, NONCE, b"", bytearray(size))


def test_other_nonce_or_aad_does_not_open() -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    sealed = bytes(seal_parts(cipher, NONCE, b"aad", [b"plain"], pad_to=None))
    for nonce, aad in ((bytes(12), b"aad"), (NONCE, b"")):
        with pytest.raises(EncapsulationError, match=OPEN_FAILED):
            open_sealed(cipher, nonce, aad, sealed)


def test_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of OpenSSL is checked before anything is allocated; here it is lowered to be reachable."""
    monkeypatch.setattr(aead_module, "MAX_PLAINTEXT", 100)
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    message = seal_parts(cipher, NONCE, b"", [bytes(100)], pad_to=None)
    assert len(open_sealed(cipher, NONCE, b"", message)) == 100
    with pytest.raises(TooLargeError, match="at most 100 bytes, this one would hold 101"):
        seal_parts(cipher, NONCE, b"", [bytes(50)], pad_to=101)
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        open_sealed(cipher, NONCE, b"", bytearray(101 + TAG_SIZE))


def test_mistakes_of_the_caller() -> None:
    cipher = Aead.AES_128_GCM.cipher(bytes(16))
    with pytest.raises(ValueError, match="cannot pad 3 bytes to 2"):
        seal_parts(cipher, NONCE, b"", [b"abc"], pad_to=2)
    for size, text in ((2, "single bytes"), (20_000, "structure"), (70_000, "to a buffer")):
        with pytest.raises((ValueError, TypeError), match=text):  # its len() is not its size
            seal_parts(cipher, NONCE, b"", [memoryview(array("f", [1.0] * size))], pad_to=None)
    for aead in Aead:
        with pytest.raises(ValueError, match=f"{aead.name} takes a key of {aead.key_size} bytes, not 24"):
            aead.cipher(bytes(24))


def test_wipe_covers_every_block() -> None:
    buffer = bytearray(b"x" * ((1 << 17) + 5))
    wipe(memoryview(buffer))
    assert not any(buffer)
    wipe(memoryview(b"read-only"))  # nothing to do, and no error


def test_sizes() -> None:
    assert [(aead.key_size, aead.nonce_size) for aead in Aead] == [(16, 12), (32, 12), (32, 12)]
