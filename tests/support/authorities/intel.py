"""An Intel of our own: a root, a CPU with its PCK certificate, a Quoting Enclave, and the collateral for all
of it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.authorities.pki import DAY, NOW, Template, crl, ec_key, pem, raw_extension

ROOT = Template("Intel SGX Root CA", ec_key("intel-root"), ca=True, path_length=1)
PCK_CA = Template("Intel SGX PCK Platform CA", ec_key("pck-ca"), ROOT, ca=True, path_length=0, serial=21)
TCB_SIGNER = Template("Intel SGX TCB Signing", ec_key("tcb-signer"), ROOT, serial=22)
PCK_SERIAL = 23

FMSPC = bytes.fromhex("00a067110000")
MRENCLAVE, MRSIGNER = bytes([0xE1]) * 32, bytes([0x51]) * 32
MRTD = bytes([0x7D]) * 48
QE_MRSIGNER = bytes([0x9E]) * 32
REPORT_DATA = bytes(range(64))

_EXTENSION_OID = "1.2.840.113741.1.13.1"
_ARCS = bytes.fromhex("2a864886f84d010d01")


@dataclass(frozen=True)
class Cpu:
    """A CPU: its SVNs as its PCK certificate has them."""

    components: tuple[int, ...] = (5,) * 16
    pce_svn: int = 13
    fmspc: bytes = FMSPC

    def extension(self) -> bytes:
        """The SGX extension of the PCK certificate."""
        tcb = [_entry(bytes((2, i)), _integer(svn)) for i, svn in enumerate(self.components, start=1)]
        tcb += [_entry(b"\2\x11", _integer(self.pce_svn)), _entry(b"\2\x12", _tlv(4, bytes(self.components)))]
        return _tlv(
            0x30,
            _entry(b"\1", _tlv(4, bytes(16)))
            + _entry(b"\2", _tlv(0x30, b"".join(tcb)))
            + _entry(b"\3", _tlv(4, bytes(2)))
            + _entry(b"\4", _tlv(4, self.fmspc))
            + _entry(b"\5", _tlv(10, b"\0")),
        )

    def pck(self, issuer: Template = PCK_CA) -> Template:
        """Its PCK certificate."""
        return Template(
            "Intel SGX PCK Certificate",
            ec_key("pck"),
            issuer,
            serial=PCK_SERIAL,
            extensions=(raw_extension(_EXTENSION_OID, self.extension()),),
        )


def sgx_body(**changes: bytes) -> bytes:
    """A report body; ``changes`` by field name."""
    fields = {
        "cpu_svn": bytes(16),
        "misc_select": bytes(4),
        "reserved1": bytes(12),
        "isv_ext_prod_id": bytes(16),
        "attributes": bytes((5,)) + bytes(7),
        "xfrm": bytes((0xE7,)) + bytes(7),
        "mrenclave": MRENCLAVE,
        "reserved2": bytes(32),
        "mrsigner": MRSIGNER,
        "reserved3": bytes(32),
        "config_id": bytes(64),
        "isv_prod_id": (3).to_bytes(2, "little"),
        "isv_svn": (4).to_bytes(2, "little"),
        "config_svn": bytes(2),
        "reserved4": bytes(42),
        "isv_family_id": bytes(16),
        "report_data": REPORT_DATA,
    }
    return _join(fields, changes)


def td_body(*, td15: bool = False, **changes: bytes) -> bytes:
    """A TD quote body; ``changes`` by field name."""
    fields = {
        "tee_tcb_svn": bytes((6, 1, 3)) + bytes(13),
        "mr_seam": bytes([0x5E]) * 48,
        "mr_signer_seam": bytes(48),
        "seam_attributes": bytes(8),
        "td_attributes": (1 << 28).to_bytes(8, "little"),
        "xfam": (0x618E7).to_bytes(8, "little"),
        "mrtd": MRTD,
        "mr_config_id": bytes(48),
        "mr_owner": bytes(48),
        "mr_owner_config": bytes(48),
        "rtmr0": bytes(48),
        "rtmr1": bytes(48),
        "rtmr2": bytes(48),
        "rtmr3": bytes(48),
        "report_data": REPORT_DATA,
    }
    if td15:
        fields |= {"tee_tcb_svn_2": bytes((6, 1, 3)) + bytes(13), "mr_service_td": bytes(48)}
    return _join(fields, changes)


@dataclass(frozen=True)
class Quote:
    """How to make a quote; ``encode`` makes and signs it. Every part can be made to lie."""

    body: bytes = field(default_factory=sgx_body)
    version: int = 3
    tee_type: int = 0
    body_type: int = 1
    qe: bytes | None = None
    qe_changes: dict[str, bytes] = field(default_factory=dict)
    qe_auth_data: bytes = bytes(range(32))
    bound_key: bytes | None = None  # what the QE vouches for, if not for the attestation key
    pck: Template = field(default_factory=lambda: Cpu().pck())
    ca: Template = PCK_CA
    root: Template = ROOT
    chain: bytes | None = None
    qe_signing_key: ec.EllipticCurvePrivateKey | None = None
    signing_key: ec.EllipticCurvePrivateKey | None = None
    attestation_key: bytes | None = None
    padding: bytes = b""

    def but(self, **changes: Any) -> Quote:
        """The same, with some parts changed."""
        return replace(self, **changes)

    def encode(self) -> bytes:
        """The quote's bytes."""
        header = self.version.to_bytes(2, "little") + b"\2\0" + self.tee_type.to_bytes(4, "little") + bytes(4)
        signed = header + bytes.fromhex("939a7233f79c4ca9940a0db3957f0607") + bytes(20)
        if self.version == 5:
            signed += self.body_type.to_bytes(2, "little") + len(self.body).to_bytes(4, "little")
        signed += self.body
        key = self.attestation_key or raw_point(ec_key("attestation"))
        binding = hashlib.sha256((self.bound_key or key) + self.qe_auth_data).digest() + bytes(32)
        qe = self.qe or sgx_body(**(qe_fields(binding) | self.qe_changes))
        chain = self.chain or pem(self.pck.build(), self.ca.build(), self.root.build()) + b"\0"
        inner = qe + sign(self.qe_signing_key or ec_key("pck"), qe) + _sized(self.qe_auth_data, 2)
        inner += (5).to_bytes(2, "little") + _sized(chain, 4)
        if self.version > 3:
            inner = (6).to_bytes(2, "little") + _sized(inner, 4)
        signature = sign(self.signing_key or ec_key("attestation"), signed)
        return signed + _sized(signature + key + inner, 4) + self.padding


