"""TPM 2.0: from a quote, its PCR values and the certificate of its attestation key (AK) to claims.

:data:`CHECKS` lists what is checked, in order (TCG TPM 2.0 Library parts 1 to 3; TCG EK Credential Profile
for the key's purpose).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confonnx.attestation.claims import (
    RESETTABLE_PCRS,
    Claims,
    LoggedEvent,
    Pcr,
    TcbStatus,
    Tee,
    TpmClaims,
    pcr_measurement,
)
from confonnx.attestation.formats import event_log, evidence, tpm
from confonnx.attestation.formats.evidence import AzureEvidence, TpmEvidence
from confonnx.attestation.formats.tpm import EcdsaSignature, RsaSignature, TpmQuote
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.attestation.verify.x509 import (
    Endorsements,
    build_chain,
    chain_checks,
    check_revocation,
    revocation_checks,
    spki_digest,
    verify_chain,
)
from confonnx.errors import EndorsementError, EvidenceError


def quote_checks(step: str) -> CheckTable:
    """What :func:`check_quote` checks, for the ``CHECKS`` of the verifier whose prefix is ``step``."""
    return {
        f"{step}.key": (
            "the attestation key (AK) is a strong key",
            "make an AK of RSA 2048 or P-256, or of more",
        ),
        f"{step}.signature": (
            "the AK signed the quote",
            "do not trust it: it was changed, or is another AK's",
        ),
        f"{step}.pcrs": (
            "the PCR values are those of the quote, not of SHA-1, and one of them cannot be reset by anyone",
            "quote PCRs of the SHA-256 bank, and send the values that were quoted",
        ),
        f"{step}.event-log": (
            "the event log gives the quoted PCRs",
            "get the log of this boot; leave it out if nobody reads it",
        ),
    }


CHECKS: Final[CheckTable] = {
    "tpm.endorsements": (
        "an AK certificate is at hand, and can be read",
        "add the AK's certificate chain to the endorsements, the AK's first",
    ),
    "tpm.format": (
        "envelope, TPMS_ATTEST and signature have a known layout",
        "see that the evidence is whole",
    ),
    **chain_checks("tpm"),  # up to a root that the caller accepts
    **revocation_checks("tpm"),  # of the certificates that name a place for their CRL
    "tpm.purpose": (
        "the certificate is of an attestation key, not of a CA and not of an encryption key",
        "have a certificate issued for the AK, with the extended key usage 2.23.133.8.3",
    ),
    **quote_checks("tpm"),
}

# SHA-256 of the SubjectPublicKeyInfo of "Azure Virtual TPM Root Certificate Authority 2023", as linked from
# Microsoft's "Trusted Launch FAQ", section on vTPM certificates. A caller names the roots that it accepts;
# there is no default.
AZURE_VTPM_ROOTS: Final = frozenset(
    {bytes.fromhex("5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf")}
)

_AIK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.3")  # tcg-kp-AIKCertificate
_RSA_BITS: Final = (2048, 4096)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


@dataclass(frozen=True, slots=True)
class QuotedPcrs:
    """A quote whose signature, PCR values and event log agree."""

    quote: TpmQuote
    pcrs: tuple[Pcr, ...]
    events: tuple[LoggedEvent, ...]


def verify(
    data: bytes,
    endorsements: Endorsements,
    *,
    now: datetime,
    roots: Collection[bytes],
    dangerous_skip_revocation: bool = False,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify a quote against ``endorsements`` at ``now`` and return what it says.

    ``roots`` are SHA-256 digests of the public keys of AK certificate roots: :data:`AZURE_VTPM_ROOTS`, or the
    caller's own CA. ``dangerous_skip_revocation`` leaves out revocation. Raises :class:`EvidenceFormatError`,
    :class:`EvidenceError` or :class:`EndorsementError`.
    """
    with checks.run("tpm.endorsements"):
        chain = _chain(endorsements)
    with checks.run("tpm.format"):
        parsed = evidence.parse_tpm(data)
    valid_until = verify_chain(
        chain,
        roots=roots,
        now=now,
        step="tpm",
        heeded=frozenset({x509.ExtendedKeyUsage.oid}),
        checks=checks,
    )
    if dangerous_skip_revocation:
        _skip_revocation(checks, "left out on the caller's demand")
    else:
        valid_until = min(valid_until, *_check_revocation(chain, endorsements, now=now, checks=checks))
    with checks.run("tpm.purpose"):
        _check_purpose(chain[0])
    quoted = check_quote(parsed, chain[0].public_key(), step="tpm", checks=checks)
    return Claims(
        tee=Tee.TPM,
        measurement=pcr_measurement(quoted.pcrs),
        signer=None,
        debug=False,
        report_data=quoted.quote.extra_data,
        security_version=None,
        product_id=None,
        tcb_status=TcbStatus.NOT_APPLICABLE,
        advisories=(),
        valid_until=valid_until,
        details=TpmClaims(
            pcrs=quoted.pcrs,
            events=quoted.events,
            firmware_version=quoted.quote.firmware_version,
            reset_count=quoted.quote.reset_count,
            restart_count=quoted.quote.restart_count,
            attestation_key=spki_digest(chain[0]),
            root=spki_digest(chain[-1]),
            subject=chain[0].subject.rfc4514_string(),
        ),
    )


