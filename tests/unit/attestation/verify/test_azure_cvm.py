"""One change of good Azure evidence at a time, and the step that must refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from confonnx.attestation.claims import (
    AzureClaims,
    Claims,
    Pcr,
    SevSnpClaims,
    TdxClaims,
    Tee,
    azure_measurement,
)
from confonnx.attestation.formats import dcap_collateral
from confonnx.attestation.verify import azure_cvm
from confonnx.attestation.verify.dcap import DcapEndorsements
from confonnx.errors import CheckError, EvidenceFormatError
from tests.support.authorities import amd, boot, intel, tcg
from tests.support.authorities.intel import TDX4, TDX_COLLATERAL, td_body
from tests.support.authorities.pki import NOW, ec_key, rsa_key
from tests.support.authorities.tcg import Quote, binding, hcl_report, runtime_claims
from tests.support.traced_checks import traced

GOOD = Quote()
CLAIMS = runtime_claims()
TDREPORT = bytes(1024)
PCRS = tuple(Pcr("sha256", index, bytes((index,)) * 32) for index in (0, 4, 7))


def snp_report(claims: bytes = CLAIMS, changes: dict[int, bytes] | None = None, **options: Any) -> bytes:
    """An HCL report around an SNP report that vouches for ``claims``."""
    return hcl_report(amd.report({0x50: binding(claims)} | (changes or {})), claims, **options)


def run_snp(quote: Quote = GOOD, hcl: bytes | None = None) -> Claims:
    data = quote.azure(hcl or snp_report())
    with traced(azure_cvm.SNP_CHECKS, outside={"azure.endorsements"}) as checks:
        return azure_cvm.verify_snp(data, amd.endorsements(), now=NOW, roots=amd.roots(), checks=checks)


def run_tdx(
    quote: Quote = GOOD, claims: bytes = CLAIMS, td_quote: bytes | None = None, kind: int = 4
) -> Claims:
    td = td_quote or TDX4.but(body=td_body(report_data=binding(claims))).encode()
    data = quote.azure(hcl_report(TDREPORT, claims, kind=kind), td)
    endorsements = DcapEndorsements(dcap_collateral.parse(TDX_COLLATERAL.encode()))
    with traced(azure_cvm.TDX_CHECKS, outside={"dcap.collateral"}) as checks:
        return azure_cvm.verify_tdx(data, endorsements, now=NOW, roots=intel.roots(), checks=checks)


def test_good_snp() -> None:
    claims = run_snp(GOOD.but(bare=True))
    assert claims.tee is Tee.AZURE_SNP
    assert claims.report_data == tcg.REPORT_DATA
    assert claims.measurement == azure_measurement(amd.MEASUREMENT, PCRS)
    assert claims.security_version == 4
    details = claims.details
    assert isinstance(details, AzureClaims)
    assert isinstance(details.hardware, SevSnpClaims)
    assert details.pcrs == PCRS
    assert details.vm_id == "A-B-C"
    assert details.secure_boot is True
    assert details.user_data == b"\7" * 64


def test_good_tdx() -> None:
    claims = run_tdx()
    assert claims.tee is Tee.AZURE_TDX
    assert claims.measurement == azure_measurement(intel.MRTD, PCRS)
    assert isinstance(claims.details, AzureClaims)
    assert isinstance(claims.details.hardware, TdxClaims)


def test_debug_hardware_is_a_claim() -> None:
    assert run_snp(hcl=snp_report(changes={0x0A: bytes((0b1011,))})).debug is True


def test_another_paravisor_is_another_measurement() -> None:
    other = run_snp(hcl=snp_report(changes={0x90: bytes(48)}))
    assert other.measurement != run_snp().measurement


@pytest.mark.parametrize(("hash_type", "digest"), [(2, "sha384"), (3, "sha512")])
def test_other_hashes_of_the_runtime_claims(hash_type: int, digest: str) -> None:
    report = amd.report({0x50: binding(CLAIMS, digest)})
    assert run_snp(hcl=hcl_report(report, CLAIMS, hash_type=hash_type)).tee is Tee.AZURE_SNP


def check(run: Any) -> str:
    with pytest.raises(CheckError) as caught:
        run()
    return caught.value.check


EVIL_CLAIMS = runtime_claims(rsa_key("evil"))
SHORT = rsa_key("short", 1024)
REFUSED_SNP: dict[str, tuple[Quote, bytes, str]] = {
    "a report of TDX": (GOOD, snp_report(kind=4), "azure.hardware"),
    "a changed SNP report": (
        GOOD,
        hcl_report(amd.report(after={0x50: binding(CLAIMS)}), CLAIMS),
        "sev-snp.signature",
    ),
    "a report that the guest asked for": (GOOD, snp_report(changes={0x30: b"\2"}), "azure.vmpl"),
    "claims that the hardware does not know": (
        GOOD.but(key=rsa_key("evil")),
        hcl_report(amd.report({0x50: binding(CLAIMS)}), EVIL_CLAIMS),
        "azure.report-data",
    ),
    "claims with something after their hash": (
        GOOD,
        hcl_report(amd.report({0x50: binding(CLAIMS)[:32] + b"\1" * 32}), CLAIMS),
        "azure.report-data",
    ),
    "another AK": (GOOD.but(key=rsa_key("evil")), snp_report(), "azure.signature"),
    "an AK that is no RSA key": (GOOD.but(key=ec_key("ak")), snp_report(), "azure.signature"),
    "a short AK": (GOOD.but(key=SHORT), snp_report(runtime_claims(SHORT)), "azure.key"),
    "an even exponent": (
        GOOD,
        snp_report(runtime_claims(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "Ag", "n": "AQAB"}])),
        "azure.key",
    ),
    "other PCR values": (GOOD.but(told={("sha256", 0): bytes(32)}), snp_report(), "azure.pcrs"),
    "a log of another boot": (
        GOOD.but(event_log=boot.header() + boot.event(4, 1, b"x")),
        snp_report(),
        "azure.event-log",
    ),
}


@pytest.mark.parametrize("case", REFUSED_SNP)
def test_refused_snp(case: str) -> None:
    quote, hcl, expected = REFUSED_SNP[case]
    assert check(lambda: run_snp(quote, hcl)) == expected


def test_refused_tdx() -> None:
    assert check(lambda: run_tdx(kind=2)) == "azure.hardware"
    assert check(lambda: run_tdx(td_quote=TDX4.encode())) == "azure.report-data"
    assert check(lambda: run_tdx(td_quote=intel.SGX.encode())) == "tdx.tee"
    assert check(lambda: run_tdx(GOOD.but(key=rsa_key("evil")))) == "azure.signature"
    data = GOOD.azure(hcl_report(TDREPORT, CLAIMS, kind=4))
    endorsements = DcapEndorsements(dcap_collateral.parse(TDX_COLLATERAL.encode()))
    assert check(lambda: azure_cvm.verify_tdx(data, endorsements, now=NOW)) == "azure.hardware"


@pytest.mark.parametrize(
    ("hcl", "message"),
    [
        (b"HCLB" + snp_report()[4:], "HCLA"),
        (snp_report(version=3), "version"),
        (snp_report(status=1), "status"),
        (snp_report(reserved=1), "reserved"),
        (snp_report(data_version=2), "data version"),
        (snp_report(kind=3), "report type"),
        (snp_report(hash_type=4), "hash type"),
        (snp_report(report_size=1), "sizes"),
        (snp_report(data_size=1), "sizes"),
        (snp_report(claims_size=2**32 - 1), "4294967295"),
        (snp_report(padding=1), "padding"),
        (bytes(16 * 1024 + 1), "at most"),
        (snp_report(b"{"), "runtime claims"),
        (snp_report(b"[" * 1000), "runtime claims"),
        (snp_report(runtime_claims(keys=[])), "found 0"),
        (
            snp_report(
                runtime_claims(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": "AQAB"}] * 2)
            ),
            "found 2",
        ),
        (snp_report(runtime_claims(keys=[{"kid": "HCLAkPub", "kty": "EC", "e": "", "n": ""}])), "RSA key"),
        (
            snp_report(runtime_claims(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": "A+/="}])),
            "base64url",
        ),
        (
            snp_report(runtime_claims(keys=[{"kid": "a", "kty": "b", "e": "", "n": ""}] * 17)),
            "runtime claims",
        ),
        (snp_report(runtime_claims(None, **{"user-data": "00"})), "1 bytes"),
        (snp_report(runtime_claims(None, **{"user-data": "no"})), "hexadecimal"),
    ],
)
def test_malformed_hcl_reports(hcl: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        run_snp(hcl=hcl)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b'{"version":1,"else":2}', b'{"x":' * 100_000, GOOD.encode()],
)
def test_malformed_envelopes(data: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="Azure evidence cannot be read"):
        azure_cvm.verify_snp(data, amd.endorsements(), now=NOW)


def test_an_envelope_that_is_too_large() -> None:
    with pytest.raises(EvidenceFormatError, match="at most 4194304"):
        azure_cvm.verify_snp(b" " * (5 * 2**20), amd.endorsements(), now=NOW)
