"""Certificate chains as CPU vendors build them, checked link by link, and the CRLs that go with them.

``cryptography``'s own path builder applies the web's rules, which AMD's and AWS's chains do not meet (no
Authority Key Identifier). What RFC 5280 §6.1 asks of a path is therefore checked here: names, signatures,
validity, basicConstraints and its path length, keyUsage, no critical extension that goes unheeded; and in
place of a trust store there is the SHA-256 of the root's SubjectPublicKeyInfo.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.errors import EndorsementError

MAX_CERTIFICATES: Final = 16
MAX_CERTIFICATE_BYTES: Final = 64 * 1024  # of one PEM chain
MAX_CRLS: Final = 8
MAX_CRL_BYTES: Final = 4 * 1024 * 1024

_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_BITS: Final = range(
    2048, 8193
)  # the upper bound is for time: a hostile chain may ask for many verifications
_HEEDED: Final = frozenset({x509.BasicConstraints.oid, x509.KeyUsage.oid})

# What ``cryptography`` raises for certificates and CRLs that it cannot decode; they have no common root.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

# AMD's VEK certificates have serial number 0, which RFC 5280 forbids and `cryptography` warns about at each
# one.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")


def chain_checks(step: str) -> CheckTable:
    """What :func:`verify_chain` checks, for the ``CHECKS`` of the verifier whose prefix is ``step``."""
    return {
        f"{step}.root": (
            "the chain ends in a pinned root",
            "do not trust it: whoever signed it is not the vendor (upgrade if the vendor has a new root)",
        ),
        f"{step}.chain": (
            "each certificate was issued by the next",
            "use the certificates that belong to this machine; do not trust it if they are those",
        ),
        f"{step}.validity": (
            "every certificate is valid at the time of the check",
            "check the clock, and get current certificates (--endorsements fetch)",
        ),
    }


def revocation_checks(step: str) -> CheckTable:
    """What :func:`check_revocation` checks, for the ``CHECKS`` of the verifier whose prefix is ``step``."""
    return {
        f"{step}.crl": (
            "the issuers' revocation lists are at hand and current",
            "check the clock, and get current lists (--endorsements fetch)",
        ),
        f"{step}.revoked": ("no certificate is revoked", "do not trust it: its keys may be known to others"),
    }


@dataclass(frozen=True, slots=True)
class Endorsements:
    """Certificates and CRLs as they came along: untrusted until a chain from them ends in a pinned root."""

    certificates: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]


def parse_endorsements(items: Iterable[tuple[str, bytes]], *, step: str) -> Endorsements:
    """Read the ``(media type, bytes)`` entries of a bundle that are certificates or CRLs; others are refused.

    ``step`` is the prefix of check identifiers. Raises :class:`EndorsementError` (``<step>.endorsements``).
    """
    certificates: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    for media_type, data in items:
        if media_type == CERTIFICATE_CHAIN:
            certificates += parse_chain(data, step=step)
        elif media_type == CERTIFICATE_LIST:
            crls.append(parse_crl(data, step=step))
        else:
            raise EndorsementError(
                f"{step}.endorsements",
                f"endorsement of type {media_type!r} is of no use here; expected {CERTIFICATE_CHAIN} or "
                f"{CERTIFICATE_LIST}",
            )
    if len(certificates) > MAX_CERTIFICATES or len(crls) > MAX_CRLS:
        raise EndorsementError(
            f"{step}.endorsements",
            f"{len(certificates)} certificates and {len(crls)} CRLs, at most {MAX_CERTIFICATES} and "
            f"{MAX_CRLS} are allowed",
        )
    return Endorsements(tuple(certificates), tuple(crls))


def parse_chain(data: bytes, *, step: str) -> tuple[x509.Certificate, ...]:
    """Read one PEM chain (RFC 8555 §9.1). Raises :class:`EndorsementError` (``<step>.endorsements``)."""
    check = f"{step}.endorsements"
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise EndorsementError(
            check, f"certificate chain has {len(data)} bytes, at most {MAX_CERTIFICATE_BYTES} are allowed"
        )
    try:
        chain = tuple(x509.load_pem_x509_certificates(data))
    except _UNREADABLE as error:
        raise EndorsementError(check, f"certificate chain is not PEM: {error}") from error
    if len(chain) > MAX_CERTIFICATES:
        raise EndorsementError(
            check, f"certificate chain has {len(chain)} certificates, at most {MAX_CERTIFICATES} are allowed"
        )
    for certificate in chain:
        _decode(certificate, step=step)
    return chain


def parse_certificate(data: bytes, *, step: str, what: str) -> x509.Certificate:
    """Read one DER certificate. Raises :class:`EndorsementError` (``<step>.endorsements``)."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise EndorsementError(f"{step}.endorsements", f"{what} has {len(data)} bytes, which is too many")
    try:
        certificate = x509.load_der_x509_certificate(data)
    except _UNREADABLE as error:
        raise EndorsementError(f"{step}.endorsements", f"{what} is no DER certificate: {error}") from error
    _decode(certificate, step=step)
    return certificate


