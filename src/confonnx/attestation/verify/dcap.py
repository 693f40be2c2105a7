"""What SGX and TDX quotes have in common: the chain from Intel's root to the attestation key, and Intel's
verdict on the CPU.

:data:`READING` and :data:`CHECKS` list what is checked, in order (Intel SGX ECDSA quote library reference and
PCS API v4); the checks that only SGX or TDX has come between.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import DCAP_COLLATERAL, EVENT_LOG, JSON_EVENT_LOG, DcapPlatform, TcbStatus
from confonnx.attestation.formats import dcap_collateral, event_log, pck_extension
from confonnx.attestation.formats.dcap_collateral import DcapCollateral, IsvLevel, QeIdentity
from confonnx.attestation.formats.dcap_quote import Quote, TdBody
from confonnx.attestation.formats.event_log import EventLog
from confonnx.attestation.formats.pck_extension import PckExtension
from confonnx.attestation.verify import tcb
from confonnx.attestation.verify.steps import Checks, CheckTable
from confonnx.attestation.verify.x509 import (
    chain_checks,
    check_revocation,
    parse_chain,
    parse_crl,
    revocation_checks,
    spki_digest,
    verify_chain,
)
from confonnx.errors import EndorsementError, EvidenceError

READING: Final[CheckTable] = {
    "dcap.collateral": (
        "there is one set of collateral, and it can be read",
        "get it from Intel (--endorsements fetch), or give it as a file",
    ),
    "dcap.format": (
        "the quote has a known layout",
        "see that the file is a whole quote; upgrade if its version is newer",
    ),
}
CHECKS: Final[CheckTable] = {
    "dcap.endorsements": (
        "the certificates of quote and collateral can be read",
        "get a quote with its PCK certificate chain (certification data of type 5)",
    ),
    # The chains of the PCK certificate and of the signers of the collateral, under Intel's pinned root.
    **chain_checks("dcap"),
    **revocation_checks("dcap"),  # of the PCK certificate, of its CA, and of the signers of the collateral
    "dcap.tcb-signer": (
        "TCB Info and QE Identity are signed under the same root, by a certificate that is not revoked",
        "do not trust this collateral: get it from Intel (--endorsements fetch)",
    ),
    "dcap.tcb-info": (
        "TCB Info is of this TEE, this CPU model and this time",
        "get current collateral of this CPU (--endorsements fetch)",
    ),
    "dcap.qe-identity": (
        "QE Identity is of this TEE's Quoting Enclave and this time",
        "get current collateral (--endorsements fetch)",
    ),
    "dcap.qe-signature": ("the PCK key signed the report of the Quoting Enclave", "do not trust it"),
    "dcap.qe": ("that is Intel's Quoting Enclave", "do not trust it"),
    "dcap.qe-binding": ("the Quoting Enclave vouches for the attestation key", "do not trust it"),
    "dcap.signature": ("the attestation key signed the quote", "do not trust it: it was changed"),
    "dcap.tcb-level": (
        "CPU and Quoting Enclave are on TCB levels that Intel knows",
        "the platform's owner must update its firmware",
    ),
    "dcap.tcb-revoked": (
        "none of them is revoked",
        "use another platform: this one's keys are known to others",
    ),
    "dcap.second-opinion": (
        "dcap-qvl, another implementation of all of this, agrees",
        "do not trust it, and report the disagreement",
    ),
}

# SHA-256 of the SubjectPublicKeyInfo of "Intel SGX Root CA", as published at
# https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem.
INTEL_ROOTS: Final = frozenset(
    {bytes.fromhex("a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e")}
)

# Older evidence says OutOfDate where dcap-qvl also looks at TEE_TCB_SVN_2, the module that runs now, and
# finds that a relaunch of the trust domain would bring it up to date.
_RELAUNCH: Final = {
    (TcbStatus.OUT_OF_DATE, TcbStatus.TD_RELAUNCH_ADVISED),
    (TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED),
}


@dataclass(frozen=True, slots=True)
class DcapEndorsements:
    """Intel's collateral, and for TDX the firmware's event log if it came along."""

    collateral: DcapCollateral
    event_log: EventLog | None = None


@dataclass(frozen=True, slots=True)
class DcapResult:
    """What Intel says about the platform of a quote whose signatures all hold."""

    status: TcbStatus
    advisories: tuple[str, ...]
    platform: DcapPlatform
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class _PckChain:
    leaf: x509.Certificate
    ca: x509.Certificate
    root: x509.Certificate
    extension: PckExtension
    expires: datetime


def parse_endorsements(items: Iterable[tuple[str, bytes]]) -> DcapEndorsements:
    """Read the entries of a bundle.

    Raises :class:`EndorsementError` (``dcap.collateral``), or :class:`EvidenceFormatError` for an event log.
    """
    collateral: list[DcapCollateral] = []
    event_logs: list[EventLog] = []
    for media_type, data in items:
        if media_type == DCAP_COLLATERAL:
            collateral.append(dcap_collateral.parse(data))
        elif media_type == EVENT_LOG:
            event_logs.append(event_log.parse_ccel(data))
        elif media_type == JSON_EVENT_LOG:
            event_logs.append(event_log.parse_json(data))
        else:
            raise EndorsementError(
                "dcap.collateral",
                f"endorsement of type {media_type!r} is of no use here",
            )
    if len(collateral) != 1 or len(event_logs) > 1:
        raise EndorsementError(
            "dcap.collateral",
            f"{len(collateral)} sets of collateral and {len(event_logs)} event logs came along; "
            "expected exactly one set, and at most one log",
        )
    return DcapEndorsements(collateral[0], event_logs[0] if event_logs else None)


def verify_quote(
    quote: Quote,
    collateral: DcapCollateral,
    *,
    debug: bool,
    now: datetime,
    roots: Collection[bytes],
    checks: Checks,
) -> DcapResult:
    """Makes :data:`CHECKS` of a parsed quote. Raises :class:`EvidenceError` or :class:`EndorsementError`.

    dcap-qvl is not asked about ``debug`` quotes, which it refuses whatever it is told.
    """
    pck = _pck_chain(quote, now=now, roots=roots, checks=checks)
    valid_until = _check_collateral(quote, collateral, pck, now=now, roots=roots, checks=checks)
    qe_level = _check_signatures(quote, collateral, pck, checks)
    standing = tcb.standing(collateral.tcb_info, pck.extension, quote.body, qe_level, checks)
    with checks.run("dcap.tcb-revoked"):
        _check_not_revoked(standing)
    if debug:
        checks.skip("dcap.second-opinion", "dcap-qvl refuses debug quotes, whatever it is told")
    else:
        with checks.run("dcap.second-opinion"):
            standing = _second_opinion(quote, collateral, pck.root, standing, now=now)
    return DcapResult(
        status=standing.status,
        advisories=standing.advisories,
        platform=_platform(pck.extension, collateral, standing, qe_level),
        valid_until=valid_until,
    )


def _platform(
    pck: PckExtension, collateral: DcapCollateral, standing: tcb.Standing, qe_level: IsvLevel
) -> DcapPlatform:
    documents = (collateral.tcb_info, collateral.qe_identity)
    return DcapPlatform(
        fmspc=pck.fmspc,
        tcb_date=standing.date,
        tcb_evaluation_data_number=min(document.evaluation_data_number for document in documents),
        collateral_issued_at=min(document.issue_date for document in documents),
        pce_svn=pck.pce_svn,
        cpu_svn=pck.cpu_svn,
        qe_status=qe_level.status,
        platform_status=standing.platform_status,
    )


def _pck_chain(quote: Quote, *, now: datetime, roots: Collection[bytes], checks: Checks) -> _PckChain:
    """PCK certificate, its CA and Intel's root. The quote ends its PEM text with a NUL byte, or not."""
    with checks.run("dcap.endorsements"):
        chain = parse_chain(quote.pck_chain.rstrip(b"\0"), step="dcap")
    with checks.run("dcap.chain"):
        if len(chain) != 3:
            raise EndorsementError(
                "dcap.chain",
                f"the quote has {len(chain)} certificates, expected three: PCK, its CA, Intel's root",
            )
        expires = verify_chain(chain, roots=roots, now=now, step="dcap", checks=checks)
        return _PckChain(chain[0], chain[1], chain[2], _pck_extension(chain[0]), expires)


