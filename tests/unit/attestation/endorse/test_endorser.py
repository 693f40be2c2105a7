"""Who is asked in which mode, and what the cache gives: by the clock, and when the vendor is away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation import claims as media_types
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.exchange import Endorsements
from confonnx.attestation.endorse.options import AMD_KDS, EndorsementOptions, Mode, TcbUpdate, parse_mode
from confonnx.attestation.formats.evidence import AzureEvidence, encode
from confonnx.attestation.verify import dcap, sev_snp, sgx
from confonnx.attestation.verify.simulated import SIMULATED_EVIDENCE
from confonnx.attestation.verify.x509 import parse_endorsements
from confonnx.errors import (
    ConfigurationError,
    EndorsementError,
    EvidenceFormatError,
    OverloadedError,
    TransportError,
)
from tests.evidence.manifest import read
from tests.support.authorities import amd, intel
from tests.support.authorities.pki import DAY, NOW, crl, pem
from tests.support.fake_vendors import FakeVendors, Page, fake_vendors, kds_pages, pcs_pages

FMSPC = intel.FMSPC.hex()
VCEK = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
KDS_PAGES = kds_pages(
    VCEK, amd.Chip().vek().build(), pem(amd.ASK.build(), amd.ARK.build()), crl(amd.ARK), "Milan"
)
CRL = "/vcek/v1/Milan/crl"
REPORT = amd.report()


@pytest.fixture
def vendors() -> Iterator[FakeVendors]:
    """Both services with what REPORT and the SGX quote need."""
    with fake_vendors(
        KDS_PAGES | pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=FMSPC)
    ) as vendors:
        yield vendors


def collect(
    vendors: FakeVendors,
    mode: Mode,
    *,
    cache: Path | None = None,
    now: datetime = NOW,
    kind: str = media_types.SEV_SNP_REPORT,
    evidence: bytes = REPORT,
) -> Endorsements:
    options = EndorsementOptions(
        mode=mode, cache_directory=cache, amd_kds_url=vendors.url, intel_pcs_url=vendors.url
    )
    endorser = Endorser(options)
    try:
        return endorser.collect(kind, evidence, (), now=now, timeout=10)
    finally:
        endorser.close()


def verify(found: Endorsements, now: datetime = NOW) -> None:
    sev_snp.verify(REPORT, parse_endorsements(found, step="sev-snp"), now=now, roots=amd.roots())


def test_bundled_asks_nobody(vendors: FakeVendors, tmp_path: Path) -> None:
    assert collect(vendors, Mode.BUNDLED, cache=tmp_path) == ()
    assert vendors.asked == []
    assert list(tmp_path.iterdir()) == []


def test_fetch_asks_each_time_and_keeps(vendors: FakeVendors, tmp_path: Path) -> None:
    verify(collect(vendors, Mode.FETCH, cache=tmp_path))
    verify(collect(vendors, Mode.FETCH, cache=tmp_path))
    assert vendors.asked == list(KDS_PAGES) * 2
    assert len(list(tmp_path.iterdir())) == 3
    found = collect(vendors, Mode.CACHED, cache=tmp_path)
    assert vendors.asked == list(KDS_PAGES) * 2
    verify(found)


def test_fetch_without_a_cache(vendors: FakeVendors) -> None:
    verify(collect(vendors, Mode.FETCH))


def test_a_quotes_collateral_is_cached_with_its_chains(vendors: FakeVendors, tmp_path: Path) -> None:
    quote = intel.SGX.encode()
    for _ in range(2):
        found = collect(vendors, Mode.CACHED, cache=tmp_path, kind=media_types.SGX_QUOTE, evidence=quote)
        sgx.verify(quote, dcap.parse_endorsements(found), now=NOW, roots=intel.roots())
    assert len(vendors.asked) == 4


def test_what_is_renewed_is_asked_for_after_a_day_and_certificates_are_not(
    vendors: FakeVendors, tmp_path: Path
) -> None:
    collect(vendors, Mode.CACHED, cache=tmp_path)
    collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW + timedelta(hours=23))
    assert vendors.asked == list(KDS_PAGES)
    collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW + timedelta(hours=24))
    assert vendors.asked == [*KDS_PAGES, CRL]


def test_a_clock_that_was_ahead_does_not_keep_a_document(vendors: FakeVendors, tmp_path: Path) -> None:
    collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW + 10 * DAY)
    collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW)
    assert vendors.asked == [*KDS_PAGES, CRL]


def test_a_busy_vendor_is_no_matter_while_the_cache_is_valid(vendors: FakeVendors, tmp_path: Path) -> None:
    vendors.pages[CRL] = Page(crl(amd.ARK, next_update=NOW + 5 * DAY).public_bytes(Encoding.DER))
    collect(vendors, Mode.CACHED, cache=tmp_path)
    vendors.pages[CRL] = Page(status=429, fields={"retry-after": "3600"})
    verify(collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW + 2 * DAY), NOW + 2 * DAY)
    assert vendors.asked.count(CRL) == 2


@pytest.mark.parametrize("status", [429, 500])
def test_an_expired_entry_is_never_served(vendors: FakeVendors, tmp_path: Path, status: int) -> None:
    collect(vendors, Mode.CACHED, cache=tmp_path)
    vendors.pages[CRL] = Page(status=status, fields={"retry-after": "3600"})
    with pytest.raises(
        EndorsementError, match="AMD's CRL for Milan in the cache expired at 2026-03-02"
    ) as caught:
        collect(vendors, Mode.CACHED, cache=tmp_path, now=NOW + DAY + timedelta(seconds=1))
    assert caught.value.check == "endorse.expired"


def test_an_expired_entry_is_replaced(vendors: FakeVendors, tmp_path: Path) -> None:
    later = NOW + 20 * DAY
    collect(vendors, Mode.CACHED, cache=tmp_path)
    fresh = crl(amd.ARK, last_update=later, next_update=later + DAY)
    vendors.pages[CRL] = Page(fresh.public_bytes(Encoding.DER))
    verify(collect(vendors, Mode.CACHED, cache=tmp_path, now=later), later)


def test_an_empty_cache_and_a_vendor_that_is_away(vendors: FakeVendors, tmp_path: Path) -> None:
    vendors.pages[VCEK] = Page(status=429, fields={"retry-after": "3600"})
    with pytest.raises(OverloadedError):
        collect(vendors, Mode.CACHED, cache=tmp_path)
    vendors.pages[VCEK] = Page(status=500)
    with pytest.raises(TransportError):
        collect(vendors, Mode.CACHED, cache=tmp_path)


def test_garbage_never_enters_the_cache(vendors: FakeVendors, tmp_path: Path) -> None:
    vendors.pages[VCEK] = Page(b"garbage")
    with pytest.raises(EndorsementError):
        collect(vendors, Mode.CACHED, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_fetched_again(vendors: FakeVendors, tmp_path: Path) -> None:
    collect(vendors, Mode.CACHED, cache=tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    verify(collect(vendors, Mode.CACHED, cache=tmp_path))
    assert vendors.asked == list(KDS_PAGES) * 2


def test_what_comes_out_of_the_cache_is_verified(vendors: FakeVendors, tmp_path: Path) -> None:
    forged = crl(amd.ARK, key=amd.ASK.key)
    vendors.pages[CRL] = Page(forged.public_bytes(Encoding.DER))
    for _ in range(2):
        found = collect(vendors, Mode.CACHED, cache=tmp_path)
        with pytest.raises(EndorsementError) as caught:
            verify(found)
        assert caught.value.check == "sev-snp.crl"
    assert vendors.asked.count(CRL) == 1


@pytest.mark.parametrize("kind", [media_types.NITRO_DOCUMENT, media_types.TPM_EVIDENCE, SIMULATED_EVIDENCE])
def test_evidence_that_brings_its_own_chain_asks_nobody(vendors: FakeVendors, kind: str) -> None:
    assert collect(vendors, Mode.FETCH, kind=kind, evidence=b"whatever") == ()
    assert vendors.asked == []


def azure(hcl_report: bytes, td_quote: bytes | None = None) -> bytes:
    return encode(AzureEvidence(1, b"", b"", {}, hcl_report=hcl_report, td_quote=td_quote))


def test_an_azure_vm_is_asked_about_by_the_report_inside(vendors: FakeVendors) -> None:
    evidence = azure(read("az-snp-vtpm/trustee-hcl-report-milan-v2.bin"))
    with pytest.raises(EndorsementError, match="no such document"):
        collect(vendors, Mode.FETCH, kind=media_types.AZURE_SNP_EVIDENCE, evidence=evidence)
    assert [path.split("/")[3] for path in vendors.asked] == ["Milan", "Genoa"]


def test_an_azure_vm_is_asked_about_by_the_quote_beside(vendors: FakeVendors) -> None:
    hcl_report = read("az-tdx-vtpm/trustee-hcl-report.bin")
    evidence = azure(hcl_report, read("az-tdx-vtpm/trustee-td-quote.bin"))
    with pytest.raises(EndorsementError, match="no such document"):
        collect(vendors, Mode.FETCH, kind=media_types.AZURE_TDX_EVIDENCE, evidence=evidence)
    assert vendors.asked[0].startswith("/tdx/certification/v4/tcb?fmspc=")
    with pytest.raises(EndorsementError, match="no TD quote"):
        collect(vendors, Mode.FETCH, kind=media_types.AZURE_TDX_EVIDENCE, evidence=azure(hcl_report))


def test_unknown_evidence(vendors: FakeVendors) -> None:
    with pytest.raises(EvidenceFormatError):
        collect(vendors, Mode.FETCH, kind="text/plain")
    with pytest.raises(EvidenceFormatError):
        collect(vendors, Mode.FETCH, evidence=b"")
    assert vendors.asked == []


@pytest.mark.parametrize(
    "url",
    ["kds.test", "ftp://kds.test", "https://kds.test/", "https://user@kds.test", "https://kds.test?x=1", ""],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="amd_kds_url"):
        EndorsementOptions(amd_kds_url=url)
    with pytest.raises(ConfigurationError, match="intel_pcs_url"):
        EndorsementOptions(intel_pcs_url=url)


def test_options() -> None:
    assert EndorsementOptions().mode is Mode.BUNDLED
    assert EndorsementOptions().tcb_update is TcbUpdate.STANDARD
    assert EndorsementOptions(intel_pcs_url="http://[::1]:8081/pccs").amd_kds_url == AMD_KDS
    assert parse_mode("fetch") is Mode.FETCH
    with pytest.raises(ConfigurationError, match="bundled, fetch, cached"):
        parse_mode("always")


def test_the_cache_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    Endorser(EndorsementOptions(mode=Mode.FETCH)).close()
    assert list(tmp_path.iterdir()) == []
    Endorser(EndorsementOptions(mode=Mode.CACHED)).close()
    assert (tmp_path / ".cache/confonnx/endorsements").is_dir()


def test_the_cache_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="give a cache directory"):
        Endorser(EndorsementOptions(mode=Mode.CACHED))
