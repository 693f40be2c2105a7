"""Real evidence of Azure confidential VMs, in the form that other projects published it, put into ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import (
    AzureClaims,
    Claims,
    SevSnpClaims,
    Tee,
    azure_measurement,
)
from confonnx.attestation.formats import azure_hcl, dcap_collateral, snp_report
from confonnx.attestation.formats.azure_hcl import HardwareReport
from confonnx.attestation.formats.evidence import AzureEvidence, encode
from confonnx.attestation.verify import azure_cvm, sev_snp
from confonnx.attestation.verify.dcap import DcapEndorsements
from confonnx.attestation.verify.x509 import Endorsements
from confonnx.errors import EvidenceError
from tests.evidence.manifest import Vector, evidence, one, read

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

SNP = [v for v in evidence("az-snp-vtpm") if v.file.endswith(".json")]
REPORTS = [v for t in ("az-snp-vtpm", "az-tdx-vtpm") for v in evidence(t) if "hcl-report" in v.file]


def published(v: Vector) -> tuple[AzureEvidence, bytes | None]:
    """Our envelope around the parts of another project's, and the VCEK's DER."""
    document = json.loads(v.data)
    if document.get("version") == 1:
        quote = {name: bytes.fromhex(document["tpm_quote"][name]) for name in ("message", "signature")}
        pcrs = document["tpm_quote"]["pcrs"]
        report = unbase64(document["hcl_report"])
        vcek = unbase64(document["vcek"]) if "vcek" in document else None
    else:
        quote = {name: bytes(document["quote"][name]) for name in ("message", "signature")}
        pcrs = [bytes(value).hex() for value in document["quote"]["pcrs"]]
        report = bytes(document["report"])
        vcek = x509.load_pem_x509_certificate(document["vcek"].encode()).public_bytes(Encoding.DER)
    td_quote = unbase64(document["td_quote"]) if "td_quote" in document else None
    values = {"sha256": {str(index): value for index, value in enumerate(pcrs)}}
    return AzureEvidence(1, quote["message"], quote["signature"], values, report, td_quote), vcek


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify_snp(v: Vector) -> Claims:
    envelope, vcek = published(v)
    assert vcek is not None
    assert v.now is not None
    chain = x509.load_pem_x509_certificates(read(v.goes_with[0]))
    endorsements = Endorsements((x509.load_der_x509_certificate(vcek), *chain), ())
    return azure_cvm.verify_snp(encode(envelope), endorsements, now=v.now, dangerous_skip_revocation=True)


@pytest.mark.parametrize("v", SNP, ids=lambda v: v.file)
def test_snp(v: Vector) -> None:
    claims, expected = verify_snp(v), v.expected
    assert v.verdict == "valid"
    assert claims.tee is Tee.AZURE_SNP
    assert claims.debug is False
    assert claims.report_data.hex() == expected["tpm_quote"]["nonce"]
    details = claims.details
    assert isinstance(details, AzureClaims)
    assert {str(p.index): p.value.hex() for p in details.pcrs} == expected["tpm_quote"]["pcrs_sha256"]
    assert details.vm_id == expected["hcl"]["vm_configuration"]["vmUniqueId"]
    assert details.secure_boot is expected["hcl"]["vm_configuration"]["secure-boot"]
    assert details.user_data.hex() == expected["hcl"]["user_data"]
    assert f"{details.firmware_version:016x}" == expected["tpm_quote"]["firmware_version"]
    assert isinstance(details.hardware, SevSnpClaims)
    assert details.hardware.measurement.hex() == expected["snp"]["measurement"]
    assert claims.measurement == azure_measurement(details.hardware.measurement, details.pcrs)
    assert claims.signer == details.hardware.id_key_digest


def test_tdx_that_lets_the_host_inject_exceptions() -> None:
    v = one("az-tdx-vtpm/trustee-evidence-v1.json")
    assert v.verdict == "genuine_but_rejected"
    assert "SEPT_VE_DISABLE" in v.expected["why"]
    assert v.now is not None
    envelope, _ = published(v)
    collateral = dcap_collateral.parse(read(v.goes_with[0]))
    with pytest.raises(EvidenceError) as caught:
        azure_cvm.verify_tdx(encode(envelope), DcapEndorsements(collateral), now=v.now)
    assert caught.value.check == "tdx.attributes"


@pytest.mark.parametrize("v", REPORTS, ids=lambda v: v.file)
def test_hcl_reports(v: Vector) -> None:
    report, expected = azure_hcl.parse(v.data), v.expected
    hcl: dict[str, Any] = expected["hcl"]
    assert report.kind.name.lower() == hcl["hw_report_type"]
    assert report.binding.hex() == hcl["var_data_sha256"] + "00" * 32
    assert report.vm_id == hcl["vm_configuration"]["vmUniqueId"]
    assert report.ak_modulus.bit_length() == 2048
    if report.kind is HardwareReport.SNP:
        snp = snp_report.parse(report.hardware)
        assert snp.report_data == report.binding
        assert snp.measurement.hex() == expected["snp"]["measurement"]


def test_a_bare_report_verifies_to_amd() -> None:
    v = one("az-snp-vtpm/trustee-hcl-report-milan-v2.bin")
    assert v.now is not None
    certificates = tuple(c for file in v.goes_with for c in x509.load_pem_x509_certificates(read(file)))
    report = azure_hcl.parse(v.data)
    claims = sev_snp.verify(
        report.hardware, Endorsements(certificates, ()), now=v.now, dangerous_skip_revocation=True
    )
    assert claims.report_data == report.binding


def test_evidence_of_one_tee_labelled_as_another() -> None:
    v = one("az-tdx-vtpm/trustee-evidence-v1.json")
    envelope, _ = published(v)
    assert v.now is not None
    with pytest.raises(EvidenceError) as caught:
        azure_cvm.verify_snp(encode(envelope), Endorsements((), ()), now=v.now)
    assert caught.value.check == "azure.hardware"
