"""Wycheproof where code of ours is on the path.

- ``x25519``: through :func:`decapsulate`. Our part is to turn the library's refusal of an all-zero result
  into :class:`EncapsulationError`, to accept every other public key, and to hash the right inputs; the
  expected secret is computed from the file's ``shared`` with the independent ``hmac`` module.
- ``mlkem_768``: through X-Wing. The files give ML-KEM seeds, which X-Wing derives itself, so a key is
  assembled around each seed; the expected secret is the file's ``K`` in the combiner, written out.
- ``aes_gcm``, ``chacha20_poly1305``: through ``seal_parts`` and ``open_sealed``, which work in place, an
  order of memory accesses that the library does not promise. Our protocols have nonces of 12 bytes only.
- ``hkdf_sha256``: our HMAC and HKDF are by hand.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from confonnx.errors import EncapsulationError
from confonnx.ohttp.aead import Aead, open_sealed, seal_parts
from confonnx.ohttp.hkdf import expand, extract
from confonnx.ohttp.kem import Kem, PrivateKey, decapsulate
from tests.support.shared import vector


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in vector(f"vectors-protocol/wycheproof/{name}_test.json")["testGroups"]:
        for case in group["tests"]:
            yield group, case


def dhkem_secret(dh: bytes, kem_context: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 §4.1, written a second time with the standard library."""
    label = b"HPKE-v1KEM\x00\x20"
    prk = hmac.digest(bytes(32), label + b"eae_prk" + dh, "sha256")
    return hmac.digest(prk, b"\x00\x20" + label + b"shared_secret" + kem_context + b"\x01", "sha256")


def test_x25519() -> None:
    opened = refused = 0
    for _, case in cases("x25519"):
        key = PrivateKey.from_bytes(Kem.X25519, bytes.fromhex(case["private"]))
        public, shared = bytes.fromhex(case["public"]), bytes.fromhex(case["shared"])
        if not any(shared):
            with pytest.raises(EncapsulationError):
                decapsulate(key, public)
            refused += 1
        else:
            assert decapsulate(key, public) == dhkem_secret(shared, public + key.public_key), case["tcId"]
            opened += 1
    assert (opened, refused) == (487, 31)


def test_mlkem_768_inside_xwing() -> None:
    x25519 = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    ephemeral = X25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
    dh, ct_x, pk_x = (
        x25519.exchange(ephemeral.public_key()),
        ephemeral.public_key().public_bytes_raw(),
        x25519.public_key().public_bytes_raw(),
    )
    opened = refused = 0
    for _, case in cases("mlkem_768"):
        seed, ciphertext = bytes.fromhex(case["seed"]), bytes.fromhex(case["c"])
        if len(seed) != 64:  # a key that cannot come to be: X-Wing expands 64 bytes from its own seed
            continue
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed)
        key = PrivateKey(Kem.MLKEM768_X25519, mlkem.public_key().public_bytes_raw() + pk_x, x25519, mlkem)
        if case["result"] == "valid":
            combined = bytes.fromhex(case["K"]) + dh + ct_x + pk_x + rb"\.//^" + b"\\"
            assert decapsulate(key, ciphertext + ct_x) == hashlib.sha3_256(combined).digest(), case["tcId"]
            opened += 1
        else:
            with pytest.raises(EncapsulationError):
                decapsulate(key, ciphertext + ct_x)
            refused += 1
    assert (opened, refused) == (153, 20)


@pytest.mark.parametrize(
    ("name", "aeads", "expected"),
    [
        ("aes_gcm", {128: Aead.AES_128_GCM, 256: Aead.AES_256_GCM}, (79, 54)),
        ("chacha20_poly1305", {256: Aead.CHACHA20_POLY1305}, (256, 60)),
    ],
)
def test_aead_in_place(name: str, aeads: dict[int, Aead], expected: tuple[int, int]) -> None:
    opened = refused = 0
    for group, case in cases(name):
        if group["ivSize"] != 96 or group["keySize"] not in aeads:
            continue
        cipher = aeads[group["keySize"]].cipher(bytes.fromhex(case["key"]))
        nonce, aad, plaintext = (bytes.fromhex(case[part]) for part in ("iv", "aad", "msg"))
        message = bytearray.fromhex(case["ct"] + case["tag"])
        if case["result"] == "valid":
            middle = len(plaintext) // 2
            parts = [plaintext[:middle], plaintext[middle:]]
            assert seal_parts(cipher, nonce, aad, parts, pad_to=None) == message, case["tcId"]
            assert bytes(open_sealed(cipher, nonce, aad, message)) == plaintext, case["tcId"]
            opened += 1
        else:
            with pytest.raises(EncapsulationError):
                open_sealed(cipher, nonce, aad, message)
            assert not any(message)
            refused += 1
    assert (opened, refused) == expected


def test_hkdf_sha256() -> None:
    derived = refused = 0
    for _, case in cases("hkdf_sha256"):
        ikm, salt, info, okm = (bytes.fromhex(case[part]) for part in ("ikm", "salt", "info", "okm"))
        prk = extract(salt, ikm)
        if case["result"] == "valid":
            assert expand(prk, info, case["size"]) == okm, case["tcId"]
            derived += 1
        else:
            with pytest.raises(ValueError, match="at most 8160"):
                expand(prk, info, case["size"])
            refused += 1
    assert (derived, refused) == (83, 3)
