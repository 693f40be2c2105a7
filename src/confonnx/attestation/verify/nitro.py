"""AWS Nitro Enclaves: from an attestation document to claims. The document carries all of its certificates.

:data:`CHECKS` lists what is checked, in order (AWS NSM API, "Attestation process", section 3.2).

There is no revocation check: AWS publishes no CRL for a caller without an AWS account, and its guide says to
leave the check out.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confonnx.attestation.claims import Claims, NitroClaims, Pcr, TcbStatus, Tee
from confonnx.attestation.formats import nitro_document
from confonnx.attestation.formats.nitro_document import NitroDocument
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.attestation.verify.x509 import chain_checks, parse_certificate, verify_chain
from confonnx.errors import EvidenceError

CHECKS: Final[CheckTable] = {
    "nitro.format": (
        "the document is a COSE_Sign1 with ES384 and all mandatory members",
        "see that the file is a whole attestation document",
    ),
    "nitro.endorsements": ("its certificates can be read", "do not trust it: it was changed, or cut off"),
    **chain_checks("nitro"),  # valid when the document was made: the last one lives three hours
    "nitro.signature": ("the document's certificate signed it", "do not trust it: it was changed"),
    "nitro.age": (
        "it was made before now, and not longer ago than the policy allows",
        "check the clock, and get a new document",
    ),
    "nitro.pcrs": ("it has PCR0, the measurement of the image", "ask the enclave for a whole document"),
}

# SHA-256 of the SubjectPublicKeyInfo of "aws.nitro-enclaves", the root "G1", from
# https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip (certificate fingerprint
# 64:1A:03:21:…:79:BB:5B).
AWS_ROOTS: Final = frozenset(
    {bytes.fromhex("f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225")}
)

DEFAULT_MAX_AGE: Final = timedelta(days=1)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_P384_SIZE: Final = 48


def verify(
    evidence: bytes,
    *,
    now: datetime,
    roots: Collection[bytes] = AWS_ROOTS,
    max_age: timedelta = DEFAULT_MAX_AGE,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify a document at ``now`` and return what it says.

    ``roots`` are SHA-256 digests of root public keys. An enclave in debug mode has PCR0 zero: the claims say
    ``debug``, and the policy judges. Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or
    :class:`EndorsementError`.
    """
    with checks.run("nitro.format"):
        document = nitro_document.parse(evidence)
    with checks.run("nitro.endorsements"):
        chain = _chain(document)
    verify_chain(chain, roots=roots, now=document.issued_at, step="nitro", checks=checks)
    with checks.run("nitro.signature"):
        _check_signature(document, chain[0])
    with checks.run("nitro.age"):
        _check_age(document, now=now, max_age=max_age)
    with checks.run("nitro.pcrs"):
        pcrs = _pcrs(document)
    signer = pcrs.get(8, b"")
    return Claims(
        tee=Tee.NITRO,
        measurement=pcrs[0],
        signer=signer if any(signer) else None,
        debug=not any(pcrs[0]),
        report_data=document.user_data or b"",
        security_version=None,
        product_id=None,
        tcb_status=TcbStatus.NOT_APPLICABLE,
        advisories=(),
        valid_until=document.issued_at + max_age,
        details=NitroClaims(
            module_id=document.module_id,
            issued_at=document.issued_at,
            pcrs=tuple(Pcr("sha384", index, value) for index, value in document.pcrs),
            user_data=document.user_data,
            nonce=document.nonce,
            public_key=document.public_key,
        ),
    )


def _chain(document: NitroDocument) -> tuple[x509.Certificate, ...]:
    """The document's certificate first; ``cabundle`` has the root first."""
    leaf = parse_certificate(document.certificate, step="nitro", what="the document's certificate")
    bundle = [
        parse_certificate(der, step="nitro", what=f"certificate {index} of cabundle")
        for index, der in enumerate(document.ca_bundle)
    ]
    return (leaf, *reversed(bundle))


def _check_signature(document: NitroDocument, leaf: x509.Certificate) -> None:
    """ES384, r ‖ s big-endian (RFC 9053 §2.1)."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceError("nitro.signature", "the document's certificate has no P-384 key")
    r, s = document.signature[:_P384_SIZE], document.signature[_P384_SIZE:]
    try:
        signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.verify(signature, document.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise EvidenceError(
            "nitro.signature", "the document is not signed by its certificate; it was changed"
        ) from error


def _check_age(document: NitroDocument, *, now: datetime, max_age: timedelta) -> None:
    made = document.issued_at.isoformat()
    if document.issued_at > now + _CLOCK_SKEW:
        raise EvidenceError(
            "nitro.age", f"the document was made at {made}, after {now.isoformat()}; check the clock"
        )
    if document.issued_at < now - max_age:
        raise EvidenceError(
            "nitro.age",
            f"the document was made at {made}, more than {max_age} before {now.isoformat()}; get a new one",
        )


def _pcrs(document: NitroDocument) -> dict[int, bytes]:
    pcrs = dict(document.pcrs)
    if 0 not in pcrs:
        raise EvidenceError("nitro.pcrs", "the document has no PCR0, so it does not say which image runs")
    return pcrs
