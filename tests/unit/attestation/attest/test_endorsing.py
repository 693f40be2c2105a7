"""Endorsements that the server fetches: what takes whose place, and what happens when they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.attest import sev_snp
from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.attest.endorsing import EndorsingAttester
from confonnx.attestation.attest.sgx import SgxAttester
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tdx import TdxAttester
from confonnx.attestation.claims import DCAP_COLLATERAL, EVENT_LOG, Tee
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.options import EndorsementOptions, Mode
from confonnx.attestation.verify import dcap, sgx
from confonnx.attestation.verify import sev_snp as snp_verifier
from confonnx.attestation.verify.x509 import parse_endorsements
from confonnx.errors import TeeError
from tests.support.authorities import amd, boot, intel
from tests.support.authorities.intel import SGX, TDX4, sgx_body, td_body
from tests.support.authorities.pki import NOW, crl, pem
from tests.support.fake_kernel import FakeGramine, no_wait
from tests.support.fake_tsm import FakeTsm, table
from tests.support.fake_vendors import FakeVendors, fake_vendors, kds_pages, pcs_pages

VCEK = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
REPORT_DATA = bytes(range(64))
CCEL = "/sys/firmware/acpi/tables/data/CCEL"
FMSPC = intel.FMSPC.hex()


@dataclass(frozen=True)
class Site:
    """The vendors' services, and an endorser that asks them."""

    vendors: FakeVendors
    endorser: Endorser

    def attester(self, inner: Attester) -> EndorsingAttester:
        return EndorsingAttester(inner, self.endorser, lambda: NOW)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    pages = kds_pages(
        VCEK, amd.Chip().vek().build(), pem(amd.ASK.build(), amd.ARK.build()), crl(amd.ARK), "Milan"
    )
    pages |= pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=FMSPC)
    pages |= pcs_pages(intel.TDX_COLLATERAL.encode(), tee="tdx", fmspc=FMSPC)
    with fake_vendors(pages) as vendors:
        endorser = Endorser(EndorsementOptions(Mode.CACHED, tmp_path / "cache", vendors.url, vendors.url))
        try:
            yield Site(vendors, endorser)
        finally:
            endorser.close()


def snp(auxblob: bytes = b"") -> Attester:
    files = FakeTsm(lambda report_data: amd.report({0x50: report_data}), auxblob=auxblob)
    found = sev_snp.find(files, lambda *_: None, wait=no_wait)
    assert found is not None
    return found


def test_snp_from_a_host_without_certificates(site: Site) -> None:
    attester = site.attester(snp())
    assert (attester.tee, attester.evidence_type) == (Tee.SEV_SNP, snp().evidence_type)
    for _ in range(3):
        evidence, endorsements = attester.collect(REPORT_DATA)
        parsed = parse_endorsements(endorsements, step="sev-snp")
        claims = snp_verifier.verify(evidence, parsed, now=NOW, roots=amd.roots())
        assert claims.report_data == REPORT_DATA
    assert len(site.vendors.asked) == 3  # VCEK, chain and CRL: once each, whatever clients ask


def test_what_was_fetched_takes_the_place_of_the_hosts(site: Site) -> None:
    stale = table({"63da758d-e664-4564-adc5-f4b93be8accd": amd.ARK.build().public_bytes(Encoding.DER)})
    evidence, endorsements = site.attester(snp(stale)).collect(REPORT_DATA)
    snp_verifier.verify(
        evidence, parse_endorsements(endorsements, step="sev-snp"), now=NOW, roots=amd.roots()
    )


def test_sgx(site: Site) -> None:
    gramine = FakeGramine(lambda report_data: SGX.but(body=sgx_body(report_data=report_data)).encode())
    evidence, endorsements = site.attester(SgxAttester(gramine)).collect(REPORT_DATA)
    claims = sgx.verify(evidence, dcap.parse_endorsements(endorsements), now=NOW, roots=intel.roots())
    assert claims.report_data == REPORT_DATA


def test_an_event_log_stays_beside_the_collateral(site: Site) -> None:
    log = boot.header((0x0C,)) + boot.event(2, 1, b"kernel", (0x0C,))
    body = td_body(rtmr1=boot.extended(b"kernel", bank="sha384"))
    files = FakeTsm(lambda _: TDX4.but(body=body).encode(), "tdx_guest", contents={CCEL: log})
    _, endorsements = site.attester(TdxAttester(files, no_wait)).collect(REPORT_DATA)
    assert {kind for kind, _ in endorsements} == {DCAP_COLLATERAL, EVENT_LOG}


def test_a_tee_that_needs_none_asks_nobody(site: Site) -> None:
    simulated = SimulatedAttester(bytes(32))
    assert site.attester(simulated).collect(REPORT_DATA) == simulated.collect(REPORT_DATA)
    assert site.vendors.asked == []


@pytest.mark.parametrize("status", [404, 500])
def test_endorsements_that_cannot_be_had(site: Site, status: int) -> None:
    site.vendors.pages[VCEK].status = status
    with pytest.raises(TeeError, match=r"evidence of sev-snp cannot be fetched.*--fetch-endorsements"):
        site.attester(snp()).collect(REPORT_DATA)


def test_evidence_that_cannot_be_read(site: Site) -> None:
    gramine = FakeGramine(lambda _: b"no quote")
    with pytest.raises(TeeError, match="cannot be fetched"):
        site.attester(SgxAttester(gramine)).collect(REPORT_DATA)
