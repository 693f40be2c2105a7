"""What a TPM needs before it is of use: a certificate for its attestation key, or Azure's paravisor in it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from confonnx.attestation.verify.x509 import spki_digest
from tests.support.authorities import tcg
from tests.support.authorities.pki import DAY, NOW, Template, ec_key, name, pem
from tests.support.swtpm import SoftwareTpm

CA = Template("TPM enrolment CA", ec_key("enrolment"), ca=True, path_length=0)


def certify(public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, issuer: Template = CA) -> bytes:
    """PEM of an attestation key's certificate and its CA's."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("the AK"))
        .issuer_name(name(issuer.subject))
        .public_key(public_key)
        .serial_number(9)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(tcg.AIK[0], critical=False)
    )
    return pem(builder.sign(issuer.key, hashes.SHA256()), issuer.build())


def root() -> bytes:
    """What a policy pins :data:`CA` by."""
    return spki_digest(CA.build())


def make_azure_key(tpm: SoftwareTpm, directory: Path) -> rsa.RSAPublicKey:
    """The RSA attestation key that Azure's vTPM has at 0x81000003."""
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"
    tpm.tool(
        *("tpm2_createprimary", "-C", "o", "-g", "sha256", "-G", "rsa2048:rsassa-sha256:null"),
        *("-a", attributes, "-c", "ak.ctx"),
        directory=directory,
    )
    tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", "ak.ctx", "0x81000003", directory=directory)
    tpm.tool("tpm2_flushcontext", "-t")
    tpm.tool("tpm2_readpublic", "-c", "0x81000003", "-f", "pem", "-o", "ak.pem", directory=directory)
    key = serialization.load_pem_public_key((directory / "ak.pem").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def runtime_claims(key: rsa.RSAPublicKey) -> bytes:
    """The paravisor's runtime claims with ``key`` as HCLAkPub."""
    n = tcg.number(key.public_numbers().n)
    return tcg.runtime_claims(keys=[{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": n}])


def put_nv(tpm: SoftwareTpm, index: int, content: bytes, directory: Path) -> None:
    """Write ``content`` to an NV index of that size, in the place of what may be there."""
    if hex(index) in tpm.tool("tpm2_getcap", "handles-nv-index").decode().lower():
        tpm.tool("tpm2_nvundefine", "-C", "o", hex(index))
    (directory / "nv").write_bytes(content)
    attributes = "ownerread|ownerwrite|authread|authwrite"
    tpm.tool("tpm2_nvdefine", hex(index), "-C", "o", "-s", str(len(content)), "-a", attributes)
    tpm.tool("tpm2_nvwrite", hex(index), "-C", "o", "-i", "nv", directory=directory)
