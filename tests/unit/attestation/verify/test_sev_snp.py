"""One change of good evidence at a time, and the step that must refuse it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from confonnx.attestation.claims import Claims, SevSnpClaims, TcbStatus, Tee
from confonnx.attestation.verify import sev_snp
from confonnx.attestation.verify.x509 import Endorsements
from confonnx.errors import CheckError, EvidenceFormatError, VerificationError
from tests.support.authorities import amd
from tests.support.authorities.amd import ARK, ASK, CHIP_ID, MEASUREMENT, REPORT_DATA, Chip
from tests.support.authorities.pki import DAY, NOW, crl, ec_key, raw_extension, rsa_key
from tests.support.traced_checks import traced

TURIN_ARK = ARK.but(subject="ARK-Turin")
TURIN_ASK = ASK.but(subject="SEV-Turin", issuer=TURIN_ARK)
TURIN_TCB = bytes((1, 3, 0, 8, 0, 0, 0, 0x51))
TURIN = {
    0x00: b"\5",
    0x38: TURIN_TCB,
    0x180: TURIN_TCB,
    0x188: bytes((0x1A, 2, 1)),
    0x1A0: bytes(range(1, 9)) + bytes(56),
    0x1E0: TURIN_TCB,
    0x1F0: TURIN_TCB + bytes(8),
}
TURIN_CHIP = Chip(product_name="Turin", spls={9: 1, 1: 3, 2: 0, 3: 8, 8: 0x51}, hwid=bytes(range(1, 9)))
VLEK_ASK = ASK.but(subject="SEV-VLEK-Milan")
VLEK = {0x48: b"\4", 0x1A0: bytes(64)}
VLEK_CHIP = Chip(kind="VLEK", product_name="Milan", hwid=None, csp_id="CN=cloud.example")


def run(report: bytes, endorsements: Endorsements, **options: Any) -> Claims:
    with traced(sev_snp.CHECKS) as checks:
        return sev_snp.verify(report, endorsements, now=NOW, roots=amd.roots(), checks=checks, **options)


def check(report: bytes, endorsements: Endorsements, **options: Any) -> str:
    with pytest.raises(CheckError) as caught:
        run(report, endorsements, **options)
    return caught.value.check


def test_good_evidence() -> None:
    claims = run(amd.report(), amd.endorsements())
    assert claims.tee is Tee.SEV_SNP
    assert claims.measurement == MEASUREMENT
    assert claims.report_data == REPORT_DATA
    assert claims.signer is None
    assert claims.debug is False
    assert claims.security_version == 4
    assert claims.tcb_status is TcbStatus.NOT_APPLICABLE
    assert claims.valid_until == NOW + DAY  # the CRL's, which is the first to expire
    assert isinstance(claims.details, SevSnpClaims)
    assert claims.details.chip_id == CHIP_ID
    assert claims.details.csp_id is None


def test_good_turin() -> None:
    claims = run(amd.report(TURIN), amd.endorsements(TURIN_CHIP.vek(TURIN_ASK), TURIN_ASK, TURIN_ARK))
    assert isinstance(claims.details, SevSnpClaims)
    assert claims.details.reported_tcb.fmc == 1


def test_good_vlek() -> None:
    claims = run(amd.report(VLEK), amd.endorsements(VLEK_CHIP.vek(VLEK_ASK), VLEK_ASK))
    assert isinstance(claims.details, SevSnpClaims)
    assert claims.details.csp_id == "CN=cloud.example"
    assert claims.details.signing_key == "VLEK"


def test_debug_and_id_key_are_claims() -> None:
    claims = sev_snp.verify(
        amd.report({0x0A: bytes((0b1011,)), 0xE0: b"\1" * 48}), amd.endorsements(), now=NOW, roots=amd.roots()
    )
    assert claims.debug is True
    assert claims.signer == b"\1" * 48


def test_revocation_is_only_skipped_on_request() -> None:
    endorsements = amd.endorsements(crls=())
    assert check(amd.report(), endorsements) == "sev-snp.crl"
    claims = run(amd.report(), endorsements, dangerous_skip_revocation=True)
    assert claims.valid_until == NOW + 30 * DAY


REFUSED_ENDORSEMENTS: dict[str, tuple[Endorsements, str]] = {
    "no VEK": (Endorsements((ASK.build(), ARK.build()), (crl(ARK),)), "sev-snp.endorsements"),
    "two VEKs": (
        Endorsements((Chip().vek().build(), VLEK_CHIP.vek().build(), ASK.build(), ARK.build()), (crl(ARK),)),
        "sev-snp.endorsements",
    ),
    "no ASK": (Endorsements((Chip().vek().build(), ARK.build()), (crl(ARK),)), "sev-snp.endorsements"),
    "no ARK": (Endorsements((Chip().vek().build(), ASK.build()), (crl(ARK),)), "sev-snp.endorsements"),
    "a look-alike root": (
        amd.endorsements(
            Chip().vek(ASK.but(issuer=ARK.but(key=rsa_key("evil")))),
            ASK.but(issuer=ARK.but(key=rsa_key("evil"))),
            ARK.but(key=rsa_key("evil")),
        ),
        "sev-snp.root",
    ),
    "an ARK that did not sign itself": (
        amd.endorsements(ark=ARK.but(signing_key=rsa_key("evil")), crls=(crl(ARK),)),
        "sev-snp.chain",
    ),
    "an ASK of another ARK": (amd.endorsements(ask=ASK.but(signing_key=rsa_key("evil"))), "sev-snp.chain"),
    "an ASK that names another issuer": (
        amd.endorsements(ask=ASK.but(issuer_name="ARK-Other")),
        "sev-snp.chain",
    ),
    "a VEK of another ASK": (
        amd.endorsements(Chip().vek().but(signing_key=rsa_key("evil"))),
        "sev-snp.chain",
    ),
    "an ASK that is no CA": (amd.endorsements(ask=ASK.but(ca=False)), "sev-snp.chain"),
    "an ASK that may not sign certificates": (
        amd.endorsements(ask=ASK.but(key_cert_sign=False)),
        "sev-snp.chain",
    ),
    "an ARK that allows no CA below": (amd.endorsements(ark=ARK.but(path_length=0)), "sev-snp.chain"),
    "a VEK with an unknown critical extension": (
        amd.endorsements(Chip().vek().but(extensions=((raw_extension("1.2.3", b"\5\0")[0], True),))),
        "sev-snp.chain",
    ),
    "an expired VEK": (amd.endorsements(Chip().vek().but(not_after=NOW - DAY)), "sev-snp.validity"),
    "a VEK of tomorrow": (amd.endorsements(Chip().vek().but(not_before=NOW + DAY)), "sev-snp.validity"),
    "an expired ASK": (amd.endorsements(ask=ASK.but(not_after=NOW - DAY)), "sev-snp.validity"),
    "an expired ARK": (amd.endorsements(ark=ARK.but(not_after=NOW - DAY)), "sev-snp.validity"),
    "no CRL": (amd.endorsements(crls=()), "sev-snp.crl"),
    "a CRL of another ARK": (amd.endorsements(crls=(crl(TURIN_ARK),)), "sev-snp.crl"),
    "a forged CRL": (amd.endorsements(crls=(crl(ARK, key=rsa_key("evil")),)), "sev-snp.crl"),
    "an expired CRL": (
        amd.endorsements(crls=(crl(ARK, last_update=NOW - 2 * DAY, next_update=NOW - DAY),)),
        "sev-snp.crl",
    ),
    "a CRL of tomorrow": (
        amd.endorsements(crls=(crl(ARK, last_update=NOW + DAY, next_update=NOW + 2 * DAY),)),
        "sev-snp.crl",
    ),
    "a CRL of an ARK that may not sign any": (amd.endorsements(ark=ARK.but(crl_sign=False)), "sev-snp.crl"),
    "a partial CRL": (
        amd.endorsements(crls=(crl(ARK, critical=x509.DeltaCRLIndicator(1)),)),
        "sev-snp.crl",
    ),
    "a revoked ASK": (amd.endorsements(crls=(crl(ARK, revoked=[ASK.serial]),)), "sev-snp.revoked"),
    "a revoked ASK and an older CRL that hides it": (
        amd.endorsements(
            crls=(crl(ARK, revoked=[ASK.serial]), crl(ARK, last_update=NOW - timedelta(days=9)))
        ),
        "sev-snp.revoked",
    ),
    "a VLEK for a report of a VCEK": (
        amd.endorsements(VLEK_CHIP.vek(VLEK_ASK), VLEK_ASK),
        "sev-snp.signing-key",
    ),
    "a VEK of another product": (amd.endorsements(Chip(product_name="Genoa").vek()), "sev-snp.product"),
    "a VEK of no product": (amd.endorsements(Chip(product_name="").vek()), "sev-snp.product"),
    "a VCEK from the VLEK's issuer": (
        amd.endorsements(Chip().vek(VLEK_ASK), VLEK_ASK),
        "sev-snp.product",
    ),
    "a VEK with another key": (
        amd.endorsements(Chip().vek().but(key=ec_key("other", "P-384"))),
        "sev-snp.signature",
    ),
    "a VEK of an older boot loader": (
        amd.endorsements(Chip(spls={1: 2, 2: 0, 3: 8, 8: 0xDB}).vek()),
        "sev-snp.tcb",
    ),
    "a VEK of an older microcode": (
        amd.endorsements(Chip(spls={1: 3, 2: 0, 3: 8, 8: 0xDA}).vek()),
        "sev-snp.tcb",
    ),
    "a VEK without a TCB": (amd.endorsements(Chip(spls={1: 3, 2: 0, 3: 8}).vek()), "sev-snp.tcb"),
    "a VEK with a TCB of 16 bits": (
        amd.endorsements(Chip(spls={1: 3, 2: 0, 3: 8, 8: 0x1DB}).vek()),
        "sev-snp.tcb",
    ),
    "a VEK of another chip": (amd.endorsements(Chip(hwid=bytes(64)).vek()), "sev-snp.chip"),
    "a VEK of a chip with a short name": (amd.endorsements(Chip(hwid=CHIP_ID[:8]).vek()), "sev-snp.chip"),
    "a VCEK without a chip": (amd.endorsements(Chip(hwid=None).vek()), "sev-snp.chip"),
}


@pytest.mark.parametrize("case", REFUSED_ENDORSEMENTS)
def test_refused_endorsements(case: str) -> None:
    endorsements, expected = REFUSED_ENDORSEMENTS[case]
    assert check(amd.report(), endorsements) == expected


REFUSED_REPORTS: dict[str, tuple[bytes, str]] = {
    "another measurement": (amd.report(after={0x90: b"\0"}), "sev-snp.signature"),
    "other report data": (amd.report(after={0x50: b"\1"}), "sev-snp.signature"),
    "another signature": (amd.report(after={0x2A0: b"\0"}), "sev-snp.signature"),
    "a signature of zeros": (amd.report(after={0x2A0: bytes(144)}), "sev-snp.signature"),
    "a higher TCB than its VEK's": (
        amd.report({0x180: b"\4", 0x1E0: b"\4", 0x38: b"\4"}),
        "sev-snp.tcb",
    ),
    "another chip": (amd.report({0x1A0: b"\0"}), "sev-snp.chip"),
    "a masked chip": (amd.report({0x48: b"\2"}), "sev-snp.chip"),
    "another product": (amd.report({0x189: b"\x11"}), "sev-snp.product"),
    "a signing key of another kind": (amd.report({0x48: b"\4"}), "sev-snp.signing-key"),
    "a reported TCB above the committed one": (amd.report({0x1E0: b"\2"}), "sev-snp.vendor"),
    "a committed TCB above the current one": (amd.report({0x1E0: b"\4"}), "sev-snp.vendor"),
    "a migration agent": (amd.report({0x0A: bytes((0b111,))}), "sev-snp.vendor"),
}


@pytest.mark.parametrize("case", REFUSED_REPORTS)
def test_refused_reports(case: str) -> None:
    report, expected = REFUSED_REPORTS[case]
    assert check(report, amd.endorsements()) == expected


def test_a_vek_on_another_curve() -> None:
    """It signed the report, but AMD's keys are on P-384 only."""
    report = amd.report(key=ec_key("vek", "P-256"))
    assert check(report, amd.endorsements(Chip().vek(curve="P-256"))) == "sev-snp.signature"


