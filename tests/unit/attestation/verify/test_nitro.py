"""One change of a good document at a time, and the step that must refuse it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from confonnx.attestation.claims import Claims, NitroClaims, Tee
from confonnx.attestation.verify import nitro
from confonnx.errors import CheckError
from tests.support.authorities import aws
from tests.support.authorities.aws import INSTANCE, MODULE, PCR0, PCR8, REGION, REPORT_DATA, ROOT, Document
from tests.support.authorities.pki import DAY, NOW, ec_key
from tests.support.traced_checks import traced

GOOD = Document()
EVIL = ec_key("evil", "P-384")


def run(document: Document) -> Claims:
    with traced(nitro.CHECKS) as checks:
        return nitro.verify(document.encode(), now=NOW, roots=aws.roots(), checks=checks)


def check(document: Document) -> str:
    with pytest.raises(CheckError) as caught:
        run(document)
    return caught.value.check


@pytest.mark.parametrize("tagged", [False, True])
def test_good_evidence(tagged: bool) -> None:
    claims = run(GOOD.but(tagged=tagged))
    assert claims.tee is Tee.NITRO
    assert claims.measurement == PCR0
    assert claims.signer == PCR8
    assert claims.report_data == REPORT_DATA
    assert claims.debug is False
    assert claims.valid_until == NOW + timedelta(days=1)
    assert isinstance(claims.details, NitroClaims)
    assert claims.details.issued_at == NOW


def test_debug_and_unsigned_images_are_claims() -> None:
    document = GOOD.but(changes={"pcrs": {0: bytes(48)}, "user_data": None})
    claims = nitro.verify(document.encode(), now=NOW, roots=aws.roots())
    assert claims.debug is True
    assert claims.signer is None
    assert claims.report_data == b""


def ms(offset: timedelta) -> int:
    return round((NOW + offset).timestamp() * 1000)


REFUSED: dict[str, tuple[Document, str]] = {
    "a look-alike root": (
        GOOD.but(bundle=(ROOT.but(key=EVIL), REGION.but(issuer=ROOT.but(key=EVIL)), INSTANCE)),
        "nitro.root",
    ),
    "a chain without the root": (GOOD.but(bundle=(REGION, INSTANCE)), "nitro.root"),
    "a chain with a hole": (GOOD.but(bundle=(ROOT, INSTANCE)), "nitro.chain"),
    "a chain in another order": (GOOD.but(bundle=(ROOT, INSTANCE, REGION)), "nitro.chain"),
    "a certificate of another instance": (GOOD.but(leaf=MODULE.but(signing_key=EVIL)), "nitro.chain"),
    "an instance that is no CA": (GOOD.but(bundle=(ROOT, REGION, INSTANCE.but(ca=False))), "nitro.chain"),
    "a path that is too long": (GOOD.but(bundle=(ROOT, REGION.but(path_length=0), INSTANCE)), "nitro.chain"),
    "an expired certificate": (GOOD.but(leaf=MODULE.but(not_after=NOW - DAY)), "nitro.validity"),
    "a certificate of tomorrow": (GOOD.but(leaf=MODULE.but(not_before=NOW + DAY)), "nitro.validity"),
    "an expired region": (
        GOOD.but(bundle=(ROOT, REGION.but(not_after=NOW - DAY), INSTANCE)),
        "nitro.validity",
    ),
    "no certificate": (GOOD.but(changes={"certificate": b"0"}), "nitro.endorsements"),
    "no certificate in the bundle": (GOOD.but(changes={"cabundle": [b"0"]}), "nitro.endorsements"),
    "another key": (GOOD.but(key=EVIL), "nitro.signature"),
    "a signature of zeros": (GOOD.but(signature=bytes(96)), "nitro.signature"),
    "a key on another curve": (
        GOOD.but(leaf=MODULE.but(key=ec_key("p256")), key=ec_key("p256")),
        "nitro.signature",
    ),
    "a document of yesterday": (
        GOOD.but(changes={"timestamp": ms(-timedelta(days=1, minutes=1))}),
        "nitro.age",
    ),
    "a document of tomorrow": (GOOD.but(changes={"timestamp": ms(timedelta(minutes=6))}), "nitro.age"),
    "no PCR0": (GOOD.but(changes={"pcrs": {1: bytes(48)}}), "nitro.pcrs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    document, expected = REFUSED[case]
    assert check(document) == expected


def test_changed_after_signing() -> None:
    data = GOOD.encode()
    assert data.count(PCR0) == 1
    with pytest.raises(CheckError) as caught:
        nitro.verify(data.replace(PCR0, bytes(48)), now=NOW, roots=aws.roots())
    assert caught.value.check == "nitro.signature"


def test_a_shorter_age_can_be_asked_for() -> None:
    document = GOOD.but(changes={"timestamp": ms(-timedelta(minutes=6))}).encode()
    with pytest.raises(CheckError) as caught:
        nitro.verify(document, now=NOW, roots=aws.roots(), max_age=timedelta(minutes=5))
    assert caught.value.check == "nitro.age"
