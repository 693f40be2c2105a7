"""SIGSTRUCT: what the builder of an SGX enclave signed (Intel SDM vol. 3D, "Enclave Signature Structure")."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from confonnx.errors import ConfigurationError

SIZE: Final = 1808
_EXPONENT: Final = 3
_DEBUG: Final = 1 << 1  # ATTRIBUTES.FLAGS
# HEADER and HEADER2 are constants of the architecture.
_HEADERS: Final = {
    0: bytes.fromhex("06000000e100000000000100 00000000"),
    24: bytes.fromhex("01010000600000006000000001000000"),
}
_MODULUS: Final = slice(128, 512)
_SIGNATURE: Final = slice(516, 900)
_SIGNED: Final = (slice(0, 128), slice(900, 1028))


@dataclass(frozen=True, slots=True)
class Sigstruct:
    """The signed identity of an enclave. ``mrenclave`` and ``mrsigner`` have 32 bytes."""

    mrenclave: bytes
    mrsigner: bytes
    product_id: int
    security_version: int
    debug: bool


def parse_sigstruct(data: bytes) -> Sigstruct:
    """The SIGSTRUCT in ``data`` (1808 bytes, a ``.sig`` file of Gramine), its signature checked.

    Raises ConfigurationError.
    """
    if len(data) != SIZE:
        raise ConfigurationError(f"SIGSTRUCT: expected {SIZE} bytes (a .sig file), found {len(data)}")
    for offset, header in _HEADERS.items():
        if (found := data[offset : offset + len(header)]) != header:
            raise ConfigurationError(
                f"SIGSTRUCT: expected {header.hex()} at byte {offset}, found {found.hex()}; this is no "
                "SIGSTRUCT (a .sig file)"
            )
    exponent = int.from_bytes(data[512:516], "little")
    if exponent != _EXPONENT:
        raise ConfigurationError(f"SIGSTRUCT.EXPONENT: expected {_EXPONENT}, found {exponent}")
    modulus = data[_MODULUS]
    _check_signature(data, modulus)
    return Sigstruct(
        mrenclave=data[960:992],
        mrsigner=hashlib.sha256(modulus).digest(),  # EINIT: of the bytes as they stand here, little-endian
        product_id=int.from_bytes(data[1024:1026], "little"),
        security_version=int.from_bytes(data[1026:1028], "little"),
        debug=bool(int.from_bytes(data[928:936], "little") & _DEBUG),
    )


def _check_signature(data: bytes, modulus: bytes) -> None:
    signature = int.from_bytes(data[_SIGNATURE], "little").to_bytes(384, "big")
    try:
        key = rsa.RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus, "little")).public_key()
        key.verify(signature, b"".join(data[part] for part in _SIGNED), padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as error:
        raise ConfigurationError(
            "SIGSTRUCT: the signature does not hold; the file was changed after it was signed"
        ) from error