def qe_fields(report_data: bytes) -> dict[str, bytes]:
    """What a Quoting Enclave's report has in place of an application's."""
    return {
        "attributes": bytes((0x11,)) + bytes(7),
        "mrsigner": QE_MRSIGNER,
        "isv_prod_id": (1).to_bytes(2, "little"),
        "isv_svn": (8).to_bytes(2, "little"),
        "report_data": report_data,
    }


def tcb_level(status: str, svn: int, pce_svn: int = 13, tdx: int = 0, **more: Any) -> dict[str, Any]:
    """One TCB level: all components at ``svn``."""
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn}] * 16,
            "pcesvn": pce_svn,
            "tdxtcbcomponents": [{"svn": tdx}] * 3 + [{"svn": 0}] * 13,
        },
        "tcbDate": "2026-01-01T00:00:00Z",
        "tcbStatus": status,
    } | more


def isv_level(status: str, svn: int, **more: Any) -> dict[str, Any]:
    """One TCB level of an enclave or module."""
    return {"tcb": {"isvsvn": svn}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status} | more


MODULE = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
TCB_INFO: dict[str, Any] = {
    "id": "SGX",
    "version": 3,
    "issueDate": (NOW - DAY).isoformat().replace("+00:00", "Z"),
    "nextUpdate": (NOW + 5 * DAY).isoformat().replace("+00:00", "Z"),
    "fmspc": FMSPC.hex().upper(),
    "pceId": "0000",
    "tcbType": 0,
    "tcbEvaluationDataNumber": 18,
    "tcbLevels": [
        tcb_level("UpToDate", 5),
        tcb_level("OutOfDate", 3, advisoryIDs=["INTEL-SA-00001"]),
    ],
}
TDX_TCB_INFO = TCB_INFO | {
    "id": "TDX",
    "tdxModule": MODULE,
    "tdxModuleIdentities": [
        MODULE | {"id": "TDX_01", "tcbLevels": [isv_level("UpToDate", 6), isv_level("OutOfDate", 4)]}
    ],
}
QE_IDENTITY: dict[str, Any] = {
    "id": "QE",
    "version": 2,
    "issueDate": (NOW - DAY).isoformat().replace("+00:00", "Z"),
    "nextUpdate": (NOW + 6 * DAY).isoformat().replace("+00:00", "Z"),
    "tcbEvaluationDataNumber": 17,
    "miscselect": "00000000",
    "miscselectMask": "FFFFFFFF",
    "attributes": "11" + "00" * 15,
    "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
    "mrsigner": QE_MRSIGNER.hex().upper(),
    "isvprodid": 1,
    "tcbLevels": [isv_level("UpToDate", 8), isv_level("OutOfDate", 6, advisoryIDs=["INTEL-SA-00002"])],
}
TD_QE_IDENTITY = QE_IDENTITY | {"id": "TD_QE"}