def _pck_extension(pck: x509.Certificate) -> PckExtension:
    values = [
        extension.value.value
        for extension in pck.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
        and extension.oid.dotted_string == pck_extension.OID
    ]
    if not values:
        raise EndorsementError("dcap.chain", "the PCK certificate has no SGX extension, so it is of no CPU")
    return pck_extension.parse(values[0])


def _check_collateral(
    quote: Quote,
    collateral: DcapCollateral,
    pck: _PckChain,
    *,
    now: datetime,
    roots: Collection[bytes],
    checks: Checks,
) -> datetime:
    """Collateral that is Intel's, of this CPU and current, and by which the PCK certificate is not revoked;
    returns when the first certificate, CRL or document expires."""
    with checks.run("dcap.endorsements"):
        crls = (parse_crl(collateral.root_crl, step="dcap"), parse_crl(collateral.pck_crl, step="dcap"))
    expiries = [
        pck.expires,
        check_revocation(pck.ca, issuer=pck.root, crls=crls, now=now, step="dcap", checks=checks),
        check_revocation(pck.leaf, issuer=pck.ca, crls=crls, now=now, step="dcap", checks=checks),
    ]
    with checks.run("dcap.tcb-signer"):
        expiries += _check_signers(collateral, pck.root, crls, now=now, roots=roots, checks=checks)
    with checks.run("dcap.tcb-info"):
        expiries.append(_check_tcb_info(collateral, quote, pck.extension, now=now))
    with checks.run("dcap.qe-identity"):
        expiries.append(_check_qe_identity(collateral, quote, now=now))
    return min(expiries)


