"""Makes a SIGSTRUCT as a signing tool does (Intel SDM vol. 3D, "Enclave Signature Structure")."""

from __future__ import annotations

import struct
from functools import cache

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

MRENCLAVE = bytes(range(32))


@cache
def signing_key(exponent: int) -> rsa.RSAPrivateKey:
    """One RSA-3072 key for each public exponent (3 or 65537)."""
    return rsa.generate_private_key(public_exponent=exponent, key_size=3072)


def make_sigstruct(
    *,
    mrenclave: bytes = MRENCLAVE,
    product_id: int = 1,
    security_version: int = 2,
    debug: bool = False,
    exponent: int = 3,
    key: rsa.RSAPrivateKey | None = None,
) -> bytes:
    """1808 bytes, signed with ``key``, by default one made for the tests."""
    key = key or signing_key(exponent)
    head = (
        bytes.fromhex("06000000e10000000000010000000000")
        + bytes(8)  # VENDOR, DATE
        + bytes.fromhex("01010000600000006000000001000000")
        + bytes(88)
    )
    body = (
        bytes(28)  # MISCSELECT, MISCMASK, CET, reserved, ISVFAMILYID
        + struct.pack("<QQ", 0x4 | (0x2 if debug else 0), 0x3)  # ATTRIBUTES
        + bytes(16)
        + mrenclave
        + bytes(32)  # reserved, ISVEXTPRODID
        + struct.pack("<HH", product_id, security_version)
    )
    signature = key.sign(head + body, padding.PKCS1v15(), SHA256())
    return (
        head
        + key.public_key().public_numbers().n.to_bytes(384, "little")
        + exponent.to_bytes(4, "little")
        + signature[::-1]
        + body
        + bytes(12 + 2 * 384)  # reserved, Q1 and Q2, which only speed EINIT up
    )
