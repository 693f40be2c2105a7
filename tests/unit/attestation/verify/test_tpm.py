"""One change of a good TPM quote at a time, and the step that must refuse it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from confonnx.attestation.claims import Pcr, Tee, TpmClaims, pcr_measurement
from confonnx.attestation.verify import tpm
from confonnx.attestation.verify.x509 import Endorsements, spki_digest
from confonnx.errors import CheckError, EvidenceFormatError
from tests.support.authorities import boot, tcg
from tests.support.authorities.pki import DAY, NOW, crl, ec_key, key_usage, rsa_key
from tests.support.authorities.tcg import (
    AIK,
    AK,
    CRL_PLACE,
    EK,
    ISSUER,
    REPORT_DATA,
    ROOT,
    Quote,
    endorsements,
)
from tests.support.traced_checks import traced

GOOD = Quote()
EVIL = rsa_key("evil")


def run(quote: Quote = GOOD, certificates: Endorsements | None = None, **options: Any) -> Any:
    own = certificates or endorsements()
    with traced(tpm.CHECKS) as checks:
        return tpm.verify(quote.encode(), own, now=NOW, roots=tcg.roots(), checks=checks, **options)


def check(quote: Quote = GOOD, certificates: Endorsements | None = None) -> str:
    with pytest.raises(CheckError) as caught:
        run(quote, certificates)
    return caught.value.check


def test_good_evidence() -> None:
    claims = run()
    expected = tuple(Pcr("sha256", index, bytes((index,)) * 32) for index in (0, 4, 7))
    assert claims.tee is Tee.TPM
    assert claims.measurement == pcr_measurement(expected)
    assert claims.report_data == REPORT_DATA
    assert claims.debug is False
    assert claims.valid_until == NOW + 30 * DAY
    details = claims.details
    assert isinstance(details, TpmClaims)
    assert details.pcrs == expected
    assert details.events == ()
    assert (details.firmware_version, details.reset_count, details.restart_count) == (8, 6, 7)
    assert details.attestation_key == spki_digest(AK.build())
    assert details.root == ROOT.root_digest()
    assert details.subject == "CN=TPM AK"


@pytest.mark.parametrize(
    "key", [ec_key("ak"), ec_key("ak", "P-384"), rsa_key("ak")], ids=["P-256", "P-384", "RSA"]
)
@pytest.mark.parametrize("digest", ["sha256", "sha384"])
def test_kinds_of_keys(key: Any, digest: str) -> None:
    claims = run(GOOD.but(key=key, digest=digest), endorsements(AK.but(key=key)))
    assert claims.tee is Tee.TPM


def test_a_critical_purpose_is_heeded() -> None:
    extensions = ((AIK[0], True), (key_usage(False, False, digital_signature=True), True))
    assert run(GOOD, endorsements(AK.but(extensions=extensions))).tee is Tee.TPM


def test_a_bare_signature() -> None:
    assert run(GOOD.but(bare=True)).tee is Tee.TPM


def test_several_banks_are_sorted() -> None:
    pcrs = {("sha384", 1): bytes(48), ("sha256", 9): bytes(32), ("sha256", 16): bytes(32)}
    ordered = run(GOOD.but(pcrs=pcrs)).details.pcrs
    assert [(pcr.bank, pcr.index) for pcr in ordered] == [("sha256", 9), ("sha256", 16), ("sha384", 1)]


def test_the_caller_names_the_roots() -> None:
    with pytest.raises(CheckError) as caught:
        tpm.verify(GOOD.encode(), endorsements(), now=NOW, roots=tpm.AZURE_VTPM_ROOTS)
    assert caught.value.check == "tpm.root"
    with pytest.raises(CheckError) as caught:
        tpm.verify(GOOD.encode(), endorsements(), now=NOW, roots=frozenset())
    assert caught.value.check == "tpm.root"


PUBLISHED = ISSUER.but(extensions=(CRL_PLACE,))


def test_a_published_crl_must_come_along() -> None:
    below = AK.but(issuer=PUBLISHED)
    assert check(GOOD, endorsements(below, PUBLISHED)) == "tpm.crl"
    claims = run(GOOD, endorsements(below, PUBLISHED, crls=(crl(ROOT),)))
    assert claims.valid_until == NOW + DAY
    assert check(GOOD, endorsements(below, PUBLISHED, crls=(crl(ROOT, revoked=[31]),))) == "tpm.revoked"
    assert run(GOOD, endorsements(below, PUBLISHED), dangerous_skip_revocation=True).tee is Tee.TPM


REFUSED_CERTIFICATES: dict[str, tuple[Endorsements, str]] = {
    "none": (Endorsements((), ()), "tpm.endorsements"),
    "a look-alike root": (
        endorsements(
            AK.but(issuer=ISSUER.but(issuer=ROOT.but(key=EVIL))),
            ISSUER.but(issuer=ROOT.but(key=EVIL)),
            ROOT.but(key=EVIL),
        ),
        "tpm.root",
    ),
    "no root": (Endorsements((AK.build(), ISSUER.build()), ()), "tpm.root"),
    "no CA": (Endorsements((AK.build(), ROOT.build()), ()), "tpm.root"),
    "a certificate that its CA did not sign": (endorsements(AK.but(signing_key=EVIL)), "tpm.root"),
    "a CA that is none": (endorsements(issuer=ISSUER.but(ca=False)), "tpm.chain"),
    "a critical extension that nobody heeds": (
        endorsements(AK.but(extensions=(AIK, (CRL_PLACE[0], True)))),
        "tpm.chain",
    ),
    "an expired certificate": (endorsements(AK.but(not_after=NOW - DAY)), "tpm.validity"),
    "an expired CA": (endorsements(issuer=ISSUER.but(not_after=NOW - DAY)), "tpm.validity"),
    "a revoked certificate": (endorsements(crls=(crl(ISSUER, revoked=[32]),)), "tpm.revoked"),
    "a revoked CA": (endorsements(crls=(crl(ROOT, revoked=[31]),)), "tpm.revoked"),
    "an expired CRL": (
        endorsements(crls=(crl(ISSUER, last_update=NOW - 2 * DAY, next_update=NOW - DAY),)),
        "tpm.crl",
    ),
    "a certificate that may not sign": (
        endorsements(AK.but(extensions=(AIK, (key_usage(False, False), True)))),
        "tpm.chain",
    ),
    "an encryption key's": (endorsements(AK.but(extensions=(EK,))), "tpm.purpose"),
    "one of no purpose": (endorsements(AK.but(extensions=())), "tpm.purpose"),
    "a CA's": (
        endorsements(AK.but(extensions=(AIK, (x509.BasicConstraints(True, None), True)))),
        "tpm.purpose",
    ),
    "another AK's": (endorsements(AK.but(key=EVIL)), "tpm.signature"),
}


@pytest.mark.parametrize("case", REFUSED_CERTIFICATES)
def test_refused_certificates(case: str) -> None:
    certificates, expected = REFUSED_CERTIFICATES[case]
    assert check(GOOD, certificates) == expected


def test_weak_keys() -> None:
    short = rsa_key("short", 1024)
    assert check(GOOD.but(key=short), endorsements(AK.but(key=short))) == "tpm.key"
    odd = ec.generate_private_key(ec.SECP256K1())
    assert check(GOOD.but(key=odd), endorsements(AK.but(key=odd))) == "tpm.key"


PCR0 = ("sha256", 0)
REFUSED_QUOTES: dict[str, tuple[Quote, str]] = {
    "another key": (GOOD.but(key=EVIL), "tpm.signature"),
    "a signature of another kind": (GOOD.but(key=ec_key("ak")), "tpm.signature"),
    "other values": (GOOD.but(told=GOOD.pcrs | {PCR0: bytes([9]) * 32}), "tpm.pcrs"),
    "a value too many": (GOOD.but(told=GOOD.pcrs | {("sha256", 9): bytes(32)}), "tpm.pcrs"),
    "a value too few": (GOOD.but(told={PCR0: GOOD.pcrs[PCR0]}), "tpm.pcrs"),
    "the values of another bank": (
        GOOD.but(told={("sha384", index): bytes(48) for _, index in GOOD.pcrs}),
        "tpm.pcrs",
    ),
    "no PCR": (GOOD.but(pcrs={}), "tpm.pcrs"),
    "only PCRs that anyone can reset": (
        GOOD.but(pcrs={("sha256", 16): bytes(32), ("sha256", 23): bytes(32)}),
        "tpm.pcrs",
    ),
    "PCRs of SHA-1": (GOOD.but(pcrs={("sha1", 0): bytes(20)}), "tpm.pcrs"),
    "a log of another boot": (GOOD.but(event_log=boot.header() + boot.event(4, 1, b"x")), "tpm.event-log"),
}


@pytest.mark.parametrize("case", REFUSED_QUOTES)
def test_refused_quotes(case: str) -> None:
    quote, expected = REFUSED_QUOTES[case]
    assert check(quote) == expected


def test_an_event_log_is_attested_where_it_was_quoted() -> None:
    log = boot.header() + boot.event(4, 1, b"kernel") + boot.event(9, 1, b"not quoted")
    pcrs = {("sha256", 4): boot.extended(b"kernel"), ("sha256", 7): bytes(32)}
    details = run(GOOD.but(pcrs=pcrs, event_log=log)).details
    assert [(event.register, event.data) for event in details.events] == [(4, b"kernel")]


@pytest.mark.parametrize(
    ("quote", "message"),
    [
        (GOOD.but(version=2), "version 2"),
        (GOOD.but(magic=0xFF544348), "magic"),
        (GOOD.but(kind=0x8017), "type"),
        (GOOD.but(event_log=b""), "event log"),
        (GOOD.but(told={("md5", 0): bytes(16)}), "PCR bank 'md5'"),
        (GOOD.but(told={("sha256", 24): bytes(32)}), "PCR '24'"),
        (GOOD.but(told={("sha256", 0): bytes(31)}), "31 bytes"),
    ],
)
def test_malformed(quote: Quote, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        run(quote)
