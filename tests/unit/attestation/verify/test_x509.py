"""Certificates and CRLs as they come along: what is read, what is refused, and how chains are found."""

from __future__ import annotations

from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
from confonnx.attestation.verify.x509 import (
    build_chain,
    check_revocation,
    parse_certificate,
    parse_chain,
    parse_crl,
    parse_endorsements,
    verify_chain,
)
from confonnx.errors import EndorsementError
from tests.support.authorities.pki import DAY, NOW, Template, crl, ec_key, name, pem, rsa_key

ROOT = Template("root", ec_key("root"), ca=True)
CA = Template("ca", ec_key("ca"), ROOT, ca=True, path_length=0, serial=8)
LEAF = Template("leaf", ec_key("leaf"), CA, serial=9)
CHAIN = (LEAF.build(), CA.build(), ROOT.build())


def refused(items: list[tuple[str, bytes]]) -> str:
    with pytest.raises(EndorsementError) as caught:
        parse_endorsements(items, step="x")
    assert caught.value.check == "x.endorsements"
    return str(caught.value)


def test_endorsements_of_a_bundle() -> None:
    der = crl(ROOT).public_bytes(Encoding.DER)
    items = [
        (CERTIFICATE_CHAIN, pem(*CHAIN[:2])),
        (CERTIFICATE_CHAIN, pem(CHAIN[2])),
        (CERTIFICATE_LIST, der),
    ]
    parsed = parse_endorsements(items, step="x")
    assert parsed.certificates == CHAIN
    assert len(parsed.crls) == 1


def test_refused_endorsements() -> None:
    assert "not PEM" in refused([(CERTIFICATE_CHAIN, b"")])
    assert "not PEM" in refused([(CERTIFICATE_CHAIN, CHAIN[0].public_bytes(Encoding.DER))])
    assert "at most 65536" in refused([(CERTIFICATE_CHAIN, b" " * 65537)])
    assert "17 certificates" in refused([(CERTIFICATE_CHAIN, pem(*[CHAIN[0]] * 17))])
    assert "18 certificates" in refused([(CERTIFICATE_CHAIN, pem(*[CHAIN[0]] * 9))] * 2)
    der = crl(ROOT).public_bytes(Encoding.DER)
    assert "9 CRLs, at most 16 and 8" in refused([(CERTIFICATE_LIST, der)] * 9)
    assert "CRL cannot be read" in refused([(CERTIFICATE_LIST, b"")])
    assert "at most 4194304" in refused([(CERTIFICATE_LIST, bytes(4 * 1024 * 1024 + 1))])
    assert "'text/plain'" in refused([("text/plain", b"")])


def test_a_chain_has_a_length() -> None:
    assert len(parse_chain(pem(*[CHAIN[0]] * 16), step="x")) == 16
    with pytest.raises(EndorsementError, match="17 certificates, at most 16"):
        parse_chain(pem(*[CHAIN[0]] * 17), step="x")


def test_der_certificates() -> None:
    der = CHAIN[0].public_bytes(Encoding.DER)
    assert parse_certificate(der, step="x", what="it") == CHAIN[0]
    version = bytes.fromhex("a003020102")
    assert der.count(version) == 1
    for data in (b"", der[:-1], der + b"\0", der.replace(version, version[:-1] + b"\x22")):
        with pytest.raises(EndorsementError, match="it is no DER"):
            parse_certificate(data, step="x", what="it")
    with pytest.raises(EndorsementError, match="it has 65537 bytes"):
        parse_certificate(bytes(65537), step="x", what="it")


def test_a_certificate_that_falls_apart_on_use() -> None:
    """``cryptography`` decodes lazily: this one loads, and its key algorithm is none."""
    der = CHAIN[0].public_bytes(Encoding.DER)
    oid = bytes.fromhex("06072a8648ce3d0201")  # id-ecPublicKey
    assert der.count(oid) == 1
    for data in (der.replace(oid, bytes.fromhex("06072a8648ce3d0209")),):
        with pytest.raises(EndorsementError, match="cannot be read"):
            parse_certificate(data, step="x", what="it")
        broken = x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM)
        with pytest.raises(EndorsementError, match="cannot be read"):
            parse_chain(broken, step="x")


