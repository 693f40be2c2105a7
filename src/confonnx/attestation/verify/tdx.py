"""Intel TDX: from a TD quote and Intel's collateral to claims.

:data:`CHECKS` lists what is checked, in order; most of it is in :mod:`~confonnx.attestation.verify.dcap`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from confonnx.attestation.claims import Claims, DcapPlatform, LoggedEvent, TdxClaims, Tee, tdx_measurement
from confonnx.attestation.formats import dcap_quote
from confonnx.attestation.formats.dcap_quote import Quote, TdBody
from confonnx.attestation.formats.event_log import RTMR_BANK, RTMR_COUNT, EventLog, attested, replay
from confonnx.attestation.verify import dcap
from confonnx.attestation.verify.dcap import INTEL_ROOTS, DcapEndorsements, verify_quote
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.errors import EvidenceError

CHECKS: Final[CheckTable] = {
    **dcap.READING,
    "tdx.tee": ("the quote is of a trust domain, not of an enclave", "name the evidence by its kind, sgx"),
    "tdx.attributes": (
        "TDATTRIBUTES has known bits only, and SEPT_VE_DISABLE is set",
        "launch the domain with SEPT_VE_DISABLE",
    ),
    "tdx.migration": (
        "nobody can move the domain elsewhere: it is not MIGRATABLE, and no service TD is bound to it",
        "launch the domain without migration",
    ),
    **dcap.CHECKS,
    "tdx.module": (
        "the TDX module is one that Intel signed and its collateral knows",
        "the platform's owner must load Intel's module; get newer collateral if it is new",
    ),
    "tdx.event-log": (
        "the event log gives RTMR0 to RTMR3",
        "get the log of this boot; leave it out if nobody reads it",
    ),
}

# TDATTRIBUTES (Intel TDX module ABI, ATTRIBUTES). Any bit of the TUD group means that the domain is under
# debug.
TUD: Final = 0xFF
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
_KNOWN: Final = (
    TUD | 1 << 27 | SEPT_VE_DISABLE | MIGRATABLE | 1 << 30 | 1 << 31 | 1 << 63
)  # LASS, PKS, KL, PERFMON


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
    with checks.run("tdx.tee"):
        body = _trust_domain(quote)
    with checks.run("tdx.attributes"):
        _check_attributes(body)
    with checks.run("tdx.migration"):
        _check_migration(body)
    debug = bool(body.td_attributes & TUD)
    result = verify_quote(quote, endorsements.collateral, debug=debug, now=now, roots=roots, checks=checks)
    events = _events(endorsements.event_log, body, checks)
    return Claims(
        tee=Tee.TDX,
        measurement=tdx_measurement(body.mrtd, body.rtmrs),
        signer=None,
        debug=debug,
        report_data=body.report_data,
        security_version=None,
        product_id=None,
        tcb_status=result.status,
        advisories=result.advisories,
        valid_until=result.valid_until,
        details=_details(body, events, result.platform),
    )


def _trust_domain(quote: Quote) -> TdBody:
    if not isinstance(quote.body, TdBody):
        raise EvidenceError("tdx.tee", "the quote is of an SGX enclave, expected a TDX trust domain")
    return quote.body


def _check_attributes(body: TdBody) -> None:
    """Without SEPT_VE_DISABLE the host can make the guest handle exceptions at memory accesses of its
    choice."""
    check = "tdx.attributes"
    if body.td_attributes & ~_KNOWN:
        raise EvidenceError(check, f"TDATTRIBUTES is {body.td_attributes:#018x}, which has unknown bits set")
    if not body.td_attributes & SEPT_VE_DISABLE:
        raise EvidenceError(
            check,
            f"TDATTRIBUTES is {body.td_attributes:#018x}: SEPT_VE_DISABLE (bit 28) is not set, so the host "
            "can inject #VE at memory accesses; launch the domain with it",
        )


def _check_migration(body: TdBody) -> None:
    """A migration TD holds the domain's keys, and nobody appraised it."""
    check = "tdx.migration"
    if body.td_attributes & MIGRATABLE:
        raise EvidenceError(
            check, "TDATTRIBUTES.MIGRATABLE (bit 29) is set: the domain can be moved elsewhere"
        )
    if body.mr_service_td is not None and any(body.mr_service_td):
        raise EvidenceError(
            check, f"MRSERVICETD is {body.mr_service_td.hex()}, expected zero: a service TD is bound"
        )


def _events(log: EventLog | None, body: TdBody, checks: Checks) -> tuple[LoggedEvent, ...]:
    if log is None:
        checks.skip("tdx.event-log", "no event log came along")
        return ()
    with checks.run("tdx.event-log"):
        return _check_event_log(log, body)


def _check_event_log(log: EventLog, body: TdBody) -> tuple[LoggedEvent, ...]:
    registers = range(RTMR_COUNT)
    replayed = replay(log, RTMR_BANK, registers)
    for index in registers:
        if replayed[index] != body.rtmrs[index]:
            raise EvidenceError(
                "tdx.event-log",
                f"the event log gives RTMR{index} {replayed[index].hex()}, but the quote has "
                f"{body.rtmrs[index].hex()}",
            )
    return attested(log, RTMR_BANK, registers)


def _details(body: TdBody, events: tuple[LoggedEvent, ...], platform: DcapPlatform) -> TdxClaims:
    return TdxClaims(
        mrtd=body.mrtd,
        rtmrs=body.rtmrs,
        td_attributes=body.td_attributes,
        xfam=body.xfam,
        mr_config_id=body.mr_config_id,
        mr_owner=body.mr_owner,
        mr_owner_config=body.mr_owner_config,
        mr_seam=body.mr_seam,
        mr_signer_seam=body.mr_signer_seam,
        seam_attributes=body.seam_attributes,
        tee_tcb_svn=body.tee_tcb_svn,
        tee_tcb_svn_2=body.tee_tcb_svn_2,
        mr_service_td=body.mr_service_td,
        events=events,
        platform=platform,
    )
