"""Which verifier judges which evidence: the one place that names every TEE on the client's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias, assert_never

from confonnx.attestation import claims as media_types
from confonnx.attestation.claims import Claims, Tee
from confonnx.attestation.policy import Policy
from confonnx.attestation.verify import azure_cvm, dcap, nitro, sev_snp, sgx, simulated, tdx, tpm, x509
from confonnx.attestation.verify.steps import Checks, CheckTable
from confonnx.errors import EvidenceFormatError

EVIDENCE_TYPES: Final[Mapping[str, Tee]] = {
    media_types.SGX_QUOTE: Tee.SGX,
    media_types.TDX_QUOTE: Tee.TDX,
    media_types.SEV_SNP_REPORT: Tee.SEV_SNP,
    media_types.AZURE_SNP_EVIDENCE: Tee.AZURE_SNP,
    media_types.AZURE_TDX_EVIDENCE: Tee.AZURE_TDX,
    media_types.NITRO_DOCUMENT: Tee.NITRO,
    media_types.TPM_EVIDENCE: Tee.TPM,
    simulated.SIMULATED_EVIDENCE: Tee.SIMULATED,
}

Endorsements: TypeAlias = Sequence[tuple[str, bytes]]


def tee_of_evidence(evidence_type: str) -> Tee:
    """The TEE whose evidence has this media type. Raises ``EvidenceFormatError``."""
    tee = EVIDENCE_TYPES.get(evidence_type)
    if tee is None:
        known = ", ".join(EVIDENCE_TYPES)
        raise EvidenceFormatError(
            f"evidence of the media type {evidence_type!r} is unknown; known are {known}"
        )
    return tee


def checks_of(tee: Tee) -> CheckTable:
    """What ``verify_evidence`` checks, in order."""
    match tee:
        case Tee.SGX:
            return sgx.CHECKS
        case Tee.TDX:
            return tdx.CHECKS
        case Tee.SEV_SNP:
            return sev_snp.CHECKS
        case Tee.AZURE_SNP:
            return azure_cvm.SNP_CHECKS
        case Tee.AZURE_TDX:
            return azure_cvm.TDX_CHECKS
        case Tee.NITRO:
            return nitro.CHECKS
        case Tee.TPM:
            return tpm.CHECKS
        case Tee.SIMULATED:
            return simulated.CHECKS
        case _:
            assert_never(tee)


def verify_evidence(
    tee: Tee, evidence: bytes, endorsements: Endorsements, *, policy: Policy, now: datetime, checks: Checks
) -> Claims:
    """What genuine ``evidence`` of ``tee`` says. Raises ``VerificationError``; whether it is welcome is
    another question. ``checks`` is told what became of each of ``checks_of(tee)``.
    """
    match tee:
        case Tee.SGX:
            return sgx.verify(evidence, _collateral(endorsements, checks), now=now, checks=checks)
        case Tee.TDX:
            return tdx.verify(evidence, _collateral(endorsements, checks), now=now, checks=checks)
        case Tee.SEV_SNP:
            amd = _certificates(endorsements, "sev-snp", checks)
            return sev_snp.verify(evidence, amd, now=now, checks=checks)
        case Tee.AZURE_SNP:
            amd = _certificates(endorsements, "azure", checks)
            return azure_cvm.verify_snp(evidence, amd, now=now, checks=checks)
        case Tee.AZURE_TDX:
            return azure_cvm.verify_tdx(evidence, _collateral(endorsements, checks), now=now, checks=checks)
        case Tee.NITRO:
            max_age = policy.freshness.max_statement_age
            return nitro.verify(evidence, now=now, max_age=max_age, checks=checks)
        case Tee.TPM:
            ak_chain = _certificates(endorsements, "tpm", checks)
            return tpm.verify(evidence, ak_chain, now=now, roots=policy.tpm_roots, checks=checks)
        case Tee.SIMULATED:
            return simulated.verify(evidence, checks=checks)
        case _:
            assert_never(tee)


def _collateral(endorsements: Endorsements, checks: Checks) -> dcap.DcapEndorsements:
    with checks.run("dcap.collateral"):
        return dcap.parse_endorsements(endorsements)


def _certificates(endorsements: Endorsements, step: str, checks: Checks) -> x509.Endorsements:
    with checks.run(f"{step}.endorsements"):
        return x509.parse_endorsements(endorsements, step=step)


def merge_endorsements(bundled: Endorsements, own: Endorsements) -> Endorsements:
    """The caller's ``own`` endorsements, and the ``bundled`` ones of media types that the caller has none
    of.
    """
    types = {media_type for media_type, _ in own}
    return (*own, *(item for item in bundled if item[0] not in types))
