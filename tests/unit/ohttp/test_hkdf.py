from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from confonnx.ohttp.hkdf import expand, extract, labeled_expand


@pytest.mark.parametrize("key_size", [0, 1, 32, 63, 64, 65, 1136])
def test_extract_is_hmac(key_size: int) -> None:
    """Our HMAC is by hand: keys below, at and above the block size of 64 bytes take different paths."""
    key = bytes(range(256))[:key_size].ljust(key_size, b"k")
    assert extract(key, b"message") == hmac.digest(key, b"message", hashlib.sha256)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 255 * 32])
def test_expand_agrees_with_cryptography(length: int) -> None:
    prk = bytes(range(32))
    assert expand(prk, b"info", length) == HKDFExpand(SHA256(), length, b"info").derive(prk)


def test_expand_to_nothing() -> None:
    assert expand(bytes(32), b"info", 0) == b""


@pytest.mark.parametrize("length", [-1, 255 * 32 + 1, 1 << 16])
def test_lengths_that_do_not_exist(length: int) -> None:
    with pytest.raises(ValueError, match="at most 8160"):
        expand(bytes(32), b"", length)
    with pytest.raises(ValueError, match="at most 8160"):
        labeled_expand(b"HPKE", bytes(32), b"label", b"", length)