def check_quote(
    parsed: TpmEvidence | AzureEvidence, key: object, *, step: str, checks: Checks = UNTRACED
) -> QuotedPcrs:
    """Check a quote with the public ``key`` of the AK; ``step`` is the prefix of check identifiers.

    Raises :class:`EvidenceFormatError` or :class:`EvidenceError`.
    """
    with checks.run(f"{step}.format"):
        quote = tpm.parse_quote(parsed.message)
        signature = tpm.parse_signature(parsed.signature)
    with checks.run(f"{step}.key"):
        _check_key(key, step=step)
    with checks.run(f"{step}.signature"):
        _check_signature(key, signature, quote, step=step)
    with checks.run(f"{step}.pcrs"):
        pcrs = _check_pcrs(parsed, quote, signature.digest, step=step)
    events: tuple[LoggedEvent, ...] = ()
    if parsed.event_log is None:
        checks.skip(f"{step}.event-log", "no event log came along")
    else:
        with checks.run(f"{step}.event-log"):
            events = _check_event_log(parsed.event_log, pcrs, step=step)
    return QuotedPcrs(quote, tuple(sorted(pcrs, key=lambda pcr: (pcr.bank, pcr.index))), events)


def _chain(endorsements: Endorsements) -> tuple[x509.Certificate, ...]:
    """The AK's certificate comes first (RFC 8555 §9.1); the others in any order."""
    if not endorsements.certificates:
        raise EndorsementError(
            "tpm.endorsements", "no AK certificate came along; add its chain to the endorsements"
        )
    return build_chain(endorsements.certificates[0], endorsements.certificates[1:])


def _check_revocation(
    chain: Sequence[x509.Certificate], endorsements: Endorsements, *, now: datetime, checks: Checks
) -> list[datetime]:
    """A current CRL for each certificate that names a place for it; returns when the CRLs and the leaf
    expire."""
    expiries = [chain[0].not_valid_after_utc]
    for certificate, issuer in pairwise(chain):
        published = any(isinstance(e.value, x509.CRLDistributionPoints) for e in certificate.extensions)
        if published or any(crl.issuer == issuer.subject for crl in endorsements.crls):
            expiries.append(
                check_revocation(
                    certificate, issuer=issuer, crls=endorsements.crls, now=now, step="tpm", checks=checks
                )
            )
    _skip_revocation(checks, "no certificate names a place for its CRL, and none came along")
    return expiries


