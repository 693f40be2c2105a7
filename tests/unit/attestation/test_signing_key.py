"""Signer values against their definitions, written out a second time."""

from __future__ import annotations

import hashlib
import struct

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import signers, simulated_signer
from tests.unit.attestation.signing_keys import CERTIFICATE, P384, P384_PRIVATE, RSA3072, RSA3072_KEY


def test_mrsigner_is_the_hash_of_the_little_endian_modulus() -> None:
    modulus = RSA3072_KEY.public_numbers().n
    reversed_bytes = bytes(modulus >> (8 * index) & 0xFF for index in range(384))
    assert signers(RSA3072)[Tee.SGX] == hashlib.sha256(reversed_bytes).digest()
    assert signers(RSA3072)[Tee.SIMULATED] == simulated_signer(RSA3072_KEY) == signers(RSA3072)[Tee.SGX]


def test_id_key_digest_is_the_hash_of_amds_key_format() -> None:
    point = P384_PRIVATE.public_key().public_numbers()
    x, y = (number.to_bytes(48, "big")[::-1] for number in (point.x, point.y))
    amd = struct.pack("<I72s72s880s", 2, x, y, b"")
    assert len(amd) == 0x404
    assert signers(P384)[Tee.SEV_SNP] == hashlib.sha384(amd).digest()


def test_pcr8_is_zero_extended_by_the_hash_of_the_certificate() -> None:
    der = x509.load_pem_x509_certificate(CERTIFICATE.encode()).public_bytes(Encoding.DER)
    assert (
        signers(CERTIFICATE)[Tee.NITRO] == hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()
    )
