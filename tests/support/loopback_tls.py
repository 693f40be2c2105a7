"""TLS for servers on 127.0.0.1, by an authority that only tests trust."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.authorities.pki import Template, ec_key, pem


def _identified(
    key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey
) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """What Python 3.13 and later want to see in certificates (``VERIFY_X509_STRICT``)."""
    return (
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False),
    )


_LONG = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2046, 1, 1, tzinfo=UTC))
_CA = Template(
    "loopback CA",
    ec_key("loopback-ca"),
    ca=True,
    not_before=_LONG[0],
    not_after=_LONG[1],
    extensions=_identified(ec_key("loopback-ca"), ec_key("loopback-ca")),
)
_LEAF = Template(
    "loopback",
    ec_key("loopback"),
    _CA,
    not_before=_LONG[0],
    not_after=_LONG[1],
    extensions=(
        (x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False),
        *_identified(ec_key("loopback"), ec_key("loopback-ca")),
    ),
)


def write_ca_file(directory: Path) -> Path:
    """The certificate of the authority, in a file in ``directory``."""
    file = directory / "ca.pem"
    file.write_bytes(pem(_CA.build()))
    return file


def server_tls(directory: Path) -> ssl.SSLContext:
    """What a server on 127.0.0.1 shows; its key is written into ``directory``."""
    key = _LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "leaf.pem").write_bytes(pem(_LEAF.build()) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "leaf.pem")
    return context
