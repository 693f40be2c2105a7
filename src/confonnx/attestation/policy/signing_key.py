"""Whose code it is: from a public key in PEM to the value that each TEE shows for the code's signer."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from confonnx.attestation.claims import Tee
from confonnx.errors import ConfigurationError

SGX_MODULUS_SIZE: Final = 384  # bytes; Intel SDM vol. 3D, SIGSTRUCT: RSA-3072
_AMD_KEY_SIZE: Final = 0x404  # AMD 56860, ID block: ECDSA public key format
_AMD_COORDINATE_SIZE: Final = 72
_AMD_CURVE_P384: Final = 2
_MAX_PEM = 65536


def signers(pem: str | bytes) -> dict[Tee, bytes]:
    """For each TEE that can show it, the signer value of the key in ``pem``.

    ==============================  ==========================================================================
    RSA-3072 public key             SGX: MRSIGNER = SHA-256(modulus, little-endian); simulated: the same
    ECDSA P-384 public key          SEV-SNP: ID_KEY_DIGEST = SHA-384(AMD's format); simulated: SHA-256(DER)
    certificate                     Nitro: PCR8 = SHA-384(48 zero bytes ‖ SHA-384(DER)); and those of its key
    another RSA or EC public key    simulated alone: SHA-256(DER)
    ==============================  ==========================================================================

    Raises ``ConfigurationError`` for anything else; a private key is refused, as no verifier needs one.
    """
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > _MAX_PEM or b"PRIVATE KEY" in data:
        raise ConfigurationError(
            "the signing key: expected a public key in PEM, found a private key or a far larger file"
        )
    result: dict[Tee, bytes] = {}
    key: PublicKeyTypes
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            certificate = x509.load_pem_x509_certificate(data)
            result[Tee.NITRO] = nitro_signer(certificate)
            key = certificate.public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            "the signing key is no public key or certificate in PEM (-----BEGIN PUBLIC KEY-----); "
            "`openssl rsa -in key.pem -pubout` prints one for a private key"
        ) from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == SGX_MODULUS_SIZE * 8:
        result[Tee.SGX] = mrsigner(key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        result[Tee.SEV_SNP] = id_key_digest(key)
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ConfigurationError(
            "the signing key: expected an RSA or elliptic curve key, which enclaves are signed with"
        )
    result[Tee.SIMULATED] = simulated_signer(key)
    return result


def nitro_signer(certificate: x509.Certificate) -> bytes:
    """PCR8: zero, extended by the SHA-384 of the signing certificate's DER (AWS Nitro Enclaves user guide,
    "PCR8").
    """
    der = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()


def mrsigner(key: rsa.RSAPublicKey) -> bytes:
    """MRSIGNER: the SHA-256 of SIGSTRUCT.MODULUS, which is little-endian (Intel SDM vol. 3D, EINIT)."""
    return hashlib.sha256(key.public_numbers().n.to_bytes(SGX_MODULUS_SIZE, "little")).digest()


def id_key_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """ID_KEY_DIGEST: the SHA-384 of a P-384 key as curve, x and y, little-endian, padded with zeros (AMD
    56860).
    """
    numbers = key.public_numbers()
    encoded = (
        _AMD_CURVE_P384.to_bytes(4, "little")
        + numbers.x.to_bytes(_AMD_COORDINATE_SIZE, "little")
        + numbers.y.to_bytes(_AMD_COORDINATE_SIZE, "little")
    )
    return hashlib.sha384(encoded.ljust(_AMD_KEY_SIZE, b"\0")).digest()


def simulated_signer(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """The 32 bytes that simulated evidence shows for a signer: MRSIGNER for an SGX key, else the SHA-256 of
    the key's DER.
    """
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == SGX_MODULUS_SIZE * 8:
        return mrsigner(key)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()
