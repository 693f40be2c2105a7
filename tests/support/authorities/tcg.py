"""A TPM vendor of our own, whose TPM quotes any PCRs, and an Azure paravisor that keeps such a TPM."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from confonnx.attestation.formats.evidence import AzureEvidence, TpmEvidence, encode
from confonnx.attestation.verify.x509 import Endorsements
from tests.support.authorities.pki import Key, Template, rsa_key

REPORT_DATA = bytes(range(64))
BANKS = {"sha1": 0x04, "sha256": 0x0B, "sha384": 0x0C}

AIK = (x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.3")]), False)
EK = (x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")]), False)
CRL_PLACE = (
    x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example/")], None, None, None)]
    ),
    False,
)

ROOT = Template("TPM Root", rsa_key("tpm-root"), ca=True)
ISSUER = Template("TPM CA", rsa_key("tpm-ca"), ROOT, ca=True, path_length=0, serial=31)
AK = Template("TPM AK", rsa_key("ak"), ISSUER, serial=32, extensions=(AIK,))


@dataclass(frozen=True)
class Quote:
    """How to make a quote; ``encode`` makes the envelope, ``azure`` one with an HCL report."""

    pcrs: dict[tuple[str, int], bytes] = field(
        default_factory=lambda: {("sha256", index): bytes((index,)) * 32 for index in (0, 4, 7)}
    )
    told: dict[tuple[str, int], bytes] | None = None  # what the envelope says, if not the truth
    key: Key = field(default_factory=lambda: rsa_key("ak"))
    digest: str = "sha256"
    extra_data: bytes = REPORT_DATA
    magic: int = 0xFF544347
    kind: int = 0x8018
    bare: bool = False  # a bare RSA signature
    event_log: bytes | None = None
    version: int = 1

    def but(self, **changes: Any) -> Quote:
        """The same, with some parts changed."""
        return replace(self, **changes)

    def message(self) -> bytes:
        """TPMS_ATTEST."""
        head = self.magic.to_bytes(4, "big") + self.kind.to_bytes(2, "big") + sized(b"\0\x0b" + bytes(32))
        clock = (5).to_bytes(8, "big") + (6).to_bytes(4, "big") + (7).to_bytes(4, "big") + b"\1"
        digest = hashlib.new(self.digest, b"".join(self.pcrs.values())).digest()
        banks = dict.fromkeys(bank for bank, _ in self.pcrs)
        selection = [(BANKS[bank], [i for b, i in self.pcrs if b == bank]) for bank in banks]
        return (
            head + sized(self.extra_data) + clock + (8).to_bytes(8, "big") + select(selection) + sized(digest)
        )

    def signature(self) -> bytes:
        """TPMT_SIGNATURE, or what Azure's tools make of it."""
        digest: hashes.HashAlgorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[self.digest]
        algorithm = BANKS[self.digest].to_bytes(2, "big")
        if isinstance(self.key, rsa.RSAPrivateKey):
            value = self.key.sign(self.message(), padding.PKCS1v15(), digest)
            return value if self.bare else b"\0\x14" + algorithm + sized(value)
        r, s = decode_dss_signature(self.key.sign(self.message(), ec.ECDSA(digest)))
        size = (self.key.key_size + 7) // 8
        return b"\0\x18" + algorithm + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))

    def told_pcrs(self) -> dict[str, dict[str, str]]:
        """The PCR values as the envelope has them."""
        told: dict[str, dict[str, str]] = {}
        for (bank, index), value in (self.pcrs if self.told is None else self.told).items():
            told.setdefault(bank, {})[str(index)] = value.hex()
        return told

    def encode(self) -> bytes:
        """TPM evidence."""
        return encode(
            TpmEvidence(self.version, self.message(), self.signature(), self.told_pcrs(), self.event_log)
        )

    def azure(self, hcl_report: bytes, td_quote: bytes | None = None) -> bytes:
        """Azure evidence."""
        parts = (self.message(), self.signature(), self.told_pcrs())
        return encode(AzureEvidence(self.version, *parts, hcl_report, td_quote, self.event_log))


def endorsements(
    ak: Template = AK,
    issuer: Template = ISSUER,
    root: Template = ROOT,
    crls: tuple[x509.CertificateRevocationList, ...] = (),
) -> Endorsements:
    """The AK's certificates, its own first and the others in no order."""
    return Endorsements((ak.build(), root.build(), issuer.build()), crls)


def roots() -> frozenset[bytes]:
    """The pinned root of this vendor."""
    return frozenset({ROOT.root_digest()})


def runtime_claims(key: rsa.RSAPrivateKey | None = None, **changes: Any) -> bytes:
    """The paravisor's JSON, with the public ``key`` as the AK."""
    numbers = (key or rsa_key("ak")).public_key().public_numbers()
    document = {
        "keys": [
            {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": number(numbers.n)},
            {"kid": "HCLEkPub", "key_ops": ["encrypt"], "kty": "RSA", "e": "AQAB", "n": "AQAB"},
        ],
        "vm-configuration": {"secure-boot": True, "tpm-enabled": True, "vmUniqueId": "A-B-C"},
        "user-data": "07" * 64,
    } | changes
    return json.dumps(document).encode()


def binding(claims: bytes, digest: str = "sha256") -> bytes:
    """The REPORT_DATA that vouches for ``claims``."""
    return hashlib.new(digest, claims).digest().ljust(64, b"\0")


def hcl_report(hardware: bytes, claims: bytes, *, kind: int = 2, hash_type: int = 1, **changes: int) -> bytes:
    """An HCL report around ``hardware``, padded as the NV index is; ``changes`` to its numbers by name."""
    numbers = {
        "version": 1,
        "report_size": 0x4D4 + len(claims),
        "request_type": 2,
        "status": 0,
        "reserved": 0,
        "data_size": 20 + len(claims),
        "data_version": 1,
        "claims_size": len(claims),
        "padding": 0,
    } | changes
    head = [numbers[name] for name in ("version", "report_size", "request_type", "status", "reserved")]
    data = [numbers["data_size"], numbers["data_version"], kind, hash_type, numbers["claims_size"]]
    report = b"HCLA" + _u32(head) + bytes(8) + hardware.ljust(1184, b"\0") + _u32(data) + claims
    return report + bytes((numbers["padding"],)) * 100


def select(banks: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """TPML_PCR_SELECTION."""
    selection = len(banks).to_bytes(4, "big")
    for algorithm, indices in banks:
        bits = sum(1 << index for index in indices)
        selection += algorithm.to_bytes(2, "big") + b"\3" + bits.to_bytes(3, "little")
    return selection


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data


def number(value: int) -> str:
    """base64url without padding, as in a JSON Web Key."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _u32(numbers: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in numbers)
