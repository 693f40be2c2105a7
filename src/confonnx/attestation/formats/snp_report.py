"""The SEV-SNP attestation report (AMD 56860 rev. 1.58, table "ATTESTATION_REPORT structure"), versions 2 to
5. No crypto."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from confonnx.attestation.claims import SnpTcb
from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError

REPORT_SIZE: Final = 0x4A0
SIGNED_SIZE: Final = 0x2A0  # everything before SIGNATURE
VERSIONS: Final = frozenset({2, 3, 4, 5})
ECDSA_P384_SHA384: Final = 1  # SIGNATURE_ALGO, the only one defined

# POLICY (AMD 56860 §4.3). A bit that we do not know may grant the host something, so it is refused.
POLICY_RESERVED_ONE: Final = 1 << 17
POLICY_MIGRATE_MA: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19
_POLICY_KNOWN: Final = (1 << 26) - 1

_SCALAR_SIZE: Final = 72  # SIGNATURE holds R and S little-endian, each zero-extended to 72 bytes
_P384_SIZE: Final = 48


class SigningKey(IntEnum):
    """KEY_INFO.SIGNING_KEY."""

    VCEK = 0
    VLEK = 1


# CPUID family and model ranges of the product lines (AMD 57230, VCEK specification, product names).
_PRODUCTS: Final = (
    (0x19, range(0x10), "Milan"),
    (0x19, range(0x10, 0x20), "Genoa"),
    (0x19, range(0xA0, 0xB0), "Genoa"),  # Bergamo and Siena share Genoa's keys
    (0x1A, range(0x12), "Turin"),
)


@dataclass(frozen=True, slots=True)
class SnpReport:
    """A parsed report. ``product`` is None for version 2, which does not carry CPUID values."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    product: str | None
    chip_id: bytes
    committed_tcb: bytes
    firmware_versions: bytes  # build, minor, major, and a reserved byte, of CURRENT and of COMMITTED
    launch_tcb: bytes
    mitigation_vectors: bytes  # empty before version 5
    signed: bytes
    signature_r: int
    signature_s: int

    @property
    def author_key_en(self) -> bool:
        """KEY_INFO: whether AUTHOR_KEY_DIGEST is of a key that signed the ID key."""
        return bool(self.key_info & 0b1)

    @property
    def mask_chip_key(self) -> bool:
        """KEY_INFO: whether CHIP_ID is hidden."""
        return bool(self.key_info & 0b10)

    @property
    def signing_key(self) -> SigningKey:
        """KEY_INFO: which key signed the report."""
        return SigningKey(self.key_info >> 2)


def parse(data: bytes) -> SnpReport:
    """Parse exactly one report. Raises :class:`EvidenceFormatError`."""
    if len(data) != REPORT_SIZE:
        raise EvidenceFormatError(f"SNP report: expected {REPORT_SIZE} bytes, found {len(data)}")
    r = Reader(data, "SNP report")
    version = r.expect(r.u32("VERSION"), VERSIONS, "VERSION")
    report = SnpReport(  # the arguments are read in order, which is that of the layout
        version=version,
        guest_svn=r.u32("GUEST_SVN"),
        policy=_policy(r.u64("POLICY")),
        family_id=r.take(16, "FAMILY_ID"),
        image_id=r.take(16, "IMAGE_ID"),
        vmpl=r.expect(r.u32("VMPL"), frozenset(range(4)), "VMPL"),
        signature_algo=r.expect(r.u32("SIGNATURE_ALGO"), frozenset({ECDSA_P384_SHA384}), "SIGNATURE_ALGO"),
        current_tcb=r.take(8, "CURRENT_TCB"),
        # Not held against known bits: firmware reports new ones within a version (Turin sets bit 6), and they
        # only inform.
        platform_info=r.u64("PLATFORM_INFO"),
        key_info=_key_info(int.from_bytes(r.padded(4, 4, "KEY_INFO"), "little")),
        report_data=r.take(64, "REPORT_DATA"),
        measurement=r.take(48, "MEASUREMENT"),
        host_data=r.take(32, "HOST_DATA"),
        id_key_digest=r.take(48, "ID_KEY_DIGEST"),
        author_key_digest=r.take(48, "AUTHOR_KEY_DIGEST"),
        report_id=r.take(32, "REPORT_ID"),
        report_id_ma=r.take(32, "REPORT_ID_MA"),
        reported_tcb=r.take(8, "REPORTED_TCB"),
        product=_product(r, version),
        chip_id=r.take(64, "CHIP_ID"),
        committed_tcb=r.take(8, "COMMITTED_TCB"),
        firmware_versions=r.take(8, "CURRENT and COMMITTED firmware versions"),
        launch_tcb=r.take(8, "LAUNCH_TCB"),
        mitigation_vectors=r.take(16 if version >= 5 else 0, "LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR"),
        signed=data[:SIGNED_SIZE],
        signature_r=_scalar(r, SIGNED_SIZE - r.position, "SIGNATURE.R"),
        signature_s=_scalar(r, 0, "SIGNATURE.S"),
    )
    r.zeros(r.remaining, "reserved field of SIGNATURE")
    return report


