"""Which verifier judges which evidence: the one place that names every TEE on the client's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias, assert_never

from confonnx.attestation import claims as media_types
from confonnx.attestation.claims import Claims, Tee
from confonnx.attestation.policy import Policy
from confonnx.attestation.verify import azure_cvm, dcap, nitro, sev_snp, sgx, simulated, tdx, tpm, x509
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


def verify_evidence(
    tee: Tee, evidence: bytes, endorsements: Endorsements, *, policy: Policy, now: datetime
) -> Claims:
    """What genuine ``evidence`` of ``tee`` says. Raises ``VerificationError``; whether it is welcome is
    another question.
    """
    match tee:
        case Tee.SGX:
            return sgx.verify(evidence, dcap.parse_endorsements(endorsements), now=now)
        case Tee.TDX:
            return tdx.verify(evidence, dcap.parse_endorsements(endorsements), now=now)
        case Tee.SEV_SNP:
            return sev_snp.verify(evidence, x509.parse_endorsements(endorsements, step="sev-snp"), now=now)
        case Tee.AZURE_SNP:
            amd = x509.parse_endorsements(endorsements, step="azure")
            return azure_cvm.verify_snp(evidence, amd, now=now)
        case Tee.AZURE_TDX:
            return azure_cvm.verify_tdx(evidence, dcap.parse_endorsements(endorsements), now=now)
        case Tee.NITRO:
            return nitro.verify(evidence, now=now, max_age=policy.freshness.max_statement_age)
        case Tee.TPM:
            ak_chain = x509.parse_endorsements(endorsements, step="tpm")
            return tpm.verify(evidence, ak_chain, now=now, roots=policy.tpm_roots)
        case Tee.SIMULATED:
            return simulated.verify(evidence)
        case _:
            assert_never(tee)


def merge_endorsements(bundled: Endorsements, own: Endorsements) -> Endorsements:
    """The caller's ``own`` endorsements, and the ``bundled`` ones of media types that the caller has none
    of.
    """
    types = {media_type for media_type, _ in own}
    return (*own, *(item for item in bundled if item[0] not in types))