def _skip_revocation(checks: Checks, reason: str) -> None:
    checks.skip("tpm.crl", reason)
    checks.skip("tpm.revoked", reason)


def _check_purpose(ak: x509.Certificate) -> None:
    """That the key is restricted, and signs only what the TPM made, is for its CA to know. An
    endorsement key's certificate also chains to the vendor, but that key cannot vouch for PCRs."""
    values = [extension.value for extension in ak.extensions]
    purposes = [value for value in values if isinstance(value, x509.ExtendedKeyUsage)]
    is_ca = any(isinstance(value, x509.BasicConstraints) and value.ca for value in values)
    if is_ca or not any(_AIK_CERTIFICATE in purpose for purpose in purposes):
        raise EndorsementError(
            "tpm.purpose",
            f"certificate {ak.subject.rfc4514_string()!r} is not of an attestation key (extended key usage "
            "2.23.133.8.3)",
        )


def _check_pcrs(
    parsed: TpmEvidence | AzureEvidence, quote: TpmQuote, digest: str, *, step: str
) -> tuple[Pcr, ...]:
    """Returns the values in the order of the selection."""
    check = f"{step}.pcrs"
    values = evidence.parse_pcrs(parsed.pcrs)
    if set(values) != set(quote.selection):
        odd = sorted(set(values) ^ set(quote.selection))
        raise EvidenceError(
            check, f"the PCR values are not those that were quoted; in only one of both: {odd}"
        )
    pcrs = tuple(values[selected] for selected in quote.selection)
    if not hmac.compare_digest(tpm.pcr_digest(pcrs, digest), quote.pcr_digest):
        raise EvidenceError(check, "the PCR values do not hash to the quoted digest; they were changed")
    if any(pcr.bank == "sha1" for pcr in pcrs):
        raise EvidenceError(check, "PCRs of the SHA-1 bank were quoted, which proves nothing; quote SHA-256")
    if all(pcr.index in RESETTABLE_PCRS for pcr in pcrs):
        raise EvidenceError(check, "no PCR was quoted that says anything: anyone can reset 16 and 23")
    return pcrs


def _check_event_log(data: bytes, pcrs: Sequence[Pcr], *, step: str) -> tuple[LoggedEvent, ...]:
    """For each quoted register that the log speaks of, in the first bank of the quote."""
    log = event_log.parse(data)
    bank = pcrs[0].bank
    quoted = {pcr.index: pcr.value for pcr in pcrs if pcr.bank == bank}
    spoken = {event.register for event in log.events} & set(quoted)
    for index, value in event_log.replay(log, bank, spoken).items():
        if value != quoted[index]:
            raise EvidenceError(
                f"{step}.event-log",
                f"the event log gives {bank} PCR {index} {value.hex()}, but the quote has "
                f"{quoted[index].hex()}",
            )
    return event_log.attested(log, bank, spoken)


def _check_key(key: object, *, step: str) -> None:
    """The upper bound is what TPMs have; a longer key would only cost time."""
    if isinstance(key, rsa.RSAPublicKey) and _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return
    raise EvidenceError(
        f"{step}.key", "the attestation key is neither RSA of 2048 to 4096 bits nor on P-256, P-384 or P-521"
    )


def _check_signature(
    key: object, signature: RsaSignature | EcdsaSignature, quote: TpmQuote, *, step: str
) -> None:
    if not _signature_holds(key, signature, quote.signed):
        raise EvidenceError(f"{step}.signature", "the attestation key did not sign the quote; it was changed")


def _signature_holds(key: object, signature: RsaSignature | EcdsaSignature, message: bytes) -> bool:
    digest = _HASHES[signature.digest]
    try:
        match signature:
            case RsaSignature(value=value) if isinstance(key, rsa.RSAPublicKey):
                key.verify(value, message, padding.PKCS1v15(), digest)
            case EcdsaSignature(r=r, s=s) if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
            case _:
                return False
    except InvalidSignature:
        return False
    return True