def _check_signers(
    collateral: DcapCollateral,
    root: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    *,
    now: datetime,
    roots: Collection[bytes],
    checks: Checks,
) -> list[datetime]:
    """For both documents; returns when certificates and CRL expire."""
    check = "dcap.tcb-signer"
    expiries: list[datetime] = []
    for what, pem, signature, text in (
        ("TCB Info", collateral.tcb_info_chain, collateral.tcb_info_signature, collateral.tcb_info_text),
        (
            "QE Identity",
            collateral.qe_identity_chain,
            collateral.qe_identity_signature,
            collateral.qe_identity_text,
        ),
    ):
        chain = parse_chain(pem, step="dcap")
        if len(chain) != 2 or spki_digest(chain[-1]) != spki_digest(root):
            raise EndorsementError(
                check, f"the certificate chain of {what} does not lead to the root of the quote"
            )
        expiries.append(verify_chain(chain, roots=roots, now=now, step="dcap", checks=checks))
        expiries.append(
            check_revocation(chain[0], issuer=root, crls=crls, now=now, step="dcap", checks=checks)
        )
        if len(signature) != 64 or not _ecdsa_holds(chain[0].public_key(), signature, text):
            raise EndorsementError(check, f"{what} is not signed by Intel's TCB signing key; it was changed")
    return expiries


def _check_tcb_info(
    collateral: DcapCollateral, quote: Quote, pck: PckExtension, *, now: datetime
) -> datetime:
    """Returns when TCB Info expires."""
    check = "dcap.tcb-info"
    info = collateral.tcb_info
    tee = "TDX" if isinstance(quote.body, TdBody) else "SGX"
    if (info.id, info.version) != (tee, 3):
        raise EndorsementError(
            check, f"TCB Info is {info.id} version {info.version}, expected {tee} version 3"
        )
    if (info.fmspc.lower(), info.pce_id.lower()) != (pck.fmspc.hex(), pck.pce_id.hex()):
        raise EndorsementError(
            check,
            f"TCB Info is for FMSPC {info.fmspc} and PCEID {info.pce_id}, but the quote is of a CPU with "
            f"FMSPC {pck.fmspc.hex()} and PCEID {pck.pce_id.hex()}; get the collateral of that CPU",
        )
    _check_period("TCB Info", info.issue_date, info.next_update, now=now, check=check)
    return info.next_update


def _check_qe_identity(collateral: DcapCollateral, quote: Quote, *, now: datetime) -> datetime:
    """Returns when QE Identity expires."""
    check = "dcap.qe-identity"
    identity = collateral.qe_identity
    expected = "TD_QE" if isinstance(quote.body, TdBody) else "QE"
    if (identity.id, identity.version) != (expected, 2):
        raise EndorsementError(
            check, f"QE Identity is {identity.id} version {identity.version}, expected {expected} version 2"
        )
    _check_period("QE Identity", identity.issue_date, identity.next_update, now=now, check=check)
    return identity.next_update


def _check_period(what: str, start: datetime, end: datetime, *, now: datetime, check: str) -> None:
    if not start <= now <= end:
        raise EndorsementError(
            check,
            f"{what} is valid from {start.isoformat()} to {end.isoformat()}, not at {now.isoformat()}; "
            "get current collateral, and check the clock",
        )


