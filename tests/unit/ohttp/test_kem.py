from __future__ import annotations

import copy
import pickle

import pytest

from confonnx.errors import EncapsulationError, KeyConfigError
from confonnx.ohttp.aead import OPEN_FAILED
from confonnx.ohttp.kem import Kem, PrivateKey, check_public_key, decapsulate, encapsulate

SIZES = {Kem.X25519: (32, 32), Kem.MLKEM768_X25519: (1216, 1120)}

# Points of order 1, 2, 4 and 8, and encodings of them above the prime (RFC 7748 §6.1 and §7).
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("kem", Kem)
def test_round_trip_and_sizes(kem: Kem) -> None:
    key = PrivateKey.generate(kem)
    secret, enc = encapsulate(kem, key.public_key)
    assert decapsulate(key, enc) == secret
    assert len(secret) == 32
    assert (len(key.public_key), len(enc)) == (kem.public_key_size, kem.enc_size) == SIZES[kem]
    assert encapsulate(kem, key.public_key) != (secret, enc), "encapsulation is randomised"


@pytest.mark.parametrize("kem", Kem)
def test_keys_are_distinct_and_derivation_is_not(kem: Kem) -> None:
    assert PrivateKey.generate(kem).public_key != PrivateKey.generate(kem).public_key
    derived = PrivateKey.derive(kem, b"i" * 32)
    assert derived.public_key == PrivateKey.derive(kem, b"i" * 32).public_key
    assert derived.public_key != PrivateKey.derive(kem, b"j" * 32).public_key
    assert derived.public_key != PrivateKey.from_bytes(kem, b"i" * 32).public_key


@pytest.mark.parametrize("kem", Kem)
@pytest.mark.parametrize("size", [0, 31])
def test_short_key_material(kem: Kem, size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 32 bytes of key material, not {size}"):
        PrivateKey.derive(kem, bytes(size))


@pytest.mark.parametrize("kem", Kem)
@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_private_key_length(kem: Kem, size: int) -> None:
    with pytest.raises(ValueError, match=f"of {kem.name} has 32 bytes, not {size}"):
        PrivateKey.from_bytes(kem, bytes(size))


@pytest.mark.parametrize("kem", Kem)
def test_public_key_length(kem: Kem) -> None:
    public_key = PrivateKey.generate(kem).public_key
    check_public_key(kem, public_key)
    for wrong in (b"", public_key[:-1], public_key + b"\0"):
        with pytest.raises(KeyConfigError, match=f"public key of {kem.name} has {kem.public_key_size} bytes"):
            check_public_key(kem, wrong)
        with pytest.raises(KeyConfigError, match=f"this one has {len(wrong)}"):
            encapsulate(kem, wrong)


def test_mlkem_modulus_check() -> None:
    """FIPS 203 §7.2: coefficients of 12 bits must be below 3329."""
    public_key = PrivateKey.generate(Kem.MLKEM768_X25519).public_key
    bad = b"\xff\xff\xff" + public_key[3:]
    with pytest.raises(KeyConfigError, match="FIPS 203"):
        check_public_key(Kem.MLKEM768_X25519, bad)
    with pytest.raises(KeyConfigError, match="FIPS 203"):
        encapsulate(Kem.MLKEM768_X25519, bad)


@pytest.mark.parametrize("kem", Kem)
@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_points_of_low_order(kem: Kem, point: bytes) -> None:
    """RFC 9180 §7.1.4: both sides stop at an all-zero X25519 result, in X-Wing as well."""
    key = PrivateKey.generate(kem)
    _, enc = encapsulate(kem, key.public_key)
    with pytest.raises(EncapsulationError) as caught:
        decapsulate(key, enc[:-32] + point)
    assert (str(caught.value), caught.value.__suppress_context__) == (OPEN_FAILED, True)
    with pytest.raises(KeyConfigError, match="low order"):
        encapsulate(kem, key.public_key[:-32] + point)


@pytest.mark.parametrize("kem", Kem)
def test_enc_length(kem: Kem) -> None:
    key = PrivateKey.generate(kem)
    _, enc = encapsulate(kem, key.public_key)
    for wrong in (b"", enc[:-1], enc + b"\0"):
        with pytest.raises(EncapsulationError, match=OPEN_FAILED):
            decapsulate(key, wrong)


@pytest.mark.parametrize("part", [0, 1119], ids=["ML-KEM", "X25519"])
def test_both_halves_of_xwing_count(part: int) -> None:
    key = PrivateKey.generate(Kem.MLKEM768_X25519)
    secret, enc = encapsulate(Kem.MLKEM768_X25519, key.public_key)
    changed = bytearray(enc)
    changed[part] ^= 1
    assert decapsulate(key, bytes(changed)) != secret


def test_chosen_randomness() -> None:
    key = PrivateKey.generate(Kem.X25519)
    chosen = bytes(range(32))
    first, second = (encapsulate(Kem.X25519, key.public_key, randomness=chosen) for _ in range(2))
    assert first == second
    assert first[1] == PrivateKey.from_bytes(Kem.X25519, chosen).public_key
    for wrong in (b"", bytes(31)):
        with pytest.raises(ValueError, match="chosen randomness is 32 bytes"):
            encapsulate(Kem.X25519, key.public_key, randomness=wrong)
    xwing = PrivateKey.generate(Kem.MLKEM768_X25519)
    with pytest.raises(ValueError, match="for X25519 only"):
        encapsulate(Kem.MLKEM768_X25519, xwing.public_key, randomness=bytes(32))


@pytest.mark.parametrize("kem", Kem)
def test_private_keys_are_opaque(kem: Kem) -> None:
    key = PrivateKey.from_bytes(kem, b"\x5a" * 32)
    assert repr(key) == f"PrivateKey({kem.name})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert copy.copy(key).public_key == key.public_key
    with pytest.raises(AttributeError):
        key.public_key = b""  # type: ignore[misc]
