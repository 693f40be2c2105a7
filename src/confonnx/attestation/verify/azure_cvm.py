"""Azure confidential VMs: from a vTPM quote, the paravisor's report and the hardware's evidence below it to
claims.

The paravisor takes REPORT_DATA for itself: it binds the vTPM's attestation key (AK) there. What a guest binds
is therefore the quote's qualifying data, and what was booted is in the PCRs.

:data:`SNP_CHECKS` and :data:`TDX_CHECKS` list what is checked, in order.
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
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.attestation.verify.tpm import check_quote, quote_checks
from confonnx.attestation.verify.x509 import Endorsements
from confonnx.errors import EvidenceError

_READING: Final[CheckTable] = {
    "azure.format": (
        "envelope, HCL report, quote and signature have a known layout",
        "see that the evidence is whole",
    ),
    "azure.hardware": (
        "the HCL report is of the TEE that the evidence claims, and a TD quote came along for TDX",
        "name the evidence by its kind; on TDX send the TD quote with it",
    ),
}
_BINDING: Final[CheckTable] = {
    "azure.report-data": (
        "the hardware vouches for the runtime claims, which hold the AK",
        "do not trust it: the AK may be anybody's",
    ),
    **quote_checks("azure"),
}
SNP_CHECKS: Final[CheckTable] = {
    "azure.endorsements": (
        "the certificates and CRLs can be read",
        "get them from AMD (--endorsements fetch), or give them as files",
    ),
    **_READING,
    **sev_snp.CHECKS,
    "azure.vmpl": (
        "the paravisor asked for the report, not the guest above it",
        "do not trust it: a guest could have made it up",
    ),
    **_BINDING,
}
TDX_CHECKS: Final[CheckTable] = {**_READING, **tdx.CHECKS, **_BINDING}

_PARAVISOR_VMPL: Final = 0


def verify_snp(
    data: bytes,
    endorsements: Endorsements,
    *,
    now: datetime,
    roots: Collection[bytes] = AMD_ROOTS,
    dangerous_skip_revocation: bool = False,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify the evidence of a VM on SEV-SNP; the arguments are those of :func:`sev_snp.verify`.

    Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or :class:`EndorsementError`.
    """
    parsed, hcl = _parse(data, HardwareReport.SNP, checks)
    hardware = sev_snp.verify(
        hcl.hardware[: snp_report.REPORT_SIZE],
        endorsements,
        now=now,
        roots=roots,
        dangerous_skip_revocation=dangerous_skip_revocation,
        checks=checks,
    )
    details = hardware.details
    assert isinstance(details, SevSnpClaims)
    with checks.run("azure.vmpl"):
        _check_vmpl(details)
    return _claims(parsed, hcl, hardware, details.measurement, Tee.AZURE_SNP, checks)


def verify_tdx(
    data: bytes,
    endorsements: DcapEndorsements,
    *,
    now: datetime,
    roots: Collection[bytes] = INTEL_ROOTS,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify the evidence of a VM on TDX; the arguments are those of :func:`tdx.verify`.

    Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or :class:`EndorsementError`.
    """
    parsed, hcl = _parse(data, HardwareReport.TDX, checks)
    with checks.run("azure.hardware"):
        quote = _td_quote(parsed)
    hardware = tdx.verify(quote, endorsements, now=now, roots=roots, checks=checks)
    details = hardware.details
    assert isinstance(details, TdxClaims)
    return _claims(parsed, hcl, hardware, details.mrtd, Tee.AZURE_TDX, checks)


def _parse(data: bytes, expected: HardwareReport, checks: Checks) -> tuple[AzureEvidence, HclReport]:
    with checks.run("azure.format"):
        parsed = evidence.parse_azure(data)
        hcl = azure_hcl.parse(parsed.hcl_report)
    with checks.run("azure.hardware"):
        _check_hardware(hcl, expected)
    return parsed, hcl


def _check_hardware(hcl: HclReport, expected: HardwareReport) -> None:
    if hcl.kind is not expected:
        raise EvidenceError(
            "azure.hardware", f"the HCL report holds a report of {hcl.kind.name}, expected {expected.name}"
        )


def _td_quote(parsed: AzureEvidence) -> bytes:
    if parsed.td_quote is None:
        raise EvidenceError(
            "azure.hardware", "no TD quote came along; the TDREPORT inside proves nothing away from its CPU"
        )
    return parsed.td_quote


def _check_vmpl(report: SevSnpClaims) -> None:
    if report.vmpl != _PARAVISOR_VMPL:
        raise EvidenceError(
            "azure.vmpl",
            "the SNP report was not made for VMPL 0, so not for the paravisor: a guest could have made it up",
        )


def _claims(
    parsed: AzureEvidence,
    hcl: HclReport,
    hardware: Claims,
    launch: bytes,
    tee: Tee,
    checks: Checks,
) -> Claims:
    """From the hardware's claims to those of the VM: what the AK says, for which the hardware vouches."""
    assert isinstance(hardware.details, SevSnpClaims | TdxClaims)
    with checks.run("azure.report-data"):
        _check_report_data(hardware, hcl)
    with checks.run("azure.key"):
        key = _attestation_key(hcl)
    quoted = check_quote(parsed, key, step="azure", checks=checks)
    return replace(
        hardware,
        tee=tee,
        measurement=azure_measurement(launch, quoted.pcrs),
        report_data=quoted.quote.extra_data,
        details=AzureClaims(
            hardware=hardware.details,
            pcrs=quoted.pcrs,
            events=quoted.events,
            vm_id=hcl.vm_id,
            secure_boot=hcl.secure_boot,
            user_data=hcl.user_data,
            firmware_version=quoted.quote.firmware_version,
        ),
    )


def _check_report_data(hardware: Claims, hcl: HclReport) -> None:
    if not hmac.compare_digest(hardware.report_data, hcl.binding):
        raise EvidenceError(
            "azure.report-data",
            "the hardware does not vouch for the runtime claims, so not for the AK in them",
        )


def _attestation_key(hcl: HclReport) -> rsa.RSAPublicKey:
    """Its strength is looked at by ``check_quote``."""
    try:
        return rsa.RSAPublicNumbers(hcl.ak_exponent, hcl.ak_modulus).public_key()
    except ValueError as error:
        raise EvidenceError("azure.key", f"the key in the runtime claims is no RSA key: {error}") from error
