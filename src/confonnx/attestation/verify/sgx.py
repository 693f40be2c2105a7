"""Intel SGX: from a DCAP quote and Intel's collateral to claims.

:data:`CHECKS` lists what is checked, in order; most of it is in :mod:`~confonnx.attestation.verify.dcap`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from confonnx.attestation.claims import Claims, DcapPlatform, SgxClaims, Tee
from confonnx.attestation.formats import dcap_quote
from confonnx.attestation.formats.dcap_quote import Quote, SgxBody
from confonnx.attestation.verify import dcap
from confonnx.attestation.verify.dcap import INTEL_ROOTS, DcapEndorsements, verify_quote
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.errors import EvidenceError

CHECKS: Final[CheckTable] = {
    **dcap.READING,
    "sgx.tee": ("the quote is of an enclave, not of a trust domain", "name the evidence by its kind, tdx"),
    **dcap.CHECKS,
}

ATTRIBUTES_DEBUG: Final = 1 << 1  # Intel SDM vol. 3D, ATTRIBUTES


def verify(
    evidence: bytes,
    endorsements: DcapEndorsements,
    *,
    now: datetime,
    roots: Collection[bytes] = INTEL_ROOTS,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify a quote against ``endorsements`` at ``now`` and return what it says.

    ``roots`` are SHA-256 digests of Intel root public keys. Whatever Intel's TCB status, the claims carry it
    and the policy judges; likewise ``debug``. Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or
    :class:`EndorsementError`.
    """
    with checks.run("dcap.format"):
        quote = dcap_quote.parse(evidence)
    with checks.run("sgx.tee"):
        body = _enclave(quote)
    debug = bool(body.attributes & ATTRIBUTES_DEBUG)
    result = verify_quote(quote, endorsements.collateral, debug=debug, now=now, roots=roots, checks=checks)
    return Claims(
        tee=Tee.SGX,
        measurement=body.mrenclave,
        signer=body.mrsigner,
        debug=debug,
        report_data=body.report_data,
        security_version=body.isv_svn,
        product_id=body.isv_prod_id,
        tcb_status=result.status,
        advisories=result.advisories,
        valid_until=result.valid_until,
        details=_details(body, result.platform),
    )


def _enclave(quote: Quote) -> SgxBody:
    if not isinstance(quote.body, SgxBody):
        raise EvidenceError("sgx.tee", "the quote is of a TDX trust domain, expected an SGX enclave")
    return quote.body


def _details(body: SgxBody, platform: DcapPlatform) -> SgxClaims:
    return SgxClaims(
        mrenclave=body.mrenclave,
        mrsigner=body.mrsigner,
        isv_prod_id=body.isv_prod_id,
        isv_svn=body.isv_svn,
        attributes=body.attributes,
        xfrm=body.xfrm,
        misc_select=body.misc_select,
        cpu_svn=body.cpu_svn,
        config_id=body.config_id,
        config_svn=body.config_svn,
        isv_family_id=body.isv_family_id,
        isv_ext_prod_id=body.isv_ext_prod_id,
        platform=platform,
    )
