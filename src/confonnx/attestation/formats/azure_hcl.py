"""The report of Azure's paravisor (HCL), as NV index 0x01400001 of a confidential VM's vTPM holds it. No
crypto.

Layout, in Microsoft's "Azure confidential VM guest attestation design" and all little-endian: header 32
(``HCLA``, version, report size, request type, status, reserved 12) ‖ hardware report 1184 ‖ data size 4 ‖
data version 4 ‖ report type 4 ‖ hash type 4 ‖ size of runtime claims 4 ‖ runtime claims, a JSON object whose
hash is the hardware report's REPORT_DATA.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from confonnx.attestation import base64url
from confonnx.attestation.formats.reader import Reader
from confonnx.errors import BundleError, EvidenceFormatError

MAX_REPORT_BYTES: Final = 16 * 1024
HARDWARE_SLOT: Final = 1184

_MAGIC: Final = b"HCLA"
_VERSIONS: Final = frozenset({1, 2})
_DATA_HEADER: Final = 20
_HASHES: Final = {1: "sha256", 2: "sha384", 3: "sha512"}
_REPORT_DATA_SIZE: Final = 64
_AK: Final = "HCLAkPub"


class HardwareReport(IntEnum):
    """What is in the hardware slot."""

    SNP = 2  # an ATTESTATION_REPORT
    TDX = 4  # a TDREPORT, which proves nothing away from its CPU: a TD quote must come along


@dataclass(frozen=True, slots=True)
class HclReport:
    """A parsed report. ``binding`` is what REPORT_DATA of the hardware report must be: the hash of the
    runtime claims, padded."""

    kind: HardwareReport
    hardware: bytes  # the whole slot
    binding: bytes  # 64 bytes
    ak_modulus: int
    ak_exponent: int
    vm_id: str | None
    secure_boot: bool | None
    user_data: bytes  # 64 bytes


class _Key(msgspec.Struct, frozen=True):
    kid: str
    kty: str
    n: str
    e: str


class _VmConfiguration(msgspec.Struct, frozen=True):
    vm_id: str | None = msgspec.field(name="vmUniqueId", default=None)
    secure_boot: bool | None = msgspec.field(name="secure-boot", default=None)


class _RuntimeClaims(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[_Key, ...], msgspec.Meta(max_length=16)]
    vm_configuration: _VmConfiguration = msgspec.field(name="vm-configuration")
    user_data: str = msgspec.field(name="user-data", default="00" * _REPORT_DATA_SIZE)


def parse(data: bytes) -> HclReport:
    """Parse one report, which the NV index pads with zeros. Raises :class:`EvidenceFormatError`."""
    if len(data) > MAX_REPORT_BYTES:
        raise EvidenceFormatError(f"HCL report: {len(data)} bytes, at most {MAX_REPORT_BYTES} are allowed")
    r = Reader(data, "HCL report")
    if r.take(4, "signature") != _MAGIC:
        raise EvidenceFormatError(f"HCL report: does not begin with {_MAGIC!r}")
    r.expect(r.u32("version"), _VERSIONS, "version")
    report_size = r.u32("report size")
    r.take(4, "request type")
    r.expect(r.u32("status"), frozenset({0}), "status")
    r.zeros(12, "reserved field")
    hardware = r.take(HARDWARE_SLOT, "hardware report")
    data_size = r.u32("data size")
    r.expect(r.u32("data version"), frozenset({1}), "data version")
    kind = HardwareReport(r.expect(r.u32("report type"), frozenset(HardwareReport), "report type"))
    digest = _HASHES[r.expect(r.u32("hash type"), frozenset(_HASHES), "hash type")]
    runtime_claims = r.sized(4, "runtime claims")
    if (data_size, report_size) != (len(runtime_claims) + _DATA_HEADER, r.position):
        raise EvidenceFormatError(
            f"HCL report: sizes {report_size} and {data_size} do not go with {len(runtime_claims)} bytes"
        )
    r.zeros(r.remaining, "padding")
    claims = _claims(runtime_claims)
    modulus, exponent = _attestation_key(claims)
    return HclReport(
        kind=kind,
        hardware=hardware,
        binding=hashlib.new(digest, runtime_claims).digest().ljust(_REPORT_DATA_SIZE, b"\0"),
        ak_modulus=modulus,
        ak_exponent=exponent,
        vm_id=claims.vm_configuration.vm_id,
        secure_boot=claims.vm_configuration.secure_boot,
        user_data=_user_data(claims),
    )


def _claims(text: bytes) -> _RuntimeClaims:
    try:
        return msgspec.json.decode(text, type=_RuntimeClaims)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"HCL report: runtime claims cannot be read: {error}") from error


def _attestation_key(claims: _RuntimeClaims) -> tuple[int, int]:
    keys = [key for key in claims.keys if key.kid == _AK]
    if len(keys) != 1 or keys[0].kty != "RSA":
        raise EvidenceFormatError(
            f"HCL report: expected exactly one RSA key {_AK}, found {len(keys)} of that name"
        )
    return _number(keys[0].n, "n"), _number(keys[0].e, "e")


def _number(text: str, what: str) -> int:
    try:
        return int.from_bytes(base64url.decode(text, what=what), "big")
    except BundleError as error:
        raise EvidenceFormatError(f"HCL report: {what} of {_AK} is not base64url") from error


def _user_data(claims: _RuntimeClaims) -> bytes:
    try:
        value = bytes.fromhex(claims.user_data)
    except ValueError as error:
        raise EvidenceFormatError("HCL report: user-data is not hexadecimal") from error
    if len(value) != _REPORT_DATA_SIZE:
        raise EvidenceFormatError(
            f"HCL report: user-data has {len(value)} bytes, expected {_REPORT_DATA_SIZE}"
        )
    return value