def parse_crl(data: bytes, *, step: str) -> x509.CertificateRevocationList:
    """Read one DER CRL. Raises :class:`EndorsementError` (``<step>.endorsements``)."""
    if len(data) > MAX_CRL_BYTES:
        raise EndorsementError(
            f"{step}.endorsements", f"CRL has {len(data)} bytes, at most {MAX_CRL_BYTES} are allowed"
        )
    try:
        crl = x509.load_der_x509_crl(data)
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.extensions, crl.signature_hash_algorithm
    except _UNREADABLE as error:
        raise EndorsementError(f"{step}.endorsements", f"CRL cannot be read: {error}") from error
    return crl


def spki_digest(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: what roots are pinned by, so that a reissued root stays the same
    root."""
    return hashlib.sha256(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def find_issuer(
    certificate: x509.Certificate, candidates: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """The first of ``candidates`` whose subject and key issued ``certificate``, or None."""
    for candidate in candidates:
        if candidate.subject == certificate.issuer and _signed_by(certificate, candidate):
            return candidate
    return None


def build_chain(
    leaf: x509.Certificate, candidates: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """The path from ``leaf`` as far up as ``candidates`` lead: up to a self-issued certificate, or none
    left."""
    chain = [leaf]
    left = [candidate for candidate in candidates if candidate != leaf]
    while chain[-1].subject != chain[-1].issuer:
        issuer = find_issuer(chain[-1], left)
        if issuer is None:
            break
        left.remove(issuer)
        chain.append(issuer)
    return tuple(chain)


def verify_chain(
    chain: Sequence[x509.Certificate],
    *,
    roots: Collection[bytes],
    now: datetime,
    step: str,
    heeded: frozenset[x509.ObjectIdentifier] = frozenset(),
    checks: Checks = UNTRACED,
) -> datetime:
    """Check a path, leaf first and root last, and return when its first certificate expires.

    ``heeded`` are critical extensions that the caller itself looks at, besides basicConstraints and keyUsage.
    Raises :class:`EndorsementError` with check ``<step>.root`` (the last certificate is no pinned root),
    ``<step>.chain`` (a link does not hold) or ``<step>.validity`` (a certificate is not valid at ``now``).
    """
    with checks.run(f"{step}.root"):
        _check_root(chain[-1], roots, step=step)
    with checks.run(f"{step}.chain"):
        for depth, certificate in enumerate(chain):
            _check_link(certificate, chain[min(depth + 1, len(chain) - 1)], step=step)
            _check_extensions(certificate, depth=depth, step=step, heeded=_HEEDED | heeded)
    with checks.run(f"{step}.validity"):
        for certificate in chain:
            check_validity(certificate, now=now, step=step)
    return min(certificate.not_valid_after_utc for certificate in chain)


def _check_root(root: x509.Certificate, roots: Collection[bytes], *, step: str) -> None:
    if spki_digest(root) not in roots:
        raise EndorsementError(
            f"{step}.root",
            f"the certificate chain ends in {_name(root)}, whose public key {spki_digest(root).hex()} is "
            f"none of the {len(roots)} pinned roots",
        )


def check_validity(certificate: x509.Certificate, *, now: datetime, step: str) -> None:
    """``now`` must be within the certificate's validity (RFC 5280 §6.1.3 (a)(2)). Raises
    ``<step>.validity``."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise EndorsementError(
            f"{step}.validity",
            f"certificate {_name(certificate)} is valid from {certificate.not_valid_before_utc.isoformat()} "
            f"to {certificate.not_valid_after_utc.isoformat()}, not at {now.isoformat()}; "
            "get a current one, and check the clock",
        )


def check_revocation(
    certificate: x509.Certificate,
    *,
    issuer: x509.Certificate,
    crls: Iterable[x509.CertificateRevocationList],
    now: datetime,
    step: str,
    checks: Checks = UNTRACED,
) -> datetime:
    """Find the CRL of ``issuer``, check it, and check that it does not list ``certificate``.

    Returns the CRL's nextUpdate. Raises :class:`EndorsementError`: ``<step>.crl`` (missing, not signed by the
    issuer, or not current) or ``<step>.revoked``.
    """
    with checks.run(f"{step}.crl"):
        crl = _latest_crl(crls, issuer, step=step)
        next_update = _check_crl(crl, issuer, now=now, step=step)
    with checks.run(f"{step}.revoked"):
        _check_unlisted(certificate, crl, step=step)
    return next_update


def _latest_crl(
    crls: Iterable[x509.CertificateRevocationList], issuer: x509.Certificate, *, step: str
) -> x509.CertificateRevocationList:
    """Several CRLs of one issuer may come along; the latest counts, so that an older one cannot hide a
    revocation."""
    candidates = [crl for crl in crls if crl.issuer == issuer.subject]
    if not candidates:
        raise EndorsementError(
            f"{step}.crl", f"no CRL of {_name(issuer)} came along; add it to the endorsements"
        )
    return max(candidates, key=lambda crl: crl.last_update_utc)


