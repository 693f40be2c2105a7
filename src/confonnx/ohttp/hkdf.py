"""HKDF-SHA256 (RFC 5869), plain and with the labels of HPKE (RFC 9180 §4).

HMAC (RFC 2104) is computed by hand over ``hashlib``: a request needs a dozen of them on short inputs, and
this form costs a third of what the ``HKDF`` class of ``cryptography`` does.
"""

from __future__ import annotations

from hashlib import sha256

HASH_SIZE = 32
"""Nh of HKDF-SHA256 (RFC 9180 §7.2)."""

_BLOCK_SIZE = 64  # of SHA-256, FIPS 180-4
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_KEY_PADDING = bytes(_BLOCK_SIZE - HASH_SIZE)
_MAX_EXPAND = 255 * HASH_SIZE  # RFC 5869 §2.3
_VERSION_LABEL = b"HPKE-v1"  # RFC 9180 §4


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract: a pseudorandom key of 32 bytes. An empty salt is 32 zero bytes (RFC 5869 §2.2)."""
    return _hmac(salt, ikm)


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand: ``length`` bytes. Raises ``ValueError`` outside 0 … 255·32 (RFC 5869 §2.3)."""
    if not 0 <= length <= _MAX_EXPAND:
        raise ValueError(f"HKDF-SHA256 expands to at most {_MAX_EXPAND} bytes, asked for {length}")
    if length <= HASH_SIZE:  # one block, which is all that HPKE and OHTTP ask for
        return _hmac(prk, info + b"\x01")[:length]
    block = okm = b""
    for counter in range(1, -(-length // HASH_SIZE) + 1):
        block = _hmac(prk, block + info + bytes((counter,)))
        okm += block
    return okm[:length]


def key_and_nonce(salt: bytes, secret: bytes, key_size: int) -> tuple[bytes, bytes]:
    """RFC 9458 §4.4 steps 3 to 5: ``expand(extract(salt, secret), "key")`` of at most 32 bytes, and
    ``"nonce"`` of 12. Every answer needs them, so the pads of the pseudorandom key are made once.
    """
    block = _hmac(salt, secret) + _KEY_PADDING
    inner, outer = block.translate(_INNER_PAD), block.translate(_OUTER_PAD)
    key = sha256(outer + sha256(inner + b"key\x01").digest()).digest()
    nonce = sha256(outer + sha256(inner + b"nonce\x01").digest()).digest()
    return key[:key_size], nonce[:12]


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract (RFC 9180 §4)."""
    return _hmac(salt, _VERSION_LABEL + suite_id + label + ikm)


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand (RFC 9180 §4). Raises ``ValueError`` as :func:`expand` does."""
    if not 0 <= length <= _MAX_EXPAND:
        raise ValueError(f"HKDF-SHA256 expands to at most {_MAX_EXPAND} bytes, asked for {length}")
    return expand(prk, length.to_bytes(2, "big") + _VERSION_LABEL + suite_id + label + info, length)


def _hmac(key: bytes, message: bytes) -> bytes:
    inner, outer = _pads(key)
    return sha256(outer + sha256(inner + message).digest()).digest()


def _pads(key: bytes) -> tuple[bytes, bytes]:
    """What goes before the inner and the outer message (RFC 2104 §2)."""
    if len(key) > _BLOCK_SIZE:
        key = sha256(key).digest()
    block = key.ljust(_BLOCK_SIZE, b"\0")
    return block.translate(_INNER_PAD), block.translate(_OUTER_PAD)
