"""The manifest as a whole: nothing in it goes untried, and no file is another than it says."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509

from tests.evidence import (
    test_evidence_azure,
    test_evidence_dcap,
    test_evidence_nitro,
    test_evidence_sev_snp,
)
from tests.evidence.manifest import evidence, path, read
from tests.support.shared import vector

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

TRIED = {
    *(v.file for v in test_evidence_sev_snp.VECTORS),
    *(v.file for v in test_evidence_dcap.QUOTES),
    *(v.file for v in test_evidence_nitro.VECTORS),
    *(v.file for v in [*test_evidence_azure.SNP, *test_evidence_azure.REPORTS]),
    "az-tdx-vtpm/trustee-evidence-v1.json",
    "tpm/trustee-tpm-evidence.json",
    "tpm/keylime-quote.out",
}
TEES = ("sgx", "tdx", "snp", "az-snp-vtpm", "az-tdx-vtpm", "nitro", "tpm")
CRLS = [entry for entry in vector("vectors/manifest.json") if entry["kind"] == "crl"]


def test_every_piece_of_evidence_is_tried() -> None:
    assert {v.file for tee in TEES for v in evidence(tee)} == TRIED


def test_every_quote_has_its_triples() -> None:
    with_collateral = {t.quote.file for t in test_evidence_dcap.triples()}
    without = {v.file for v in test_evidence_dcap.QUOTES} - with_collateral
    assert without == {"sgx/sgx-v3-bad-pck-chain-oe.bin"}


def test_files_are_what_the_manifest_says() -> None:
    for entry in vector("vectors/manifest.json"):
        assert hashlib.sha256(path(entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]


@pytest.mark.parametrize("entry", CRLS, ids=lambda entry: str(entry["file"]))
def test_crls(entry: dict[str, dict[str, object]]) -> None:
    crl = x509.load_pem_x509_crl(read(str(entry["file"])))
    expected = entry["expected"]
    assert crl.issuer.rfc4514_string() == expected["issuer"]
    assert len(list(crl)) == expected["revoked"]