def tcb(raw: bytes, product: str) -> SnpTcb:
    """TCB_VERSION, whose layout depends on the product (AMD 56860 §2.2). Raises
    :class:`EvidenceFormatError`."""
    r = Reader(raw, f"TCB_VERSION of {product}")
    fmc = r.u8("FMC") if product == "Turin" else None
    boot_loader, tee = r.u8("BOOT_LOADER"), r.u8("TEE")
    if product == "Turin":
        snp = r.u8("SNP")
        r.zeros(3, "reserved bytes")
    else:
        r.zeros(4, "reserved bytes")
        snp = r.u8("SNP")
    microcode = r.u8("MICROCODE")
    r.end()
    return SnpTcb(boot_loader=boot_loader, tee=tee, snp=snp, microcode=microcode, fmc=fmc)


def _policy(policy: int) -> int:
    if not policy & POLICY_RESERVED_ONE:
        raise EvidenceFormatError(f"SNP report: POLICY is {policy:#x}, but bit 17 must be one")
    if policy & ~_POLICY_KNOWN:
        raise EvidenceFormatError(f"SNP report: POLICY is {policy:#x}, which has unknown bits set")
    return policy


def _key_info(key_info: int) -> int:
    signing_key = key_info >> 2 & 0b111
    if key_info >> 5:
        raise EvidenceFormatError(f"SNP report: KEY_INFO is {key_info:#x}, which has reserved bits set")
    if signing_key not in set(SigningKey):
        # 7 says that the report is not signed at all (AMD 56860, MSG_REPORT_REQ with KEY_SEL).
        raise EvidenceFormatError(
            f"SNP report: KEY_INFO.SIGNING_KEY is {signing_key}, expected 0 (VCEK) or 1 (VLEK)"
        )
    return key_info


def _product(r: Reader, version: int) -> str | None:
    family, model, _stepping = r.u8("CPUID_FAM_ID"), r.u8("CPUID_MOD_ID"), r.u8("CPUID_STEP")
    r.zeros(21, "reserved field at 18Bh")
    if version == 2:
        if family or model:
            raise EvidenceFormatError("SNP report: version 2 has no CPUID fields, but their bytes are set")
        return None
    for known_family, models, product in _PRODUCTS:
        if family == known_family and model in models:
            return product
    raise EvidenceFormatError(
        f"SNP report: CPUID family {family:#x} model {model:#x} is none of Milan, Genoa, Turin"
    )


def _scalar(r: Reader, reserved: int, field: str) -> int:
    r.zeros(reserved, f"reserved field before {field}")
    return int.from_bytes(r.padded(_P384_SIZE, _SCALAR_SIZE - _P384_SIZE, field), "little")
