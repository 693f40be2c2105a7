"""Public keys of every kind that an enclave may be signed with, made once for these tests."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def _public(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> str:
    return key.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _certificate(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "enclave signer")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA384())
        .public_bytes(_PEM)
        .decode()
    )


def _rsa(numbers_of: int) -> rsa.RSAPublicKey:
    # Only the size matters to a digest, and a prime search takes a second: any odd modulus will do.
    return rsa.RSAPublicNumbers(65537, 2**numbers_of - 12345).public_key()


P384_PRIVATE = ec.derive_private_key(12345, ec.SECP384R1())
RSA3072_KEY = _rsa(3072)
RSA3072 = _public(RSA3072_KEY)
RSA2048 = _public(_rsa(2048))
P384 = _public(P384_PRIVATE.public_key())
P256 = _public(ec.derive_private_key(12345, ec.SECP256R1()).public_key())
X25519 = _public(x25519.X25519PrivateKey.from_private_bytes(bytes(32)).public_key())
CERTIFICATE = _certificate(P384_PRIVATE)
PRIVATE = P384_PRIVATE.private_bytes(
    _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