def test_version_2_is_never_turin() -> None:
    changes = TURIN | {0x00: b"\2", 0x188: bytes(3), 0x1F0: TURIN_TCB + bytes(16)}
    endorsements = amd.endorsements(TURIN_CHIP.vek(TURIN_ASK), TURIN_ASK, TURIN_ARK)
    assert check(amd.report(changes), endorsements) == "sev-snp.product"


def test_a_product_that_nobody_knows() -> None:
    ark = ARK.but(subject="ARK-Venice")
    ask = ASK.but(subject="SEV-Venice", issuer=ark)
    endorsements = amd.endorsements(Chip(product_name="Venice").vek(ask), ask, ark)
    assert check(amd.report({0x00: b"\2", 0x188: bytes(3)}), endorsements) == "sev-snp.product"


@pytest.mark.parametrize(
    ("chip", "expected"),
    [
        (Chip(kind="VLEK", product_name="Milan", csp_id="CN=x"), "sev-snp.chip"),
        (Chip(kind="VLEK", product_name="Milan", hwid=None), "sev-snp.chip"),
    ],
    ids=["names a chip", "names no cloud"],
)
def test_refused_vleks(chip: Chip, expected: str) -> None:
    assert check(amd.report(VLEK), amd.endorsements(chip.vek(VLEK_ASK), VLEK_ASK)) == expected


@pytest.mark.parametrize(
    "changes", [{0x38: TURIN_TCB[:4] + b"\1"}, {0x1E2: b"\1"}], ids=["current", "committed"]
)
def test_reserved_tcb_bytes(changes: dict[int, bytes]) -> None:
    with pytest.raises(EvidenceFormatError, match="reserved"):
        sev_snp.verify(amd.report(changes), amd.endorsements(), now=NOW, roots=amd.roots())


def test_no_bit_of_a_report_can_be_changed() -> None:
    good = amd.report()
    endorsements = amd.endorsements()
    for offset in range(len(good)):
        changed = bytearray(good)
        changed[offset] ^= 1
        with pytest.raises(VerificationError):
            sev_snp.verify(bytes(changed), endorsements, now=NOW, roots=amd.roots())
