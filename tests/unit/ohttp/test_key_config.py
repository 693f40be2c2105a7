from __future__ import annotations

import pytest

from confonnx.errors import KeyConfigError
from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey
from confonnx.ohttp.key_config import (
    ALL_ALGORITHMS,
    KeyConfig,
    encode_key_configs,
    parse_key_config,
    parse_key_configs,
)

KEYS = {kem: PrivateKey.derive(kem, b"c" * 32).public_key for kem in Kem}
X25519 = KeyConfig(1, Kem.X25519, KEYS[Kem.X25519])
XWING = KeyConfig(2, Kem.MLKEM768_X25519, KEYS[Kem.MLKEM768_X25519])


@pytest.mark.parametrize("config", [X25519, XWING], ids=["X25519", "X-Wing"])
def test_round_trip(config: KeyConfig) -> None:
    assert parse_key_config(config.encode()) == config
    assert parse_key_config(memoryview(bytearray(config.encode()))) == config


def test_layout() -> None:
    """RFC 9458 §3.1, field by field."""
    config = KeyConfig(0xAB, Kem.X25519, b"\x11" * 32, ((Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305),))
    assert config.encode().hex() == "ab" + "0020" + "11" * 32 + "0004" + "00010003"


def test_every_truncation_is_refused() -> None:
    encoded = X25519.encode()
    for size in range(len(encoded)):
        with pytest.raises(KeyConfigError):
            parse_key_config(encoded[:size])


def test_trailing_bytes() -> None:
    with pytest.raises(KeyConfigError, match="1 bytes follow key configuration 1"):
        parse_key_config(X25519.encode() + b"\0")


def test_unknown_kem() -> None:
    encoded = b"\x01" + b"\x00\x10" + X25519.encode()[3:]
    with pytest.raises(KeyConfigError, match="is not for X25519 or MLKEM768_X25519 with HKDF_SHA256"):
        parse_key_config(encoded)


@pytest.mark.parametrize("size", [0, 2, 5])
def test_length_of_the_algorithms(size: int) -> None:
    encoded = b"\x01\x00\x20" + KEYS[Kem.X25519] + size.to_bytes(2, "big") + bytes(size)
    with pytest.raises(KeyConfigError, match=f"take {size} bytes, which is not a positive multiple of 4"):
        parse_key_config(encoded)


def test_unknown_algorithms_are_left_out() -> None:
    pairs = "0001ffff" + "00010002" + "00030001"
    encoded = b"\x01\x00\x20" + KEYS[Kem.X25519] + b"\x00\x0c" + bytes.fromhex(pairs)
    assert parse_key_config(encoded).algorithms == ((Kdf.HKDF_SHA256, Aead.AES_256_GCM),)


def test_only_unknown_algorithms() -> None:
    encoded = b"\x01\x00\x20" + KEYS[Kem.X25519] + b"\x00\x04" + bytes.fromhex("0003ffff")
    with pytest.raises(KeyConfigError, match="is not for"):
        parse_key_config(encoded)
    assert parse_key_configs(len(encoded).to_bytes(2, "big") + encoded + encode_key_configs([XWING])) == (
        XWING,
    )


@pytest.mark.parametrize(
    ("key_id", "public_key", "algorithms", "text"),
    [
        (-1, KEYS[Kem.X25519], ALL_ALGORITHMS, "0..255, not -1"),
        (256, KEYS[Kem.X25519], ALL_ALGORITHMS, "0..255, not 256"),
        (1, KEYS[Kem.X25519][:-1], ALL_ALGORITHMS, "has 32 bytes, this one has 31"),
        (1, KEYS[Kem.X25519], (), "no symmetric algorithms"),
        (1, KEYS[Kem.X25519], ALL_ALGORITHMS[:1] * 2, "twice"),
    ],
)
def test_values_that_are_no_configuration(
    key_id: int, public_key: bytes, algorithms: tuple[tuple[Kdf, Aead], ...], text: str
) -> None:
    with pytest.raises(KeyConfigError, match=text):
        KeyConfig(key_id, Kem.X25519, public_key, algorithms)


def test_bad_mlkem_key_is_refused_where_it_is_parsed() -> None:
    encoded = bytearray(XWING.encode())
    encoded[3:6] = b"\xff\xff\xff"
    with pytest.raises(KeyConfigError, match="FIPS 203"):
        parse_key_config(encoded)


def test_list_round_trip() -> None:
    encoded = encode_key_configs([XWING, X25519])
    assert encoded[:2] == len(XWING.encode()).to_bytes(2, "big")
    assert parse_key_configs(encoded) == (XWING, X25519)


def test_list_skips_unknown_kems() -> None:
    """RFC 9458 §3: a client uses what it knows."""
    unknown = b"\x09\xfe\xfe" + b"a key of a size that nobody here knows"
    encoded = len(unknown).to_bytes(2, "big") + unknown + encode_key_configs([X25519])
    assert parse_key_configs(encoded) == (X25519,)
    with pytest.raises(KeyConfigError, match="no key configuration that we can use"):
        parse_key_configs(len(unknown).to_bytes(2, "big") + unknown)


def test_list_without_entries() -> None:
    with pytest.raises(KeyConfigError, match="no key configuration that we can use"):
        parse_key_configs(b"")


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_list_that_is_cut_off(cut: int) -> None:
    with pytest.raises(KeyConfigError, match="truncated"):
        parse_key_configs(encode_key_configs([XWING, X25519])[:-cut])


def test_list_with_a_malformed_entry() -> None:
    short = X25519.encode()[:-1]
    with pytest.raises(KeyConfigError, match="truncated"):
        parse_key_configs(encode_key_configs([XWING]) + len(short).to_bytes(2, "big") + short)


def test_identifiers_are_distinct() -> None:
    twice = [X25519, KeyConfig(1, Kem.MLKEM768_X25519, KEYS[Kem.MLKEM768_X25519])]
    with pytest.raises(KeyConfigError, match=r"\[1, 1\] are not distinct"):
        encode_key_configs(twice)
    with pytest.raises(KeyConfigError, match=r"\[1, 1\] are not distinct"):
        parse_key_configs(b"".join(encode_key_configs([config]) for config in twice))