def _check_signatures(quote: Quote, collateral: DcapCollateral, pck: _PckChain, checks: Checks) -> IsvLevel:
    """From the PCK key over the Quoting Enclave and the attestation key to the quote; returns the TCB
    level of the Quoting Enclave."""
    with checks.run("dcap.qe-signature"):
        key = pck.leaf.public_key()
        _check_ecdsa(key, quote.qe_signature, quote.qe_report, "dcap.qe-signature", "QE report")
    with checks.run("dcap.qe"):
        qe_level = _check_qe(quote, collateral.qe_identity)
    with checks.run("dcap.qe-binding"):
        _check_qe_binding(quote)
    with checks.run("dcap.signature"):
        _check_quote_signature(quote)
    return qe_level


def _check_qe(quote: Quote, identity: QeIdentity) -> IsvLevel:
    """Signer, product, MISCSELECT and ATTRIBUTES, which rule out a debug QE; returns its TCB level."""
    qe = quote.qe
    attributes = qe.attributes.to_bytes(8, "little") + qe.xfrm.to_bytes(8, "little")
    misc_select = qe.misc_select.to_bytes(4, "little")
    if (
        qe.mrsigner.hex() != identity.mrsigner.lower()
        or qe.isv_prod_id != identity.isv_prod_id
        or not tcb.matches(attributes, identity.attributes, identity.attributes_mask)
        or not tcb.matches(misc_select, identity.misc_select, identity.misc_select_mask)
    ):
        raise EvidenceError(
            "dcap.qe",
            f"the Quoting Enclave (MRSIGNER {qe.mrsigner.hex()}, ISVPRODID {qe.isv_prod_id}, attributes "
            f"{attributes.hex()}) is not the one of QE Identity",
        )
    return tcb.isv_level(identity.levels, qe.isv_svn, "Quoting Enclave")


def _check_qe_binding(quote: Quote) -> None:
    """REPORTDATA of the QE is SHA-256(attestation key ‖ authentication data) ‖ 32 zero bytes."""
    digest = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    if not hmac.compare_digest(quote.qe.report_data, digest + bytes(32)):
        raise EvidenceError("dcap.qe-binding", "the Quoting Enclave did not vouch for this attestation key")


def _check_quote_signature(quote: Quote) -> None:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError as error:
        raise EvidenceError("dcap.signature", "the attestation key is no point on P-256") from error
    _check_ecdsa(key, quote.signature, quote.signed, "dcap.signature", "quote")


def _check_ecdsa(key: object, signature: bytes, message: bytes, check: str, what: str) -> None:
    if not _ecdsa_holds(key, signature, message):
        raise EvidenceError(
            check, f"the signature of the {what} does not hold; it was changed, or is of another key"
        )


def _ecdsa_holds(key: object, signature: bytes, message: bytes) -> bool:
    """ECDSA P-256 with SHA-256, r ‖ s big-endian."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(der, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _check_not_revoked(standing: tcb.Standing) -> None:
    if standing.status is TcbStatus.REVOKED:
        raise EvidenceError(
            "dcap.tcb-revoked", "Intel revoked the TCB level of this platform: its keys are known to others"
        )


def _second_opinion(
    quote: Quote, collateral: DcapCollateral, root: x509.Certificate, ours: tcb.Standing, *, now: datetime
) -> tcb.Standing:
    """dcap-qvl's status counts where it also knows of a relaunch; its advisories are added to ours."""
    check = "dcap.second-opinion"
    try:
        report = dcap_qvl.verify_with_root_ca(
            quote.raw,
            dcap_qvl.QuoteCollateralV3.from_json(collateral.text),
            root.public_bytes(Encoding.DER),
            int(now.timestamp()),
        )
        theirs = TcbStatus(report.status)
    except (ValueError, TypeError, OverflowError) as error:
        raise EvidenceError(check, f"dcap-qvl refuses the quote: {error}") from error
    if theirs is not ours.status and (ours.status, theirs) not in _RELAUNCH:
        raise EvidenceError(
            check, f"dcap-qvl says {theirs}, we say {ours.status}; do not trust either, and report it"
        )
    return replace(ours, status=theirs, advisories=tuple(sorted({*ours.advisories, *report.advisory_ids})))