def test_a_chain_is_found_in_any_order() -> None:
    assert build_chain(CHAIN[0], (CHAIN[2], CHAIN[1])) == CHAIN
    assert build_chain(CHAIN[0], (CHAIN[2],)) == CHAIN[:1]
    assert build_chain(CHAIN[0], CHAIN) == CHAIN


def test_a_name_without_the_key_is_no_issuer() -> None:
    impostor = CA.but(key=ec_key("evil")).build()
    assert build_chain(CHAIN[0], (impostor, CHAIN[1], CHAIN[2])) == CHAIN


def check(chain: tuple[x509.Certificate, ...], now: datetime = NOW) -> str:
    with pytest.raises(EndorsementError) as caught:
        verify_chain(chain, roots={ROOT.root_digest()}, now=now, step="x")
    return caught.value.check


def test_a_chain() -> None:
    assert verify_chain(CHAIN, roots={ROOT.root_digest()}, now=NOW, step="x") == NOW + 30 * DAY


def test_the_error_says_which_link_is_missing() -> None:
    with pytest.raises(
        EndorsementError, match="names CN=ca as its issuer, but the next certificate is 'CN=root'"
    ):
        verify_chain((CHAIN[0], CHAIN[2]), roots={ROOT.root_digest()}, now=NOW, step="x")


def test_keys_that_are_too_weak_sign_nothing() -> None:
    weak = CA.but(key=rsa_key("weak", 1024))
    assert check((LEAF.but(issuer=weak).build(), weak.build(), ROOT.build())) == "x.chain"


def test_only_who_says_so_is_heeded() -> None:
    purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3")])
    leaf = LEAF.but(extensions=((purpose, True),)).build()
    assert check((leaf, *CHAIN[1:])) == "x.chain"
    heeded = frozenset({x509.ExtendedKeyUsage.oid})
    verify_chain((leaf, *CHAIN[1:]), roots={ROOT.root_digest()}, now=NOW, step="x", heeded=heeded)


def test_other_kinds_of_keys_sign_nothing() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateBuilder().subject_name(name("ca")).issuer_name(name("root"))
    builder = builder.public_key(key.public_key()).serial_number(8).not_valid_before(NOW - DAY)
    builder = builder.not_valid_after(NOW + DAY).add_extension(
        x509.BasicConstraints(True, None), critical=True
    )
    edwards = builder.sign(ROOT.key, hashes.SHA256())
    leaf = x509.CertificateBuilder().subject_name(name("leaf")).issuer_name(name("ca"))
    leaf = leaf.public_key(LEAF.key.public_key()).serial_number(9).not_valid_before(NOW - DAY)
    signed = leaf.not_valid_after(NOW + DAY).sign(key, None)
    assert check((signed, edwards, ROOT.build())) == "x.chain"
    assert check((signed, edwards, ROOT.build()), NOW) == "x.chain"


@pytest.mark.parametrize("at", [LEAF.not_before, LEAF.not_after])
def test_the_ends_of_validity_are_within(at: datetime) -> None:
    assert verify_chain(CHAIN, roots={ROOT.root_digest()}, now=at, step="x") == LEAF.not_after


def test_revocation() -> None:
    good = parse_crl(crl(CA, revoked=[1, 2]).public_bytes(Encoding.DER), step="x")
    until = check_revocation(CHAIN[0], issuer=CHAIN[1], crls=[good], now=NOW, step="x")
    assert until == NOW + DAY
    with pytest.raises(EndorsementError, match="was revoked on 2026-02-27") as caught:
        check_revocation(CHAIN[0], issuer=CHAIN[1], crls=[crl(CA, revoked=[9])], now=NOW, step="x")
    assert caught.value.check == "x.revoked"
