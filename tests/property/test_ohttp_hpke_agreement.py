"""Our HPKE and two that this project did not write open each other's messages.

``cryptography`` has the one-shot form for all our suites, X-Wing included; ``pyhpke`` has contexts with many
messages and exports, for X25519.
"""

from __future__ import annotations

from hashlib import shake_256

import pytest
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey, Suite, setup_receiver, setup_sender

SUITES = [Suite(kem, Kdf.HKDF_SHA256, aead) for kem in Kem for aead in Aead]
X25519_SUITES = [suite for suite in SUITES if suite.kem is Kem.X25519]
SEEDS = st.binary(min_size=32, max_size=32)
TEXTS = st.binary(max_size=2000)

LIBRARY_AEADS = {
    Aead.AES_128_GCM: library.AEAD.AES_128_GCM,
    Aead.AES_256_GCM: library.AEAD.AES_256_GCM,
    Aead.CHACHA20_POLY1305: library.AEAD.CHACHA20_POLY1305,
}


def library_suite(suite: Suite) -> library.Suite:
    kem = library.KEM.X25519 if suite.kem is Kem.X25519 else library.KEM.MLKEM768_X25519
    return library.Suite(kem, library.KDF.HKDF_SHA256, LIBRARY_AEADS[suite.aead])


def library_private_key(kem: Kem, seed: bytes) -> X25519PrivateKey | library.MLKEM768X25519PrivateKey:
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(seed)
    expanded = shake_256(seed).digest(96)
    return library.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
    )


def library_public_key(kem: Kem, public: bytes) -> X25519PublicKey | library.MLKEM768X25519PublicKey:
    if kem is Kem.X25519:
        return X25519PublicKey.from_public_bytes(public)
    return library.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
    )


@pytest.mark.parametrize("suite", SUITES, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, info=st.binary(max_size=100), plaintext=TEXTS)
def test_cryptography_opens_ours(suite: Suite, seed: bytes, info: bytes, plaintext: bytes) -> None:
    key = PrivateKey.from_bytes(suite.kem, seed)
    enc, sender = setup_sender(suite, key.public_key, info=info)
    _, message = sender.seal_parts([plaintext], prefix=enc)
    private_key = library_private_key(suite.kem, seed)
    assert library_suite(suite).decrypt(bytes(message), private_key, info) == plaintext


@pytest.mark.parametrize("suite", SUITES, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, info=st.binary(max_size=100), plaintext=TEXTS)
def test_we_open_cryptographys(suite: Suite, seed: bytes, info: bytes, plaintext: bytes) -> None:
    key = PrivateKey.from_bytes(suite.kem, seed)
    public_key = library_public_key(suite.kem, key.public_key)
    message = library_suite(suite).encrypt(plaintext, public_key, info)
    enc, ciphertext = message[: suite.kem.enc_size], bytearray(message[suite.kem.enc_size :])
    assert bytes(setup_receiver(suite, key, enc, info=info).open(ciphertext)) == plaintext


def pyhpke_suite(suite: Suite) -> CipherSuite:
    return CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId(suite.aead))


MESSAGES = st.lists(st.tuples(TEXTS, st.binary(max_size=50)), min_size=1, max_size=4)


@pytest.mark.parametrize("suite", X25519_SUITES, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, info=st.binary(max_size=100), messages=MESSAGES, length=st.integers(1, 64))
def test_pyhpke_opens_ours(
    suite: Suite, seed: bytes, info: bytes, messages: list[tuple[bytes, bytes]], length: int
) -> None:
    key = PrivateKey.from_bytes(suite.kem, seed)
    enc, sender = setup_sender(suite, key.public_key, info=info)
    theirs = KEMKey.from_pyca_cryptography_key(X25519PrivateKey.from_private_bytes(seed))
    receiver = pyhpke_suite(suite).create_recipient_context(enc, theirs, info)
    for plaintext, aad in messages:
        assert receiver.open(sender.seal(plaintext, aad), aad) == plaintext
    assert receiver.export(b"label", length) == sender.export(b"label", length)


@pytest.mark.parametrize("suite", X25519_SUITES, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, info=st.binary(max_size=100), messages=MESSAGES, length=st.integers(1, 64))
def test_we_open_pyhpkes(
    suite: Suite, seed: bytes, info: bytes, messages: list[tuple[bytes, bytes]], length: int
) -> None:
    key = PrivateKey.from_bytes(suite.kem, seed)
    theirs = KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(key.public_key))
    enc, sender = pyhpke_suite(suite).create_sender_context(theirs, info)
    receiver = setup_receiver(suite, key, enc, info=info)
    for plaintext, aad in messages:
        assert bytes(receiver.open(sender.seal(plaintext, aad), aad)) == plaintext
    assert receiver.export(b"label", length) == sender.export(b"label", length)
