"""Certificates and CRLs of made-up authorities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from confonnx.attestation.verify.x509 import spki_digest

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@cache
def ec_key(label: str, curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    """A key of this test run for ``label``."""
    return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[curve])


@cache
def rsa_key(label: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key of this test run for ``label``."""
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True, slots=True)
class Template:
    """What a certificate shall say. ``issuer`` None makes it self-signed."""

    subject: str
    key: Key
    issuer: Template | None = None
    ca: bool = False
    path_length: int | None = None
    key_cert_sign: bool = True
    crl_sign: bool = True
    serial: int = 7
    not_before: datetime = NOW - 30 * DAY
    not_after: datetime = NOW + 30 * DAY
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    pss: bool = False
    issuer_name: str | None = None  # for a certificate that lies about its issuer
    signing_key: Key | None = None  # for one that its issuer did not sign

    def but(self, **changes: object) -> Template:
        """The same, with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def build(self) -> x509.Certificate:
        """Issue it."""
        above = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(name(self.issuer_name or above.subject))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        if self.ca:
            builder = builder.add_extension(x509.BasicConstraints(True, self.path_length), critical=True)
            builder = builder.add_extension(key_usage(self.key_cert_sign, self.crl_sign), critical=True)
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        key = self.signing_key or above.key
        digest = _digest(key)
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size) if self.pss else None
        return builder.sign(key, digest, rsa_padding=pss if isinstance(key, rsa.RSAPrivateKey) else None)

    def root_digest(self) -> bytes:
        """What a verifier pins this certificate by."""
        return spki_digest(self.build())


def crl(
    issuer: Template,
    *,
    revoked: Sequence[int] = (),
    last_update: datetime = NOW - DAY,
    next_update: datetime | None = NOW + DAY,
    key: Key | None = None,
    critical: x509.ExtensionType | None = None,
) -> x509.CertificateRevocationList:
    """A CRL of ``issuer``, signed with ``key`` if it shall be a forgery."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(issuer.subject))
        .last_update(last_update)
        .next_update(next_update or NOW)
    )
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = builder.add_extension(authority, critical=False)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - 2 * DAY).build()
        builder = builder.add_revoked_certificate(entry)
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    return builder.sign(key or issuer.key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    """A PEM chain."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def name(common_name: str) -> x509.Name:
    """A name that is only a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def raw_extension(oid: str, value: bytes) -> tuple[x509.ExtensionType, bool]:
    """An extension of which only its bytes are known."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False


def _digest(key: Key) -> hashes.SHA256 | hashes.SHA384:
    """SHA-256 for P-256, as Intel does, and SHA-384 else, as AMD and AWS do."""
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    return hashes.SHA256() if is_p256 else hashes.SHA384()


def key_usage(key_cert_sign: bool, crl_sign: bool, *, digital_signature: bool = False) -> x509.KeyUsage:
    """A keyUsage extension."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