def _check_unlisted(certificate: x509.Certificate, crl: x509.CertificateRevocationList, *, step: str) -> None:
    revoked = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if revoked is not None:
        raise EndorsementError(
            f"{step}.revoked",
            f"certificate {_name(certificate)} (serial {certificate.serial_number:#x}) was revoked on "
            f"{revoked.revocation_date_utc.isoformat()}",
        )


def _check_crl(
    crl: x509.CertificateRevocationList, issuer: x509.Certificate, *, now: datetime, step: str
) -> datetime:
    check = f"{step}.crl"
    key = issuer.public_key()
    if (
        not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        or not isinstance(crl.signature_hash_algorithm, _HASHES)
        or not crl.is_signature_valid(key)
    ):
        raise EndorsementError(check, f"CRL of {_name(issuer)} is not signed by it")
    usages = [e.value for e in issuer.extensions if isinstance(e.value, x509.KeyUsage)]
    if usages and not usages[0].crl_sign:  # RFC 5280 §6.3.3 (f)
        raise EndorsementError(check, f"{_name(issuer)} may not sign CRLs (keyUsage)")
    critical = [extension.oid.dotted_string for extension in crl.extensions if extension.critical]
    if critical:  # a delta or partial CRL says so in a critical extension, and proves nothing about the rest
        raise EndorsementError(
            check, f"CRL of {_name(issuer)} has critical extensions: {', '.join(critical)}"
        )
    if crl.next_update_utc is None or not crl.last_update_utc <= now <= crl.next_update_utc:
        raise EndorsementError(
            check,
            f"CRL of {_name(issuer)} is valid from {crl.last_update_utc.isoformat()} to "
            f"{crl.next_update_utc.isoformat() if crl.next_update_utc else 'an unknown time'}, not at "
            f"{now.isoformat()}; get a current one",
        )
    return crl.next_update_utc


def _check_link(certificate: x509.Certificate, issuer: x509.Certificate, *, step: str) -> None:
    if certificate.issuer != issuer.subject:
        raise EndorsementError(
            f"{step}.chain",
            f"certificate {_name(certificate)} names {certificate.issuer.rfc4514_string()} as its issuer, "
            f"but the next certificate is {_name(issuer)}",
        )
    if not _signed_by(certificate, issuer):
        raise EndorsementError(
            f"{step}.chain", f"certificate {_name(certificate)} is not signed by the key of {_name(issuer)}"
        )


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        key = issuer.public_key()
        if not isinstance(certificate.signature_hash_algorithm, _HASHES):
            return False
        if not isinstance(key, ec.EllipticCurvePublicKey) and not (
            isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS
        ):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _check_extensions(
    certificate: x509.Certificate, *, depth: int, step: str, heeded: frozenset[x509.ObjectIdentifier]
) -> None:
    """RFC 5280 §6.1.4 (k) to (o). ``depth`` is 0 for the leaf, which needs to issue nothing."""
    check = f"{step}.chain"
    extensions = certificate.extensions
    unheeded = [e.oid.dotted_string for e in extensions if e.critical and e.oid not in heeded]
    if unheeded:
        raise EndorsementError(
            check,
            f"certificate {_name(certificate)} has critical extensions unknown here: {', '.join(unheeded)}",
        )
    usages = [e.value for e in extensions if isinstance(e.value, x509.KeyUsage)]
    if depth == 0:
        if usages and not usages[0].digital_signature:
            raise EndorsementError(check, f"certificate {_name(certificate)} may not sign data (keyUsage)")
        return
    constraints = [e.value for e in extensions if isinstance(e.value, x509.BasicConstraints)]
    if not constraints or not constraints[0].ca:
        raise EndorsementError(check, f"certificate {_name(certificate)} issued another but is no CA")
    if constraints[0].path_length is not None and constraints[0].path_length < depth - 1:
        raise EndorsementError(
            check,
            f"certificate {_name(certificate)} allows {constraints[0].path_length} CAs below it, "
            f"found {depth - 1}",
        )
    if usages and not usages[0].key_cert_sign:
        raise EndorsementError(
            check, f"certificate {_name(certificate)} may not sign certificates (keyUsage)"
        )


def _decode(certificate: x509.Certificate, *, step: str) -> None:
    """Decode now every part that ``cryptography`` decodes on first use, so that errors come from one
    place."""
    try:
        _ = (
            certificate.subject,
            certificate.issuer,
            certificate.extensions,
            certificate.public_key(),
            certificate.serial_number,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            certificate.signature_hash_algorithm,
        )
    except _UNREADABLE as error:
        raise EndorsementError(f"{step}.endorsements", f"a certificate cannot be read: {error}") from error


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string())
