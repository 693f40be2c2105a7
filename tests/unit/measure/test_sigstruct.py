"""SIGSTRUCT: read as the processor reads it, and nothing that was changed after signing."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import signers
from confonnx.errors import ConfigurationError
from confonnx.measure.sigstruct import SIZE, parse_sigstruct
from tests.support.sigstructs import MRENCLAVE, make_sigstruct, signing_key


def test_every_field() -> None:
    data = make_sigstruct(product_id=0x1234, security_version=0xABCD)
    assert len(data) == SIZE
    parsed = parse_sigstruct(data)
    assert (parsed.mrenclave, parsed.product_id, parsed.security_version) == (MRENCLAVE, 0x1234, 0xABCD)
    assert not parsed.debug
    assert parse_sigstruct(make_sigstruct(debug=True)).debug


def test_mrenclave_is_where_the_facts_say() -> None:
    assert make_sigstruct()[960:992] == MRENCLAVE


def test_mrsigner_is_that_of_the_public_key() -> None:
    pem = signing_key(3).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert parse_sigstruct(make_sigstruct()).mrsigner == signers(pem)[Tee.SGX]


def test_every_signed_byte_counts() -> None:
    good = make_sigstruct()
    parse_sigstruct(good)
    for offset in [*range(0, 128, 7), *range(128, 516, 31), *range(516, 900, 31), *range(900, 1028, 3)]:
        changed = bytearray(good)
        changed[offset] ^= 1
        with pytest.raises(ConfigurationError, match="SIGSTRUCT"):
            parse_sigstruct(bytes(changed))


def test_q1_and_q2_are_no_part_of_the_identity() -> None:
    changed = bytearray(make_sigstruct())
    changed[1040] ^= 1
    assert parse_sigstruct(bytes(changed)) == parse_sigstruct(make_sigstruct())


@pytest.mark.parametrize("size", [0, 1, 1807, 1809])
def test_a_wrong_size(size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"expected 1808 bytes .*found {size}"):
        parse_sigstruct((make_sigstruct() + b"\0")[:size])


def test_another_exponent() -> None:
    with pytest.raises(ConfigurationError, match="EXPONENT: expected 3, found 65537"):
        parse_sigstruct(make_sigstruct(exponent=65537))


def test_a_modulus_of_zero() -> None:
    data = make_sigstruct()
    with pytest.raises(ConfigurationError, match="signature does not hold"):
        parse_sigstruct(data[:128] + bytes(384) + data[512:])
