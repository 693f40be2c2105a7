"""An AMD of our own: ARK, ASK and a chip whose VEK signs any report."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from confonnx.attestation.verify.x509 import Endorsements
from tests.support.authorities.pki import Template, crl, ec_key, raw_extension, rsa_key

OID = "1.3.6.1.4.1.3704.1."
REPORT_DATA = bytes(range(64))
MEASUREMENT = bytes([0xAA]) * 48
CHIP_ID = bytes(range(1, 65))

ARK = Template("ARK-Milan", rsa_key("ark"), ca=True, pss=True)
ASK = Template("SEV-Milan", rsa_key("ask"), ARK, ca=True, path_length=0, serial=0x10001, pss=True)


@dataclass(frozen=True)
class Chip:
    """A chip with its TCB. The defaults are a Milan with a VCEK; every field can be made to lie."""

    kind: str = "VCEK"
    product_name: str = "Milan-B0"
    spls: dict[int, int] = field(default_factory=lambda: {1: 3, 2: 0, 3: 8, 8: 0xDB})
    hwid: bytes | None = CHIP_ID
    csp_id: str | None = None

    def vek(self, issuer: Template = ASK, curve: str = "P-384") -> Template:
        """Its certificate."""
        extensions = [raw_extension(OID + "2", ia5(self.product_name))]
        extensions += [
            raw_extension(f"{OID}3.{component}", integer(spl)) for component, spl in self.spls.items()
        ]
        if self.hwid is not None:
            extensions.append(raw_extension(OID + "4", self.hwid))
        if self.csp_id is not None:
            extensions.append(raw_extension(OID + "5", ia5(self.csp_id)))
        return Template(
            f"SEV-{self.kind}", ec_key("vek", curve), issuer, pss=True, extensions=tuple(extensions)
        )


def report(
    changes: dict[int, bytes] | None = None,
    *,
    after: dict[int, bytes] | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """A signed report; ``changes`` (offset → bytes) are made before it is signed, ``after`` when it is."""
    raw = bytearray(0x4A0)
    tcb = bytes((3, 0, 0, 0, 0, 0, 8, 0xDB))
    fields = {
        0x00: (3).to_bytes(4, "little"),
        0x04: (4).to_bytes(4, "little"),
        0x08: (0x3001F).to_bytes(8, "little"),
        0x34: (1).to_bytes(4, "little"),
        0x38: tcb,
        0x50: REPORT_DATA,
        0x90: MEASUREMENT,
        0x180: tcb,
        0x188: bytes((0x19, 0x01, 0x01)),
        0x1A0: CHIP_ID,
        0x1E0: tcb,
        0x1F0: tcb,
    }
    _write(raw, fields)
    _write(raw, changes or {})
    signature = (key or ec_key("vek", "P-384")).sign(bytes(raw[:0x2A0]), ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    _write(raw, {0x2A0: r.to_bytes(72, "little"), 0x2E8: s.to_bytes(72, "little")})
    _write(raw, after or {})
    return bytes(raw)


def endorsements(
    vek: Template | None = None,
    ask: Template = ASK,
    ark: Template = ARK,
    crls: tuple[x509.CertificateRevocationList, ...] | None = None,
) -> Endorsements:
    """All that a verifier needs for :func:`report`."""
    leaf = (vek or Chip().vek()).build()
    return Endorsements((leaf, ask.build(), ark.build()), (crl(ark),) if crls is None else crls)


def roots() -> frozenset[bytes]:
    """The pinned root of this AMD."""
    return frozenset({ARK.root_digest()})


def integer(value: int) -> bytes:
    """DER INTEGER."""
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def ia5(text: str) -> bytes:
    """DER IA5String."""
    return bytes((0x16, len(text))) + text.encode("ascii")


def _write(raw: bytearray, fields: dict[int, bytes]) -> None:
    for offset, value in fields.items():
        raw[offset : offset + len(value)] = value