@dataclass(frozen=True)
class Collateral:
    """How to make collateral; ``encode`` makes and signs it. Every part can be made to lie."""

    tcb_info: dict[str, Any] = field(default_factory=lambda: TCB_INFO)
    qe_identity: dict[str, Any] = field(default_factory=lambda: QE_IDENTITY)
    signer: Template = TCB_SIGNER
    root: Template = ROOT
    tcb_info_key: ec.EllipticCurvePrivateKey | None = None
    qe_identity_key: ec.EllipticCurvePrivateKey | None = None
    root_crl: bytes | None = None
    pck_crl: bytes | None = None

    def but(self, **changes: Any) -> Collateral:
        """The same, with some parts changed."""
        return replace(self, **changes)

    def with_tcb_info(self, change: Callable[[dict[str, Any]], object]) -> Collateral:
        """The same, with TCB Info changed in place by ``change``."""
        info = copy.deepcopy(self.tcb_info)
        change(info)
        return replace(self, tcb_info=info)

    def with_qe_identity(self, change: Callable[[dict[str, Any]], object]) -> Collateral:
        """The same, with QE Identity changed in place by ``change``."""
        identity = copy.deepcopy(self.qe_identity)
        change(identity)
        return replace(self, qe_identity=identity)

    def encode(self) -> bytes:
        """The JSON form."""
        tcb_info = json.dumps(self.tcb_info, separators=(",", ":"))
        qe_identity = json.dumps(self.qe_identity, separators=(",", ":"))
        chain = pem(self.signer.build(), self.root.build()).decode()
        key = ec_key("tcb-signer")
        return json.dumps(
            {
                "pck_crl_issuer_chain": pem(PCK_CA.build(), ROOT.build()).decode(),
                "root_ca_crl": (self.root_crl or der(crl(ROOT))).hex(),
                "pck_crl": (self.pck_crl or der(crl(PCK_CA, next_update=NOW + 2 * DAY))).hex(),
                "tcb_info_issuer_chain": chain,
                "tcb_info": tcb_info,
                "tcb_info_signature": sign(self.tcb_info_key or key, tcb_info.encode()).hex(),
                "qe_identity_issuer_chain": chain,
                "qe_identity": qe_identity,
                "qe_identity_signature": sign(self.qe_identity_key or key, qe_identity.encode()).hex(),
            }
        ).encode()


def roots() -> frozenset[bytes]:
    """The pinned root of this Intel."""
    return frozenset({ROOT.root_digest()})


def der(revocations: Any) -> bytes:
    """DER of a CRL."""
    encoded: bytes = revocations.public_bytes(Encoding.DER)
    return encoded


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256 with SHA-256, r ‖ s."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """x ‖ y of the public key."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _entry(arcs: bytes, value: bytes) -> bytes:
    return _tlv(0x30, _tlv(6, _ARCS + arcs) + value)


def _integer(value: int) -> bytes:
    return _tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes((size,)) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return bytes((tag,)) + length + content


def _sized(data: bytes, prefix: int) -> bytes:
    return len(data).to_bytes(prefix, "little") + data


def _join(fields: dict[str, bytes], changes: dict[str, bytes]) -> bytes:
    for name, value in changes.items():
        assert len(fields[name]) == len(value), name
    return b"".join((fields | changes).values())


SGX = Quote()
TDX4 = Quote(body=td_body(), version=4, tee_type=0x81)
TDX5 = Quote(body=td_body(td15=True), version=5, tee_type=0x81, body_type=3)
SGX_COLLATERAL = Collateral()
TDX_COLLATERAL = Collateral(tcb_info=TDX_TCB_INFO, qe_identity=TD_QE_IDENTITY)
