"""Azure confidential VMs: from a vTPM quote, the paravisor's report and the hardware's evidence below it to
claims.

The paravisor takes REPORT_DATA for itself: it binds the vTPM's attestation key (AK) there. What a guest binds
is therefore the quote's qualifying data, and what was booted is in the PCRs.

Steps:

1. ``EvidenceFormatError``: envelope, HCL report, quote and signature have a known layout
2. ``azure.hardware``: the HCL report is of the TEE that the evidence claims, and a TD quote came along for
   TDX
3. ``azure.endorsements``, and the steps of :mod:`~confonnx.attestation.verify.sev_snp` or
   :mod:`~confonnx.attestation.verify.tdx`
4. ``azure.vmpl``: SNP: the paravisor asked for the report, not the guest above it
5. ``azure.report-data``: REPORT_DATA is the hash of the runtime claims, which hold the AK
6. ``azure.key``: the AK is a strong RSA key
7. ``azure.signature``: the AK signed the quote
8. ``azure.pcrs``: the PCR values are those of the quote
9. ``azure.event-log``: an event log that came along replays to them
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from confonnx.attestation.claims import (
    AzureClaims,
    Claims,
    SevSnpClaims,
    TdxClaims,
    Tee,
    azure_measurement,
)
from confonnx.attestation.formats import azure_hcl, evidence, snp_report
from confonnx.attestation.formats.azure_hcl import HardwareReport, HclReport
from confonnx.attestation.formats.evidence import AzureEvidence
from confonnx.attestation.verify import sev_snp, tdx
from confonnx.attestation.verify.dcap import INTEL_ROOTS, DcapEndorsements
from confonnx.attestation.verify.sev_snp import AMD_ROOTS
from confonnx.attestation.verify.tpm import check_quote
from confonnx.attestation.verify.x509 import Endorsements
from confonnx.errors import EvidenceError

_PARAVISOR_VMPL: Final = 0


def verify_snp(
    data: bytes,
    endorsements: Endorsements,
    *,
    now: datetime,
    roots: Collection[bytes] = AMD_ROOTS,
    dangerous_skip_revocation: bool = False,
) -> Claims:
    """Verify the evidence of a VM on SEV-SNP; the arguments are those of :func:`sev_snp.verify`.

    Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or :class:`EndorsementError`.
    """
    parsed, hcl = _parse(data, HardwareReport.SNP)
    hardware = sev_snp.verify(  # step 3
        hcl.hardware[: snp_report.REPORT_SIZE],
        endorsements,
        now=now,
        roots=roots,
        dangerous_skip_revocation=dangerous_skip_revocation,
    )
    details = hardware.details
    if not isinstance(details, SevSnpClaims) or details.vmpl != _PARAVISOR_VMPL:  # step 4
        raise EvidenceError(
            "azure.vmpl",
            "the SNP report was not made for VMPL 0, so not for the paravisor: a guest could have made it up",
        )
    return _claims(parsed, hcl, hardware, details, details.measurement, Tee.AZURE_SNP)


def verify_tdx(
    data: bytes, endorsements: DcapEndorsements, *, now: datetime, roots: Collection[bytes] = INTEL_ROOTS
) -> Claims:
    """Verify the evidence of a VM on TDX; the arguments are those of :func:`tdx.verify`.

    Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or :class:`EndorsementError`.
    """
    parsed, hcl = _parse(data, HardwareReport.TDX)
    if parsed.td_quote is None:
        raise EvidenceError(
            "azure.hardware", "no TD quote came along; the TDREPORT inside proves nothing away from its CPU"
        )
    hardware = tdx.verify(parsed.td_quote, endorsements, now=now, roots=roots)  # step 3
    details = hardware.details
    assert isinstance(details, TdxClaims)
    return _claims(parsed, hcl, hardware, details, details.mrtd, Tee.AZURE_TDX)


def _parse(data: bytes, expected: HardwareReport) -> tuple[AzureEvidence, HclReport]:
    """Steps 1 and 2."""
    parsed = evidence.parse_azure(data)
    hcl = azure_hcl.parse(parsed.hcl_report)
    if hcl.kind is not expected:
        raise EvidenceError(
            "azure.hardware", f"the HCL report holds a report of {hcl.kind.name}, expected {expected.name}"
        )
    return parsed, hcl


def _claims(
    parsed: AzureEvidence,
    hcl: HclReport,
    hardware: Claims,
    details: SevSnpClaims | TdxClaims,
    launch: bytes,
    tee: Tee,
) -> Claims:
    """Steps 5 to 9: from the hardware's claims to those of the VM."""
    if not hmac.compare_digest(hardware.report_data, hcl.binding):  # step 5
        raise EvidenceError(
            "azure.report-data",
            "the hardware does not vouch for the runtime claims, so not for the AK in them",
        )
    quoted = check_quote(parsed, _attestation_key(hcl), step="azure")  # steps 7 to 9
    return replace(
        hardware,
        tee=tee,
        measurement=azure_measurement(launch, quoted.pcrs),
        report_data=quoted.quote.extra_data,
        details=AzureClaims(
            hardware=details,
            pcrs=quoted.pcrs,
            events=quoted.events,
            vm_id=hcl.vm_id,
            secure_boot=hcl.secure_boot,
            user_data=hcl.user_data,
            firmware_version=quoted.quote.firmware_version,
        ),
    )


def _attestation_key(hcl: HclReport) -> rsa.RSAPublicKey:
    """Step 6; its strength is looked at by ``check_quote``."""
    try:
        return rsa.RSAPublicNumbers(hcl.ak_exponent, hcl.ak_modulus).public_key()
    except ValueError as error:
        raise EvidenceError("azure.key", f"the key in the runtime claims is no RSA key: {error}") from error
