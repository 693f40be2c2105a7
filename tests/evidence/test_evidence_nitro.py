"""Real Nitro attestation documents, each at its own time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from confonnx.attestation.claims import Claims, NitroClaims, Tee
from confonnx.attestation.verify import nitro
from confonnx.attestation.verify.x509 import spki_digest
from confonnx.errors import EvidenceError
from tests.evidence.manifest import Vector, evidence, one, read

VECTORS = evidence("nitro")


def verify(v: Vector) -> Claims:
    assert v.now is not None
    return nitro.verify(v.data, now=v.now)


@pytest.mark.parametrize("v", [v for v in VECTORS if v.verdict != "invalid"], ids=lambda v: v.file)
def test_verdict_and_fields(v: Vector) -> None:
    claims = verify(v)
    details, expected = claims.details, v.expected
    assert isinstance(details, NitroClaims)
    assert claims.tee is Tee.NITRO
    assert claims.debug is expected["debug"] is (v.verdict == "genuine_but_rejected")
    assert details.module_id == expected["module_id"]
    assert round(details.issued_at.timestamp() * 1000) == expected["timestamp_ms"]
    assert {str(pcr.index): pcr.value.hex() for pcr in details.pcrs} == expected["pcrs"]
    assert claims.measurement.hex() == expected["pcrs"]["0"]
    assert (claims.signer or bytes(48)).hex() == expected["pcrs"]["8"]
    for name in ("nonce", "user_data", "public_key"):
        value = getattr(details, name)
        assert (value.hex() if value is not None else None) == expected[name], name
    assert claims.report_data == (details.user_data or b"")


def test_verdicts_of_every_kind_are_there() -> None:
    assert {v.verdict for v in VECTORS} == {"valid", "genuine_but_rejected", "invalid"}


@pytest.mark.parametrize("v", [v for v in VECTORS if v.verdict == "invalid"], ids=lambda v: v.file)
def test_invalid(v: Vector) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify(v)
    assert caught.value.check == "nitro.signature"


def test_the_pinned_root_is_the_published_one() -> None:
    (root,) = x509.load_pem_x509_certificates(read("nitro/aws-nitro-root-g1.pem"))
    assert spki_digest(root) in nitro.AWS_ROOTS


@pytest.mark.parametrize("offset", [-timedelta(minutes=6), timedelta(days=1, minutes=1)])
def test_at_another_time(offset: timedelta) -> None:
    v = one("nitro/nitro-2022-veracruz.cbor")
    assert v.now is not None
    with pytest.raises(EvidenceError) as caught:
        nitro.verify(v.data, now=v.now + offset)
    assert caught.value.check == "nitro.age"
